"""The front's side: one connection to the launcher, any number of runs over it (asyncio)."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import json
import os
import secrets
import signal
import socket
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from plugind.errors import InvalidRequestError, IsolationUnavailableError, LauncherGoneError
from plugind.model import Limits, Mode, Outcome, PluginError, Usage, Violation
from plugind.sandbox import channel, protocol
from plugind.sandbox.frames import Frames
from plugind.sandbox.inside.runner import HEADER, NONCE_BYTES
from plugind.sandbox.outcome import Verdict, judge, judge_session
from plugind.sandbox.pipes import Capture, sealed_memfd

READY_TIMEOUT_S = 60.0
HANG_UP_S = 2.0
"""So long an instance may go on when its session is over."""
LAUNCHER_S = 0.2
"""So long the launcher may take to report a killed instance of which the kernel says that it is gone."""


@dataclass(frozen=True, slots=True)
class InstanceRequest:
    """One run, decided and validated: what the sandbox is to do."""

    run: str
    digest: str
    tier: int
    limits: Limits
    interface: str
    entrypoint: str
    input: bytes
    """JSON text; of a map its batch (inside/batches.py); of a session nothing."""
    context: Mapping[str, str]
    stdio_bytes: int
    mode: Mode = "run"


@dataclass(frozen=True, slots=True)
class InstanceResult:
    """What became of it. output_json are the bytes of the frame, not yet parsed; only when outcome is ok.

    Of a map they are its batch, of a session there are none.
    """

    outcome: Outcome
    detail: str
    output_json: bytes | None
    error: PluginError | None
    stdout: bytes
    stderr: bytes
    usage: Usage
    violations: tuple[Violation, ...]


class Talk(Protocol):
    """What is said in a session."""

    def __call__(self, frames: Frames) -> Coroutine[Any, Any, None]:
        """Returns when there is nothing more to say. Canceled when nobody is there any more who could hear it."""


class LauncherClient:
    """Talks to one launcher. When that is gone, `gone` is done and every run in flight raises LauncherGoneError."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.setblocking(False)
        self._ready: asyncio.Future[protocol.Ready] = asyncio.get_running_loop().create_future()
        self._loads: dict[str, asyncio.Future[str]] = {}
        self._runs: dict[str, _Run] = {}
        self._kill_descriptor = -1
        self._sending = asyncio.Lock()
        self.gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def open(self) -> protocol.Ready:
        """Wait until the templates are up. Raises LauncherGoneError."""
        asyncio.get_running_loop().add_reader(self._sock, self._on_readable)
        try:
            return await asyncio.wait_for(asyncio.shield(self._ready), READY_TIMEOUT_S)
        except TimeoutError as error:
            raise LauncherGoneError(f"the launcher was not ready after {READY_TIMEOUT_S:.0f} s") from error

    async def load(self, digest: str, read: Callable[[], bytes]) -> None:
        """Hand a bundle over, once; `read` gives its bytes. Raises IsolationUnavailableError when it is refused."""
        pending = self._loads.get(digest)
        if pending is None:
            descriptor = sealed_memfd("bundle", read())
            pending = self._loads[digest] = asyncio.get_running_loop().create_future()
            try:
                await self._send(protocol.Load(digest), [descriptor])
            finally:
                os.close(descriptor)
        error = await asyncio.shield(pending)
        if error:
            self._loads.pop(digest, None)
            raise IsolationUnavailableError("load", error)

    async def run(
        self, request: InstanceRequest, on_started: Callable[[], None] = lambda: None, talk: Talk | None = None
    ) -> InstanceResult:
        """One instance from start to end; every process of it is gone when this returns or raises.

        A session is what `talk` says in it: its instance ends when that returns, and ending makes that be canceled.
        Raises IsolationUnavailableError (nothing ran), LauncherGoneError. Cancelling ends the instance first.
        """
        run = _Run(request, on_started, self.kill)
        self._check_alive()
        self._runs[request.run] = run
        try:
            await self._start(run)
            try:
                if talk is not None and run.frames is not None:
                    await self._talk(talk, run.frames, run)
                await asyncio.shield(run.ended)
            except BaseException:
                self.kill(request.run, "canceled")
                await asyncio.wait([run.ended])
                raise
            return await run.result()
        finally:
            self._runs.pop(request.run, None)
            run.close()

    async def _start(self, run: _Run) -> None:
        request = run.request
        descriptors = run.open_descriptors()
        try:
            start = protocol.Start if run.frames is None else protocol.Open
            await self._send(start(request.run, request.digest, request.tier, request.limits), descriptors)
        finally:
            channel.close(descriptors)

    async def _talk(self, talk: Talk, frames: Frames, run: _Run) -> None:
        """Until it is said, or there is nobody to say it to. Canceling this cancels that."""
        begun: list[asyncio.Future[Any]] = [run.begun, run.ended]
        await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED)
        if not run.begun.done():
            return  # nobody will be there
        talking = asyncio.ensure_future(talk(frames))
        either: list[asyncio.Future[Any]] = [talking, run.ended]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            frames.over = talking.done()
            talking.cancel()
            frames.hang_up()
            await asyncio.wait([talking])
        if not talking.cancelled():
            talking.result()
        # It should end now, and by itself. Whether it does is the plugin's to say.
        await asyncio.wait([run.ended], timeout=HANG_UP_S)
        if not run.ended.done():
            frames.lingered = True
            self.kill(run.request.run, "timeout")

    def kill(self, run: str, cause: str) -> None:
        """End one run; cause is canceled, killed, output_limit or timeout. No effect on one that is not there.

        Where the kernel has cgroup.kill its processes are dead when this returns, whatever the launcher does.
        """
        known = self._runs.get(run)
        if known is None or self.gone.done():
            return
        known.kill(cause)
        self._send_now(protocol.Kill(run, cause))

    def kill_many(self, runs: Collection[str], cause: str) -> None:
        """End several runs; when they are all that there are, with one write for all their groups."""
        if self._kill_descriptor >= 0 and set(runs) >= self._runs.keys():
            os.write(self._kill_descriptor, b"1")
        for run in runs:
            self.kill(run, cause)

    def is_gone(self, run: str) -> bool:
        """Whether no process of a run is left: the launcher says so, or the kernel does."""
        known = self._runs.get(run)
        return known is None or known.is_gone()

    def kill_all(self) -> None:
        """End every instance without the launcher's help, where the kernel has cgroup.kill; else through it."""
        if self._kill_descriptor >= 0:
            os.write(self._kill_descriptor, b"1")
        for run in list(self._runs):
            self.kill(run, "killed")

    async def hang_up(self) -> None:
        """Close the connection: the launcher ends every instance, and waits for another front."""
        self._close("hung up")

    async def stop(self) -> None:
        """Ask the launcher to end everything, and wait until it is gone."""
        if not self.gone.done():
            self._send_now(protocol.Stop())
            await asyncio.wait([self.gone], timeout=5)
        self._close("stopped")

    # -- the connection

    def _check_alive(self) -> None:
        if self.gone.done():
            raise LauncherGoneError(f"the launcher is gone: {self.gone.result()}")

    async def _send(self, message: protocol.ToLauncher, descriptors: list[int]) -> None:
        """Send in the order of the calls: no Start may overtake the Kill that was meant for it, nor the other way."""
        async with self._sending:
            while True:
                self._check_alive()
                try:
                    channel.send(self._sock, protocol.encode(message), descriptors)
                    return
                except BlockingIOError:
                    await asyncio.sleep(0.001)  # the launcher is behind by a whole socket buffer
                except OSError as error:
                    self._close(str(error))

    def _send_now(self, message: protocol.ToLauncher) -> None:
        task = asyncio.get_running_loop().create_task(self._send(message, []))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _on_readable(self) -> None:
        try:
            data, descriptors, cut = channel.receive(self._sock, protocol.MAX_MESSAGE_BYTES, 2)
        except BlockingIOError:
            return
        except OSError as error:
            self._close(str(error))
            return
        if not data or cut:
            channel.close(descriptors)
            self._close("it ended" if not data else "it sent a message that is too long")
            return
        try:
            self._take(protocol.decode(data), descriptors)
        except InvalidRequestError as error:
            self._close(f"it sent what this version does not understand: {error}")

    def _take(self, message: protocol.Message, descriptors: list[int]) -> None:
        match message:
            case protocol.Ready():
                self._kill_descriptor = descriptors[0] if descriptors else -1
                self._ready.set_result(message)
            case protocol.Loaded():
                self._loaded(message)
            case protocol.Placed():
                if (run := self._runs.get(message.run)) and len(descriptors) == message.descriptors:
                    run.take_reins(*descriptors)
                else:
                    channel.close(descriptors)
            case protocol.Started():
                if run := self._runs.get(message.run):
                    run.begin()
            case protocol.Refused() | protocol.Ended():
                if run := self._runs.get(message.run):
                    if isinstance(message, protocol.Refused) and message.step == protocol.NOT_LOADED:
                        self._loads.pop(run.request.digest, None)
                    run.finish(message)

    def _loaded(self, message: protocol.Loaded) -> None:
        pending = self._loads.get(message.digest)
        if pending is None:
            return
        if not pending.done():
            pending.set_result(message.error)
        elif message.error:  # evicted since: the next run hands it over again
            del self._loads[message.digest]

    def _close(self, why: str) -> None:
        if self.gone.done():
            return
        self.gone.set_result(why)
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()
        if self._kill_descriptor >= 0:
            os.close(self._kill_descriptor)
            self._kill_descriptor = -1
        error = LauncherGoneError(f"the launcher is gone: {why}")
        pending: list[asyncio.Future[Any]] = [self._ready, *self._loads.values()]
        for future in [*pending, *(run.ended for run in self._runs.values())]:
            if not future.done():
                future.set_exception(error)
                future.exception()  # whoever waits gets it; nobody waiting is no reason for a warning


class _Run:
    """The pipes of one run and how it ended."""

    def __init__(
        self,
        request: InstanceRequest,
        on_started: Callable[[], None],
        kill: Callable[[str, str], None],
    ) -> None:
        self.request = request
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._on_started = on_started
        self.ended: asyncio.Future[protocol.Ended | protocol.Refused] = asyncio.get_running_loop().create_future()
        self._nonce = secrets.token_bytes(NONCE_BYTES)
        overflow = lambda: kill(request.run, "output_limit")  # noqa: E731
        sizes = (request.limits.output_bytes + HEADER.size, request.stdio_bytes, request.stdio_bytes)
        self._captures = [Capture(size, overflow) for size in sizes]
        self.frames: Frames | None = None
        if request.mode == "session":
            self._captures = self._captures[1:]
            self.frames = Frames(self._nonce, request.limits.output_bytes, overflow)
        self._reins: tuple[int, int] | None = None
        self._cause = ""

    def begin(self) -> None:
        """Plugin code runs from here on."""
        if not self.begun.done():
            self.begun.set_result(None)
            self._on_started()

    def take_reins(self, kill: int, events: int) -> None:
        """Descriptors of its cgroup.kill and cgroup.events: from here on it can be ended without the launcher."""
        self._reins = (kill, events)
        if self._cause:
            self.kill(self._cause)  # it was asked for before there was anything to end

    def kill(self, cause: str) -> None:
        """SIGKILL to every process of it, where the kernel gives us the means."""
        self._cause = self._cause or cause
        if self._reins is not None and not self._is_empty(self._reins[1]):
            os.write(self._reins[0], b"1")

    def is_gone(self) -> bool:
        """Whether no process of it is left, by the kernel's word or the launcher's."""
        if self.ended.done():
            return True
        if self._reins is None or not self._is_empty(self._reins[1]):
            return False
        # What it used only the launcher knows. But that may stand still, and nobody is to wait for it.
        asyncio.get_running_loop().call_later(LAUNCHER_S, self._end_without_launcher)
        return True

    def _end_without_launcher(self) -> None:
        self.finish(protocol.Ended(self.request.run, self._cause or "killed", -signal.SIGKILL, 0, 0, 0))

    def _is_empty(self, events: int) -> bool:
        try:
            return b"populated 0" in os.pread(events, 256, 0).splitlines()
        except OSError as error:
            if error.errno == errno.ENODEV:  # the launcher has removed the group, which it can only when it is empty
                return True
            raise

    def open_descriptors(self) -> list[int]:
        """Input memfd and the write ends of the three pipes, to be sent and closed."""
        request = self.request
        kind = {"interface": request.interface, "entrypoint": request.entrypoint, "mode": request.mode}
        head = json.dumps({**request.context, **kind}).encode()
        content = self._nonce + len(head).to_bytes(4, "big") + head + request.input
        opened = [sealed_memfd("input", content)]
        if self.frames is None:
            return [*opened, *(capture.open() for capture in self._captures)]
        requests, result = self.frames.open()
        return [*opened, result, *(capture.open() for capture in self._captures), requests]

    def finish(self, message: protocol.Ended | protocol.Refused) -> None:
        """The launcher's last word on this run."""
        if not self.ended.done():
            self.ended.set_result(message)

    async def result(self) -> InstanceResult:
        """What it came to. Raises IsolationUnavailableError, LauncherGoneError."""
        ended = self.ended.result()
        if isinstance(ended, protocol.Refused):
            if not self._cause:
                raise IsolationUnavailableError(ended.step, ended.detail)
            # It was killed while its jail was built: none of its code has run.
            ended = protocol.Ended(self.request.run, self._cause, -signal.SIGKILL, 0, 0, 0)
        elif self._cause and not ended.cause and ended.exit_code == -signal.SIGKILL:
            ended = dataclasses.replace(ended, cause=self._cause)  # our SIGKILL was faster than our message
        await asyncio.wait([capture.end for capture in self._captures], timeout=2)
        *result, stdout, stderr = (bytes(capture.data) for capture in self._captures)
        verdict = self._verdict(ended, b"".join(result))
        return InstanceResult(
            outcome=verdict.outcome,
            detail=verdict.detail,
            output_json=verdict.output_json,
            error=verdict.error,
            stdout=stdout,
            stderr=stderr,
            usage=Usage(ended.wall_ms, ended.cpu_ms, ended.memory_peak_bytes),
            violations=verdict.violations,
        )

    def _verdict(self, ended: protocol.Ended, result: bytes) -> Verdict:
        limits = self.request.limits
        names = (
            f"result of more than {limits.output_bytes}",
            *(f"{name} of more than {self.request.stdio_bytes}" for name in ("standard output", "standard error")),
        )
        for capture, name in zip((self.frames or self._captures[0], *self._captures[-2:]), names, strict=True):
            # Also when it ended by itself before the kill came: what was cut off is not a result.
            if capture.overflown and ended.cause in ("", "output_limit"):
                return Verdict(Outcome.OUTPUT_LIMIT, f"output: {name} bytes")
        if self.frames is not None:
            frames = self.frames
            verdict = judge_session(ended, frames.problem, frames.unanswered, frames.over, limits)
            if frames.lingered and verdict.outcome is Outcome.TIMEOUT:
                detail = f"wall clock: more than {HANG_UP_S:.0f} s after its session was over"
                return dataclasses.replace(verdict, detail=detail)
            return verdict
        return judge(ended, result, self._nonce, limits)

    def close(self) -> None:
        """Free the descriptors."""
        if self.frames is not None:
            self.frames.close()
        for capture in self._captures:
            capture.close()
        if self._reins is not None:
            channel.close(self._reins)
            self._reins = None
