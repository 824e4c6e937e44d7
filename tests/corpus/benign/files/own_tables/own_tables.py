"""Looks up a factor in tables that it brings along.

[corpus]
habit = "relative resources: importlib.resources, a package of its own, and __file__"
inputs = [{kind = "roof"}]
outputs = [{factor = 1.4, note = "of slate"}]
runs = 3
"""

import importlib.resources
import json
import pathlib

from tables import notes


def run(payload, context):
    table = json.loads(importlib.resources.files("tables").joinpath("factors.json").read_text())
    beside = json.loads(pathlib.Path(__file__).parent.joinpath("tables", "factors.json").read_text())
    assert table == beside
    return {"factor": table[payload["kind"]], "note": notes.OF[payload["kind"]]}
