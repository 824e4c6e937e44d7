"""Ten thousand runs that end in every way there is, and what is left of them: nothing, and no memory either."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from plugind.sandbox.refusals import PLACES
from plugind_client import Client, PlugindError
from tests.support.daemon import Daemon
from tests.support.jail import INSTANCE, descendants, living_instances
from tests.support.plugins import folder
from tests.system.test_processes import KINDS, one, settled_without_parked

AT_A_TIME = 4
WARM_UP_RUNS = 2500
"""By then each place for what is refused has been used, and the launcher's allocator has what it needs: over 6000 runs
its memory grew by 2 MiB in the first 2000, and by nothing in the other 4000."""
assert WARM_UP_RUNS > PLACES
MEMORY_MAY_GROW = 0.05
DEAD_AT_ONCE = 4
"""Runs of a client that is killed."""
DEAD_EVERY = 8
"""Rounds between two such clients: each is a process that has to load gRPC first."""
WAIT_S = 20
SLEEPER = "import os, time\ndef run(p, c):\n    os.fork(); time.sleep(60)"
TRIES = """
import ctypes, socket
def run(p, c):
    libc = ctypes.CDLL(None)
    for _ in range(10):
        try:
            socket.socket()
        except OSError:
            pass
        libc.chroot(b"/")
        libc.syscall({io_uring_setup}, 1, None)
    return 1
""".replace("{io_uring_setup}", "425")
MORE = {
    "mounts": ("import ctypes\ndef run(p, c): ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, None)", "violation", {"mount": 1}),
    "traces": ("import ctypes\ndef run(p, c): ctypes.CDLL(None).ptrace(16, 1, 0, 0)", "violation", {"ptrace": 1}),
    "tries": (TRIES, "ok", {"socket": 10, "chroot": 10, "io_uring_setup": 10}),
}  # fmt: skip
"""Code, outcome, and the system calls that have to be named, with how often."""
TALKS = "import os\ndef run(p, c):\n    if p == 'exit': os._exit(0)\n    return p"
"""Of sessions and maps."""
SLEEPERS = ("killed", "canceled", "orphaned")
DEAD_CLIENT = """
import sys, threading
from plugind_client import Client
client = Client(sys.argv[1])
for _ in range(int(sys.argv[2])):
    threading.Thread(target=client.execute, args=("kind_orphaned", 1), daemon=True).start()
print("asked", flush=True)
threading.Event().wait()
"""


class Mix:
    """The kinds of runs, and one daemon that has them all."""

    def __init__(self, daemon: Daemon, parent: Path) -> None:
        self.daemon = daemon
        self.client: Client = daemon.client()
        self.count: Counter[str] = Counter()
        self._alone = {name: threading.Lock() for name in SLEEPERS}
        for name, (code, options) in KINDS.items():
            limits = f"[limits]\n{options['limits']}\n" if "limits" in options else ""
            stages = ("durations",) if name == "denied" else ("*",)
            daemon.install(folder(parent, f"kind_{name}", code=code, extra=limits, stages=stages))
        for name, (code, _, _) in MORE.items():
            daemon.install(folder(parent, f"kind_{name}", code=code))
        daemon.install(folder(parent, "kind_talks", code=TALKS))
        for name in SLEEPERS:
            daemon.install(folder(parent, f"kind_{name}", code=SLEEPER, extra="[limits]\nwall_ms = 60000\n"))

    def round(self, number: int) -> list[Callable[[], None]]:
        """One of each kind; of dead clients less often."""
        jobs: list[Callable[[], None]] = [lambda name=name: self.ends_as_it_should(name) for name in KINDS]  # type: ignore[misc]
        jobs += [lambda name=name: self.is_named(name) for name in MORE]  # type: ignore[misc]
        jobs += [self.killed, self.canceled, self.session, self.session_left, self.session_broken, self.mapped]
        if number % DEAD_EVERY == 0:
            jobs.append(self.orphaned)
        return jobs

    def ends_as_it_should(self, name: str) -> None:
        wrong = one(self.client, name)
        assert wrong is None, wrong
        self.count[name] += 1

    def is_named(self, name: str) -> None:
        """A dangerous call ends the run, a refused one does not; both are named and counted."""
        _, outcome, calls = MORE[name]
        result = self.client.execute(f"kind_{name}", 1)
        found = {each.name: each.count for each in result.violations}
        assert (result.outcome, found) == (outcome, calls), (name, result)
        self.count[name] += 1

    def killed(self) -> None:
        """By the operator, who lifts it afterwards."""
        with self._alone["killed"], self._sleeping("killed") as asleep:
            self.client.kill("kind_killed", "the soak")
            assert asleep.outcome() == "killed"
            self.client.lift_kill("kind_killed", "the soak")
        self.count["killed"] += 1

    def canceled(self) -> None:
        """By its caller, from another connection."""
        with self._alone["canceled"], self._sleeping("canceled") as asleep:
            assert self.client.cancel(asleep.run_id)
            assert asleep.outcome() == "canceled"
        self.count["canceled"] += 1

    def session(self) -> None:
        """A few inputs, and closed."""
        with self.client.session("kind_talks") as session:
            assert [session.call(number) for number in range(5)] == [0, 1, 2, 3, 4]
        assert session.result is not None
        assert (session.result.why, session.result.answered) == ("closed", 5), session.result
        self.count["session"] += 1

    def session_left(self) -> None:
        """By a caller that is there no more."""
        session = self.client.session("kind_talks")
        assert session.call("x") == "x"
        session.cancel()
        self.count["session_left"] += 1

    def session_broken(self) -> None:
        """By the plugin, in the middle of an input."""
        session = self.client.session("kind_talks")
        assert session.call(1) == 1
        with contextlib.suppress(PlugindError):
            session.call("exit")
        assert session.result is not None
        assert session.result.run.outcome == "output_invalid", session.result
        self.count["session_broken"] += 1

    def mapped(self) -> None:
        """Many inputs in one execution."""
        assert self.client.map("kind_talks", list(range(100))).outputs == list(range(100))
        self.count["map"] += 1

    def orphaned(self) -> None:
        """A client with several runs is killed: the daemon sees its connections close, and ends them."""
        with self._alone["orphaned"]:
            process = subprocess.Popen(
                [sys.executable, "-c", DEAD_CLIENT, self.daemon.socket, str(DEAD_AT_ONCE)], stdout=subprocess.PIPE
            )
            assert process.stdout is not None
            with process.stdout:
                assert process.stdout.readline() == b"asked\n"
                _until(lambda: len(self._running("orphaned")) == DEAD_AT_ONCE)
                process.send_signal(signal.SIGKILL)
                process.wait()
            _until(lambda: not self._running("orphaned"))
        self.count["orphaned"] += DEAD_AT_ONCE

    def _sleeping(self, name: str) -> _Sleeping:
        return _Sleeping(self, name)

    def _running(self, name: str) -> list[str]:
        return [run.run_id for run in self.client.runs() if run.plugin == f"kind_{name}" and run.state == "running"]


class _Sleeping:
    """A run that another thread waits for."""

    def __init__(self, mix: Mix, name: str) -> None:
        self._mix = mix
        self._name = name
        self._outcome = ""
        self._thread = threading.Thread(target=self._execute, daemon=True)
        self.run_id = ""

    def _execute(self) -> None:
        try:
            result = self._mix.client.execute(f"kind_{self._name}", 1)
            self._outcome = result.outcome or str(result.reasons)
        except PlugindError as error:
            self._outcome = repr(error)

    def outcome(self) -> str:
        self._thread.join(WAIT_S)
        return self._outcome

    def __enter__(self) -> Self:
        self._thread.start()
        _until(lambda: self._mix._running(self._name) != [])
        (self.run_id,) = self._mix._running(self._name)
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()


def _until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def memory_kib(daemon: Daemon) -> dict[str, int]:
    """What the daemon's processes have, by their name: shared pages are shared out between them (PSS)."""
    found: Counter[str] = Counter()
    for pid in _pids(daemon):
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue  # an instance, whose run is over: it is about to be reaped (`left` sees to it that none stays)
        if name != INSTANCE:
            found[name] += int(next(line.split()[1] for line in text.splitlines() if line.startswith("Pss:")))
    return dict(found)


def namespaces(daemon: Daemon) -> dict[str, int]:
    """How many different namespaces of each kind they are in."""
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
    return {kind: len({Path(f"/proc/{pid}/ns/{kind}").readlink() for pid in _pids(daemon)}) for kind in kinds}


def _pids(daemon: Daemon) -> set[int]:
    return {*daemon.pids, *descendants(daemon.pids[0])}


def left(client: Client, daemon: Daemon) -> dict[str, Any]:
    """Everything but memory."""
    assert living_instances(descendants(daemon.pids[0])) == []
    return {**settled_without_parked(client, daemon), "namespaces": namespaces(daemon)}


def leave_no_trace(parent: Path, runs: int, say: Callable[[str], None]) -> None:
    """So many runs of all kinds, and then everything is as it was before, and memory within 5 %."""
    with Daemon() as daemon, ThreadPoolExecutor(AT_A_TIME) as pool:
        mix = Mix(daemon, parent)
        memory = _mixed(pool, mix, WARM_UP_RUNS, say)  # what is made once and kept is no trace
        before = left(mix.client, daemon)
        mix.count.clear()
        now = _mixed(pool, mix, runs, say)
        after = left(mix.client, daemon)
        say(f"{mix.count.total()} runs: {dict(sorted(mix.count.items()))}")
        say(f"after the warm-up {_memory(memory)}, and after the runs {_memory(now)}")
        assert after == before
        for name, kib in now.items():
            assert kib <= memory[name] * (1 + MEMORY_MAY_GROW), f"{name} has grown from {memory[name]} KiB to {kib} KiB"


def _mixed(pool: ThreadPoolExecutor, mix: Mix, runs: int, say: Callable[[str], None]) -> dict[str, int]:
    """So many runs. The lowest memory of each process in their last third.

    The lowest, because the front holds results of 4 MB for a moment, and its allocator a while longer: one look meets
    that or does not. What is never given back is in all of them.
    """
    began = time.monotonic()
    lowest: dict[str, int] = {}
    told = 0
    for number in _run(pool, mix, iter(range(runs))):  # more rounds than are needed
        done = mix.count.total()
        looked = memory_kib(mix.daemon)
        if done > runs * 2 // 3:
            lowest = {name: min(kib, lowest.get(name, kib)) for name, kib in looked.items()}
        if done - told >= max(100, runs // 20):
            told = done
            say(f"{done} of {runs} runs, round {number}, {done / (time.monotonic() - began):.0f}/s: {_memory(looked)}")
        if done >= runs:
            break
    return lowest


def _run(pool: ThreadPoolExecutor, mix: Mix, rounds: Iterator[int]) -> Iterator[int]:
    """Each round, when it is over."""
    for number in rounds:
        for job in [pool.submit(job) for job in mix.round(number)]:
            job.result()
        yield number


def _memory(found: dict[str, int]) -> str:
    parts = ", ".join(f"{name} {kib / 1024:.1f}" for name, kib in sorted(found.items()))
    return f"{sum(found.values()) / 1024:.1f} MiB ({parts})"
