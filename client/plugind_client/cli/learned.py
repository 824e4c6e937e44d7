"""What a plugin tried to open in a run that learns, and the smallest permissions that would allow it."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from typing import Any, Final

from plugind_client.cli.screen import note, table
from plugind_client.planfiles import is_path
from plugind_client.planrecords import Opening

_SPECIAL: Final = re.compile(r"[*?[]")


def as_object(opened: Sequence[Opening]) -> dict[str, Any]:
    """The two keys that `try --learn --json` has beside those of a run."""
    return {"opened": [dataclasses.asdict(each) for each in opened], "permissions_toml": toml(opened)}


def show(opened: Sequence[Opening]) -> None:
    """For people: a table, and what to paste."""
    if not opened:
        note("it tried to open no file, as far as Python tells: no permission is needed")
        return
    rows = [(each.path, each.mode, each.place, "yes" if each.found else "no", _remark(each)) for each in opened]
    table(("tried to open", "to", "in", "there", "what allows it"), rows, stream=sys.stderr)
    text = toml(opened)
    if not text:
        note("there is no permission to ask for")
        return
    note("what to paste into plugin.toml:")
    for line in ("", *text.splitlines()):
        note(line)


def toml(opened: Sequence[Opening]) -> str:
    """The smallest [[permissions]] that would allow it: each file by its name. Empty: there are none."""
    wanted = dict.fromkeys((kind, each.path) for each in opened if (kind := _kind(each)))
    entries = [
        f"[[permissions.{kind}]]\npath = {json.dumps(_literally(path), ensure_ascii=False)}\n"
        for kind, path in sorted(wanted)
    ]
    return "\n".join(entries)


def _kind(each: Opening) -> str:
    """The permission that it takes; empty: none would change anything, or there is none."""
    if not is_path(each.path):
        return ""
    if (each.place, each.mode) == ("output", "write"):
        return "file_write"
    return "file_read" if (each.place, each.mode, each.found) == ("plan", "read", True) else ""


def _remark(each: Opening) -> str:
    if kind := _kind(each):
        return kind
    if each.place == "elsewhere":
        return "not possible: no permission gives that; plan files are at context.plan_dir"
    if each.place == "output":
        return "nothing: it is its own" if each.mode == "read" else "not possible: no pattern means such a name"
    if each.mode == "write":
        return "not possible: plan_dir is read-only; what is written goes below context.output_dir"
    return "nothing: there is no such file" if not each.found else "not possible: no pattern means such a name"


def _literally(path: str) -> str:
    """A pattern that means this path and no other."""
    return _SPECIAL.sub(lambda special: f"[{special[0]}]", path)
