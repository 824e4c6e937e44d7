"""Runs that write into plans in memory, with a real ledger and the real way in which files come into plans."""

from __future__ import annotations

from plugind.audit.ledger import Ledger
from plugind.audit.planhistory import writes_about
from plugind.audit.records import Ended, Intent, PlanChange, PlanFile, Stored, Subject
from plugind.audit.segments import SEGMENT_BYTES
from plugind.model import Caller, Limits
from plugind.planfiles import Entry
from plugind.plans.commits import Commits
from plugind.plans.notes import Change, CommitLog, name_of
from plugind.plans.recovery import Recovery
from plugind.plans.turns import PlanTurns
from plugind.plans.undo import Undo, Wish
from tests.support.plan_folders import FakePlanFolders, nothing

UID = 1000
PLAN = "/plans/a"


class Plans:
    """Plans, a ledger, and who writes to them."""

    def __init__(self, folder, segment_bytes=SEGMENT_BYTES, folders=None):
        """`folders`: those that are there already, after the end of an earlier daemon."""
        (folder / "commits").mkdir(parents=True, exist_ok=True)
        (folder / "ledger").mkdir(exist_ok=True)
        self.directory = folder / "ledger"
        self.ledger, _ = Ledger.open(self.directory, "dev", segment_bytes)
        self.folders = folders or FakePlanFolders()
        self.commits = Commits(self.folders, self.ledger, CommitLog(folder / "commits"), PlanTurns())
        self.undo = Undo(self.ledger, self.directory, self.folders, self.commits)
        self.folders.plans.setdefault(PLAN, {})

    async def again(self, folder):
        """The next daemon, which has brought to its end what this one left."""
        self.folders.step = nothing
        made = Plans(folder, folders=self.folders)
        await Recovery(made.commits, made.ledger, made.directory).start()
        return made

    def subject(self, plan_dir, version, plugin):
        plan_id = plan_dir.rpartition("/")[2] or "none"
        return Subject(
            run=f"r{self.ledger.size}", caller_uid=UID, plugin_id=f"plug_{plugin}", plugin=plugin, version=version,
            digest="ab" * 32, tier=2, stage="durations", plan_id=plan_id, sensitivity="internal",
        )  # fmt: skip

    async def run(
        self, files, plan_dir=PLAN, version="1.0.0", plugin="demo", outcome="ok", reads=(), settle=True, sent=False
    ):
        """A run that leaves these files; the index of its INTENT. `sent`: its caller sent files and gets them back."""
        subject = self.subject(plan_dir, version, plugin)
        there = self.folders.contents(plan_dir) if plan_dir else {}
        read = tuple(PlanFile(path, self.ledger.keep_file(there[path])) for path in reads)
        told = "" if sent else plan_dir
        intent = await self.ledger.append(Intent(subject, (), Limits(), plan_dir=told, files=read))
        if not files or sent or outcome != "ok":
            changes = tuple(PlanChange(path, self.ledger.keep_file(data), Stored()) for path, data in files.items())
            await self.ledger.append(Ended(intent, subject, outcome, plan_dir=told, files=changes))
            return intent
        await self._write(intent, subject, files, plan_dir, settle)
        return intent

    async def _write(self, intent, subject, files, plan_dir, settle):
        caller = Caller(UID, UID, 5)
        change = Change(
            name_of(intent), intent, intent, False, subject.run, plan_dir, subject.plan_id, UID, UID,
            subject.plugin_id, subject.plugin, subject.version,
        )  # fmt: skip
        marks = self.folders.plans[plan_dir]
        entries = [Entry(path, data, marks[path].mark if path in marks else "") for path, data in files.items()]
        found = await self.commits.stage(change, caller, entries)
        changes = tuple(
            PlanChange(path, self.ledger.keep_file(data), self._kept(found[path].content))
            for path, data in files.items()
        )
        await self.ledger.append(Ended(intent, subject, "ok", plan_dir=plan_dir, files=changes))
        if settle:
            assert (await self.commits.settle(change, intent, changes, caller)).state == "committed"

    def _kept(self, content):
        return Stored() if content is None else self.ledger.keep_file(content)

    async def restore(self, index, **wish):
        return await self.undo.one(index, Wish(0, "it was wrong", **wish))

    async def restore_all(self, version="", since_unix_ms=1, plugin="demo", **wish):
        return await self.undo.all_of(plugin, version, since_unix_ms, Wish(0, "it was wrong", **wish))

    def write(self, path, content, plan_dir=PLAN, problem=""):
        self.folders.write(plan_dir, path, content, problem)

    def remove(self, path, plan_dir=PLAN):
        del self.folders.plans[plan_dir][path]

    def contents(self, plan_dir=PLAN):
        return self.folders.contents(plan_dir)

    def writes(self, index):
        return writes_about(self.directory, index, self.ledger.size)
