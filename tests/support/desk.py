"""A runner with everything around it but a jail: a real catalog and ledger, a sandbox that does what the test says."""

from __future__ import annotations

import asyncio
import json

from plugind.answers import RunRequest
from plugind.audit import segments
from plugind.audit.ledger import Ledger
from plugind.audit.segments import records
from plugind.catalog import Catalog
from plugind.environments.shelf import Shelf
from plugind.governance.killswitch import KillSwitch
from plugind.model import Hold
from plugind.planruns import PlanRuns
from plugind.plans.commits import Commits
from plugind.plans.notes import CommitLog
from plugind.plans.turns import PlanTurns
from plugind.policyfile import load_policy, shipped_policy
from plugind.profiles import load_profiles, profiles_dir
from plugind.provenance.evidence import Trust
from plugind.registry.database import Registry
from plugind.registry.store import Store
from plugind.run import Runner
from tests.support.fake_launcher import FakeLauncher
from tests.support.plan_folders import FakePlanFolders
from tests.support.plugins import CALLER, approval, built

PROFILES = load_profiles(profiles_dir())


class Desk:
    """A runner with everything around it."""

    def __init__(self, folder, environments=None, trust=None, folders=None):
        """`environments`: in the place of a shelf, as the catalog asks it; `folders`: of plans."""
        self.folder = folder
        (folder / "ledger").mkdir(exist_ok=True)
        self.sandbox = FakeLauncher()
        self.policy = load_policy(shipped_policy(), PROFILES)
        self.ledger, self.tail = Ledger.open(folder / "ledger", "dev")
        self.registry = Registry(folder / "registry.db", lambda change: None, print)
        self.shelf = Shelf(folder / "environments")
        store = Store(folder / "store")
        environments = environments or self.shelf
        self.catalog = Catalog(self.registry, store, trust=trust or Trust(), environments=environments)
        parts = (self.catalog, self.ledger, self.sandbox, PROFILES)
        (folder / "commits").mkdir(exist_ok=True)
        self.folders = folders or FakePlanFolders()
        self.commits = Commits(self.folders, self.ledger, CommitLog(folder / "commits"), PlanTurns())
        self.plans = PlanRuns(self.folders, self.commits, self.ledger, PROFILES, lambda: self.policy)
        self.runner = Runner(*parts, lambda: self.policy, environments.in_force, self.plans)
        self.kills = KillSwitch(self.catalog.holds.set, self.runner.flights, announce=self.catalog.holds.announce)

    def install(self, name="echo", version="1.0.0", attestations=lambda data: b"", tier=2, permitted=False, **named):
        """`permitted`: whether everything is approved that it asks for."""
        data = built(self.folder / "plugins", name, version, **named)
        self.catalog.submit(data, attestations(data), [], by_uid=1)
        stages = named.get("stages", ("*",))
        approved = self.catalog.find(name, version).record.manifest.permissions if permitted else ()
        self.catalog.approve(name, version, approval(tier, stages, approved), approvers=1)
        return self.catalog.activate(name, version, by_uid=1)

    async def run(self, payload=1, **fields):
        given = {"caller": CALLER, "plugin": "echo", "version": "", "input": json.dumps(payload).encode()}
        return await self.runner.run(RunRequest(**(given | fields)))

    async def kill(self, target="echo"):
        return await self.kills.kill(Hold("killed", target, "test", 1, 1))

    def events(self):
        return [
            record
            for path in segments.segments(self.folder / "ledger")
            for _, record in records(path)
            if record["event"] in ("INTENT", "OUTCOME", "DENIED")
        ]


def codes(answer):
    return [str(reason.code) for reason in answer.reasons]


async def until(condition, seconds=5):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)
