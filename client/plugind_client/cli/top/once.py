"""One frame for scripts: plain tables, or JSON. Two looks, so that there are speeds."""

from __future__ import annotations

import dataclasses
from typing import Any

from plugind_client.cli.screen import print_json, table
from plugind_client.cli.top import tables
from plugind_client.cli.top.rates import Shares, queues, rates
from plugind_client.cli.top.reading import Lack, Reading


def show(before: Reading, now: Reading, *, as_json: bool) -> None:
    """Print it."""
    shares = Shares()
    for reading in (before, now):
        shares.note(reading.runs)
    if as_json:
        print_json(frame(before, now, shares))
        return
    for line in (tables.head(now), tables.queue_line(now), tables.rate_line(before, now)):
        print(line)
    rows = [tables.run_row(run, shares, now.unix_ms) for run in tables.chosen(now.runs, shares)]
    table(tables.RUN_HEADINGS, rows)
    table(tables.ANOMALY_HEADINGS, tables.anomaly_rows(now.anomalies))
    holds = () if isinstance(now.status, Lack) else now.status.holds
    table(tables.HOLD_HEADINGS, [tables.hold_row(hold) for hold in holds])


def frame(before: Reading, now: Reading, shares: Shares) -> dict[str, Any]:
    """The same as one object. What is not known is null, and `lacks` says why."""
    parts = {
        "status": now.status,
        "anomalies": now.anomalies,
        "queues": queues(now),
        "rates": rates(before, now),
    }
    runs = [dataclasses.asdict(run) | {"cpu_percent": shares.of(run.run_id)} for run in now.runs]
    lacks = {name: part.why for name, part in parts.items() if isinstance(part, Lack)}
    return {
        "at_unix_ms": now.unix_ms,
        "runs": runs,
        **{name: _plain(part) for name, part in parts.items()},
        "lacks": lacks,
    }


def _plain(part: Any) -> Any:
    if isinstance(part, Lack):
        return None
    if isinstance(part, (list, tuple)):
        return [dataclasses.asdict(each) for each in part]
    return dataclasses.asdict(part)
