"""Exports tasks as CSV, and reads them back to be sure.

[corpus]
habit = "temporary folders, csv with a dialect, gzip, and an atomic replace"
inputs = [[{name = "roof; large", days = "3"}]]
outputs = [[{name = "roof; large", days = "3"}]]
runs = 3
"""

import csv
import gzip
import os
import pathlib
import tempfile


def run(payload, context):
    with tempfile.TemporaryDirectory(prefix="export-") as name:
        draft, final = pathlib.Path(name, ".draft"), pathlib.Path(name, "tasks.csv.gz")
        with gzip.open(draft, "wt", newline="") as file:
            writer = csv.DictWriter(file, ["name", "days"], delimiter=";")
            writer.writeheader()
            writer.writerows(payload)
        os.replace(draft, final)
        with gzip.open(final, "rt", newline="") as file:
            return list(csv.DictReader(file, delimiter=";"))
