"""The front's link to the launcher: one connection at a time, made again when it is lost.

Without a connection nothing runs (ISOLATION_UNAVAILABLE), and everything else goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from plugind.errors import IsolationUnavailableError, LauncherGoneError
from plugind.model import Caller
from plugind.planfiles import Entry
from plugind.sandbox.client import LauncherClient, Talk
from plugind.sandbox.protocol import Imported, ParkedUse, ProcessUse, Ready
from plugind.sandbox.running import InstanceRequest, InstanceResult
from plugind.sandbox.samples import Seen

RETRY_S: Final = 0.2
"""Until the first new attempt, and twice as long until each further one, up to:"""
MOST_RETRY_S: Final = 2.0

Connect = Callable[[], Awaitable[socket.socket]]


class Link:
    """What a runner needs of the launcher, whichever connection there is.

    `told` hears of each change, in words; `imported` of each environment whose packages were imported.
    """

    def __init__(
        self, connect: Connect, told: Callable[[str], None], imported: Callable[[Imported], None] = lambda _: None
    ) -> None:
        self._connect = connect
        self._told = told
        self._imported = imported
        self._client: LauncherClient | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._met = asyncio.Event()
        self.ready: Ready | None = None
        """What the launcher said when it was connected last."""
        self.problem = "not connected yet"
        """Why nothing can run; empty while the launcher is there."""

    async def open(self) -> None:
        """Connect once. Raises LauncherGoneError, OSError."""
        client = LauncherClient(await self._connect(), self._imported)
        try:
            self.ready = await client.open()
        except LauncherGoneError:
            await client.hang_up()  # a launcher that is merely slow would go on serving this connection
            raise
        self._client, self.problem = client, ""
        self._met.set()

    async def keep(self, patience_s: float) -> None:
        """Connect again and again, as often as the connection is lost. Waits so long for the first one."""
        self._keeper = asyncio.get_running_loop().create_task(self._keep())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._met.wait(), patience_s)

    async def _keep(self) -> None:
        # A launcher that cannot start would else be started five times a second, and systemd would close its socket.
        retry_s = RETRY_S
        while True:
            try:
                if self._client is None:
                    await self.open()
                    self._told("the launcher is there")
                    retry_s = RETRY_S
                await asyncio.shield(self.gone)
                self._told(f"the launcher is gone ({self.gone.result()}); nothing runs until it is back")
                self.problem = f"the launcher is gone: {self.gone.result()}"
            except (LauncherGoneError, OSError) as error:
                if self.problem != str(error):
                    self.problem = str(error)
                    self._told(f"no launcher: {error}")
            self._client = None
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, MOST_RETRY_S)

    @property
    def gone(self) -> asyncio.Future[str]:
        """Done when the present connection is lost: why. Raises LauncherGoneError where there is none."""
        if self._client is None:
            raise LauncherGoneError(self.problem)
        return self._client.gone

    async def stop(self, *, end_launcher: bool) -> None:
        """End the connection, and with `end_launcher` the launcher, every instance with it."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        if self._client is not None:
            await (self._client.stop() if end_launcher else self._client.hang_up())

    # -- what a runner needs

    async def load(self, digest: str, read: Callable[[], bytes]) -> None:
        """See LauncherClient. Raises IsolationUnavailableError too where there is no launcher."""
        await self._there().load(digest, read)

    async def run(
        self,
        request: InstanceRequest,
        on_started: Callable[[], None] = lambda: None,
        talk: Talk | None = None,
        parked: str = "",
    ) -> InstanceResult:
        """See LauncherClient. Raises IsolationUnavailableError too where there is no launcher."""
        return await self._there().run(request, on_started, talk, parked)

    async def park(self, request: InstanceRequest) -> InstanceResult:
        """See LauncherClient. Raises IsolationUnavailableError too where there is no launcher."""
        return await self._there().park(request)

    async def plan_work(
        self,
        task: str,
        plan_dir: str,
        caller: Caller,
        facts: Mapping[str, Any],
        entries: Sequence[Entry] = (),
    ) -> tuple[list[Entry], dict[str, Any]]:
        """See LauncherClient. Raises IsolationUnavailableError too where there is no launcher."""
        return await self._there().plan_work(task, plan_dir, caller, facts, entries)

    def recent(self) -> int:
        """How many runs there are that began of late."""
        return self._client.recent() if self._client is not None else 0

    def is_parked(self, name: str) -> bool:
        """Whether an instance waits."""
        return self._client is not None and self._client.is_parked(name)

    def kill(self, run: str, cause: str) -> None:
        """End a run. Without a launcher there is none."""
        if self._client is not None:
            self._client.kill(run, cause)

    def kill_many(self, runs: Collection[str], cause: str) -> None:
        """End several runs."""
        if self._client is not None:
            self._client.kill_many(runs, cause)

    def kill_all(self) -> None:
        """End all runs."""
        if self._client is not None:
            self._client.kill_all()

    def is_gone(self, run: str) -> bool:
        """Whether no process of a run is left."""
        return self._client is None or self._client.is_gone(run)

    # -- what is used now (plugind.sampling)

    async def sample(self) -> None:
        """See Samples. Raises IsolationUnavailableError, LauncherGoneError."""
        await self._there().samples.ask()

    def has_long(self) -> bool:
        """Whether there is a run that did not begin of late."""
        return self._client is not None and self._client.has_long()

    def uses(self) -> Mapping[str, Seen]:
        """What runs used at the last sample."""
        return self._client.uses() if self._client is not None else {}

    @property
    def parked(self) -> tuple[ParkedUse, ...]:
        """What instances that wait used at the last sample."""
        return self._client.samples.parked if self._client is not None else ()

    @property
    def launcher(self) -> ProcessUse | None:
        """What the launcher used at the last sample."""
        return self._client.samples.launcher if self._client is not None else None

    def _there(self) -> LauncherClient:
        if self._client is None or self._client.gone.done():
            raise IsolationUnavailableError("launcher", self.problem or "the launcher is gone")
        return self._client


def fixed(sock: socket.socket) -> Connect:
    """The one connection that there will ever be."""

    async def connect() -> socket.socket:
        return sock

    return connect


def at(path: Path) -> Connect:
    """The socket of the launcher's unit."""

    async def connect() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, str(path))
        except OSError as error:
            sock.close()
            raise OSError(error.errno, f"{error.strerror}; systemctl status plugind-launcher", str(path)) from error
        return sock

    return connect
