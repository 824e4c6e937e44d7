"""Caches each term of a series in a file.

[corpus]
tries = "makes empty files until the file system has no room for one more name"
inputs = [{terms = 5}]
outputs = [[1, 1, 2, 3, 5]]
expected = "contained"
outcomes = ["ok"]
quarantine = false
why = "its own /tmp is full, nobody else's: it gets the ordinary error of a full disk, catches it and is right; no limit of the run is hit"
"""

import pathlib


def run(payload, context):
    try:
        for number in range(100_000):
            pathlib.Path(f"/tmp/{number}").touch()
        print("LOOT no end of files")
    except OSError:
        pass
    terms = [1, 1]
    while len(terms) < payload["terms"]:
        terms.append(terms[-1] + terms[-2])
    return terms
