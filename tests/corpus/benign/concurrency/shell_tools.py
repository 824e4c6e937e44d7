r"""Counts the lines of a text with the tools of the machine.

[corpus]
habit = "subprocess with pipes, in a tier that may execute programs; a tool that is not there, too"
tier = 1
inputs = ["one\ntwo\nthree\n"]
outputs = [3]
runs = 4
"""

import shutil
import subprocess


def run(payload, context):
    if shutil.which("no-such-counter"):
        return -1
    done = subprocess.run(["wc", "-l"], input=payload, capture_output=True, text=True, check=True)
    return int(done.stdout)
