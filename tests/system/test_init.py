"""The init of a template: what is left of it once its zygote runs, and that it still does what an init is for."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from plugind.errors import IsolationUnavailableError
from plugind.sandbox import initprogram
from plugind.sandbox.spawn import UnsafeOverrides
from tests.support.jail import Jail, descendants, jail
from tests.support.pace import stretched

pytestmark = pytest.mark.root
NAME = "plugind-init"


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + stretched(5)
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


async def inits(box: Jail) -> list[int]:
    """One for each tier. A zygote can be ready a moment before its init is."""
    found = [pid for pid, name in descendants(box.launcher_pid).items() if name == NAME]
    assert len(found) == len(box.profiles)
    await until(lambda: all(int(status(pid)["VmRSS"].split()[0]) <= 64 for pid in found))
    return found


async def test_it_has_neither_rights_nor_memory_nor_files() -> None:
    async with jail() as box:
        for pid in await inits(box):
            seen = status(pid)
            assert {name: int(seen[name], 16) for name in seen if name.startswith("Cap")} == dict.fromkeys(
                ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0
            )
            assert (seen["NoNewPrivs"], seen["Seccomp"], seen["Seccomp_filters"]) == ("1", "2", "1")
            assert seen["NSpid"].split() == [str(pid), "1"]
            assert os.listdir(f"/proc/{pid}/fd") == []
            assert Path(f"/proc/{pid}/cmdline").read_bytes() == NAME.encode() + b"\0"
            assert Path(f"/proc/{pid}/environ").read_bytes() == b""
            assert Path(f"/proc/{pid}/exe").readlink() == Path(initprogram.PATH)


async def test_not_even_its_own_zygote_can_get_at_it() -> None:
    """It is not dumpable: its files in proc are real root's, and only real root may trace it. Source: proc(5)."""
    async with jail() as box:
        inner = set(await inits(box))
        zygotes = [pid for pid, name in descendants(box.launcher_pid).items() if name == "plugind-zygote"]
        assert {int(status(zygote)["PPid"]) for zygote in zygotes} == inner
        for zygote in zygotes:
            seen = status(zygote)
            assert seen["Uid"] == status(int(seen["PPid"]))["Uid"] != "0\t0\t0\t0"
            assert read_as(zygote, zygote, "maps") == ""
            for file in ("maps", "mem", "environ"):
                assert read_as(zygote, int(seen["PPid"]), file) == os.strerror(errno.EACCES)


def read_as(zygote: int, pid: int, file: str) -> str:
    """Why a file of a process cannot be read with a zygote's uid, and all that root of its user namespace may."""
    command = ["nsenter", "-t", str(zygote), "-U", "--", "cat", f"/proc/{pid}/{file}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.strip().rpartition(": ")[2]


async def test_orphans_are_reaped() -> None:
    async with jail() as box:
        pid = (await inits(box))[0]
        subprocess.run(["nsenter", "-t", str(pid), "-p", "--", "sh", "-c", "sleep 60 & exit 0"], check=True)
        await until(lambda: "sleep" in descendants(pid).values())
        (orphan,) = [each for each, name in descendants(pid).items() if name == "sleep"]
        assert int(status(orphan)["PPid"]) == pid
        os.kill(orphan, signal.SIGKILL)
        await until(lambda: not Path(f"/proc/{orphan}").exists())


async def test_it_ends_with_its_zygote_without_the_launcher() -> None:
    async with jail() as box:
        found = await inits(box)
        os.kill(box.launcher_pid, signal.SIGSTOP)
        try:
            for pid, name in descendants(box.launcher_pid).items():
                if name == "plugind-zygote":
                    os.kill(pid, signal.SIGKILL)
            await until(lambda: all(status(pid)["State"].startswith("Z") for pid in found))
        finally:
            os.kill(box.launcher_pid, signal.SIGCONT)
        assert await box.value("def run(payload, context): return 1") == 1


async def test_it_ends_with_the_launcher() -> None:
    async with jail() as box:
        found = await inits(box)
        os.kill(box.launcher_pid, signal.SIGKILL)
        await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in found))


async def test_no_signal_from_below_ends_it() -> None:
    async with jail() as box:
        for pid in await inits(box):
            subprocess.run(["nsenter", "-t", str(pid), "-p", "--", "kill", "-KILL", "1"], check=True)
            subprocess.run(["nsenter", "-t", str(pid), "-p", "--", "kill", "-TERM", "1"], check=True)
        await asyncio.sleep(0.05)
        assert await box.value("def run(payload, context): return 1") == 1
        assert len(await inits(box)) == len(box.profiles)


async def test_what_keeps_it_from_being_locked_up_is_told() -> None:
    async with jail(unsafe=UnsafeOverrides(template_filter=lambda: b"")) as box:
        with pytest.raises(IsolationUnavailableError, match="Invalid argument: 'seccomp'"):
            await box.run("def run(payload, context): return 1")
