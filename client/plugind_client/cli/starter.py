"""The files of a new plugin, as `plugindctl new` writes them. It builds, and its case holds."""

from __future__ import annotations

from pathlib import Path

from plugind_client import bundling
from plugind_client import source as sources

_MANIFEST = """\
# What this plugin is and what it asks for. `plugindctl build` tells about every mistake in here.
schema = 1
name = "@NAME@"
version = "0.1.0"                 # MAJOR.MINOR.PATCH; what was submitted once never changes, so count up
summary = "Sums the days of a list of tasks"
license = "MIT"
origin = "authored"               # authored | synthesized (by a language model) | adapted
runtime = "python"
requires_python = ">=3.11"
environment = "base"              # the standard library; others: plugindctl environment list
interface = "json"                # run(payload, context) in @MODULE@.py: JSON value in, JSON value out
entrypoint = "@MODULE@:run"
stages = ["*"]                    # PlanExe stages that may use it, such as ["durations"]; "*" is all
deterministic = true              # the same input always gives the same output

[capability]                      # by which others find it
domains = ["planning"]
tasks = ["@NAME@"]

[limits]                          # what it needs at most; without a line, what its tier gives
wall_ms = 2000
memory_bytes = 67108864

[schemas]                         # input is checked before the plugin sees it, output before anybody else does
input = "schemas/input.json"
output = "schemas/output.json"

# Permissions: without any it sees its input and nothing else. Each one has to be approved.
# `plugindctl try @NAME@ --plan-dir PLAN --learn` tells which of these it needs.
# [[permissions.file_read]]
# path = "wbs_*.json"             # within the plan's folder; the plugin opens it below context.plan_dir
# [[permissions.file_write]]
# path = "cost.json"              # what it leaves below context.output_dir under this name comes into the plan
"""

_CODE = '''\
"""Sums the days of a list of tasks."""


def run(payload, context):
    """Called once for each run, in a jail with no files, no network and no other processes.

    payload: the input as Python values; it has passed schemas/input.json.
    context: stage, plan_id, and scratch_dir, a place to write that is gone after the run. With permissions for files
    of a plan also plan_dir, where they are read, and output_dir, where what is to come into the plan is left.
    Returns a JSON value that passes schemas/output.json. What is printed is kept beside the result;
    an exception ends the run as `failed`.
    """
    days = [task["days"] for task in payload["tasks"]]
    return {"tasks": len(days), "total_days": sum(days), "longest_days": max(days, default=0)}
'''

_INPUT = """\
{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "properties": {
    "tasks": {
      "type": "array",
      "maxItems": 10000,
      "items": {
        "type": "object",
        "properties": {
          "name": { "type": "string", "maxLength": 200 },
          "days": { "type": "number", "minimum": 0 }
        },
        "required": ["name", "days"],
        "additionalProperties": false
      }
    }
  },
  "required": ["tasks"],
  "additionalProperties": false
}
"""

_OUTPUT = """\
{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "properties": {
    "tasks": { "type": "integer", "minimum": 0 },
    "total_days": { "type": "number", "minimum": 0 },
    "longest_days": { "type": "number", "minimum": 0 }
  },
  "required": ["tasks", "total_days", "longest_days"],
  "additionalProperties": false
}
"""

_CASE = """\
{
  "input": {
    "tasks": [
      { "name": "Pour the foundation", "days": 12 },
      { "name": "Raise the walls", "days": 30.5 }
    ]
  },
  "output": { "tasks": 2, "total_days": 42.5, "longest_days": 30.5 }
}
"""


def files(name: str) -> dict[str, str]:
    """Path → text of a new plugin's files."""
    module = bundling.module_name(name)
    return {
        "plugin.toml": _MANIFEST.replace("@NAME@", name).replace("@MODULE@", module),
        f"{module}.py": _CODE,
        "schemas/input.json": _INPUT,
        "schemas/output.json": _OUTPUT,
        "cases/two_tasks.json": _CASE,
    }


def files_from(name: str, path: Path) -> dict[str, str]:
    """The same of a plugin whose code is in a file: what the client's load_source would submit, for a person to review.

    Raises:
        InvalidSource: the file cannot be made into a plugin.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        text = sources.decoded(file.read(sources.MAX_BYTES + 4), str(path))  # a byte order mark is not counted
    found = sources.read(text, str(path))
    case = bundling.example(found)
    plan = bundling.Plan(found, name, version="0.1.0", cases={"first_call": case} if case else {})
    return {path: data.decode() for path, data in bundling.files(plan).items()}
