"""How the daemon is, as gauges: read from its parts when somebody looks."""

import asyncio
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from plugind.admission import Flights, InFlight, Patience, Places
from plugind.metrics.parts import Gauges, Parts
from plugind.metrics.processes import Processes
from plugind.model import Caller, Hold
from plugind.sandbox.protocol import Ready


class Reach:
    """Nothing is in the sandbox."""


def flights():
    return Flights(Reach())


def places():
    return Places({0: 4, 1: 3, 2: 1})


class Parking:
    def waiting(self):
        return {2: 5}


@dataclass
class Ledger:
    size: int = 41
    failure: str = ""


@dataclass
class Journal:
    sent: int = 40
    lost: int = 1


@dataclass
class Link:
    problem: str = ""
    ready: Ready | None = None


def parts(**others):
    given = {
        "mode": "dev",
        "started_unix_ms": 1_700_000_000_000,
        "flights": flights(),
        "places": places(),
        "parking": Parking(),
        "holds": tuple,
        "ledger": Ledger(),
        "journal": Journal(),
        "link": Link(),
    }
    return Parts(**(given | others))


def everything():
    """A daemon that has something of all."""
    holds = [Hold(kind, "all", "r", 0, 1) for kind in ("killed", "quarantined", "suspended", "revalidation_required")]
    return parts(
        holds=lambda: holds,
        open_incidents=lambda: {"low": 0, "medium": 0, "high": 0, "critical": 2},
        monitor_up=lambda: False,
        sandbox_memory_bytes=lambda: 4096,
    )


def shown(collector):
    registry = CollectorRegistry()
    registry.register(collector)
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def flight(run_id, tier, **state):
    return InFlight(run_id, Caller(1, 1, 1), "", 0, tier=tier, **state)


def test_a_daemon_at_rest():
    found = shown(Gauges(parts()))
    assert found["plugind_start_time_seconds",] == 1_700_000_000
    assert (found["plugind_ledger_records",], found["plugind_ledger_writable",]) == (41, 1)
    assert (found["plugind_journal_sent_total",], found["plugind_journal_lost_total",]) == (40, 1)
    assert found["plugind_launcher_up",] == 1
    assert found["plugind_parked_instances", "2"] == 5
    assert found["plugind_queue_places", "0"] == 4
    assert {name for name, *_ in found if name.startswith("plugind_oldest_hold")} == set()
    assert [key[1] for key in found if key[0] == "plugind_build_info"] == ["dev"]


def test_what_is_wrong():
    ready = Ready("unified", {"1": "no user namespaces"})
    found = shown(Gauges(parts(ledger=Ledger(failure="full"), link=Link("gone", ready))))
    assert (found["plugind_ledger_writable",], found["plugind_launcher_up",]) == (0, 0)
    assert {tier: found["plugind_tier_unavailable", tier] for tier in "012"} == {"0": 0, "1": 1, "2": 0}


def test_runs_in_flight_by_tier_and_state():
    runs = flights()
    for run in (
        flight("a", 2),
        flight("b", 2, in_sandbox=True),
        flight("c", 2, in_sandbox=True, running=True),
        flight("d", -1),
    ):
        runs.enter(run)
    found = shown(Gauges(parts(flights=runs)))
    states = ("plugind_runs_in_flight", "waiting"), ("plugind_runs_in_flight", "starting")
    assert [found[*state, "2"] for state in (*states, ("plugind_runs_in_flight", "running"))] == [1, 1, 1]
    assert found["plugind_runs_in_flight", "waiting", "none"] == 1
    assert found["plugind_runs_in_flight", "running", "0"] == 0


async def test_the_queue_as_it_is():
    lines = places()
    first, second = flight("a", 2), flight("b", 2)
    async with lines.one(2, first, patience=Patience()) as full:
        assert full is None
        waits = lines.one(2, second, patience=Patience())
        entering = asyncio.create_task(waits.__aenter__())
        await asyncio.sleep(0)
        found = shown(Gauges(parts(places=lines)))
        assert (found["plugind_queue_taken", "2"], found["plugind_queue_waiting", "2"]) == (1, 1)
        assert (found["plugind_queue_taken", "1"], found["plugind_queue_waiting", "1"]) == (0, 0)
        entering.cancel()


def test_holds_by_kind_and_since_when():
    holds = (
        Hold("killed", "all", "r", 0, 2_000),
        Hold("killed", "demo", "r", 0, 1_000),
        Hold("quarantined", "sha256:" + "a" * 64, "r", 0, 3_000),
    )
    found = shown(Gauges(parts(holds=lambda: holds)))
    assert (found["plugind_holds", "killed"], found["plugind_holds", "suspended"]) == (2, 0)
    assert found["plugind_oldest_hold_timestamp_seconds", "killed"] == 1
    assert ("plugind_oldest_hold_timestamp_seconds", "suspended") not in found
    assert found["plugind_quarantined_versions",] == 1


def test_what_nobody_tells_is_not_shown():
    hidden = {"plugind_incidents_open", "plugind_monitor_up", "plugind_sandbox_memory_bytes"}
    assert not hidden & {name for name, *_ in shown(Gauges(parts()))}
    found = shown(Gauges(everything()))
    assert (found["plugind_incidents_open", "critical"], found["plugind_monitor_up",]) == (2, 0)
    assert found["plugind_sandbox_memory_bytes",] == 4096


# --- processes -------------------------------------------------------------------------------------------------------


def test_a_process_as_the_kernel_tells_it():
    found = shown(Processes({"front": os.getpid()}))
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert found["plugind_process_resident_memory_bytes", "front"] == pytest.approx(resident, rel=0.1)
    assert 0 < found["plugind_process_cpu_seconds_total", "front"] < 10_000
    assert found["plugind_process_open_fds", "front"] >= 3
    assert found["plugind_process_threads", "front"] >= 1


def test_a_process_that_is_not_seen_is_left_out():
    assert shown(Processes({"launcher": 2**22 + 1})) == {}


def test_a_process_that_has_ended_is_left_out():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        processes = Processes({"launcher": process.pid})
        assert ("plugind_process_threads", "launcher") in shown(processes)
    assert shown(processes) == {}
