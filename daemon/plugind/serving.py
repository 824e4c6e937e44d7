"""The front at work: without root, one event loop, until it is told to stop or the launcher is gone."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from plugind.api import listen
from plugind.api.accept import Door
from plugind.api.governance import GovernanceService
from plugind.api.registry import RegistryService
from plugind.api.roles import DevRoles
from plugind.api.runtime import RuntimeService
from plugind.api.server import ApiServer
from plugind.audit.ledger import Ledger
from plugind.audit.records import Stopped
from plugind.catalog import Catalog
from plugind.config import ServeConfig, log
from plugind.errors import AuditUnavailableError
from plugind.model import Caller, Profile
from plugind.profiles import builtin_digests, profiles_dir
from plugind.run import Runner
from plugind.sandbox.client import LauncherClient
from plugind.sandbox.protocol import Ready
from plugind.state import State

EXIT_LAUNCHER_GONE = 6
STOP_S = 4.0
"""An orderly stop has this long; then, or at the second signal, everything is closed as it is."""
_LIVES_S = 2.5
_GRACE_S = 0.3


@dataclass(frozen=True, slots=True)
class Prepared:
    """What root has made ready for the front."""

    config: ServeConfig
    profiles: Mapping[int, Profile]
    state: State
    listener: listen.Listener
    owner_uid: int
    """Who may connect, besides root."""


class Front:
    """Everything that serves callers."""

    def __init__(self, prepared: Prepared, sock: socket.socket) -> None:
        self._prepared = prepared
        self._sock = sock
        self._signals: asyncio.Queue[str] = asyncio.Queue()

    async def serve(self) -> int:
        """Serve until the end. Returns the exit code. Raises PlugindError where it cannot begin."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._signals.put_nowait, number.name)
        launcher = LauncherClient(self._sock)
        ready = await launcher.open()
        ledger, tail = Ledger.open(self._prepared.state.ledger, "dev")
        if tail.cut_bytes or tail.open_intents:
            log(
                f"ledger: {len(tail.open_intents)} runs of an earlier daemon closed as unknown,"
                f" {tail.cut_bytes} bytes that were never confirmed cut off"
            )
        folder = self._prepared.config.profiles or profiles_dir()
        catalog = Catalog.open(
            self._prepared.state.database,
            self._prepared.state.store,
            built_in=builtin_digests(folder),
            development=self._prepared.config.dev,
        )
        runner = Runner(catalog, ledger, launcher, self._prepared.profiles)
        server = ApiServer(self._prepared.state.run, self._prepared.profiles)
        door = Door(
            self._prepared.listener.sock, server.backend, self._admits, self._prepared.config.connections_per_uid
        )
        roles = DevRoles()
        await server.start(
            RuntimeService(door, roles, runner),
            RegistryService(door, roles, catalog),
            GovernanceService(door, roles, catalog),
        )
        door.open()
        self._tell_ready(ready)
        why = await self._wait(launcher)
        stop = asyncio.create_task(_stop(why, door, server, runner, launcher, ledger))
        again = asyncio.create_task(self._signals.get())
        await asyncio.wait([stop, again], timeout=STOP_S, return_when=asyncio.FIRST_COMPLETED)
        if not stop.done():
            log("not everything ended in order; closing as it is")
            stop.cancel()
        elif (error := stop.exception()) is not None:
            log(f"while stopping: {error}")
        again.cancel()
        await asyncio.wait([stop, again])
        catalog.close()
        return 0 if why.startswith("SIG") else EXIT_LAUNCHER_GONE

    def _admits(self, caller: Caller) -> str:
        if caller.uid in (0, self._prepared.owner_uid):
            return ""
        return f"with --dev only uid {self._prepared.owner_uid} and root may connect"

    def _tell_ready(self, ready: Ready) -> None:
        for tier, reason in sorted(ready.unavailable.items()):
            log(f"tier {tier} is unavailable: {reason}")
        settings = self._prepared.config
        print(  # noqa: T201 - the one line on standard output
            f"plugind: ready on {settings.socket} (state {settings.state}, cgroups {ready.cgroup_driver})", flush=True
        )

    async def _wait(self, launcher: LauncherClient) -> str:
        """Why it is to stop: a signal's name, or what became of the launcher."""
        told = asyncio.create_task(self._signals.get())
        await asyncio.wait([told, launcher.gone], return_when=asyncio.FIRST_COMPLETED)
        if told.done():
            log(f"{told.result()}: stopping")
            return told.result()
        told.cancel()
        why = f"the launcher is gone ({launcher.gone.result()}), nothing can run any more"
        log(why)
        return why


async def _stop(
    why: str, door: Door, server: ApiServer, runner: Runner, launcher: LauncherClient, ledger: Ledger
) -> None:
    """Nobody new, every instance ended and recorded, then the launcher, then the rest."""
    await door.close()
    await server.stopping()
    if not await runner.stop(_LIVES_S):
        launcher.kill_all()
    await server.stop(_GRACE_S)
    await launcher.stop()
    try:
        await ledger.append(Stopped(why))
    except AuditUnavailableError as error:
        log(str(error))
    await ledger.close()
    await door.hang_up()
