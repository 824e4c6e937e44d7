"""A real daemon of a test's own: `plugind serve --standalone --dev` in a temporary folder, and what is known of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import grpc

from plugind.profiles import profiles_dir
from plugind.provenance import bundle
from plugind_client import Client
from plugind_proto.v1.governance_pb2_grpc import GovernanceStub
from tests.support.jail import descendants, sweep
from tests.support.pace import stretched

BIN = Path(sys.executable).parent
READY_S = stretched(30)


def profiles_with(parent: Path, parked: int) -> Path:
    """The profiles as shipped, but for how many instances may wait for a run."""
    profiles = parent / "profiles"
    shutil.copytree(profiles_dir(), profiles)
    for tier in profiles.glob("tier*.toml"):
        tier.write_text(re.sub(r"(?m)^parked = \d+", f"parked = {parked}", tier.read_text()))
    return profiles


class Daemon:
    """Started by `with`, and certain to be gone afterwards. `state`: a folder that another daemon has left."""

    def __init__(
        self,
        *arguments: str,
        state: Path | None = None,
        production: bool = False,
        namespace: Path | None = None,
        enforce: bool = False,
    ) -> None:
        """`namespace`: of the network that it is to live in, by its file.

        `enforce`: what the monitor finds has consequences, as in a daemon that is shipped. Without it one plugin can
        misbehave a hundred times, which is what most tests are about.
        """
        self._environment = {"PLUGIND_MONITOR": "observe", **os.environ} | (
            {"PLUGIND_MONITOR": "enforce"} if enforce else {}
        )
        self._enter = ["nsenter", f"--net={namespace}"] if namespace else []
        self._folder = Path(tempfile.mkdtemp(prefix="plugind-test-"))
        self._folder.chmod(0o755)
        self.state = state or self._folder / "state"
        self.socket = self._folder / "plugind.sock"
        self.log = self._folder / "log"
        self.admin_socket = self._folder / "admin.sock"
        mode = ("--admin-socket", str(self.admin_socket)) if production else ("--dev",)
        self._arguments = (*mode, *arguments)
        self._clients: list[Client | grpc.Channel] = []

    def __enter__(self) -> Self:
        self._start()
        return self

    def restart(self) -> None:
        """SIGTERM, and the same again on the same state. Clients of before are closed."""
        self._stop()
        self._start()

    def _start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *self._enter,
                    BIN / "plugind",
                    "serve",
                    "--standalone",
                    "--state",
                    self.state,
                    "--socket",
                    self.socket,
                    *self._arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        try:
            self.ready = self._ready_line()
            self.pids = [self.process.pid, self._launcher()]
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        self._stop()
        if self.state.exists():
            sweep(self.state)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _stop(self) -> None:
        for client in self._clients:
            client.close()
        self._clients.clear()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(stretched(10))
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _ready_line(self) -> str:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], READY_S)[0]:
            raise AssertionError(f"not ready after {READY_S} s: {self.log.read_text()}")
        line = self.process.stdout.readline().decode()
        assert line.startswith("plugind: ready on "), (line, self.log.read_text())
        return line

    def _launcher(self) -> int:
        below = descendants(self.process.pid)
        return next(pid for pid, name in below.items() if name == "plugind-launch")

    def wait_gone(self, seconds: float) -> bool:
        """Whether front and launcher end in time."""
        deadline = time.monotonic() + stretched(seconds)
        while time.monotonic() < deadline:
            if self.process.poll() is not None and not Path(f"/proc/{self.pids[1]}").exists():
                return True
            time.sleep(0.005)
        return False

    def client(self) -> Client:
        """A client of this daemon; closed with it."""
        client = Client(self.socket)
        self._clients.append(client)
        return client

    def install(self, folder: Path) -> None:
        """Submit, approve as declared, activate."""
        client = self.client()
        data = bundle.build(folder)
        manifest = bundle.read(data).manifest
        client.submit(data)
        client.approve(manifest.name, manifest.version, tier=2, as_declared=True, reason="a test")
        client.activate(manifest.name, manifest.version)

    def governance(self) -> GovernanceStub:
        """The service itself, for what a test wants to see as it goes over the wire."""
        channel = grpc.insecure_channel(f"unix:{self.socket}")
        self._clients.append(channel)
        return GovernanceStub(channel)

    def command(self, *arguments: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
        """`plugindctl ARGUMENTS`, as a person types it."""
        environment = os.environ | {"PLUGIND_SOCKET": str(self.socket), "XDG_CONFIG_HOME": str(self._folder / "config")}
        return subprocess.run(
            [BIN / "plugindctl", *arguments],
            input=text,
            capture_output=True,
            text=True,
            env=environment,
            timeout=stretched(60),
            check=False,
        )

    def try_plugin(self, folder: Path, payload: object, *, stage: str = "", tier: int = 2) -> dict[str, Any]:
        """`plugindctl try`; the object it prints."""
        arguments: list[str | Path] = ["try", folder, "--input", "-", "--tier", str(tier), "--json"]
        if stage:
            arguments += ["--stage", stage]
        done = self.command(*arguments, text=json.dumps(payload))
        with contextlib.suppress(ValueError):
            answer: dict[str, Any] = json.loads(done.stdout)
            if "decision" in answer:
                return answer
        raise AssertionError(f"{done.args}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.log.read_text()}")
