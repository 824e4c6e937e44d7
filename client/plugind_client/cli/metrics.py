"""metrics: what the daemon counts and measures, for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Annotated, Final

import typer

from plugind_client.cli import words
from plugind_client.cli.problems import CommandError, Exit
from plugind_client.cli.screen import print_json, table, visible
from plugind_client.cli.settings import AdminSocketPath, JsonFlag, SocketPath, examples, settled
from plugind_client.records import Metric, Sample

GROUPS: Final = (
    ("runs", ("runs_total", "run_seconds", "imports")),
    ("denials", ("denials", "dry_run_denials", "refused_calls")),
    ("queue", ("runs_in_flight", "queue_", "parked")),
    ("safety", ("unsafe_", "violations", "anomalies", "containment", "time_to_quarantine", "false_positives",
                "provenance", "holds", "oldest_hold", "quarantined", "monitor")),
    ("incidents", ("incidents",)),
)  # fmt: skip
"""In the order in which they are shown: a group, and how the names of its metrics begin. What is in none is machine."""
MACHINE: Final = "machine"
_PREFIX: Final = "plugind_"
_MIB: Final = 1024 * 1024
_YES_OR_NO: Final = ("_up", "_writable", "_unavailable")
_MOMENT: Final = "_time_seconds", "_timestamp_seconds"
_SHARE: Final = 0.99
"""Of a histogram's values, how many are within what is shown."""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog=examples(
            "plugindctl metrics",
            "plugindctl metrics --text | grep ^plugind_denials_total",
            "plugindctl metrics --json | jq '.metrics[] | select(.name == \"plugind_holds\")'",
        )
    )(metrics)


def metrics(
    context: typer.Context,
    as_text: Annotated[bool, typer.Option("--text", help="Print Prometheus' text format.")] = False,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """Show what the daemon counts and measures.

    Without --json and --text what is zero is left out where a metric has several values.
    """
    settings = settled(context, as_json, socket, admin_socket)
    if as_text and settings.as_json:
        raise CommandError(Exit.USAGE, "expected --text or --json, got both")
    with settings.admin_client() as client:
        found = client.metrics()
    if settings.as_json:
        print_json({"metrics": [dataclasses.asdict(metric) for metric in found.metrics]})
    elif as_text:
        print(visible(found.text), end="")
    else:
        _show(found.metrics)


def _show(found: Sequence[Metric]) -> None:
    rows: dict[str, list[tuple[str, str]]] = {group: [] for group in (*(group for group, _ in GROUPS), MACHINE)}
    for metric in found:
        rows[_group(metric)] += _rows(metric)
    shown = [
        (group if number == 0 else "", *row)
        for group, of_it in rows.items()
        for number, row in enumerate(of_it or [("nothing yet", "")])
    ]
    table(("group", "what", "value"), shown)


def _group(metric: Metric) -> str:
    name = metric.name.removeprefix(_PREFIX)
    return next((group for group, beginnings in GROUPS if name.startswith(beginnings)), MACHINE)


def _rows(metric: Metric) -> Iterator[tuple[str, str]]:
    """What it is and its value, for each of its samples."""
    if metric.name.endswith("_info"):
        for sample in metric.samples:
            yield _what(metric, {}), ", ".join(f"{name} {value}" for name, value in sample.labels.items())
    elif metric.kind == "histogram":
        yield from _spreads(metric)
    else:
        for sample in metric.samples:
            if sample.value or not sample.labels:
                yield _what(metric, sample.labels), amount(metric.name, sample.value)


def _what(metric: Metric, labels: dict[str, str]) -> str:
    """Its name and labels as words."""
    name = metric.name.removeprefix(_PREFIX)
    for ending in ("_total", "_info", "_timestamp_seconds", "_seconds", "_bytes", "_ratio"):
        name = name.removesuffix(ending)
    told = [f"tier {value}" if label == "tier" else value for label, value in sorted(labels.items())]
    return ", ".join([name.replace("_", " "), *told])


def _spreads(metric: Metric) -> Iterator[tuple[str, str]]:
    """Of a histogram, for each of its other labels: how many, their mean, and within what nearly all of them are."""
    by_labels: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for sample in metric.samples:
        others = tuple((label, value) for label, value in sample.labels.items() if label != "le")
        by_labels.setdefault(others, []).append(sample)
    for labels, samples in by_labels.items():
        values = {sample.name.removeprefix(metric.name): sample.value for sample in samples}
        if count := values.get("_count", 0):
            mean = amount(metric.name, values["_sum"] / count)
            said = f"{count:,.0f} times, mean {mean}, {_SHARE:.0%} {_within(metric.name, samples, count)}"
            yield _what(metric, dict(labels)), said


def _within(name: str, samples: Sequence[Sample], count: float) -> str:
    buckets = [(float(sample.labels["le"]), sample.value) for sample in samples if "le" in sample.labels]
    finite = sorted(bucket for bucket in buckets if bucket[0] != float("inf"))
    bound = next((bound for bound, below in finite if below >= count * _SHARE), None)
    if bound is None:
        return f"not within {amount(name, finite[-1][0])}"
    return f"within {amount(name, bound)}"


def amount(name: str, value: float) -> str:
    """A value in the unit that ends its metric's name."""
    if name.endswith(_YES_OR_NO):
        return "yes" if value else "no"
    if name.endswith(_MOMENT):
        return words.moment(int(value * 1000))
    if name.endswith(("_seconds", "_seconds_total")):
        return f"{value * 1000:,.3g} ms" if value < 1 else f"{value:,.1f} s"
    if name.endswith("_bytes"):
        return f"{value / _MIB:,.1f} MiB"
    if name.endswith("_ratio"):
        return f"{value:.1%}"
    return f"{value:,.0f}"
