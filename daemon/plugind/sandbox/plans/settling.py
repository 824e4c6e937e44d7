"""settle and clean: everything that is staged into its place, or nothing of it, whatever ends us in between.

Until there is a decision it can be told either way, as often as needed. A decision is durable, and said again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plugind.errors import PlanError
from plugind.sandbox.plans.journal import Journal
from plugind.sandbox.plans.opening import Plan
from plugind.sandbox.plans.orders import flag_of, run_of
from plugind.sandbox.plans.placing import ChangedError, Placing
from plugind.sandbox.plans.stagings import Staging, State, name_of, staging_opened


def settle(plan: Plan, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts `run`, `forward` to `state` ("committed", "undone", "nothing") and `why`. Raises PlanError, OSError.

    Forward where somebody has come between, or where it cannot be done, is taken back: "undone".
    """
    run, forward = run_of(facts), flag_of(facts, "forward")
    with staging_opened(plan, run) as staging:
        if staging is None:
            return {"state": "nothing", "why": ""}
        if decided := staging.decision():
            return {"state": decided[0], "why": decided[1]}
        written = staging.journal()
        if written is None:  # its stage never ended: nothing of it was put anywhere
            staging.remove(plan)
            return {"state": "nothing", "why": ""}
        state, why = _settled(plan, staging, written, forward=forward)
        staging.decide(state, why)
        return {"state": state, "why": why}


def _settled(plan: Plan, staging: Staging, written: Journal, *, forward: bool) -> tuple[State, str]:
    placing = Placing(plan, staging)
    why = "given up"
    if forward:
        try:
            _forward(plan, staging, placing, written)
        except (ChangedError, OSError) as error:
            why = str(error)
        else:
            return "committed", ""
    _back(plan, staging, placing, written)
    return "undone", "; ".join([why, *placing.kept])


def _forward(plan: Plan, staging: Staging, placing: Placing, written: Journal) -> None:
    for made in written.folders:
        placing.make(made)
    for change in written.changes:
        placing.forward(change)
    _sync(plan, staging)
    for change in written.changes:
        if not placing.stayed(change):
            raise ChangedError(f"{change.path}: somebody went on writing to it")
    for path in filter(None, plan.folders):
        if plan.has_moved(path):
            raise ChangedError(f"{path}: moved or replaced by somebody meanwhile")


def _back(plan: Plan, staging: Staging, placing: Placing, written: Journal) -> None:
    for change in reversed(written.changes):
        placing.back(change)
    for made in reversed(written.folders):
        placing.unmake(made)
    _sync(plan, staging)


def _sync(plan: Plan, staging: Staging) -> None:
    """All names, in the plan's folder and in every other one that was opened on the way to a file."""
    for folder in plan.folders.values():
        plan.calls.fsync(folder)
    plan.calls.fsync(staging.descriptor)


def clean(plan: Plan, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Remove the staging of `run`, which is decided or was never completed. Gives facts `kept`: texts.

    A file that came out of the plan, and that a program still wrote to after that, is kept beside its old name.
    Raises PlanError "fault" where nothing is decided, "file" where something is in it that is not ours.
    """
    run = run_of(facts)
    with staging_opened(plan, run) as staging:
        if staging is None:
            return {"kept": []}
        written = staging.journal()
        if written is not None and staging.decision() is None:
            raise PlanError("fault", f"{name_of(run)}: expected a decision (settle) before it is removed")
        placing = Placing(plan, staging)
        for change in written.changes if written else ():
            placing.rescue(change)
        staging.remove(plan)
        return {"kept": placing.kept}
