"""What one frame shows, as rows and lines of text: the same on the terminal and for scripts."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from plugind_client.cli import words
from plugind_client.cli.condition import problems
from plugind_client.cli.problems import explained
from plugind_client.cli.screen import one_line
from plugind_client.cli.top.rates import Shares, queues, rates
from plugind_client.cli.top.reading import Anomaly, Lack, Reading
from plugind_client.records import Hold, RunningRun

RUN_HEADINGS: Final = ("run", "plugin", "age", "cpu %", "memory", "pids", "state", "tier", "stage", "uid", "cpu")
"""In a narrow terminal the first ones are in sight."""
ANOMALY_HEADINGS: Final = ("at", "severity", "what", "plugin", "run", "found")
HOLD_HEADINGS: Final = ("kind", "target", "by", "since", "reason")
_LAST_S: Final = 253_402_300_799
"""The last second that has a date."""
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400

Row = tuple[str, ...]


def _keys(shares: Shares) -> Mapping[str, Callable[[RunningRun], Any]]:
    """What the runs are ordered by, for each heading. What is not known comes last where the largest is first."""
    return {
        "run": lambda run: run.run_id,
        "plugin": lambda run: (run.plugin, run.version),
        "tier": lambda run: run.tier,
        "stage": lambda run: run.stage,
        "uid": lambda run: run.caller_uid,
        "age": lambda run: -run.started_unix_ms,
        "cpu %": lambda run: _known(shares.of(run.run_id)),
        "cpu": lambda run: _known(run.cpu_ms),
        "memory": lambda run: _known(run.memory_bytes),
        "pids": lambda run: _known(run.pids),
        "state": lambda run: run.state,
    }


LARGEST_FIRST: Final = frozenset({"age", "cpu %", "cpu", "memory", "pids"})


def _known(value: float | None) -> float:
    return -1 if value is None else value


def chosen(
    runs: Iterable[RunningRun], shares: Shares, order: str = "age", *, turned: bool = False, wanted: str = ""
) -> list[RunningRun]:
    """The runs in which `wanted` is found, ordered by a heading; `turned`: the other way round."""
    found = [run for run in runs if wanted.lower() in _searched(run)]
    return sorted(found, key=_keys(shares)[order], reverse=(order in LARGEST_FIRST) != turned)


def _searched(run: RunningRun) -> str:
    fields = (run.run_id, f"{run.plugin}@{run.version}", run.plugin_id, run.stage, str(run.caller_uid), run.state)
    return " ".join((*fields, f"tier {run.tier}")).lower()


def run_row(run: RunningRun, shares: Shares, unix_ms: int) -> Row:
    """One run; "-" is what is not known."""
    share = shares.of(run.run_id)
    return _shown(
        run.run_id,
        f"{run.plugin}@{run.version}",
        words.seconds(unix_ms - run.started_unix_ms),
        "-" if share is None else f"{share:.0f}",
        words.size(run.memory_bytes),
        words.count(run.pids),
        f"{run.state}, {run.refused_calls} refused" if run.refused_calls else run.state,
        str(run.tier),
        run.stage or "-",
        str(run.caller_uid),
        words.seconds(run.cpu_ms),
    )


def anomaly_rows(found: Sequence[Anomaly] | Lack) -> list[Row]:
    """Newest first; what is lacking in words."""
    if isinstance(found, Lack):
        return [_lacking(found, len(ANOMALY_HEADINGS))]
    return [_anomaly_row(each) for each in found]


def _anomaly_row(each: Anomaly) -> Row:
    kind = "observed" if each.observed else "hard" if each.hard else "soft"
    told = f"{each.actual} (expected: {each.expected})" if each.expected else each.actual
    plugin = f"{each.plugin}@{each.version}" if each.plugin else "-"
    return _shown(_clock(each.at_unix_ms), f"{each.severity}, {kind}", each.trigger, plugin, each.run_id or "-", told)


def hold_row(hold: Hold) -> Row:
    """One hold."""
    return _shown(hold.kind, hold.target, words.person(hold.by_uid), words.moment(hold.at_unix_ms), hold.reason)


def head(now: Reading) -> str:
    """The daemon in one line."""
    found = now.status
    if isinstance(found, Lack):
        return one_line(f"plugind: - ({found.why})")
    age = lasted((now.unix_ms - found.started_unix_ms) / 1000)
    wrong = problems(found)
    state = "WRONG: " + "; ".join(wrong) if wrong else "launcher and ledger in order"
    runs = f"{found.runs_in_flight} run{'' if found.runs_in_flight == 1 else 's'} in flight"
    return one_line(f"plugind {found.daemon_version}, {found.mode}, up {age}, {runs}, {state}")


def queue_line(now: Reading) -> str:
    """Who waits, and how many places are taken."""
    found = queues(now)
    if isinstance(found, Lack):
        return one_line(f"waiting: - ({found.why})")
    tiers = (
        f"tier {each.tier}: {each.waiting}"
        + (
            f" ({each.taken} of {each.places} places taken)"
            if each.places is not None and each.taken is not None
            else ""
        )
        for each in found
    )
    return one_line("waiting: " + ", ".join(tiers))


def rate_line(before: Reading | None, now: Reading) -> str:
    """Runs, reasons of denials and violations a second."""
    found = rates(before, now)
    if isinstance(found, Lack):
        return one_line(f"a second: - ({found.why})")
    parts = (("runs", found.runs), ("denials", found.denials), ("violations", found.violations))
    return one_line("a second: " + ", ".join(f"{what} {_rate(values)}" for what, values in parts))


def _rate(values: Mapping[str, float]) -> str:
    told = ", ".join(
        f"{label or '-'} {value:.1f}" for label, value in sorted(values.items(), key=lambda each: -each[1])
    )
    return f"{sum(values.values()):.1f}" + (f" ({told})" if told else "")


def problem(now: Reading, socket: str) -> str:
    """Why the daemon could not be looked at, in one line; empty: it could."""
    if now.error is None:
        return ""
    told = explained(now.error, socket, as_admin=True)
    return one_line(": ".join((str(told).rstrip("."), *told.lines[:1])))


def lasted(seconds: float) -> str:
    """A time in its two largest units."""
    whole = max(0, int(seconds))
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S} s"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S} min"
    return f"{whole // _DAY_S} d {whole % _DAY_S // _HOUR_S} h"


def _clock(unix_ms: int) -> str:
    return datetime.datetime.fromtimestamp(min(unix_ms // 1000, _LAST_S), datetime.UTC).strftime("%m-%d %H:%M:%S")


def _lacking(lack: Lack, columns: int) -> Row:
    return _shown(*["-"] * (columns - 1), lack.why)


def _shown(*cells: str) -> Row:
    return tuple(one_line(cell) for cell in cells)
