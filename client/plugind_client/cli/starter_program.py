"""The files of a new plugin that is a program: `plugindctl new --runtime exec`. It builds, and its case holds."""

from __future__ import annotations

from typing import Final

_MANIFEST: Final = """\
# What this plugin is and what it asks for. `plugindctl build` tells about every mistake in here.
schema = 1
name = "@NAME@"
version = "0.1.0"                 # MAJOR.MINOR.PATCH; what was submitted once never changes, so count up
summary = "Counts the words of a text"
license = "MIT"
origin = "authored"               # authored | synthesized (by a language model) | adapted
runtime = "exec"                  # any program; not in Tier 2, unless an operator lets it run programs
entrypoint = "@PROGRAM@"          # an executable file in this folder: a script that begins with #!, or native
stages = ["*"]                    # PlanExe stages that may use it, such as ["durations"]; "*" is all
deterministic = true              # the same input always gives the same output

[capability]                      # by which others find it
domains = ["writing"]
tasks = ["@NAME@"]

[limits]                          # what it needs at most; without a line, what its tier gives
wall_ms = 2000
memory_bytes = 67108864

[schemas]                         # input is checked before the plugin sees it, output before anybody else does
input = "schemas/input.json"
output = "schemas/output.json"

# Permissions: without any it sees its input and nothing else. Each one has to be approved.
# [[permissions.file_read]]
# path = "wbs_*.json"             # within the plan's folder; the program opens it below $PLUGIND_PLAN_DIR
# [[permissions.file_write]]
# path = "cost.json"              # what it leaves below $PLUGIND_OUTPUT_DIR under this name comes into the plan
"""

_PROGRAM: Final = r"""#!/bin/sh
# Counts the words of a text. Called once for each input, in a jail with no files, no network and no other processes.
#
# Standard input: the input as JSON text; it has passed schemas/input.json.
# Standard output: the result, one JSON text that passes schemas/output.json.
# Standard error is kept beside the result. Any exit status but 0 ends the run as `failed`.
# PLUGIND_STAGE and PLUGIND_PLAN_ID tell what the run is for; /tmp, where it starts, is the only place to write.
words=$(sed -e 's/\\\\/_/g' -e 's/\\[nrtf]/ /g' -e 's/^[[:space:]]*"//' -e 's/"[[:space:]]*$//' | wc -w)
printf '{"words": %d}\n' "$words"
"""

_INPUT: Final = """\
{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "string",
  "maxLength": 1000000
}
"""

_OUTPUT: Final = """\
{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "properties": {
    "words": { "type": "integer", "minimum": 0 }
  },
  "required": ["words"],
  "additionalProperties": false
}
"""

_CASE: Final = """\
{
  "input": "Pour the foundation,\\nthen raise the walls.",
  "output": { "words": 7 }
}
"""


def program_of(name: str) -> str:
    """Where the program of a new plugin lies in its folder."""
    return f"bin/{name}"


def files(name: str) -> dict[str, str]:
    """Path → text of a new plugin's files."""
    return {
        "plugin.toml": _MANIFEST.replace("@NAME@", name).replace("@PROGRAM@", program_of(name)),
        program_of(name): _PROGRAM,
        "schemas/input.json": _INPUT,
        "schemas/output.json": _OUTPUT,
        "cases/two_lines.json": _CASE,
    }
