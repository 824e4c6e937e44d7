"""The report for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench import planfiles
from tests.bench.contenders import OURS
from tests.bench.scaling import FEW, LONG, MANY, SMALL

MIB = 1024 * 1024
LATE = {"gone": "its last process is gone", "answered": "it is answered, start included"}


def show(report: Mapping[str, Any]) -> None:
    """All of it. What is not in the report was not measured."""
    console = Console(width=118, highlight=False)
    console.print(main_table(report["runs"], report["cost"]))
    for line in lines(report):
        console.print(line, markup=False)


def main_table(runs: Mapping[str, Any], cost: Mapping[str, Any]) -> Table:
    """One row a contender."""
    paces = list(runs)
    title = f"One run, 1 KB in and out: {', then '.join(paces)}; ratio: p50 by that of {OURS}"
    table = Table(title=title)
    table.add_column("what", no_wrap=True)
    for _ in paces:
        for column in ("p50 ms", "p99 ms", "ratio"):
            table.add_column(column, justify="right")
    for column in ("CPU ms", "caller's", "MiB"):
        table.add_column(column, justify="right")
    for name in runs[paces[0]]:
        cells = [name]
        for pace in paces:
            row, ours = runs[pace][name], runs[pace][OURS]
            ratio = row["p50_ms"] / ours["p50_ms"]
            cells += [number(row["p50_ms"]), number(row["p99_ms"]), number(ratio)]
        memory = cost[name]["instance_bytes"]
        cells += [number(cost[name]["cpu_ms"]), number(cost[name]["caller_cpu_ms"])]
        table.add_row(*cells, "-" if memory is None else f"{memory / MIB:.1f}")
    return table


def number(value: float) -> str:
    """As many digits as say something."""
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Everything below the table."""
    yield "CPU: user and system of a run, without the caller and of the caller alone. MiB: proportional set size of an instance,"
    yield "of plugind Run one that waits (at most 2 are wanted)"
    for name, why in report["refused"].items():
        yield f"not in the table: {name}: {why}"
    for part, tell in PARTS.items():
        if part in report:
            yield from tell(report[part])
    yield f"took {report['took_s']:.0f} s"


def idle(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"idle daemon: {found['pss_bytes'] / MIB:.1f} MiB (PSS of all its processes; at most 100 are wanted)"


def throughput(found: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"{found['callers']} callers in two processes: {found['runs_per_s']:.0f} runs/s, p50 {found['p50_ms']:.0f} ms,"
        f" p99 {found['p99_ms']:.0f} ms, CPU {found['cpu_ms']:.1f} ms a run and {found['caller_cpu_ms']:.1f} ms of the"
        f" callers; {found['of_bare']:.0%} of the bare loop's {found['bare_runs_per_s']:.0f} runs/s"
    )
    if found["failures"]:
        yield f"{found['failures']} runs of these failed, such as with {found['failure']}"
    rates = ", ".join(f"{each['callers']}: {each['runs_per_s']:.0f}" for each in found["bare_loop"])
    yield f"bare loop, runs/s by how many at a time: {rates}"
    if soak := found.get("soak"):
        yield f"then {soak['runs_per_s']:.0f} runs/s, p99 {soak['p99_ms']:.0f} ms, {soak['failures']} failed"
    yield f"daemon's memory before and after: {found['first_pss_bytes'] / MIB:.1f}, {found['last_pss_bytes'] / MIB:.1f} MiB"


def generated(found: Mapping[str, Any]) -> Iterator[str]:
    of_echo = found["session_calls_per_s"] / found["echo_calls_per_s"]
    of_process = found["map_evaluations_per_s"] / found["in_process_evaluations_per_s"]
    yield (
        f"generated code: {found['session_calls_per_s']:.0f} calls/s in a session ({of_echo:.2f} of a bare gRPC echo),"
        f" {found['session_calls_ahead_per_s']:.0f} when sent ahead,"
        f" {found['map_evaluations_per_s']:.0f} evaluations/s by map ({of_process:.2f} of in-process)"
    )


def monte_carlo(found: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"Monte Carlo of 10,000 trials ({found['plan']}): {found['by_map_ms']:.0f} ms by map,"
        f" {found['in_process_ms']:.0f} ms in process: {found['by_map_ms'] / found['in_process_ms']:.2f} times"
    )


def overshoot(found: Mapping[str, Any]) -> Iterator[str]:
    for name, values in found.items():
        yield f"after the wall limit {LATE[name]}: p50 {values['p50']:.1f} ms, max {values['max']:.1f} ms"


def records(found: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"durable records per second, {found['callers']} callers: {found['api']:.0f} through the API,"
        f" {found['ledger']:.0f} straight"
    )


def packages(found: Mapping[str, Any]) -> Iterator[str]:
    if why := found.get("refused"):
        yield f"no environment was built: {why}"
        return
    nothing, pandas = found["runs"]["nothing"]["p50_ms"], found["runs"]["pandas"]["p50_ms"]
    yield (
        f"a plugin that imports pandas, warm: p50 {pandas:.1f} ms, {pandas / nothing:.2f} times that of one that imports"
        f" nothing (at most 1.5 are wanted); the first run of all {found['first_ms']:.0f} ms"
    )
    paid = ", ".join(f"{name} {row['p50_ms']:.0f} ms" for name, row in found["imports"].items())
    yield (
        f"where each run pays for the import: {paid}; memory of the template with it {found['template_bytes'] / MIB:.0f}"
        f" MiB, of an instance that waits {found['parked_bytes'] / MIB:.1f} MiB"
    )


def quarantine(found: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"quarantine, {found['trials']} times: from the act until everybody can see the hold p50 {found['p50_ms']:.0f} ms,"
        f" p99 {found['p99_ms']:.0f}, max {found['max_ms']:.0f}; a p99 of 500 is wanted"
    )


def kill(found: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"kill switch, {found['instances']} instances, {found['rounds']} times: last process gone after p50"
        f" {found['gone_p50_ms']:.0f} ms, p99 {found['gone_p99_ms']:.0f}, max {found['gone_max_ms']:.0f}; the call took"
        f" p50 {found['call_p50_ms']:.0f} ms, p99 {found['call_p99_ms']:.0f}; a p99 of 100 is wanted"
    )


def health(found: Mapping[str, Any]) -> Iterator[str]:
    crowd, queue = found["connections"], found["queued"]
    yield (
        f"grpc.health.v1 Check: {of_check(found['idle'])}; with {crowd['connections']} idle connections"
        f" {of_check(crowd)}; with {queue['waiting']} runs waiting too {of_check(queue)}; less than 20 ms is wanted"
    )


def of_check(row: Mapping[str, Any]) -> str:
    return f"p50 {row['p50_ms']:.1f} ms, max {row['max_ms']:.1f} ms"


def scaling(found: Mapping[str, Any]) -> Iterator[str]:
    small = found[SMALL]
    yield f"p50 of Run with {FEW} plugins {small['p50_ms']:.2f} ms"
    for name, of in ((MANY, f"{found['plugins']} plugins"), (LONG, f"an audit of {found['records']} records")):
        row = found[name]
        yield (
            f"p50 of Run with {of} {row['p50_ms']:.2f} ms, {row['p50_ms'] / small['p50_ms']:.2f} times;"
            f" its daemon started in {row['start_s']:.2f} s, the small one in {small['start_s']:.2f} s"
        )


def networks(found: Mapping[str, Any]) -> Iterator[str]:
    p50 = {name: number(each["p50_ms"]) for name, each in found.items()}
    yield (
        f"a run's network, ms: {p50['asked']} from asking for it, {p50['take']} of them in the keeper (at most 0.2 are"
        f" wanted); cut {p50['cut']}, given back {p50['returned']}; one made anew {p50['make']}"
    )


def files(found: Mapping[str, Any]) -> Iterator[str]:
    without, having = found["no files"]["p50_ms"], found["files"]["p50_ms"]
    yield (
        f"files of a plan: a run that reads {planfiles.READS} of {planfiles.READ_BYTES // 1000} KB and writes"
        f" {planfiles.WRITES} p50 {having:.1f} ms, without files {without:.1f} ms, {having / without:.1f} times"
    )


PARTS = {
    "idle": idle,
    "throughput": throughput,
    "generated": generated,
    "monte_carlo": monte_carlo,
    "wall_overshoot_ms": overshoot,
    "records_per_s": records,
    "packages": packages,
    "networks": networks,
    "files": files,
    "quarantine": quarantine,
    "kill": kill,
    "health": health,
    "scaling": scaling,
}
