"""One run as the front's side of the sandbox sees it: its pipes, its reins, and how it ended."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import json
import os
import secrets
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from plugind.errors import InvalidRequestError, IsolationUnavailableError
from plugind.model import Limits, Mode, NetworkUse, Outcome, PluginError, Usage, Violation, Wanted
from plugind.planfiles import MAX_INDEX_BYTES, OUTPUT_DIR, PLAN_DIR, Entry, unpack
from plugind.sandbox import channel, protocol
from plugind.sandbox.frames import Frames
from plugind.sandbox.inside.runner import HEADER, NONCE_BYTES
from plugind.sandbox.outcome import Verdict, judge, judge_import, judge_session
from plugind.sandbox.pipes import Capture
from plugind.sandbox.samples import Seen
from plugind.sandbox.sealed import mapped, sealed_memfd

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
    runtime: str = "python"
    """Or "exec": the entrypoint is a program."""
    mode: Mode = "run"
    environment: str = ""
    """Digest of its environment's files; empty: the standard library alone."""
    network: tuple[Wanted, ...] = ()
    """Whom it may talk to. Empty: it has no network."""
    files: bytes | None = None
    """The files of a plan that it may read (planfiles.pack); None: it has no plan's folder."""
    write_files: int = 0
    """Files that it may leave in its output folder; 0: it has none."""
    write_bytes: int = 0
    """Size of that folder."""

    def message(self, kind: type[protocol.Start]) -> protocol.Start:
        """What asks the launcher for it."""
        return kind(
            self.run,
            self.digest,
            self.tier,
            self.limits,
            self.environment,
            self.network,
            int(self.files is not None),
            self.write_files,
            self.write_bytes,
        )


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
    network: NetworkUse = field(default_factory=NetworkUse)
    wrote: tuple[Entry, ...] = ()
    """What it left in its output folder; only when it ended by itself."""
    beside: int = 0
    """Other runs that there were at the same time: when it began or when it ended, whichever is more."""


class Running:
    """The pipes of one run and how it ended. `parked`: the import that has waited for it."""

    def __init__(
        self,
        request: InstanceRequest,
        on_started: Callable[[], None],
        kill: Callable[[str, str], None],
        parked: Running | None = None,
    ) -> None:
        self.request = request
        self.name: str = parked.name if parked else request.run
        """What the launcher knows the instance by."""
        self._was_parked = parked is not None
        self.parked: protocol.Parked | None = None
        """What its import used: it waits for a run."""
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
        elif request.mode == "import":
            self._captures = self._captures[1:]
        self.began_s = time.monotonic()
        self.beside = 0
        """See InstanceResult."""
        self._reins = parked.give_reins() if parked else None
        self._cause = ""
        self._wrote = -1
        """A memfd with what it left in its output folder; -1: the launcher has told of none."""
        self.seen: Seen | None = None
        """What it used when that was told last."""

    def begin(self) -> None:
        """Plugin code runs from here on."""
        if not self.begun.done():
            self.begun.set_result(None)
            self._on_started()

    def give_reins(self) -> tuple[int, int] | None:
        """They are another's from here on."""
        reins, self._reins = self._reins, None
        return reins

    def take_reins(self, kill: int, events: int) -> None:
        """Descriptors of its cgroup.kill and cgroup.events: from here on it can be ended without the launcher."""
        self._reins = (kill, events)
        if self._cause:
            self.kill(self._cause)  # it was asked for before there was anything to end

    def kill(self, cause: str, *, dead: bool = False) -> None:
        """SIGKILL to every process of it, where the kernel gives us the means. `dead`: they have had theirs."""
        self._cause = self._cause or cause
        if not dead and self._reins is not None and not self._is_empty(self._reins[1]):
            os.write(self._reins[0], b"1")

    def is_gone(self) -> bool:
        """Whether no process of it is left, by the kernel's word or the launcher's."""
        if self.ended.done():
            return True
        if self._reins is None or not self._is_empty(self._reins[1]) or self.request.network:
            return False  # what is dead may yet have something under way: that its network is cut the launcher says
        # What it used only the launcher knows. But that may stand still, and nobody is to wait for it.
        asyncio.get_running_loop().call_later(LAUNCHER_S, self._end_without_launcher)
        return True

    def _end_without_launcher(self) -> None:
        self.finish(protocol.Ended(self.name, self._cause or "killed", -signal.SIGKILL, 0, 0, 0))

    def _is_empty(self, events: int) -> bool:
        try:
            return b"populated 0" in os.pread(events, 256, 0).splitlines()
        except OSError as error:
            if error.errno == errno.ENODEV:  # the launcher has removed the group, which it can only when it is empty
                return True
            raise

    def open_descriptors(self) -> list[int]:
        """Input memfd, the write ends of the three pipes and the files that it may read, to be sent and closed."""
        files = self.request.files
        return [*self._open_pipes(), *([] if files is None else [sealed_memfd("files", files)])]

    def _open_pipes(self) -> list[int]:
        request = self.request
        kind = {"interface": request.interface, "entrypoint": request.entrypoint, "mode": request.mode}
        kind |= {
            "plan_dir": "" if request.files is None else PLAN_DIR,
            "output_dir": OUTPUT_DIR if request.write_files else "",
        }
        if request.runtime == "exec":
            kind |= {"runtime": "exec", "output_bytes": str(request.limits.output_bytes)}
        head = json.dumps({**request.context, **kind}).encode()
        content = self._nonce + len(head).to_bytes(4, "big") + head + request.input
        opened = [sealed_memfd("input", content)]
        if self.frames is None:  # of an import without the result's: there is none
            return [*opened, *(capture.open() for capture in self._captures)]
        requests, result = self.frames.open()
        return [*opened, result, *(capture.open() for capture in self._captures), requests]

    def take_wrote(self, memfd: int) -> None:
        """What it left in its output folder; looked at when it has ended."""
        if self._wrote >= 0:
            os.close(self._wrote)
        self._wrote = memfd

    def finish(self, message: protocol.Ended | protocol.Refused) -> None:
        """The launcher's last word on this run."""
        if not self.ended.done():
            self.ended.set_result(message)

    def waits(self, message: protocol.Parked) -> None:
        """Its import is over, and it waits."""
        for capture in self._captures:
            capture.drain()
        self.parked = message
        self.begin()

    def import_result(self) -> InstanceResult:
        """How the import of one that waits went."""
        assert self.parked is not None  # noqa: S101 - it waits
        usage = Usage(self.parked.wall_ms, self.parked.cpu_ms, self.parked.memory_peak_bytes)
        stdout, stderr = (bytes(capture.data) for capture in self._captures)
        return InstanceResult(Outcome.OK, "", None, None, stdout, stderr, usage, ())

    async def result(self) -> InstanceResult:
        """What it came to. Raises IsolationUnavailableError, LauncherGoneError."""
        ended = self.ended.result()
        if isinstance(ended, protocol.Refused):
            if not self._cause:
                raise IsolationUnavailableError(ended.step, ended.detail)
            # It was killed while its jail was built: none of its code has run.
            ended = protocol.Ended(self.name, self._cause, -signal.SIGKILL, 0, 0, 0)
        elif self._cause and not ended.cause and ended.exit_code == -signal.SIGKILL:
            ended = dataclasses.replace(ended, cause=self._cause)  # our SIGKILL was faster than our message
        for capture in self._captures:
            capture.drain()
        pending = [capture.end for capture in self._captures if not capture.end.done()]
        # One that was parked ends when it says that it is done: nobody is waited for who still has an end in his hands.
        if pending and not (self._was_parked and not ended.cause and ended.exit_code == 0):
            await asyncio.wait(pending, timeout=2)
        *result, stdout, stderr = (bytes(capture.data) for capture in self._captures)
        verdict = self._verdict(ended, b"".join(result))
        try:
            wrote = await asyncio.to_thread(self._read_wrote) if self._wrote >= 0 else ()
        except InvalidRequestError as error:  # our launcher's word, and yet
            verdict, wrote = Verdict(Outcome.FAULT, f"what it wrote: {error}"), ()
        return InstanceResult(
            outcome=verdict.outcome,
            detail=verdict.detail,
            output_json=verdict.output_json,
            error=verdict.error,
            stdout=stdout,
            stderr=stderr,
            usage=Usage(ended.wall_ms, ended.cpu_ms, ended.memory_peak_bytes),
            violations=verdict.violations,
            network=ended.network,
            wrote=wrote,
            beside=self.beside,
        )

    def _read_wrote(self) -> tuple[Entry, ...]:
        """Raises InvalidRequestError for what is more than there can be."""
        most_files, most_bytes = self.request.write_files, self.request.write_bytes
        if os.fstat(self._wrote).st_size > 4 + MAX_INDEX_BYTES + most_bytes:
            raise InvalidRequestError(f"files: expected at most {most_bytes} bytes and an index, got more")
        # One more than there may be: it says that there are too many (gathering.py).
        with mapped(self._wrote) as content:
            return tuple(unpack(content, most_files + 1, most_bytes)[0])

    def _verdict(self, ended: protocol.Ended, result: bytes) -> Verdict:
        limits = self.request.limits
        if self.request.mode == "import":
            return judge_import(ended, limits)
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

    def close_captures(self) -> None:
        """What is said is not listened to any more."""
        for capture in self._captures:
            capture.close()

    def close(self) -> None:
        """Free the descriptors."""
        if self.frames is not None:
            self.frames.close()
        self.close_captures()
        if self._wrote >= 0:
            os.close(self._wrote)
            self._wrote = -1
        if self._reins is not None:
            channel.close(self._reins)
            self._reins = None
