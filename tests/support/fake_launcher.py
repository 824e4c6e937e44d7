"""A sandbox that runs nothing: it does what the test tells it, and keeps what it was asked."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

from plugind.errors import IsolationUnavailableError
from plugind.model import Outcome, Usage
from plugind.sandbox.client import Talk
from plugind.sandbox.running import InstanceRequest, InstanceResult

Behaviour = Callable[[InstanceRequest], Awaitable[InstanceResult]]


def result(outcome=Outcome.OK, output=b"{}", detail="", stdout=b"", stderr=b"", error=None, violations=()):
    output_json = output if outcome is Outcome.OK else None
    return InstanceResult(outcome, detail, output_json, error, stdout, stderr, Usage(3, 2, 1), tuple(violations))


async def echo(request: InstanceRequest) -> InstanceResult:
    return result(output=request.input)


async def forever(request: InstanceRequest) -> InstanceResult:
    await asyncio.Event().wait()
    raise AssertionError


class Echo:
    """Frames of an instance that gives back what it gets; a test may say what it gives instead, in their order."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.instead: list[tuple[bytes, bytes]] = []
        self.hangs = False

    def ask(self, text: bytes) -> asyncio.Future[tuple[bytes, bytes]]:
        self.asked.append(text)
        answer = asyncio.get_running_loop().create_future()
        if not self.hangs:
            answer.set_result(self.instead.pop(0) if self.instead else (b"V", text))
        return answer


class FakeLauncher:
    """The Sandbox protocol of plugind.run, with `gone`, `stop` and `kill_all` as the front needs them."""

    def __init__(self, behaviour: Behaviour = echo) -> None:
        self.behaviour = behaviour
        self.loads: list[str] = []
        self.requests: list[InstanceRequest] = []
        self.kills: list[tuple[str, str]] = []
        self.frames = Echo()
        """What sessions talk with."""
        self.running = 0
        self._have: set[str] = set()
        self._evicted = False
        self._killed: dict[str, asyncio.Future[str]] = {}

    async def load(self, digest: str, read: Callable[[], bytes]) -> None:
        if digest not in self._have:
            assert hashlib.sha256(read()).hexdigest() == digest
            self.loads.append(digest)
            self._have.add(digest)

    def evict(self) -> None:
        """The next run finds its bundle gone."""
        self._evicted = True

    async def run(
        self,
        request: InstanceRequest,
        on_started: Callable[[], None] = lambda: None,
        talk: Talk | None = None,
        parked: str = "",
    ) -> InstanceResult:
        self.requests.append(request)
        if self._evicted:
            self._evicted = False
            self._have.discard(request.digest)
            raise IsolationUnavailableError("not_loaded", f"digest {request.digest} was not loaded")
        killed = self._killed[request.run] = asyncio.get_running_loop().create_future()
        self.running += 1
        on_started()
        work = asyncio.ensure_future(self._talked(talk) if talk else self.behaviour(request))
        try:
            await asyncio.wait([work, killed], return_when=asyncio.FIRST_COMPLETED)
            if killed.done():
                return result(Outcome(killed.result()), detail=f"{killed.result()} by the test")
            return work.result()
        finally:
            work.cancel()
            self.running -= 1
            del self._killed[request.run]

    async def _talked(self, talk: Talk) -> InstanceResult:
        await talk(self.frames)
        return result(output=b"")

    def kill_many(self, runs, cause):
        for run in runs:
            self.kill(run, cause)

    def is_gone(self, run: str) -> bool:
        return True

    def kill(self, run: str, cause: str) -> None:
        self.kills.append((run, cause))
        if run in self._killed and not self._killed[run].done():
            self._killed[run].set_result(cause)
