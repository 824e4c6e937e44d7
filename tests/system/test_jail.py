"""The jail on the real kernel: what a plugin finds in there, and that it ends as it should."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from plugind.errors import IsolationUnavailableError, LauncherGoneError
from plugind.model import Outcome
from plugind.profiles import profiles_dir
from tests.support.jail import assert_gone_within_50_ms, descendants, jail
from tests.support.pace import stretched
from tests.support.weakened import weakened

pytestmark = pytest.mark.root

LOOK = """
import os, resource
def run(payload, context):
    status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
    return {
        "status": status,
        "uid": os.getresuid(), "gid": os.getresgid(), "groups": os.getgroups(), "pid": os.getpid(), "sid": os.getsid(0),
        "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd")),
        "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in ("pid","mnt","ipc","uts","cgroup","user","net")},
        "proc": sorted(os.listdir("/proc")), "plugin": os.listdir("/plugin"),
        "mounts": [line.split()[4:6] for line in open("/proc/self/mountinfo")],
        "cgroup": open("/proc/self/cgroup").read().splitlines(),
        "hostname": os.uname().nodename, "environment": dict(os.environ), "cwd": os.getcwd(),
        "core": resource.getrlimit(resource.RLIMIT_CORE), "umask": os.umask(0o077),
        "args": open("/proc/self/cmdline").read() if os.access("/proc/self/cmdline", os.R_OK) else "",
    }
"""


@pytest.mark.parametrize("tier", [1, 2])
async def test_what_a_plugin_finds(tier: int) -> None:
    async with jail() as box:
        seen: Any = await box.value(LOOK, tier=tier)
    assert seen["uid"] == seen["gid"] == [1000] * 3
    assert seen["groups"] in ([], [65534])
    assert (seen["pid"], seen["sid"]) == (1, 1)
    assert set(seen["descriptors"]) - {4} == {0, 1, 2, 3}  # 4 is the listing itself
    for capability in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(seen["status"][capability], 16) == 0, capability
    assert seen["status"]["NoNewPrivs"].strip() == "1"
    assert seen["status"]["Seccomp"].strip() == "2"
    for name, link in seen["namespaces"].items():
        assert link != str(Path(f"/proc/self/ns/{name}").readlink()), name
    assert seen["proc"] == ["1", "self", "thread-self"]
    assert seen["plugin"] == ["plugin.py"]
    assert all(line.endswith(":/") for line in seen["cgroup"])
    writable = sorted(path for path, options in seen["mounts"] if options.split(",")[0] == "rw")
    assert writable == ["/dev/shm", "/proc", "/proc", "/tmp"]  # the covered proc of the template, and its own
    assert seen["hostname"] == "plugin"
    assert seen["cwd"] == "/tmp"
    assert set(seen["environment"]) == {"HOME", "TMPDIR", "PATH", "LANG", "PYTHONDONTWRITEBYTECODE"}
    assert seen["core"] == [1, 1]  # byte: at which the kernel starts no helper for a core either
    assert seen["umask"] == 0o077


async def test_what_the_root_consists_of() -> None:
    look = "import os\ndef run(payload, context):\n    return [sorted(os.listdir(each)) for each in payload]\n"
    places = ["/", "/grant", "/grant/read", "/grant/read/plan", "/grant/write/output", "/dev", "/etc", "/code"]
    places.append("/environment")
    async with jail(unsafe=weakened(without=["landlock"])) as box:  # by which a plugin cannot list the root at all
        root, *below = await box.value(look, places)
    allowed = {"bin", "code", "dev", "environment", "etc", "grant", "lib", "lib64", "plugin", "proc", "runtime", "tmp"}
    allowed.add("usr")
    assert set(root) - {Path(sys.base_prefix).parts[1]} <= allowed
    assert below == [
        ["read", "write"], ["plan"], [], [],
        ["fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"],
        ["group", "host.conf", "hosts", "nsswitch.conf", "passwd"], [], [],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("attempt", "error"),
    [
        ("os.listdir('/')", "PermissionError"),
        ("os.listdir('/usr')", "PermissionError"),
        ("os.listdir('/code')", "PermissionError"),
        ("open('/plugin/plugin.py', 'a')", "PermissionError|OSError"),
        ("open('/usr/x', 'w')", "OSError"),
        ("open('/x', 'w')", "OSError"),
        ("open('/proc/sys/kernel/hostname')", "FileNotFoundError"),
        ("open('/proc/self/exe', 'r+b')", "OSError|PermissionError"),
        ("os.listdir('/home')", "FileNotFoundError"),
        ("open('/etc/shadow')", "FileNotFoundError"),
        ("socket.socket()", "OSError|PermissionError"),
        ("socket.socket(socket.AF_UNIX)", "OSError|PermissionError"),
        ("os.setuid(0)", "PermissionError|OSError"),
        ("os.nice(-5)", "PermissionError"),
        ("os.chroot('/tmp')", "PermissionError"),
        ("os.mkdir('/dev/x')", "OSError"),
        ("os.kill(2, 9)", "ProcessLookupError"),
        ("os.mknod('/tmp/d', 0o20600, 259)", "PermissionError"),
    ],
)
async def test_refused(attempt: str, error: str) -> None:
    async with jail() as box:
        result = await box.run(f"import os, socket\ndef run(payload, context):\n    {attempt}")
    assert result.outcome is Outcome.FAILED, result
    assert result.error is not None
    assert re.fullmatch(error, result.error.type), result.error


MEMFD_NOEXEC = Path("/proc/sys/vm/memfd_noexec")
"""Not there before Linux 6.3: then no memfd can be made at all."""


def host_memfd_noexec() -> str:
    return MEMFD_NOEXEC.read_text() if MEMFD_NOEXEC.exists() else ""


async def test_memfds_do_not_execute() -> None:
    before = host_memfd_noexec()
    code = """
import errno, os, shutil
def run(payload, context):
    try: fd = os.memfd_create("x", 0)
    except OSError as error: return f"refused with {errno.errorcode[error.errno]}"
    os.write(fd, open("/usr/bin/true", "rb").read())
    pid = os.fork()
    if pid == 0:
        try: os.execve(f"/proc/self/fd/{fd}", ["x"], {})
        except OSError as error: os._exit(error.errno)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""
    async with jail() as box:
        assert await box.value(code, tier=1) == (errno.EACCES if before else "refused with ENOSYS")
    assert host_memfd_noexec() == before


HOG = "def run(payload, context):\n"


@pytest.mark.parametrize(
    ("code", "limits", "outcome"),
    [
        ("import time\n" + HOG + "    time.sleep(60)", {"wall_ms": 200}, Outcome.TIMEOUT),
        (HOG + "    while True: pass", {"cpu_ms": 200, "wall_ms": 20_000}, Outcome.CPU_EXCEEDED),
        (
            "import os\n" + HOG + "    os.fork(); os.fork()\n    while True: pass",
            {"cpu_ms": 300, "wall_ms": 20_000},
            Outcome.CPU_EXCEEDED,
        ),
        (HOG + "    return len(bytearray(400 << 20))", {"memory_bytes": 64 << 20}, Outcome.OUT_OF_MEMORY),
        (
            "import os, time\n" + HOG + "    if os.fork() == 0: bytearray(400 << 20)\n    time.sleep(20)",
            {"memory_bytes": 64 << 20, "wall_ms": 20_000},
            Outcome.OUT_OF_MEMORY,
        ),
        (
            "import os, time\n" + HOG + "    while True:\n        if os.fork() == 0: time.sleep(30)",
            {"pids": 8},
            Outcome.PIDS_EXCEEDED,
        ),
        (
            "import os, time\n"
            + HOG
            + "    try:\n        while os.fork(): pass\n    except OSError: return 'went on'\n    time.sleep(20)",
            {"pids": 8, "wall_ms": 20_000},
            Outcome.PIDS_EXCEEDED,
        ),
        (HOG + "    return 'x' * (2 << 20)", {"output_bytes": 1 << 20}, Outcome.OUTPUT_LIMIT),
        (HOG + "    while True: print('x' * 65536)", {}, Outcome.OUTPUT_LIMIT),
        (HOG + "    return {1, 2}", {}, Outcome.OUTPUT_INVALID),
        (HOG + "    return float('nan')", {}, Outcome.OUTPUT_INVALID),
        ("import os\n" + HOG + "    os._exit(0)", {}, Outcome.OUTPUT_INVALID),
        ("import os\n" + HOG + "    os.write(3, b'{}'); return 1", {}, Outcome.OUTPUT_INVALID),
        ("import os\n" + HOG + "    os._exit(3)", {}, Outcome.FAILED),
        ("import sys\n" + HOG + "    sys.exit('bye')", {}, Outcome.FAILED),
        (HOG + "    1 / 0", {}, Outcome.FAILED),
        ("syntax error", {}, Outcome.FAILED),
        ("import ctypes\n" + HOG + "    ctypes.string_at(0)", {}, Outcome.FAILED),
        ("import ctypes\n" + HOG + "    ctypes.CDLL(None).unshare(0x10000000)", {}, Outcome.VIOLATION),
        (HOG + "    open('/tmp/f', 'wb').write(bytes(9 << 20))", {"scratch_bytes": 1 << 20}, Outcome.FAILED),
        ("import os\n" + HOG + "    [open(f'/tmp/{n}', 'w').close() for n in range(10**6)]", {}, Outcome.FAILED),
    ],
)
async def test_every_end_has_its_outcome(code: str, limits: dict[str, int], outcome: Outcome) -> None:
    async with jail() as box:
        started = time.monotonic()
        result = await box.run(code, **limits)
        assert result.outcome is outcome, result
        assert time.monotonic() - started < stretched(15)
        assert (await box.run(HOG + "    return 1")).outcome is Outcome.OK  # the next one is not affected
        assert "plugind-plugin" not in descendants(box.launcher_pid).values()


async def test_a_step_that_fails_refuses_and_says_which(tmp_path: Path) -> None:
    folder = tmp_path / "profiles"
    shutil.copytree(profiles_dir(), folder)
    text = (folder / "tier2.toml").read_text()
    changed, count = re.subn(r"(?m)^open_files\s*=.*$", "open_files = 1073741824", text)
    assert count == 1
    (folder / "tier2.toml").write_text(changed)
    async with jail(folder) as box:
        with pytest.raises(IsolationUnavailableError, match="rlimits") as caught:
            await box.run(HOG + "    return 1")
        assert caught.value.step == "rlimits"
        assert (await box.run(HOG + "    return 1", tier=1)).outcome is Outcome.OK
        assert "plugind-plugin" not in descendants(box.launcher_pid).values()


async def test_nothing_is_left_for_the_next_run() -> None:
    mark = "import os\ndef run(payload, context):\n    found = os.listdir('/tmp') + os.listdir('/dev/shm')\n    open('/tmp/mark', 'w').close(); open('/dev/shm/mark', 'w').close()\n    return found"
    async with jail() as box:
        assert [await box.value(mark) for _ in range(3)] == [[], [], []]


async def test_random_state_is_not_shared() -> None:
    draw = "import random, uuid, tempfile\ndef run(payload, context):\n    return [random.random(), str(uuid.uuid4()), tempfile.mktemp()]"
    async with jail() as box:
        drawn: Any = [await box.value(draw) for _ in range(20)]
    for column in zip(*drawn, strict=True):
        assert len(set(column)) == 20


async def test_cancel_ends_the_instance() -> None:
    async with jail() as box:
        task = asyncio.create_task(
            box.run("import time\ndef run(p, c):\n    time.sleep(60)", wall_ms=60_000, name="sleeper")
        )
        await until(lambda: "plugind-plugin" in descendants(box.launcher_pid).values())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert "plugind-plugin" not in descendants(box.launcher_pid).values()


@pytest.mark.parametrize("victim", ["plugind-init", "plugind-zygote"])
async def test_a_lost_template_takes_its_instances_and_comes_back(victim: str) -> None:
    async with jail() as box:
        sleeper = "import time\ndef run(p, c):\n    time.sleep(60)"
        started = asyncio.Event()  # before that nothing of the plugin ran, and the run would be refused
        task = asyncio.create_task(box.run(sleeper, on_started=started.set, wall_ms=60_000))
        await asyncio.wait_for(started.wait(), stretched(5))
        before = descendants(box.launcher_pid)
        parent_of_instance = _template_of(before, victim)
        os.kill(parent_of_instance, signal.SIGKILL)
        assert_gone_within_50_ms(before)
        assert (await task).outcome is Outcome.FAULT
        assert (await box.run("def run(p, c): return 1")).outcome is Outcome.OK


def _template_of(processes: dict[int, str], victim: str) -> int:
    """The init or zygote above the one instance there is."""
    (instance,) = [pid for pid, name in processes.items() if name == "plugind-plugin"]
    pid = instance
    while processes.get(pid) != victim:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pid


async def test_a_killed_launcher_leaves_no_instance() -> None:
    async with jail() as box:
        task = asyncio.create_task(box.run("import time\ndef run(p, c):\n    time.sleep(60)", wall_ms=60_000))
        await until(lambda: "plugind-plugin" in descendants(box.launcher_pid).values())
        below = descendants(box.launcher_pid)
        os.kill(box.launcher_pid, signal.SIGKILL)
        assert_gone_within_50_ms(below)
        await until(lambda: not any(alive(pid) for pid in below), 1)
        with pytest.raises(LauncherGoneError):
            await task


def alive(pid: int) -> bool:
    """Whether the process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def until(condition: Any, seconds: float = 5.0) -> None:
    """Wait for a condition; fails the test when it does not come true in time."""
    deadline = time.monotonic() + stretched(seconds)
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.002)
