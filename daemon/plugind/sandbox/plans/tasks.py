"""One piece of plan work, from its order to its answer. The process has become the caller before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from plugind.errors import InvalidRequestError, PlanError
from plugind.planfiles import MAX_INDEX_BYTES, Entry, pack, unpack
from plugind.sandbox.plans.calls import Calls
from plugind.sandbox.plans.comparing import compare
from plugind.sandbox.plans.opening import Plan, plan_opened, refusal
from plugind.sandbox.plans.reading import read
from plugind.sandbox.plans.settling import clean, settle
from plugind.sandbox.plans.staging import stage

_MOST_ENTRIES: Final = 10_000
_MOST_BYTES: Final = 2**32
_KERNEL: Final = Calls()


def perform(task: str, root: str, plan_dir: str, order: bytes, calls: Calls = _KERNEL) -> bytes:
    """Do what plugind.plans.folders.PlanFolders.plan_work says of `task`; order and answer are packed (planfiles).

    `root`: the plan root that `plan_dir` is below, both absolute. Raises PlanError and nothing else.
    """
    try:
        entries, facts = unpack(order, _MOST_ENTRIES, _MOST_BYTES)
        with plan_opened(calls, root, plan_dir) as plan:
            answer = pack(*_done(task, plan, entries, facts))
    except InvalidRequestError as error:
        raise PlanError("fault", f"plan work: expected an order, got: {error}") from error
    except OSError as error:
        raise refusal(error, plan_dir) from error
    if int.from_bytes(answer[:4], "big") > MAX_INDEX_BYTES:
        raise PlanError("large", f"{plan_dir}: expected an answer whose index has at most {MAX_INDEX_BYTES} bytes")
    return answer


def _done(
    task: str, plan: Plan, entries: Sequence[Entry], facts: Mapping[str, Any]
) -> tuple[list[Entry], dict[str, Any]]:
    match task:
        case "read":
            return read(plan, facts), {}
        case "stage":
            return stage(plan, entries, facts), {}
        case "settle":
            return [], settle(plan, facts)
        case "clean":
            return [], clean(plan, facts)
        case "compare":
            return compare(plan, entries, facts), {}
        case _:
            raise PlanError("fault", f"plan work: expected read, stage, settle, clean or compare, got {task!r:.100}")
