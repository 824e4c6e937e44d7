"""A runner whose plugin reads and writes files of plans in memory, and a power switch that ends its daemon at any step."""

from __future__ import annotations

import asyncio
import dataclasses
import functools

from plugind.audit import payloads
from plugind.audit.records import Stored
from plugind.audit.segments import records, segments
from plugind.planfiles import Entry, unpack
from plugind.plans.notes import CommitLog
from plugind.plans.recovery import Recovery
from plugind.provenance.evidence import RoleKeys, Trust, TrustedKey
from plugind.provenance.keys import PrivateKey
from tests.support.desk import Desk
from tests.support.fake_launcher import result
from tests.support.plan_folders import FakePlanFolders
from tests.support.plugins import attested

PLAN = "/plans/a"
READS = '[[permissions.file_read]]\npath = "*.json"\n'
WRITES = '[[permissions.file_write]]\npath = "*.json"\n[[permissions.file_write]]\npath = "out/*"\n'


class EndedError(BaseException):
    """The daemon was killed: whatever it does from here on has no effect."""


class Power:
    """Counts the steps of a daemon, and ends it before one of them."""

    def __init__(self, ends_before=-1):
        self.steps = []
        self.ends_before = ends_before
        self.pause = None
        """Called before each step: what else happens there."""

    @property
    def is_off(self):
        return 0 <= self.ends_before < len(self.steps)

    def step(self, name):
        if self.is_off or len(self.steps) == self.ends_before:
            self.steps.append(name)
            raise EndedError(name)
        self.steps.append(name)

    async def folders_step(self, name):
        if self.pause is not None:
            await self.pause(name)
        self.step(name)


class Ledger:
    """A ledger that notes its steps."""

    def __init__(self, inner, power):
        self.inner, self.power = inner, power

    def __getattr__(self, name):
        return getattr(self.inner, name)

    async def append(self, record):
        await self.power.folders_step(f"append {record.event}")
        index = await self.inner.append(record)
        await self.power.folders_step(f"appended {record.event}")
        return index


class Notes(CommitLog):
    """Notes of changes, with their steps."""

    def __init__(self, folder, power):
        super().__init__(folder)
        self.power = power

    def write(self, change):
        self.power.step("note")
        super().write(change)
        self.power.step("noted")

    def remove(self, name):
        self.power.step("forget")
        super().remove(name)
        self.power.step("forgotten")


@functools.cache
def trust():
    """Who signs what may write, and what makes a catalog believe it."""
    publisher, vetter = PrivateKey.generate(), PrivateKey.generate()
    roles = {
        "publisher": RoleKeys((TrustedKey(publisher.public),), 1),
        "vetter": RoleKeys((TrustedKey(vetter.public),), 1),
    }
    return Trust(roles), lambda data: attested(data, publisher, vetter)


class PlanDesk(Desk):
    """A desk with one plugin in Tier 1, which reads *.json and writes *.json and out/*."""

    def __init__(self, folder, power=None, folders=None, extra=READS + WRITES):
        (folder / "plugins").mkdir(parents=True, exist_ok=True)
        self.power = power or Power()
        trusted, self.sign = trust()
        super().__init__(folder, trust=trusted, folders=folders or FakePlanFolders())
        self.folders.step = self.power.folders_step
        self.folders.plans.setdefault(PLAN, {})
        self.policy = dataclasses.replace(self.policy, plan_roots=("/plans",))
        watched = Ledger(self.ledger, self.power)
        self.runner._ledger = self.commits._ledger = watched
        self.commits._notes = Notes(folder / "commits", self.power)
        if not self.catalog.plugins():
            self.install(extra=extra)
        self.sandbox.behaviour = self.behave
        self.writes = {}
        """What a run leaves, by its input; problem and content."""
        self.reads = []

    def install(self, name="echo", version="1.0.0", **named):
        """In Tier 1, with all that it asks for."""
        return super().install(name, version, **{"tier": 1, "permitted": True, "attestations": self.sign} | named)

    async def behave(self, request):
        """A plugin that reads everything it has and leaves what the test says."""
        if request.files is not None:
            entries, _ = unpack(request.files, 10_000, 1 << 30)
            self.reads.append({entry.path: entry.content for entry in entries})
        await asyncio.sleep(0)
        wrote = self.writes.get(request.input.decode(), {})
        left = tuple(each if isinstance(each, Entry) else Entry(path, each) for path, each in wrote.items())
        return dataclasses.replace(result(output=request.input), wrote=left if request.write_files else ())

    async def run(self, payload=1, **fields):
        return await super().run(payload, **{"plan_dir": PLAN, "stage": "report"} | fields)

    def recovery(self):
        return Recovery(self.commits, self.ledger, self.folder / "ledger")

    def records(self, *events):
        """All records that are of these events, or of everything that a run leaves."""
        wanted = events or ("INTENT", "OUTCOME", "DENIED", "COMMITTED", "UNDONE")
        found = [each for path in segments(self.folder / "ledger") for _, each in records(path)]
        return [each for each in found if each["event"] in wanted]

    def content(self, stored):
        """The bytes of a payload, as a record's fields name it."""
        return payloads.read(self.folder / "ledger", Stored(**stored))

    def notes(self):
        return sorted(path.name for path in (self.folder / "commits").iterdir())

    async def close(self):
        await self.ledger.close()
        self.catalog.close()


async def started_again(desk, power=None):
    """The daemon after one that ended: the same state and plans, and everything that was under way brought to its end."""
    await desk.close()
    again = PlanDesk(desk.folder, power, folders=desk.folders)
    await again.recovery().start()
    return again
