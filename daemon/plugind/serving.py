"""The front at work: without root, one event loop, until it is told to stop or the launcher is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from plugind.api import listen
from plugind.api.accept import Callers, Door
from plugind.api.audit import AuditService
from plugind.api.exposition import Exposition
from plugind.api.files import ceilings_of
from plugind.api.governance import GovernanceService
from plugind.api.messages import hold_message
from plugind.api.registry import RegistryService
from plugind.api.roles import AdminAdmission, Admission, DevAdmission, RunAdmission
from plugind.api.runtime import RuntimeService
from plugind.api.server import ApiServer
from plugind.audit.journal import Journal
from plugind.audit.ledger import Ledger
from plugind.audit.records import Stopped
from plugind.catalog import Catalog
from plugind.config import ServeConfig, log
from plugind.environments.shelf import Shelf, path_of
from plugind.errors import AuditUnavailableError, ConfigError
from plugind.garbage import search_seldom
from plugind.metrics.parts import Gauges, Parts
from plugind.metrics.processes import Processes
from plugind.model import Profile
from plugind.monitoring import Monitoring
from plugind.parking import Parking
from plugind.planruns import PlanRuns
from plugind.plans.commits import Commits
from plugind.plans.notes import CommitLog
from plugind.plans.recovery import Recovery
from plugind.plans.turns import PlanTurns
from plugind.plans.undo import Undo
from plugind.policy.rules import Policy
from plugind.policyfile import load_policy
from plugind.profiles import builtin_digests, profiles_dir
from plugind.registry.database import Registry
from plugind.registry.store import Store
from plugind.run import Runner
from plugind.sampling import Sampling
from plugind.sandbox import link
from plugind.sandbox.link import Link
from plugind.sandbox.protocol import Imported
from plugind.service import Notifier
from plugind.state import State
from plugind.trail import Trail
from plugind.trustfile import load_trust
from plugind_proto.v1 import governance_pb2

EXIT_LAUNCHER_GONE: Final = 6
STOP_S: Final = 4.0
"""An orderly stop has this long; then, or at the second signal, everything is closed as it is."""
LAUNCHER_S: Final = 5.0
"""As a unit: so long the start waits for the launcher, and then goes on without it."""
_LIVES_S = 2.5
_GRACE_S = 0.3


@dataclass(frozen=True, slots=True)
class Prepared:
    """What root, or systemd, has made ready for the front."""

    config: ServeConfig
    profiles: Mapping[int, Profile]
    state: State
    listeners: tuple[listen.Listener, ...]
    """With --dev one; else the run socket and the admin socket."""
    owner_uid: int
    """With --dev: who may connect, besides root."""
    metrics: socket.socket | None = None
    """Where metrics are read."""
    launcher_pid: int = 0
    """0: it is a unit of its own, which systemd started."""

    @property
    def mode(self) -> str:
        """The kind of daemon: dev or production."""
        return "dev" if self.config.dev else "production"

    @property
    def policy_path(self) -> Path:
        """The policy file."""
        return self.config.policy or profiles_dir() / "policy.toml"


class Front:
    """Everything that serves callers. `launcher`: the connection that was made ahead; None: its unit's socket."""

    def __init__(self, prepared: Prepared, launcher: socket.socket | None) -> None:
        self._prepared = prepared
        self._standalone = launcher is not None
        self._signals: asyncio.Queue[str] = asyncio.Queue()
        self._started_unix_ms = time.time_ns() // 1_000_000
        self._notifier = Notifier(os.environ)
        connect = link.fixed(launcher) if launcher else link.at(prepared.config.launcher_socket)
        self._link = Link(connect, self._note_launcher, self._note_import)
        self._sampling = Sampling(self._link)
        self._shelf = Shelf(path_of(prepared.config.state))
        self._tell_recovery: Callable[[], None] = lambda: None
        self._notes: set[asyncio.Task[None]] = set()
        self.policy: Policy = load_policy(prepared.policy_path, prepared.profiles)

    async def serve(self) -> int:
        """Serve until the end. Returns the exit code. Raises PlugindError where it cannot begin."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._signals.put_nowait, number.name)
        await self._meet_the_launcher()
        self._open_ledger()
        self._open_catalog()
        parts = (self._catalog, self._ledger, self._link, self._prepared.profiles, lambda: self.policy)
        # An author is to see what a first run does, and not that an import before it had the version suspended.
        self._parking = Parking(*parts, at_activation=not self._prepared.config.dev)
        self._open_plans()
        observe = self._prepared.config.monitor == "observe"
        state = self._prepared.state
        about = (state.monitor, state.ledger, self._prepared.profiles, self._catalog, self._ledger, self._trail)
        self._monitoring = Monitoring(*about, only_observe=observe)
        asked = (self._shelf.in_force, self._plans, self._parking, self._monitoring.watch)
        self._runner = Runner(*parts, *asked)
        await self._monitoring.start(self._runner, self._parking)
        await self._recovery.start()
        keepers = [
            asyncio.create_task(each)
            for each in (
                self._parking.keep(),
                self._sampling.keep(),
                self._recovery.keep(),
                self._monitoring.watch.keep(),
                self._monitoring.count_incidents(),
            )
        ]
        server = await self._open_server()
        await self._open_metrics()
        search_seldom()
        self._tell_ready()
        self._notifier.ready(f"serving, {self._prepared.mode}")
        why = await self._wait()
        self._notifier.stopping()
        for keeper in keepers:
            keeper.cancel()
        await self._stop(why, server)
        return EXIT_LAUNCHER_GONE if why.startswith("the launcher") else 0

    # -- beginning

    async def _meet_the_launcher(self) -> None:
        if self._standalone:
            await self._link.open()
        else:
            await self._link.keep(LAUNCHER_S)

    def _note_launcher(self, what: str) -> None:
        log(what)
        self._tell_recovery()

    def _note_import(self, seen: Imported) -> None:
        note = asyncio.get_running_loop().create_task(self._trail.environment_imported(seen))
        self._notes.add(note)
        note.add_done_callback(self._notes.discard)

    def _open_ledger(self) -> None:
        self._journal = Journal()
        self._ledger, tail = Ledger.open(self._prepared.state.ledger, self._prepared.mode, journal=self._journal)
        self._trail = Trail(self._ledger)
        if tail.cut_bytes or tail.open_intents:
            log(
                f"ledger: {len(tail.open_intents)} runs of an earlier daemon closed as unknown,"
                f" {tail.cut_bytes} bytes that were never confirmed cut off"
            )
        if self._journal.state:
            log(f"journal: {self._journal.state}")

    def _open_catalog(self) -> None:
        config = self._prepared.config
        registry = Registry(self._prepared.state.database, self._trail.changed, log)
        self._catalog = Catalog(
            registry,
            Store(self._prepared.state.store),
            trust=load_trust(config.trust, self._started_unix_ms),
            built_in=builtin_digests(config.profiles or profiles_dir()),
            development=config.dev,
            environments=self._shelf,
        )

    def _open_plans(self) -> None:
        """Files of plans: what an earlier daemon left under way is ended before anybody is served."""
        prepared = self._prepared
        self._commits = Commits(self._link, self._ledger, CommitLog(prepared.state.commits), PlanTurns())
        self._recovery = Recovery(self._commits, self._ledger, prepared.state.ledger)
        self._tell_recovery = self._recovery.wake
        about = (self._commits, self._ledger, prepared.profiles, lambda: self.policy)
        self._undo = Undo(self._ledger, prepared.state.ledger, self._link, self._commits)
        self._plans = PlanRuns(self._link, *about, development=prepared.config.dev)

    async def _open_server(self) -> ApiServer:
        callers = Callers()
        server = ApiServer(self._prepared.state.run, self._prepared.profiles)
        most_files = ceilings_of(profile.files for profile in self._prepared.profiles.values())
        monitoring = self._monitoring
        await server.start(
            RuntimeService(callers, self._trail, self._runner, self._sampling, most_files),
            RegistryService(callers, self._trail, self._catalog, lambda: self.policy),
            GovernanceService(
                *(callers, self._trail, self._catalog, self._runner, monitoring.kill_switch, self),
                *(monitoring.incidents, monitoring.casefile, monitoring.drill, monitoring.metrics),
                *(monitoring.quarantine, monitoring.monitor),
            ),
            AuditService(callers, self._trail, self._ledger, self._prepared.state.ledger, self._undo),
        )
        most = self._prepared.config.connections_per_uid
        self._doors = [
            Door(listener.sock, server.backend, callers, admission, most)
            for listener, admission in zip(self._prepared.listeners, self._admissions(), strict=True)
        ]
        for door in self._doors:
            door.open()
        return server

    async def _open_metrics(self) -> None:
        prepared, registry = self._prepared, self._monitoring.metrics.registry
        parts = Parts(
            prepared.mode,
            self._started_unix_ms,
            self._runner.flights,
            self._runner.places,
            self._parking,
            self._catalog.holds.all,
            self._ledger,
            self._journal,
            self._link,
            open_incidents=lambda: self._monitoring.open_incidents,
            monitor_up=lambda: not self._monitoring.watch.lost,
            sandbox_memory_bytes=self._sandbox_memory,
        )
        pids = {"front": os.getpid()} | ({"launcher": prepared.launcher_pid} if prepared.launcher_pid else {})
        registry.register(Gauges(parts))
        registry.register(Processes(pids))
        self._exposition = Exposition(prepared.metrics, self._monitoring.metrics.text) if prepared.metrics else None
        if self._exposition is not None:
            await self._exposition.open()

    def _sandbox_memory(self) -> int:
        """Of running instances, as they were sampled last."""
        uses = [seen.use.memory_bytes for seen in self._sampling.last().values()]
        return sum(max(0, each) for each in uses)

    def _admissions(self) -> tuple[Admission, ...]:
        if self._prepared.config.dev:
            return (DevAdmission(self._prepared.owner_uid),)
        return (RunAdmission(), AdminAdmission.of_this_machine())

    def _tell_ready(self) -> None:
        ready = self._link.ready
        for tier, reason in sorted(ready.unavailable.items()) if ready else ():
            log(f"tier {tier} is unavailable: {reason}")
        settings = self._prepared.config
        sockets = " and ".join(str(listener.path) for listener in self._prepared.listeners)
        driver = ready.cgroup_driver if ready else "not known yet"
        # The one line on standard output.
        print(f"plugind: ready on {sockets} (state {settings.state}, cgroups {driver})", flush=True)  # noqa: T201

    # -- at work

    async def _wait(self) -> str:
        """Why it is to stop: a signal's name, or what became of a launcher that cannot come back."""
        beat = asyncio.create_task(self._notifier.beat())
        try:
            while True:
                told = asyncio.create_task(self._signals.get())
                ends = [told, self._link.gone] if self._standalone else [told]
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                if not told.done():
                    told.cancel()
                    why = f"the launcher is gone ({self._link.gone.result()}), nothing can run any more"
                    log(why)
                    return why
                if told.result() != "SIGHUP":
                    log(f"{told.result()}: stopping")
                    return told.result()
                await self._reload_by_signal()
        finally:
            beat.cancel()

    async def _reload_by_signal(self) -> None:
        self._notifier.reloading()
        try:
            policy, changed = await self.reload_policy(0)
            log(f"policy {policy.digest[:16]} {'is in force' if changed else 'is the same as before'}")
        except (ConfigError, AuditUnavailableError) as error:
            log(f"the policy stays as it was: {error}")
        self._notifier.ready("serving")

    async def reload_policy(self, by_uid: int) -> tuple[Policy, bool]:
        """The policy now in force, and whether it is another. Raises ConfigError, AuditUnavailableError: as before."""
        path = self._prepared.policy_path
        read = await asyncio.to_thread(load_policy, path, self._prepared.profiles)
        changed = read.digest != self.policy.digest
        if changed:
            await self._trail.policy_reloaded(by_uid, read.digest, str(path))
            self.policy = read
        return self.policy, changed

    def status(self) -> governance_pb2.StatusResponse:
        """How the daemon is."""
        import importlib.metadata  # noqa: PLC0415 - 2 MiB, parsers of mail among them, for what is seldom asked

        ready = self._link.ready
        return governance_pb2.StatusResponse(
            daemon_version=importlib.metadata.version("plugind"),
            mode=self._prepared.mode,
            started_unix_ms=self._started_unix_ms,
            runs_in_flight=len(self._runner.flights),
            launcher_problem=self._link.problem,
            cgroup_driver=ready.cgroup_driver if ready else "",
            unavailable_tiers={int(tier): why for tier, why in ready.unavailable.items()} if ready else {},
            ledger_size=self._ledger.size,
            ledger_root=self._ledger.root().hex(),
            ledger_problem=self._ledger.failure,
            monitor_problem=self._monitoring.watch.lost,
            journal=self._journal.state or f"{self._journal.sent} records sent",
            policy_sha256=self.policy.digest,
            policy_path=str(self._prepared.policy_path),
            holds=[hold_message(hold) for hold in self._catalog.holds.all()],
            plugins=len(self._catalog.plugins()),
        )

    # -- the end

    async def _stop(self, why: str, server: ApiServer) -> None:
        stop = asyncio.create_task(self._stop_in_order(why, server))
        again = asyncio.create_task(self._signals.get())
        await asyncio.wait([stop, again], timeout=STOP_S, return_when=asyncio.FIRST_COMPLETED)
        if not stop.done():
            log("not everything ended in order; closing as it is")
            stop.cancel()
        elif (error := stop.exception()) is not None:
            log(f"while stopping: {error}")
        again.cancel()
        await asyncio.wait([stop, again])
        self._catalog.close()
        self._monitoring.close()
        await asyncio.to_thread(self._journal.close)

    async def _stop_in_order(self, why: str, server: ApiServer) -> None:
        """Nobody new, every instance ended and recorded, then the launcher, then the rest."""
        for door in self._doors:
            await door.close()
        if self._exposition is not None:
            await self._exposition.close()
        await server.stopping()
        await self._monitoring.drill.stop()
        if not await self._runner.stop(_LIVES_S):
            self._link.kill_all()
        await self._parking.stop()
        await self._monitoring.watch.stop()
        await server.stop(_GRACE_S)
        await self._link.stop(end_launcher=self._standalone)
        try:
            await self._ledger.append(Stopped(why))
        except AuditUnavailableError as error:
            log(str(error))
        await self._ledger.close()
        for door in self._doors:
            await door.hang_up()
