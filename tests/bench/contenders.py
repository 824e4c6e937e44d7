"""What is compared: each can run once and say how long it took, what CPU it has used, and hold instances."""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plugind.provenance import bundle
from plugind_client import Client
from tests.bench import commands
from tests.bench.plugins import CODE, ECHO, PAYLOAD, write_plugin
from tests.bench.resources import children_cpu_ms, own_cpu_ms, tree_cpu_ms, tree_pss_bytes
from tests.bench.worker import Worker
from tests.support.daemon import Daemon
from tests.support.jail import PARKED, descendants

OURS = "plugind Run"
MAP_INPUTS = 100
HELD = 4
"""Instances at one time, to see what one takes."""
HOLD_S = 3.0


@dataclass(frozen=True)
class Contender:
    """One row of the table."""

    name: str
    run: Callable[[], float]
    """Once: milliseconds."""
    cpu_ms: Callable[[], float]
    """User and system time so far, of everything but the caller."""
    hold: Callable[[], float | None] = lambda: None
    """Memory of one instance, bytes; None: it has none of its own."""
    prepare: Callable[[int], object] = lambda count: None
    """What so many runs need beforehand, which is not measured."""
    inputs: int = 1
    """How many inputs one run has: time and CPU are of one of them."""
    repeats: bool = True
    """Whether it can run more often than it was prepared for."""


@dataclass
class Found:
    """The rows, and of what cannot run here, why."""

    contenders: list[Contender] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)
    floor: Worker | None = None


def timed(work: Callable[[], object]) -> float:
    """How long it takes, milliseconds."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def in_process() -> Contender:
    """The plugin's function, called here, text in and text out."""
    namespace: dict[str, Any] = {"__name__": ECHO}
    exec(CODE, namespace)
    text = json.dumps(PAYLOAD)
    return Contender(
        "in-process call", lambda: timed(lambda: json.dumps(namespace["run"](json.loads(text), None))), own_cpu_ms
    )


def by_worker(name: str, worker: Worker) -> Contender:
    """What a process of its own runs."""

    def hold() -> float:
        before = tree_pss_bytes(worker.pid)
        worker.ask("hold", count=HELD, seconds=HOLD_S)
        during = tree_pss_bytes(worker.pid)
        worker.ask("release")
        return (during - before) / HELD

    return Contender(name, lambda: worker.ask("run")["ms"], lambda: tree_cpu_ms(worker.pid), hold)


def ours(daemon: Daemon, folder: Path, stack: contextlib.ExitStack) -> list[Contender]:
    """Run, Map, Session and cold over one client; the session is open as long as `stack` is."""
    client = daemon.client()
    session = stack.enter_context(client.session(ECHO))
    pid = daemon.process.pid

    def cpu() -> float:
        return tree_cpu_ms(pid)

    def hold_sessions() -> float:
        before = tree_pss_bytes(pid)
        with contextlib.ExitStack() as several:
            for _ in range(HELD):
                several.enter_context(client.session(ECHO)).call(PAYLOAD)
            return (tree_pss_bytes(pid) - before) / HELD

    run = Contender(
        OURS,
        lambda: timed(lambda: client.run(ECHO, PAYLOAD)),
        cpu,
        lambda: waiting_bytes(pid),
    )
    batch = [PAYLOAD] * MAP_INPUTS
    mapped = Contender(
        f"plugind Map, 1 of {MAP_INPUTS}",
        lambda: timed(lambda: client.map(ECHO, batch)),
        cpu,
        inputs=MAP_INPUTS,
    )
    talk = Contender("plugind Session, a call", lambda: timed(lambda: session.call(PAYLOAD)), cpu, hold_sessions)
    fresh = Fresh(client, folder)
    cold = Contender(
        "plugind Run, cold",
        lambda: timed(lambda: client.run(fresh.names.pop(), PAYLOAD)),
        cpu,
        prepare=fresh.install,
        repeats=False,
    )
    return [run, mapped, talk, cold]


def waiting_bytes(pid: int) -> float:
    """Memory of one of a daemon's instances that have imported their plugin and wait for a run: the mean of all.

    Raises RuntimeError where none waits within HOLD_S.
    """
    deadline = time.monotonic() + HOLD_S
    while not (found := [each for each, name in descendants(pid).items() if name == PARKED]):
        if time.monotonic() > deadline:
            raise RuntimeError("expected an instance that waits for a run, got none")
        time.sleep(0.01)
    return statistics.fmean(tree_pss_bytes(each) for each in found)


class Fresh:
    """Plugins that have just become active and never ran: the first run of each is a cold one."""

    def __init__(self, client: Client, folder: Path) -> None:
        self._client = client
        self._folder = folder
        self._count = 0
        self.names: list[str] = []

    def install(self, count: int) -> None:
        """So many more, each with a name of its own."""
        for _ in range(count):
            self._count += 1
            name = f"bench_cold_{self._count}"
            self._client.submit(bundle.build(write_plugin(self._folder, name)))
            self._client.approve(name, "1.0.0", tier=2, as_declared=True, reason="it is measured")
            self._client.activate(name, "1.0.0")
            self.names.append(name)


def outside(
    name: str, once: Callable[[], object], opened: Callable[[], contextlib.AbstractContextManager[int]]
) -> Contender:
    """A command that this process runs. `opened` is one that has answered and stays: its pid."""

    def hold() -> float:
        with contextlib.ExitStack() as stack:
            pids = [stack.enter_context(opened()) for _ in range(HELD)]
            return sum(tree_pss_bytes(pid) for pid in pids) / HELD

    return Contender(name, lambda: timed(once), children_cpu_ms, hold)


@contextlib.contextmanager
def every(folder: Path, daemon: Daemon) -> Iterator[Found]:
    """All that can run here. The plugin is installed; its folder is `folder`/bench_echo."""
    found = Found([in_process()])
    with contextlib.ExitStack() as stack:
        rows = ours(daemon, folder, stack)
        floor = stack.enter_context(Worker("floor"))
        found.floor = floor
        add_worker(found, "same jail, bare loop", floor)
        found.contenders += rows
        program = folder / ECHO / f"{ECHO}.py"
        for command in stack.enter_context(commands.all_commands(program)):
            if command.refused:
                found.refusals[command.name] = command.refused
            else:
                found.contenders.append(outside(command.name, command.once, command.opened))
        add_worker(found, "sandlock", stack.enter_context(Worker("sandlock_loop", str(program))))
        yield found


def add_worker(found: Found, name: str, worker: Worker) -> None:
    """A row, or why there is none."""
    if worker.refused:
        found.refusals[name] = worker.refused
    else:
        found.contenders.append(by_worker(name, worker))
