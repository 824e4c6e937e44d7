"""Searches a long log for a word.

[corpus]
habit = "mmap of a file in scratch, struct, array and memoryview"
inputs = [{word = "frost", at = 70000}]
outputs = [70000]
runs = 3
"""

import array
import mmap
import struct


def run(payload, context):
    with open("/tmp/log", "w+b") as file:
        file.write(b"." * payload["at"] + payload["word"].encode() + b"." * 1000)
        file.flush()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as log:
            place = log.find(payload["word"].encode())
    numbers = array.array("d", [place, 0])
    return int(struct.unpack("d", memoryview(numbers).cast("B")[:8])[0])
