"""`plugindctl top` in a real terminal with a real daemon, and the figures of runs as callers see them."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from plugind_client.errors import PlugindError
from plugind_client.records import RunningRun
from tests.support import plugins
from tests.support.daemon import BIN, Daemon
from tests.support.pace import stretched
from tests.support.terminal import Terminal

pytestmark = pytest.mark.root

HOLDS = """
import contextlib, socket, threading, time
held = []
def burn():
    while True:
        sum(range(1000))
def run(payload, context):
    with contextlib.suppress(OSError):
        socket.socket(socket.AF_INET)
    held.append(bytearray(b"x") * (50 << 20))
    if payload == "burn":
        threading.Thread(target=burn, daemon=True).start()
    time.sleep(50)
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon() as running:
        limits = "[limits]\nwall_ms = 60000\ncpu_ms = 30000\n"
        for name in ("sleeper", "burner"):
            folder = plugins.folder(tmp_path_factory.mktemp("plugins"), name, code=HOLDS, extra=limits)
            running.install(folder)
        yield running


@contextlib.contextmanager
def running(daemon: Daemon, plugin: str, payload: object = None) -> Iterator[RunningRun]:
    """It runs, and is over afterwards."""
    client = daemon.client()

    def execute() -> None:
        with contextlib.suppress(PlugindError):  # the daemon may end meanwhile
            client.execute(plugin, payload)

    thread = threading.Thread(target=execute)
    thread.start()
    try:
        yield until(lambda: next((run for run in client.runs() if run.state == "running"), None))
    finally:
        with contextlib.suppress(PlugindError):
            for run in client.runs():
                client.cancel(run.run_id)
        thread.join(stretched(20))
        assert not thread.is_alive()


def until(found: Callable[[], RunningRun | None]) -> RunningRun:
    deadline = time.monotonic() + stretched(15)
    while (run := found()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return run


def test_runs_are_listed_with_what_they_use(daemon: Daemon) -> None:
    with running(daemon, "burner", "burn") as run:
        client = daemon.client()
        used = until(
            lambda: next((each for each in client.runs() if each.cpu_ms and (each.memory_bytes or 0) > 50 << 20), None)
        )
        assert used.run_id == run.run_id
        assert (used.pids, used.refused_calls) == (2, 1)
        assert used.memory_bytes is not None
        assert used.memory_bytes < 80 << 20
        assert abs(time.time() * 1000 - used.sampled_unix_ms) < stretched(5) * 1000
        row = daemon.command("ps").stdout.splitlines()[1].split()
        assert "MiB" in row
        assert row[-3:] == ["1", str(run.caller_uid), "running"]


def test_a_sleeper_is_seen_and_killed_with_keys(daemon: Daemon) -> None:
    """And then it is gone, the hold is listed with its reason, and the terminal is as it was."""
    with (
        running(daemon, "sleeper") as run,
        Terminal([BIN / "plugindctl", "top", "--socket", daemon.socket, "--interval", "0.3"]) as terminal,
    ):
        screen = terminal.until(lambda text: run.run_id in text and "MiB" in text)
        assert "sleeper@1.0.0" in screen
        assert "launcher and ledger in order" in screen
        terminal.keys("k")
        terminal.until(lambda text: "kill sleeper@1.0.0: why?" in text)
        terminal.keys("-l", "it sleeps too long")
        terminal.keys("Enter")
        terminal.until(lambda text: "Really kill sleeper@1.0.0, because: it sleeps too long? [y/N]" in text)
        terminal.keys("y")
        # Its run stays on the screen in what was found: it tried to make a socket.
        terminal.until(lambda text: "killed; 1 run ended in" in text and "0 runs in flight" in text)
        terminal.until(lambda text: text.count("it sleeps too long") == 1)  # in the holds
        (hold,) = daemon.client().status().holds
        assert (hold.kind, hold.target, hold.reason) == ("killed", "sleeper@1.0.0", "it sleeps too long")
        terminal.keys("Tab", "Tab", "l")
        terminal.until(lambda text: "lift the kill of sleeper@1.0.0: why?" in text)
        terminal.keys("-l", "mended")
        terminal.keys("Enter")
        terminal.until(lambda text: "because: mended? [y/N]" in text)
        terminal.keys("y")
        terminal.until(lambda text: "not killed any more" in text)
        assert daemon.client().status().holds == ()
        terminal.keys("q")
        screen = terminal.until(lambda text: "ended with" in text)
        assert screen.strip() == "ended with 0", "it has left the screen as it was"


def test_it_outlives_the_daemon_and_finds_the_next_one(tmp_path) -> None:
    """In the smallest terminal. Without a daemon it says so in a line, and q still ends it at once."""
    with Daemon() as daemon:
        daemon.install(plugins.folder(tmp_path, "sleeper", code=HOLDS, extra="[limits]\nwall_ms = 60000\n"))
        command = [BIN / "plugindctl", "top", "--socket", daemon.socket, "--interval", "0.3"]
        with Terminal(command, columns=80, lines=24) as terminal:
            terminal.until(lambda text: "0 runs in flight" in text)
            daemon._stop()
            screen = terminal.until(lambda text: "plugind cannot be reached" in text)
            assert "Traceback" not in screen
            daemon._start()
            with running(daemon, "sleeper") as run:
                screen = terminal.until(lambda text: run.run_id in text and "cannot be reached" not in text)
                assert max(map(len, screen.splitlines())) <= 80
                terminal.keys("c")
                terminal.until(lambda text: f"Really cancel {run.run_id}? [y/N]" in text)
                terminal.keys("y")
                terminal.until(lambda text: f"{run.run_id}: canceled" in text)
            daemon.process.send_signal(19)  # it does not answer any more
            try:
                began = time.monotonic()
                terminal.keys("r", "q")
                terminal.until(lambda text: "ended with 0" in text)
                assert time.monotonic() - began < stretched(4), "it waited for an answer"
            finally:
                daemon.process.send_signal(18)


def test_one_frame_of_a_real_daemon(daemon: Daemon) -> None:
    with running(daemon, "burner", "burn") as run:
        client = daemon.client()
        until(lambda: next((each for each in client.runs() if each.cpu_ms), None))
        done = daemon.command("top", "--once", "--json", "--interval", "1.5")
        assert done.returncode == 0, done.stderr
        (told,) = json.loads(done.stdout)["runs"]
        assert told["run_id"] == run.run_id
        assert 0 < told["cpu_percent"] <= 130  # a burner has one CPU, and sleeps in its other thread
        assert "burner@1.0.0" in daemon.command("top", "--once", "--interval", "0.2").stdout
