"""What a run left in its output folder, judged: nothing of it counts before, and of a bad one nothing at all. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from plugind.answers import Opening
from plugind.collect import Given, leaked
from plugind.model import Outcome, Violation
from plugind.planfiles import LEARNED, MAX_PATH_BYTES, Entry, matches
from plugind.plans.folders import Opened
from plugind.sandbox.running import InstanceResult

TOO_MUCH: Final = frozenset({"sparse", "too many", "too large"})
"""Why the collector did not take a file that is none of another kind: it is a limit."""
MOST_NAMED: Final = 64
"""Files that are named as violations; of more the number is told."""
MOST_OPENINGS: Final = 4096
_MODES: Final = ("read", "write")
_PLACES: Final = ("plan", "output", "elsewhere")


def judged(result: InstanceResult, plan: Opened, given: Given) -> InstanceResult:
    """The result, with what it wrote; a violation, or output_limit, without it. Of any other outcome nothing counts."""
    if result.outcome is not Outcome.OK:
        return replace(result, wrote=())
    if bad := _violations(result.wrote, plan):
        return _ended(result, Outcome.VIOLATION, f"left a file that it may not: {_named(bad)}", bad)
    if problem := _limit(result.wrote, plan):
        return _ended(result, Outcome.OUTPUT_LIMIT, problem)
    for entry in result.wrote:
        if kind := given.leaked(entry.content or b""):
            return leaked(result, kind)
    return result


def _violations(wrote: Sequence[Entry], plan: Opened) -> tuple[Violation, ...]:
    found = [
        Violation("file", entry.path, 1, detail)
        for entry in wrote
        if (detail := _objection(entry, plan)) and detail not in TOO_MUCH
    ]
    if len(found) > MOST_NAMED:
        rest = len(found) - MOST_NAMED + 1
        found[MOST_NAMED - 1 :] = [Violation("file", "others", rest, "like those before")]
    return tuple(found)


def _objection(entry: Entry, plan: Opened) -> str:
    if entry.problem:
        return entry.problem
    if entry.content is None:
        return "without content"
    if plan.learns or matches(entry.path, plan.writes):
        return ""
    return "no approved pattern of file_write means it"


def _named(bad: Sequence[Violation]) -> str:
    more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
    return f"{bad[0].name}: {bad[0].detail}{more}"


def _limit(wrote: Sequence[Entry], plan: Opened) -> str:
    for entry in wrote:
        if entry.problem:
            return f"{entry.path}: {entry.problem}"
    if len(wrote) > plan.write_files:
        return f"expected at most {plan.write_files} files in its output folder, got {len(wrote)}"
    size = sum(len(entry.content or b"") for entry in wrote)
    if size > plan.write_bytes:
        return f"expected at most {plan.write_bytes} bytes in its output folder, got {size}"
    return ""


def _ended(
    result: InstanceResult, outcome: Outcome, detail: str, violations: tuple[Violation, ...] = ()
) -> InstanceResult:
    told = (*result.violations, *violations)
    return replace(result, outcome=outcome, detail=detail, output_json=None, wrote=(), violations=told)


def openings(wrote: Iterable[Entry]) -> tuple[Opening, ...]:
    """What a run that learns has tried to open, each once. The plugin may have written it: what is none is left out."""
    lines = next((entry.content or b"" for entry in wrote if entry.path == LEARNED), b"").splitlines()
    found = (_opening(line) for line in lines[:MOST_OPENINGS])
    return tuple(dict.fromkeys(opening for opening in found if opening is not None))


def _opening(line: bytes) -> Opening | None:
    try:
        said: dict[str, Any] = json.loads(line.decode())
        path, mode, place, found = (said[name] for name in ("path", "mode", "place", "found"))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not isinstance(path, str) or not 0 < len(path) <= MAX_PATH_BYTES or type(found) is not bool:
        return None
    return Opening(path, mode, place, found) if mode in _MODES and place in _PLACES else None
