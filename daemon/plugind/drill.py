"""A drill: a harmless hostile plugin against this daemon, timed, and everything of it taken away again.

It goes the way of any plugin: handed in, approved, active, run. Nobody but the daemon made its bytes, so in the place
of a person stands the policy's uid, and the reason names who asked for the drill.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from plugind.admission import InFlight
from plugind.answers import RunAnswer, RunRequest
from plugind.catalog import Catalog
from plugind.errors import ConflictError, NotFoundError, PlugindError
from plugind.governance.incidents import Incidents
from plugind.model import DRILL, POLICY_UID, Caller, Code, MonitorMode, Outcome, PluginVersion
from plugind.provenance import bundle
from plugind.provenance.ustar import Member
from plugind.registry import approvals
from plugind.run import Runner

NAME: Final = DRILL
PATIENCE_S: Final = 5.0
"""Longest wait for the quarantine."""
_NOTE_S: Final = 1.0
"""Longest wait for the incident once the hold is there."""
_GONE_S: Final = 2.0
_LOOK_S: Final = 0.001
_CALLER: Final = Caller(POLICY_UID, POLICY_UID, 0, frozenset({"caller"}))
_TOML: Final = """\
schema = 1
name = "{name}"
version = "{version}"
summary = "Makes one call that no plugin may make; what a drill runs"
license = "MIT"
origin = "authored"
runtime = "python"
requires_python = ">=3.11"
environment = "base"
interface = "json"
entrypoint = "{name}:run"
stages = ["*"]
deterministic = true
[limits]
wall_ms = 3000
cpu_ms = 1000
[schemas]
input = "schemas/input.json"
output = "schemas/output.json"
"""
# unshare(2) without flags changes nothing, even where it is let through.
_CODE: Final = b'''\
"""HOSTILE, and harmless: makes a system call that no plugin may make, with arguments that ask for nothing."""

import ctypes
import time


def run(payload, context):
    """Should be ended within the first line."""
    ctypes.CDLL(None).unshare(0)
    time.sleep(30)
    return payload
'''

Release = Callable[[str, str], Awaitable[None]]
"""Takes the quarantine of a digest away, for this reason, without anybody's vote. Raises PlugindError."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step that is over."""

    name: str
    """submitted, started, detected, contained, quarantined, denied or cleaned."""
    ok: bool
    text: str
    after_us: int = 0
    """Since the hostile act began; 0: it is before that."""


Tell = Callable[[Step], None]


class Drill:
    """One drill at a time. A drill goes to its end, and cleans up, whether or not somebody waits for its steps."""

    def __init__(
        self,
        catalog: Catalog,
        runner: Runner,
        incidents: Incidents,
        release: Release,
        mode: Callable[[], MonitorMode],
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`mode`: of the monitor in Tier 2, where the drill's plugin runs."""
        self._catalog = catalog
        self._runner = runner
        self._incidents = incidents
        self._release = release
        self._mode = mode
        self._patience_s = patience_s
        self._second = 0
        self._task: asyncio.Task[None] | None = None

    async def steps(self, reason: str, by_uid: int) -> AsyncIterator[Step]:
        """Each step when it is over. Raises ConflictError: another drill is under way, or the name is somebody's."""
        if self._task is not None and not self._task.done():
            raise ConflictError("drill: expected none under way, got one; wait for its end and try again")
        told: asyncio.Queue[Step | None] = asyncio.Queue()
        task = self._task = asyncio.create_task(self._drill(f"drill by uid {by_uid}: {reason}", told.put_nowait))
        task.add_done_callback(lambda _: told.put_nowait(None))
        while (step := await told.get()) is not None:
            yield step
        task.result()

    async def stop(self) -> None:
        """End the drill that is under way, if there is one, and wait until it has cleaned up."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    async def sweep(self) -> None:
        """Clean up after drills that were cut off: call it when the daemon starts. Raises PlugindError."""
        for record in await asyncio.to_thread(self._left_behind):
            await self._clean(record, "drill: it was cut off")

    # -- the steps

    async def _drill(self, why: str, tell: Tell) -> None:
        await asyncio.to_thread(self._check_name)
        await self.sweep()
        record = await self._submit(tell)
        if record is None:
            return
        try:
            await asyncio.to_thread(self._activate, record, why)
            tell(Step("submitted", True, f"{record.label} is active in Tier 2, sha256 {record.digest}"))
            await self._attack(record, tell)
        except PlugindError as error:
            tell(Step("submitted", False, str(error)))
        finally:
            tell(await self._clean(record, why))

    async def _submit(self, tell: Tell) -> PluginVersion | None:
        self._second = max(self._second + 1, int(time.time()))
        data = bundle_of(version_at(self._second))
        try:
            return await asyncio.to_thread(self._catalog.submit, data, b"", (), by_uid=POLICY_UID)
        except PlugindError as error:
            tell(Step("submitted", False, str(error)))
            return None

    def _activate(self, record: PluginVersion, why: str) -> None:
        version, now_ms = record.manifest.version, time.time_ns() // 1_000_000
        approval = approvals.as_declared(record.manifest, tier=2, by_uid=POLICY_UID, at_unix_ms=now_ms, reason=why)
        self._catalog.approve(NAME, version, approval, approvers=1)
        self._catalog.activate(NAME, version, by_uid=POLICY_UID, why=why)

    async def _attack(self, record: PluginVersion, tell: Tell) -> None:
        answer, flight = await self._run(record)
        known_ns = time.perf_counter_ns()
        began_ns = flight.began_ns if flight else 0
        if not began_ns:
            tell(Step("started", False, f"its run never started: {_reasons(answer) or answer.detail}"))
            return
        tell(Step("started", True, f"{answer.run_id} makes the call ({answer.governance.audit_log})"))

        def since_us(now_ns: int) -> int:
            return max((now_ns - began_ns) // 1000, 1)

        detail = f"the run ended as {answer.outcome}: {answer.detail}".removesuffix(": ")
        tell(Step("detected", answer.outcome is Outcome.VIOLATION, detail, since_us(known_ns)))
        left = await self._runner.flights.wait_gone([answer.run_id], _GONE_S)
        gone = "a process of it may be left" if left else "no process of it is left"
        tell(Step("contained", not left, gone, since_us(time.perf_counter_ns())))
        held, held_ns = await self._quarantined(record)
        tell(Step("quarantined", held.ok, held.text, since_us(held_ns)))
        if not self._is_held(record):
            return
        again, _ = await self._run(record)
        denied = any(reason.code is Code.QUARANTINED for reason in again.reasons)
        text = f"another run: {_reasons(again) or f'started, and ended as {again.outcome}'}"
        tell(Step("denied", denied, text, since_us(time.perf_counter_ns())))

    async def _run(self, record: PluginVersion) -> tuple[RunAnswer, InFlight | None]:
        """As anybody's run."""
        run_id = f"drill-{time.time_ns():x}"
        request = RunRequest(_CALLER, NAME, record.manifest.version, b"{}", run_id=run_id)
        run = asyncio.ensure_future(self._runner.run(request))
        await asyncio.sleep(0)  # it has entered its flight then
        flight = next((each for each in self._runner.flights.visible(None) if each.run_id == run_id), None)
        try:
            return await run, flight
        finally:
            run.cancel()

    async def _quarantined(self, record: PluginVersion) -> tuple[Step, int]:
        """How it came to be held, and when (time.perf_counter_ns())."""
        if self._mode() == "observe" and not self._is_held(record):
            text = 'the monitor only observes: [monitor] mode = "observe" in the profile of Tier 2; nothing is held'
            return Step("quarantined", False, text), time.perf_counter_ns()
        held = await _until(lambda: self._is_held(record), self._patience_s)
        held_ns = time.perf_counter_ns()
        if not held:
            text = f"no quarantine of its digest within {self._patience_s:g} s: the monitor does not do its work"
            return Step("quarantined", False, text), held_ns
        until = time.monotonic() + _NOTE_S
        while (incident := await asyncio.to_thread(self._incidents.open_for, record.digest)) is None:
            if time.monotonic() > until:
                return Step("quarantined", False, "its digest is held, but no incident was opened"), held_ns
            await asyncio.sleep(_LOOK_S)
        return Step("quarantined", True, f"its digest is held; {incident.id} is open"), held_ns

    def _is_held(self, record: PluginVersion) -> bool:
        return any(hold.kind == "quarantined" for hold in self._catalog.holds.on(record.targets))

    # -- before and after

    def _versions(self) -> tuple[PluginVersion, ...]:
        try:
            return self._catalog.plugin(NAME).versions
        except NotFoundError:
            return ()

    def _check_name(self) -> None:
        strangers = [each for each in self._versions() if each.submitted_by_uid != POLICY_UID]
        if strangers:
            raise ConflictError(
                f"drill: expected the name {NAME} to be the daemon's own, got {strangers[0].label}, which uid"
                f" {strangers[0].submitted_by_uid} submitted; nothing was run"
            )

    def _left_behind(self) -> list[PluginVersion]:
        return [
            each
            for each in self._versions()
            if each.submitted_by_uid == POLICY_UID
            and (each.approval or self._is_held(each) or self._incidents.open_for(each.digest))
        ]

    async def _clean(self, record: PluginVersion, why: str) -> Step:
        """Reject it first: whatever fails then, nothing of it can run."""
        problems = []
        did = ["rejected"]
        try:
            await asyncio.to_thread(self._catalog.reject, NAME, record.manifest.version, by_uid=POLICY_UID, why=why)
            if self._is_held(record):
                await self._release(record.digest, why)
                did.append("released from quarantine")
        except PlugindError as error:
            problems.append(str(error))
        try:
            did += await asyncio.to_thread(self._close, record, why)
        except PlugindError as error:
            problems.append(str(error))
        if problems:
            return Step("cleaned", False, f"something of {record.label} is left: {'; '.join(problems)}")
        return Step("cleaned", True, f"{record.label}: {', '.join(did)}")

    def _close(self, record: PluginVersion, why: str) -> list[str]:
        incident = self._incidents.open_for(record.digest)
        if incident is None:
            return []
        self._incidents.close(incident.id, POLICY_UID, why, time.time_ns() // 1_000_000)
        return [f"{incident.id} closed"]


def version_at(unix_s: int) -> str:
    """A drill's version: the days since the epoch and the seconds of the day, "0.20786.65703"."""
    days, seconds = divmod(unix_s, 24 * 3600)
    return f"0.{days}.{seconds}"


def bundle_of(version: str) -> bytes:
    """The drill's plugin."""
    files = {
        "plugin.toml": _TOML.format(name=NAME, version=version).encode(),
        f"{NAME}.py": _CODE,
        "schemas/input.json": b'{"type": "object"}\n',
        "schemas/output.json": b'{"type": "object"}\n',
    }
    return bundle.pack([Member(name, data) for name, data in files.items()], NAME)


def _reasons(answer: RunAnswer) -> str:
    return "; ".join(f"{reason.code} ({reason.rule}): {reason.actual}" for reason in answer.reasons)


async def _until(condition: Callable[[], bool], patience_s: float) -> bool:
    """Whether it comes true in time: others put holds in force and tell nobody here."""
    deadline = time.monotonic() + patience_s
    while not (met := condition()) and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_S)
    return met
