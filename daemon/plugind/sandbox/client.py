"""The front's side: one connection to the launcher, any number of runs over it (asyncio)."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from plugind.errors import InvalidRequestError, IsolationUnavailableError, LauncherGoneError
from plugind.model import Caller
from plugind.planfiles import Entry, pack
from plugind.sandbox import channel, codec, protocol
from plugind.sandbox.frames import Frames
from plugind.sandbox.planworks import PlanWorks
from plugind.sandbox.running import HANG_UP_S, InstanceRequest, InstanceResult, Running
from plugind.sandbox.samples import MOST_AGE_S, Samples, Seen
from plugind.sandbox.sealed import sealed_memfd

READY_TIMEOUT_S = 60.0
RECENT_S = 1.0
"""A run that takes longer is taken to wait for something, or to have its share of the CPUs."""


class Talk(Protocol):
    """What is said in a session."""

    def __call__(self, frames: Frames) -> Coroutine[Any, Any, None]:
        """Returns when there is nothing more to say. Canceled when nobody is there any more who could hear it."""


class LauncherClient:
    """Talks to one launcher. When that is gone, `gone` is done and every run in flight raises LauncherGoneError."""

    def __init__(self, sock: socket.socket, imported: Callable[[protocol.Imported], None] = lambda _: None) -> None:
        """`imported` hears of each environment whose packages were imported."""
        self._sock = sock
        self._imported = imported
        self._sock.setblocking(False)
        self._ready: asyncio.Future[protocol.Ready] = asyncio.get_running_loop().create_future()
        self._loads: dict[str, asyncio.Future[str]] = {}
        self._runs: dict[str, Running] = {}
        self._named: dict[str, Running] = {}
        """The same by the names that the launcher knows them by."""
        self._works = PlanWorks()
        self._kill_descriptor = -1
        self._sending = asyncio.Lock()
        self.samples = Samples(lambda message: self._send(message, []))
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

    async def park(self, request: InstanceRequest) -> InstanceResult:
        """Have an instance import its plugin ahead. When that is ok it waits for the `run` with `parked=request.run`.

        Raises IsolationUnavailableError (nothing ran), LauncherGoneError. Cancelling ends the instance first.
        """
        run = Running(request, lambda: None, self.kill)
        self._check_alive()
        self._runs[request.run] = run
        try:
            await self._send_start(request.message(protocol.Park), run)
            either: list[asyncio.Future[Any]] = [run.begun, run.ended]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            return await run.result() if run.ended.done() else run.import_result()
        except BaseException:
            self.kill(request.run, "canceled")
            raise
        finally:
            if run.parked is None or run.ended.done():
                self._forget(run)

    async def plan_work(
        self,
        task: str,
        plan_dir: str,
        caller: Caller,
        facts: Mapping[str, Any],
        entries: Sequence[Entry] = (),
    ) -> tuple[list[Entry], dict[str, Any]]:
        """See plugind.plans.folders.PlanFolders. Cancelling leaves it to the launcher, which ends it at its deadline.

        Raises PlanError, LauncherGoneError.
        """
        self._check_alive()
        with self._works.begin() as work:
            who = (caller.pid, caller.uid, caller.gid, caller.since_ns)
            order = sealed_memfd("plan", pack(entries, facts))
            try:
                await self._send(protocol.PlanWork(work.name, task, plan_dir, *who), [order])
            finally:
                os.close(order)
            return await work.told

    def recent(self) -> int:
        """How many runs there are that began within the last RECENT_S; what imports ahead is none."""
        since = time.monotonic() - RECENT_S
        return sum(run.request.mode != "import" and run.began_s > since for run in self._runs.values())

    def has_long(self) -> bool:
        """Whether there is a run that began before that."""
        since = time.monotonic() - RECENT_S
        return any(run.request.mode != "import" and run.began_s <= since for run in self._runs.values())

    def uses(self) -> Mapping[str, Seen]:
        """What runs use, as it was told last, by the names that they have here. Old news is left out."""
        since = time.monotonic() - MOST_AGE_S
        return {name: run.seen for name, run in self._runs.items() if run.seen and run.seen.at_s > since}

    def is_parked(self, name: str) -> bool:
        """Whether an instance of that name waits for its run."""
        run = self._runs.get(name)
        return run is not None and run.parked is not None

    async def run(
        self,
        request: InstanceRequest,
        on_started: Callable[[], None] = lambda: None,
        talk: Talk | None = None,
        parked: str = "",
    ) -> InstanceResult:
        """One instance from start to end; no process of it runs any more when this returns or raises.

        With `parked` it is the instance that waits under that name; where there is none, that is refused (NOT_PARKED).

        A session is what `talk` says in it: its instance ends when that returns, and ending makes that be canceled.
        Raises IsolationUnavailableError (nothing ran), LauncherGoneError. Cancelling ends the instance first.
        """
        self._check_alive()
        run = Running(request, on_started, self.kill, self._take_parked(parked) if parked else None)
        run.beside = self._others(run)
        self._runs[request.run] = self._named[run.name] = run
        try:
            await self._start(run, parked)
            try:
                if talk is not None and run.frames is not None:
                    await self._talk(talk, run.frames, run)
                await asyncio.shield(run.ended)
            except BaseException:
                self.kill(request.run, "canceled")
                await asyncio.wait([run.ended])
                raise
            run.beside = max(run.beside, self._others(run))
            return await run.result()
        finally:
            self._forget(run)

    def _others(self, run: Running) -> int:
        """Runs that have the CPUs beside it. A session waits for most of its time, and imports ahead stand back."""
        return sum(each.request.mode in ("run", "map") for each in self._runs.values() if each is not run)

    def _take_parked(self, name: str) -> Running:
        if not self.is_parked(name):
            raise IsolationUnavailableError(protocol.NOT_PARKED, "it does not wait any more")
        waiting = self._runs.pop(name)
        waiting.close_captures()
        return waiting

    def _forget(self, run: Running) -> None:
        self._runs.pop(run.request.run, None)
        self._named.pop(run.name, None)
        run.close()

    async def _start(self, run: Running, parked: str) -> None:
        request = run.request
        if parked:
            await self._send_start(protocol.Use(parked, request.limits.wall_ms), run)
            run.begin()  # nothing has to be built: it runs, or is refused
            return
        await self._send_start(request.message(protocol.Start if run.frames is None else protocol.Open), run)

    async def _send_start(self, message: protocol.ToLauncher, run: Running) -> None:
        self._named[run.name] = run
        descriptors = run.open_descriptors()
        try:
            await self._send(message, descriptors)
        finally:
            channel.close(descriptors)

    async def _talk(self, talk: Talk, frames: Frames, run: Running) -> None:
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
        self._send_now(protocol.Kill(known.name, cause))

    def kill_many(self, runs: Collection[str], cause: str) -> None:
        """End several runs; when they are all that there are, with one write for all their groups."""
        known = [self._runs[run] for run in runs if run in self._runs]
        if not known or self.gone.done():
            return
        running = {name for name, run in self._runs.items() if run.request.mode != "import"}
        whole = self._kill_descriptor >= 0 and len(runs) > 1 and set(runs) >= running
        if whole:
            os.write(self._kill_descriptor, b"1")
        for run in known:
            run.kill(cause, dead=whole)
        # Not one message for each: whoever reads them takes the CPUs from those that are dying.
        for first in range(0, len(known), protocol.MOST_KILLED):
            names = tuple(run.name for run in known[first : first + protocol.MOST_KILLED])
            self._send_now(protocol.KillMany(names, cause))

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
                    channel.send(self._sock, codec.encode(message), descriptors)
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
            self._take(codec.decode(data), descriptors)
        except InvalidRequestError as error:
            self._close(f"it sent what this version does not understand: {error}")

    def _take(self, message: protocol.Message, descriptors: list[int]) -> None:
        match message:
            case protocol.Ready():
                self._kill_descriptor = descriptors[0] if descriptors else -1
                self._ready.set_result(message)
            case protocol.Loaded():
                self._loaded(message)
            case protocol.Imported():
                self._imported(message)
            case protocol.Sampled():
                self._sampled(message)
            case protocol.PlanDone() | protocol.PlanFailed():
                self._works.hear(message, descriptors)
            case (
                protocol.Placed()
                | protocol.Parked()
                | protocol.Started()
                | protocol.Refused()
                | protocol.Wrote()
                | protocol.Ended()
            ):
                if run := self._named.get(message.run):
                    self._hear_of(run, message, descriptors)
                else:
                    channel.close(descriptors)

    def _hear_of(self, run: Running, message: protocol.OfARun, descriptors: list[int]) -> None:
        match message:
            case protocol.Placed() if len(descriptors) == message.descriptors:
                run.take_reins(*descriptors)
            case protocol.Wrote() if len(descriptors) == message.descriptors:
                run.take_wrote(*descriptors)
            case protocol.Placed() | protocol.Wrote():
                channel.close(descriptors)
            case protocol.Started():
                if run.request.mode != "import":  # whose beginning is that it waits
                    run.begin()
            case protocol.Parked():
                run.waits(message)
            case protocol.Refused() | protocol.Ended():
                if isinstance(message, protocol.Refused) and message.step == protocol.NOT_LOADED:
                    self._loads.pop(run.request.digest, None)
                run.finish(message)
                if run.parked is not None:
                    self._forget(run)  # it waited, and nobody waits for it

    def _sampled(self, message: protocol.Sampled) -> None:
        for use in message.instances:
            if run := self._named.get(use.run):
                run.seen = Seen(use)
        if self.samples.heard(message):
            self._send_now(protocol.Sample())

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
        self.samples.fail(error)
        self._works.fail(error)
        pending: list[asyncio.Future[Any]] = [self._ready, *self._loads.values()]
        for future in [*pending, *(run.ended for run in self._runs.values())]:
            if not future.done():
                future.set_exception(error)
                future.exception()  # whoever waits gets it; nobody waiting is no reason for a warning
