"""Reads cost tables that come compressed.

[corpus]
tries = "unpacks a few kilobytes into gigabytes"
inputs = [{table = "small"}]
expected = "contained"
outcomes = ["out_of_memory"]
quarantine = "breaker"

[manifest.limits]
memory_bytes = 67108864
"""

import zlib


def bomb():
    """Zeros, packed twice: a few kilobytes that unpack to a gigabyte."""
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    once = b"".join([*(packer.compress(block) for _ in range(16)), packer.flush()])
    return zlib.compress(once * 64, 9)


def run(payload, context):
    text = bytearray()
    reader = zlib.decompressobj()
    data = zlib.decompress(bomb())
    while data:
        text += reader.decompress(data)
        data, reader = reader.unused_data, zlib.decompressobj()
    return len(text)
