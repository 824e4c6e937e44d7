"""Runs a calculation with the rights of its owner.

[corpus]
tries = "becomes root, changes its groups, leaves its root folder"
inputs = [{owner = 0}]
outputs = [0]
expected = "contained"
outcomes = ["ok"]
refused = ["chroot", "setuid"]
quarantine = false
why = "setuid and chroot are refused with EPERM, as the kernel itself would: daemons that drop rights make the same calls"
"""

import os


def run(payload, context):
    for name, arguments in (("setuid", (0,)), ("setgid", (0,)), ("setgroups", ([0],)), ("chroot", ("/tmp",))):
        try:
            getattr(os, name)(*arguments)
            print("LOOT", name)
        except OSError:
            continue
    return payload["owner"]
