"""How many instances wait, for whom, and what becomes of imports: a sandbox that only answers."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from types import SimpleNamespace

import pytest

from plugind import parking
from plugind.errors import IsolationUnavailableError
from plugind.model import Limits, Outcome, Usage
from plugind.sandbox.running import InstanceResult
from plugind.targets import Targets

LIMITS = Limits(5000, 2000, 1 << 28, 32, 1 << 22, 1 << 24)
MIB = 1 << 20


class Box:
    """A sandbox: what is parked waits until it is killed."""

    def __init__(self, size_bytes: int = MIB) -> None:
        self.waiting: set[str] = set()
        self.parked: list[str] = []
        self.killed: list[str] = []
        self.outcome, self.stdout, self.size_bytes = Outcome.OK, b"", size_bytes
        self.error: Exception | None = None
        self.crowd = 0

    def recent(self):
        return self.crowd

    async def load(self, digest, read):
        pass

    async def park(self, request):
        self.parked.append(request.digest)
        if self.error:
            raise self.error
        if self.outcome is Outcome.OK:
            self.waiting.add(request.run)
        return InstanceResult(
            self.outcome, "why", None, None, self.stdout, b"", Usage(memory_peak_bytes=self.size_bytes), ()
        )

    def is_parked(self, name):
        return name in self.waiting

    def kill(self, run, cause):
        self.killed.append(run)
        self.waiting.discard(run)

    def is_gone(self, run):
        return run not in self.waiting


class Written:
    """A ledger in memory."""

    def __init__(self):
        self.records = []

    async def append(self, record):
        self.records.append(record)
        return len(self.records) - 1

    def keep(self, data):
        return SimpleNamespace(sha256="", bytes=len(data))


class Known:
    """A catalog and its holds."""

    def __init__(self):
        self.revision = 1
        self.set = []
        self.there = {}
        self.holds = SimpleNamespace(on=lambda meant: (), set=self.set.append)

    def targets(self, record, environment):
        return Targets((record.targets, frozenset({f"pkg:pypi/{environment}"})))

    def find(self, name, version):
        return SimpleNamespace(record=self.there.get(name))

    def bundle(self, digest):
        return b""


class Desk:
    def __init__(self, parked: int = 4, **box):
        self.box, self.ledger, self.catalog, self.policy = Box(**box), Written(), Known(), object()
        profile = SimpleNamespace(parked=parked, stdio_bytes=100)
        self.parking = parking.Parking(self.catalog, self.ledger, self.box, {2: profile}, lambda: self.policy)

    def version(self, name: str, state: str = "active", runtime: str = "python"):
        manifest = SimpleNamespace(name=name, version="1.0.0", interface="json", entrypoint="a:run", runtime=runtime)
        record = SimpleNamespace(
            digest=name * 64,
            state=state,
            manifest=manifest,
            plugin_id="plug_1",
            label=f"{name}@1.0.0",
            targets=frozenset({"all", name}),
        )
        self.catalog.there[name] = record
        return record

    async def run(self, record, limits: Limits = LIMITS):
        """As a runner does it: take one, and say that it went well."""
        grant = SimpleNamespace(tier=2, limits=limits, of_one_run=False)
        found = self.parking.take(record, grant)
        if found:
            self.box.waiting.discard(found.name)
        self.parking.ran(record, grant)
        await self.settle()
        return found

    async def settle(self):
        for _ in range(20):
            await asyncio.sleep(0)


async def test_the_first_run_finds_none_and_each_further_one_its_own():
    desk = Desk()
    plugin = desk.version("a")
    assert await desk.run(plugin) is None
    found = [await desk.run(plugin) for _ in range(5)]
    assert len({each.name for each in found}) == 5
    intents = [number for number, each in enumerate(desk.ledger.records) if each.event == "INTENT"]
    assert [each.intent for each in found] == intents[:5]
    assert len(desk.box.waiting) == 1


async def test_a_program_has_nothing_to_import():
    desk = Desk()
    plugin = desk.version("a", runtime="exec")
    assert [await desk.run(plugin) for _ in range(3)] == [None] * 3
    assert (desk.box.parked, desk.ledger.records) == ([], [])


async def test_nothing_is_imported_while_a_crowd_runs(monkeypatch):
    monkeypatch.setattr(parking, "STAND_BACK_S", 0)
    desk = Desk()
    plugin = desk.version("a")
    desk.box.crowd = parking._CPUS + 1
    assert await desk.run(plugin) is None
    assert desk.box.parked == []
    desk.box.crowd = parking._CPUS
    await desk.settle()
    assert len(desk.box.waiting) == 1


async def test_a_version_that_goes_while_a_crowd_runs_is_not_imported(monkeypatch):
    monkeypatch.setattr(parking, "STAND_BACK_S", 0)
    desk = Desk()
    desk.box.crowd = 99
    await desk.run(desk.version("a"))
    await desk.parking.stop()
    assert desk.box.parked == []


async def test_an_environment_that_was_built_anew_has_instances_of_its_own():
    desk = Desk()
    plugin, grant = desk.version("a"), SimpleNamespace(tier=2, limits=LIMITS, of_one_run=False)
    desk.parking.ran(plugin, grant, "old")
    await desk.settle()
    (old,) = desk.box.waiting
    assert desk.parking.take(plugin, grant, "new") is None
    desk.parking.ran(plugin, grant, "new")
    await desk.settle()
    assert desk.box.killed == [old]
    assert desk.parking.take(plugin, grant, "new") is not None
    assert [each.subject.environment for each in desk.ledger.records if each.event == "INTENT"] == ["old", "new"]


async def test_demand_makes_more_of_them_up_to_the_tiers_number_and_quiet_fewer(monkeypatch):
    desk = Desk()
    plugin = desk.version("a")
    grant = SimpleNamespace(tier=2, limits=LIMITS, of_one_run=False)
    await desk.run(plugin)
    for _ in range(4):
        while desk.parking.take(plugin, grant):
            pass
        desk.box.waiting.clear()
        await desk.run(plugin)
    assert len(desk.box.waiting) == 4
    (lot,) = desk.parking._lots.values()
    desk.parking._look_after(lot)
    assert len(desk.box.waiting) == 4, "a pause between two bursts"
    real, quiet_s = time.monotonic, 0.0
    monkeypatch.setattr(parking.time, "monotonic", lambda: real() + quiet_s)
    for left in (3, 2, 1, 1):
        quiet_s += parking.FEWER_S + 1
        desk.parking._look_after(lot)
        assert len(desk.box.waiting) == left


async def test_what_was_run_least_recently_gives_way():
    desk = Desk(parked=2)
    a, b, c = (desk.version(name) for name in "abc")
    for plugin in (a, b, a, c):
        await desk.run(plugin)
    left = {lot.record.label: len(lot.waiting) for lot in desk.parking._lots.values()}
    assert left == {"a@1.0.0": 1, "b@1.0.0": 0, "c@1.0.0": 1}


async def test_memory_bounds_them_too():
    desk = Desk(parked=8, size_bytes=300 * MIB)
    plugin = desk.version("a")
    grant = SimpleNamespace(tier=2, limits=LIMITS, of_one_run=False)
    for _ in range(6):
        while desk.parking.take(plugin, grant):
            pass
        desk.box.waiting.clear()
        await desk.run(plugin)
    assert len(desk.box.waiting) == 1


async def test_other_limits_are_another_kind_but_for_the_wall_clock():
    desk = Desk()
    plugin = desk.version("a")
    await desk.run(plugin)
    assert await desk.run(plugin, Limits(1, *[value for _, value in LIMITS.items()][1:])) is not None
    assert await desk.run(plugin, Limits(5000, 1, 1 << 28, 32, 1 << 22, 1 << 24)) is None


@pytest.mark.parametrize("state", ["approved", "retired"])
async def test_only_active_versions_have_some(state):
    desk = Desk()
    assert [await desk.run(desk.version("a", state)) for _ in range(2)] == [None, None]
    assert desk.box.parked == []


@pytest.mark.parametrize("what", ["policy", "registry"])
async def test_what_decides_anew_ends_them(what):
    desk = Desk()
    plugin = desk.version("a")
    await desk.run(plugin)
    if what == "policy":
        desk.policy = object()
    else:
        desk.catalog.revision += 1
        desk.catalog.there["a"] = None
    assert desk.parking.take(plugin, SimpleNamespace(tier=2, limits=LIMITS, of_one_run=False)) is None
    assert desk.box.waiting == set()


async def test_a_change_of_something_else_leaves_them():
    desk = Desk()
    plugin = desk.version("a")
    await desk.run(plugin)
    desk.catalog.revision += 1
    assert await desk.run(plugin) is not None


async def test_a_kill_names_them_and_waits_for_them():
    desk = Desk()
    plugin, other = desk.version("a"), desk.version("b")
    await desk.run(plugin)
    await desk.run(other)
    for unmet in ("c", "pkg:pypi/c", "tier:1", "plan:p", "caller:0"):
        assert desk.parking.end_matching(unmet, "killed") == []
    names = desk.parking.end_matching("a", "killed")
    assert names == desk.box.killed
    assert len(names) == 1
    assert await desk.parking.wait_gone(names, 1) == []
    assert len(desk.box.waiting) == 1


@pytest.mark.parametrize("target", ["tier:2", "pkg:pypi/numbers"])
async def test_a_kill_of_a_tier_or_of_a_package_ends_them(target):
    desk = Desk()
    plugin, grant = desk.version("a"), SimpleNamespace(tier=2, limits=LIMITS, of_one_run=False)
    desk.parking.ran(plugin, grant, "numbers")
    await desk.settle()
    (waiting,) = desk.box.waiting
    assert desk.parking.end_matching(target, "killed") == [waiting]
    assert desk.box.killed == [waiting]
    assert desk.parking.take(plugin, grant, "numbers") is None


@pytest.mark.parametrize("outcome", sorted(parking.MISBEHAVED))
async def test_an_import_that_misbehaves_holds_its_digest(outcome):
    desk = Desk()
    plugin = desk.version("a")
    desk.box.outcome = outcome
    await desk.run(plugin)
    await asyncio.sleep(0.05)  # the hold is set in a thread
    await desk.run(plugin)
    (hold,) = desk.catalog.set
    assert (hold.kind, hold.target) == ("suspended", f"sha256:{plugin.digest}")
    assert [each.outcome for each in desk.ledger.records if each.event == "OUTCOME"] == [outcome]


async def test_what_writes_or_raises_at_its_import_is_tried_once_and_not_held():
    desk = Desk()
    desk.box.stdout = b"hello"
    assert [await desk.run(desk.version("a")) for _ in range(3)] == [None] * 3
    desk.box.stdout, desk.box.outcome = b"", Outcome.FAILED
    assert [await desk.run(desk.version("b")) for _ in range(3)] == [None] * 3
    assert len(desk.box.parked) == 2
    assert desk.box.waiting == set()
    assert desk.catalog.set == []


async def test_a_machine_that_cannot_freeze_is_asked_once():
    desk = Desk()
    desk.box.error = IsolationUnavailableError("freezer", "no unified hierarchy")
    assert [await desk.run(desk.version(name)) for name in "aabb"] == [None] * 4
    assert len(desk.box.parked) == 1
    assert [each.event for each in desk.ledger.records] == ["INTENT", "OUTCOME"]


async def test_one_that_is_gone_is_not_given_away():
    desk = Desk()
    plugin = desk.version("a")
    await desk.run(plugin)
    desk.box.waiting.clear()
    assert await desk.run(plugin) is None
    assert await desk.run(plugin) is not None


async def test_after_the_stop_there_are_none():
    desk = Desk()
    plugin = desk.version("a")
    await desk.run(plugin)
    await desk.parking.stop()
    assert await desk.run(plugin) is None
    assert desk.box.waiting == set()
    assert isinstance(desk.parking._lots, OrderedDict)
    assert not desk.parking._lots
