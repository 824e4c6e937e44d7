"""What an order says, checked once: the helper trusts neither the front nor the launcher with a plan's folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from plugind.errors import PlanError

_RUN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MOST: Final = 2**40


def run_of(facts: Mapping[str, Any]) -> str:
    """The name of the run that is meant. Raises PlanError "fault" as all of these."""
    run = facts.get("run")
    if not isinstance(run, str) or not _RUN.fullmatch(run):
        raise PlanError("fault", f"plan work: run: expected 1 to 64 of A-Z a-z 0-9 _ -, got {run!r:.100}")
    return run


def count_of(facts: Mapping[str, Any], name: str) -> int:
    """A number of files or bytes."""
    count = facts.get(name)
    if type(count) is not int or not 0 <= count <= _MOST:
        raise PlanError("fault", f"plan work: {name}: expected a number up to {_MOST}, got {count!r:.100}")
    return count


def texts_of(facts: Mapping[str, Any], name: str) -> list[str]:
    """Patterns; none where nothing is said."""
    texts = facts.get(name, [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise PlanError("fault", f"plan work: {name}: expected a list of texts, got {texts!r:.100}")
    return texts


def flag_of(facts: Mapping[str, Any], name: str) -> bool:
    """Yes or no, and nothing else."""
    flag = facts.get(name)
    if not isinstance(flag, bool):
        raise PlanError("fault", f"plan work: {name}: expected true or false, got {flag!r:.100}")
    return flag
