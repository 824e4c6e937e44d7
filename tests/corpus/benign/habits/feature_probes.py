"""Picks the fastest way to copy.

[corpus]
habit = "asks the kernel for what may not be there: io_uring, memfd, inotify, flock, copy_file_range"
inputs = [{bytes = 1000}]
outputs = [1000]
runs = 5
"""

import contextlib
import ctypes
import fcntl
import os


def run(payload, context):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(425, 1, None)
    libc.inotify_init1(0)
    with contextlib.suppress(OSError):
        os.close(os.memfd_create("probe"))
    with open("/tmp/a", "wb+") as source, open("/tmp/b", "wb") as target:
        with contextlib.suppress(OSError):
            fcntl.flock(source, fcntl.LOCK_EX | fcntl.LOCK_NB)
        source.write(bytes(payload["bytes"]))
        source.flush()
        copied = os.copy_file_range(source.fileno(), target.fileno(), payload["bytes"], 0, 0)
    return copied
