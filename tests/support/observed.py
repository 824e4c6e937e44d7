"""Observations as the ledger would tell of them."""

from __future__ import annotations

import dataclasses
import itertools

from plugind.governance.observations import Observation
from plugind.model import Outcome, Usage, Violation

CPUS = 2
"""Of the machine that breakers are told of."""
_INDEX = itertools.count(1)
BASE = Observation(
    index=0, intent=0, run="run-1", plugin_id="plug_1", plugin="echo", version="1.0.0", digest="ab" * 32, tier=2,
    stage="", plan_id="", caller_uid=1000, mode="run", outcome=Outcome.OK, detail="", codes=(), usage=Usage(20, 10, 1 << 24),
    output_bytes=100, violations=(), at_unix_ms=1_000_000,
)  # fmt: skip


def seen(outcome=Outcome.OK, *, wall_ms=20, memory=1 << 24, index=None, **fields):
    """One more execution, each later in the ledger than the one before."""
    index = next(_INDEX) if index is None else index
    usage = Usage(wall_ms, wall_ms, memory)
    return dataclasses.replace(BASE, outcome=outcome, usage=usage, index=index, **fields)


def refused(name, detail, count=1):
    return Violation("syscall", name, count, detail)
