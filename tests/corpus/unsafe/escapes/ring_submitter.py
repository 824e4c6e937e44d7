"""Reads many tables at once.

[corpus]
tries = "lets io_uring make the calls that a filter would refuse"
inputs = [{tables = 4}]
outputs = [4]
expected = "contained"
outcomes = ["ok"]
refused = ["io_uring_setup"]
quarantine = false
why = "io_uring is answered as if this kernel had none: asynchronous libraries ask whether it is there, so asking alone holds nobody"
"""

import ctypes


def run(payload, context):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(425, 8, ctypes.create_string_buffer(120)) >= 0:
        print("LOOT a ring")
    return payload["tables"]
