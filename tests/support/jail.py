"""A launcher without a front: what system tests of the jail talk to."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import os
import shutil
import signal
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from pathlib import Path

from plugind import planfiles
from plugind.environments.shelf import Shelf, path_of
from plugind.linux import cgroup
from plugind.model import Limits, Profile
from plugind.planfiles import Entry
from plugind.profiles import load_profiles, profiles_dir
from plugind.sandbox.client import LauncherClient
from plugind.sandbox.jailspec import effective_limits
from plugind.sandbox.plans.known import path_of as plans_of
from plugind.sandbox.protocol import Imported
from plugind.sandbox.running import InstanceRequest, InstanceResult
from plugind.sandbox.spawn import LauncherConfig, UnsafeOverrides, start_launcher
from tests.support.pace import stretched

_numbers = itertools.count(1)
INSTANCE = "plugind-plugin"
"""The name of an instance's processes."""
PARKED = "plugind-parked"
"""The name of an instance that was imported ahead, until its run."""
PF_EXITING = 0x4
_kills_ms: list[int] = []
"""How long each kill of this test run took."""


def bundle_of(**files: str) -> bytes:
    """A tar of modules, as the launcher unpacks them."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, text in sorted(files.items()):
            info = tarfile.TarInfo(f"{name}.py")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return stream.getvalue()


class Jail:
    """Runs code in jails of a launcher of its own."""

    def __init__(
        self,
        client: LauncherClient,
        launcher_pid: int,
        profiles: dict[int, Profile],
        shelf: Shelf,
        imported: list[Imported],
        state: Path,
    ) -> None:
        self.state = state
        self.shelf = shelf
        self.imported = imported
        self.client = client
        self.launcher_pid = launcher_pid
        self.profiles = profiles

    async def run(
        self,
        code: str,
        payload: object = None,
        *,
        tier: int = 2,
        name: str = "",
        files: Mapping[str, str] | None = None,
        on_started: Callable[[], None] = lambda: None,
        environment: str = "",
        plan: Mapping[str, bytes] | None = None,
        write: tuple[int, int] = (0, 0),
        **limits: int,
    ) -> InstanceResult:
        """`code` defines run(payload, context); `files` are other modules beside it, by name.

        `plan` are the files of a plan that it may read, `write` how many it may leave, and how many bytes.
        """
        data = bundle_of(**{**(files or {}), "plugin": code})
        request = self.request(data, payload, tier, name, environment, **limits)
        packed = None if plan is None else planfiles.pack([Entry(*each) for each in plan.items()])
        request = dataclasses.replace(request, files=packed, write_files=write[0], write_bytes=write[1])
        await self.client.load(request.digest, lambda: data)
        return await self.client.run(request, on_started)

    def request(
        self, data: bytes, payload: object = None, tier: int = 2, name: str = "", environment: str = "", **limits: int
    ) -> InstanceRequest:
        """What a run of run() in a bundle is asked for with."""
        profile = self.profiles[tier]
        return InstanceRequest(
            run=name or f"t{next(_numbers)}",
            digest=hashlib.sha256(data).hexdigest(),
            tier=tier,
            limits=effective_limits(Limits(**limits), profile),
            interface="json",
            entrypoint="plugin:run",
            input=json.dumps(payload).encode(),
            context={"stage": "", "plan_id": ""},
            stdio_bytes=profile.stdio_bytes,
            environment=environment,
        )

    async def value(
        self, code: str, payload: object = None, *, tier: int = 2, environment: str = "", **limits: int
    ) -> object:
        """The value that run() returned; fails the test when there is none."""
        result = await self.run(code, payload, tier=tier, environment=environment, **limits)
        assert result.output_json is not None, (result.outcome, result.detail, result.error, result.stderr)
        return json.loads(result.output_json)


@contextlib.contextmanager
def state_folder() -> Iterator[Path]:
    """A fresh state folder, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="plugind-test-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(path_of(folder), ignore_errors=True)
        plans_of(folder).unlink(missing_ok=True)


def sweep(state: Path) -> None:
    """Remove what a killed launcher leaves behind, as the next one on that state would: this state has no next one."""
    status = state.stat()
    name = f"{status.st_dev:x}-{status.st_ino:x}"
    cgroup.detect(prepare=False).sweep(name)
    shutil.rmtree(Path("/run", f"plugind-{name}"), ignore_errors=True)


@contextlib.asynccontextmanager
async def jail(profiles: Path | None = None, unsafe: UnsafeOverrides | None = None) -> AsyncIterator[Jail]:
    """A launcher, its client, and the certainty that both are gone afterwards. `unsafe`: see weakened.py."""
    profiles = profiles or profiles_dir()
    with state_folder() as state:
        sock, pid = start_launcher(LauncherConfig(state, profiles, 0, 0, unsafe=unsafe or UnsafeOverrides()))
        imported: list[Imported] = []
        client = LauncherClient(sock, imported.append)
        try:
            await client.open()
            yield Jail(client, pid, load_profiles(profiles), Shelf(path_of(state)), imported, state)
        finally:
            await client.stop()
            with contextlib.suppress(ProcessLookupError):
                if not client.gone.done():
                    os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(os.waitpid, pid, 0)
            sweep(state)


def living_instances(processes: Iterable[int]) -> list[int]:
    """Those of the processes that are instances with a thread that can still run code."""
    return [pid for pid in processes if any(map(_runs_code, _threads(pid)))]


def groups_of_runs(state: Path) -> list[Path]:
    """Control groups of instances, but for those that wait for a run, in every hierarchy. `state`: the daemon's."""
    status = state.stat()
    base = f"plugind-{status.st_dev:x}-{status.st_ino:x}"
    folders = {place / base / "instances" for place in cgroup.detect(prepare=False)._folders.values()}
    assert all(folder.is_dir() for folder in folders)
    return [each for folder in folders for each in folder.iterdir() if each.is_dir() and not _waits(each)]


def _waits(group: Path) -> bool:
    try:
        pids = (group / "cgroup.procs").read_text().split()
        return {Path("/proc", pid, "comm").read_text().strip() for pid in pids} == {PARKED}
    except OSError:
        return False


def _threads(pid: int) -> list[Path]:
    """Their stat files; none where the process has gone, also while one looks."""
    with contextlib.suppress(OSError):
        return [Path(f"/proc/{pid}/task", thread, "stat") for thread in os.listdir(f"/proc/{pid}/task")]
    return []


def _runs_code(stat: Path) -> bool:
    """Whether a thread is an instance's, and is not within do_exit().

    From PF_EXITING on there is no way back to a program; what is left is the kernel's own work, such as taking its
    mounts apart, for which it waits until every CPU has been idle once. Source: proc_pid_stat(5), linux/sched.h.
    """
    with contextlib.suppress(OSError):
        name, rest = stat.read_text().partition("(")[2].rpartition(")")[::2]
        return name == INSTANCE and not int(rest.split()[6]) & PF_EXITING
    return False


def assert_gone_within_50_ms(processes: Iterable[int]) -> None:
    """No instance is left 50 ms (of hardware) from now, of which time in which we did not run does not count.

    What dies is not always given a CPU at once either, and a launcher that is a fork of pytest takes longer to die than a
    real one: here half of all kills take 10 ms, and one in some hundreds takes more than 50. So two of all kills of a
    test run may, and none may take 100.
    """
    processes = list(processes)
    began = before = time.monotonic()
    stalled_s = 0.0
    while living_instances(processes):
        time.sleep(0.001)
        now = time.monotonic()
        stalled_s += max(0.0, now - before - stretched(0.005))
        before = now
        took_s = now - began - stalled_s
        assert took_s < stretched(0.1), f"instances outlive it: {living_instances(processes)}"
    took_ms = round((before - began - stalled_s) * 1000)
    _kills_ms.append(took_ms)
    late = [ms for ms in _kills_ms if ms >= stretched(50)]
    assert len(late) <= 2, f"of {len(_kills_ms)} kills these took longer than 50 ms: {late}"


def descendants(pid: int) -> dict[int, str]:
    """pid → name of every process below `pid`."""
    parents: dict[int, list[tuple[int, str]]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                name, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")[::2]
                parents.setdefault(int(rest.split()[1]), []).append((int(folder.name), name))
    found: dict[int, str] = {}
    todo = [pid]
    while todo:
        for child, name in parents.get(todo.pop(), []):
            found[child] = name
            todo.append(child)
    return found
