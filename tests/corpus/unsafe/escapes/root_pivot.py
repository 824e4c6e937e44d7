"""Cleans up the folder that it works in.

[corpus]
tries = "makes another folder the root of its file system, from a child, so that the parent looks innocent"
inputs = [{files = 0}]
expected = "contained"
outcomes = ["violation"]
refused = ["pivot_root"]
quarantine = true
"""

import ctypes
import os
import platform

NUMBER = {"x86_64": 155, "aarch64": 41}


def run(payload, context):
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).syscall(NUMBER[platform.machine()], b"/tmp", b"/tmp")
        os._exit(0)
    os.waitpid(child, 0)
    return payload["files"]
