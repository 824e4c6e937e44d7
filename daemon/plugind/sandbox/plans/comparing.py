"""compare: what is there now, of given paths."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import Any, Final

from plugind.errors import PlanError
from plugind.planfiles import Entry
from plugind.sandbox.plans.files import problem_of, read_file
from plugind.sandbox.plans.opening import Plan, refusal, split
from plugind.sandbox.plans.orders import count_of

_ABSENT: Final = (errno.ENOENT, errno.ENOTDIR)
_PROBLEMS: Final = {errno.ELOOP: "symlink", errno.EXDEV: "mount"}


def compare(plan: Plan, entries: Sequence[Entry], facts: Mapping[str, Any]) -> list[Entry]:
    """Content and mark of each path; without content: nothing is there, or what `problem` says.

    Raises PlanError "large" (more than `most_bytes` together), "denied", "file" for one that changes meanwhile.
    """
    left_bytes = count_of(facts, "most_bytes")
    answers = []
    for entry in entries:
        answer = _compared(plan, entry.path, left_bytes)
        left_bytes -= len(answer.content or b"")
        answers.append(answer)
    return answers


def _compared(plan: Plan, path: str, most_bytes: int) -> Entry:
    parent, name = split(path)
    try:
        folder = plan.folder(parent)
    except OSError as error:
        if error.errno in _ABSENT:
            return Entry(path)
        if error.errno in _PROBLEMS:
            return Entry(path, problem=_PROBLEMS[error.errno])
        raise refusal(error, path) from error
    try:
        found = read_file(plan.calls, folder, name, path, most_bytes)
    except PlanError as error:
        status = plan.calls.stat(folder, name)
        if error.code == "file" and status is not None and problem_of(status):
            return Entry(path, problem=problem_of(status))
        raise
    if found is None:
        return Entry(path)
    return Entry(path, found.content, found.mark, facts={"mode": found.mode})
