"""Instances that import ahead and wait, on the real kernel: what they are, what they give, and how they go."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from plugind.errors import IsolationUnavailableError
from plugind.model import Limits, Outcome
from plugind.sandbox.jailspec import effective_limits
from plugind.sandbox.protocol import NOT_PARKED
from plugind.sandbox.running import InstanceRequest, InstanceResult
from tests.escapes.attack import attack
from tests.support.daemon import profiles_with
from tests.support.jail import Jail, bundle_of, descendants, jail
from tests.support.pace import stretched

_names = itertools.count(1)


class Lot:
    """Parks and runs one plugin."""

    def __init__(self, made: Jail, code: str, **limits: int) -> None:
        self.jail = made
        self.data = bundle_of(plugin=code)
        self.digest = hashlib.sha256(self.data).hexdigest()
        self.limits = effective_limits(Limits(**limits), made.profiles[2])

    def _request(self, name: str, mode: str, payload: object = None, stage: str = "") -> InstanceRequest:
        return InstanceRequest(
            run=name,
            digest=self.digest,
            tier=2,
            limits=self.limits,
            interface="json",
            entrypoint="plugin:run",
            input=json.dumps(payload).encode() if mode == "run" else b"",
            context={"stage": stage, "plan_id": ""},
            stdio_bytes=self.jail.profiles[2].stdio_bytes,
            mode=mode,
        )

    async def park(self) -> tuple[str, InstanceResult]:
        await self.jail.client.load(self.digest, lambda: self.data)
        name = f"import-{next(_names)}"
        return name, await self.jail.client.park(self._request(name, "import"))

    async def parked(self) -> str:
        name, result = await self.park()
        assert result.outcome is Outcome.OK, result
        assert self.jail.client.is_parked(name)
        return name

    async def use(self, name: str, payload: object = None, stage: str = "") -> InstanceResult:
        return await self.jail.client.run(self._request(f"run-{next(_names)}", "run", payload, stage), parked=name)

    async def value(self, payload: object = None, stage: str = "") -> object:
        result = await self.use(await self.parked(), payload, stage)
        assert result.output_json is not None, result
        return json.loads(result.output_json)


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Jail]:
    async with jail(profiles_with(tmp_path, 16)) as made:
        yield made


def instances(made: Jail) -> dict[int, str]:
    return {pid: name for pid, name in descendants(made.launcher_pid).items() if name.startswith("plugind-p")}


async def gone(made: Jail) -> None:
    for _ in range(int(stretched(200))):
        if not instances(made):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(instances(made))


async def test_it_is_in_the_same_jail_as_a_fresh_one_and_learns_its_stage_with_its_run(box):
    code = """
import os
STATUS = open("/proc/self/status").read()
def run(payload, context):
    wanted = ("Uid", "Gid", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters")
    now = open("/proc/self/status").read()
    pick = lambda text: {k: v.split() for k, _, v in (line.partition(":") for line in text.splitlines()) if k in wanted}
    return {"status": pick(now), "same": pick(STATUS) == pick(now), "stage": context.stage, "payload": payload,
            "pid": os.getpid(), "fds": sorted(map(int, os.listdir("/proc/self/fd")))[:5]}
"""
    lot = Lot(box, code)
    warm = await lot.value({"a": [1]}, "durations")
    cold = await box.value(code, {"a": [1]})
    assert warm.pop("stage") == "durations"
    assert cold.pop("stage") == ""
    assert warm.pop("fds") == [0, 1, 2, 3, 4]  # 4: the pipe by which it says that it is done
    cold.pop("fds")
    uids = [each["status"].pop("Uid") + each["status"].pop("Gid") for each in (warm, cold)]
    assert all(set(each) == {"1000"} for each in uids)
    assert warm == cold
    assert warm["same"]


async def test_it_stands_still_while_it_waits_and_its_clock_too(box):
    # It forges the word that its import is over, and would go on counting.
    code = """
import os, time
os.write(4, b"i")
began = time.monotonic()
count = 0
while os.path.exists("/tmp") and time.monotonic() - began < 0.7:
    count += 1
def run(payload, context):
    return count
"""
    lot = Lot(box, code, wall_ms=2000, cpu_ms=1500)
    name = await lot.parked()
    before = cpu_ticks(box)
    await asyncio.sleep(1.0)
    assert cpu_ticks(box) - before <= 2, "a parked instance used CPU time"
    result = await lot.use(name)
    # The true word that its import is over comes when it is in its run, where it means nothing.
    assert result.outcome is Outcome.OK, result
    assert result.usage.wall_ms < 1000, "the time in which it waited is not the run's"


def cpu_ticks(made: Jail) -> int:
    found = list(instances(made))
    assert found
    return sum(sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])) for pid in found)


@pytest.mark.parametrize(
    "left",
    [
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n",
        "import os, time\nif os.fork() == 0:\n    time.sleep(60)\n",
    ],
    ids=["thread", "fork"],
)
@attack(
    52, "leave a thread or a process behind at import, ahead of the run", "frozen and counted: one task, or not parked"
)
async def test_an_import_that_leaves_more_than_one_task_is_not_parked(box, left):
    _, result = await Lot(box, left + "def run(p, c):\n    return 1\n").park()
    assert result.outcome is Outcome.FAILED
    assert result.detail == "its import left 2 processes and threads, and not one"
    await gone(box)


@pytest.mark.parametrize(
    "code, outcome",
    [
        ("while True:\n    pass\n", Outcome.CPU_EXCEEDED),
        ("import time\ntime.sleep(60)\n", Outcome.TIMEOUT),
        ("x = bytearray(1 << 30)\n", Outcome.OUT_OF_MEMORY),
        ("import ctypes\nctypes.CDLL(None).ptrace(0, 0, 0, 0)\n", Outcome.VIOLATION),
        ("raise ValueError('no')\n", Outcome.FAILED),
        ("import os\nos._exit(0)\n", Outcome.FAILED),
    ],
    ids=["cpu", "wall", "memory", "ptrace", "raises", "exits"],
)
async def test_an_import_is_held_to_all_limits_and_its_end_is_named(box, code, outcome):
    _, result = await Lot(box, code, wall_ms=1500, cpu_ms=300, memory_bytes=64 << 20).park()
    assert result.outcome is outcome, result
    if code.startswith("raise"):
        assert b"ValueError: no" in result.stderr
    await gone(box)


@attack(
    52,
    "write a result at import, ahead of the run",
    "result pipe and nonce come with the input, over a socket that takes nothing",
)
async def test_a_frame_that_was_written_early_is_no_result(box):
    code = """
import os
try:
    os.write(3, b"0" * 16 + b"V" + (1).to_bytes(8, "big") + b"7")
    wrote = "written"
except OSError as error:
    wrote = type(error).__name__
def run(payload, context):
    return [wrote, payload]
"""
    assert await Lot(box, code).value(5) == ["BrokenPipeError", 5]


async def test_nothing_can_be_sent_by_the_way_that_its_run_comes(box):
    code = """
import socket
def attempt():
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=3)
    try:
        socket.send_fds(sock, [b"x"], [0, 1, 2])
        return "sent"
    except OSError as error:
        return type(error).__name__
    finally:
        sock.detach()
found = attempt()
def run(payload, context):
    return found
"""
    assert await Lot(box, code).value() == "BrokenPipeError"


async def test_two_frames_are_no_result_and_an_early_word_is_an_end_without_one(box):
    two = "import os, json\ndef run(p, c):\n    os.write(3, b'x' * 40)\n    return 1\n"
    lot = Lot(box, two)
    assert (await lot.use(await lot.parked())).outcome is Outcome.OUTPUT_INVALID
    early = "import os, time\ndef run(p, c):\n    os.write(4, b'd')\n    time.sleep(5)\n    return 1\n"
    lot = Lot(box, early)
    result = await lot.use(await lot.parked())
    assert (result.outcome, result.detail) == (Outcome.OUTPUT_INVALID, "the plugin's process ended without a result")
    await gone(box)


async def test_what_it_prints_in_its_run_is_the_runs_and_large_outputs_come_whole(box):
    code = "import sys\ndef run(p, c):\n    print('out' * p)\n    print('err', file=sys.stderr)\n    return 'x' * p\n"
    lot = Lot(box, code)
    result = await lot.use(await lot.parked(), 300_000)
    assert result.stdout == b"out" * 300_000 + b"\n"
    assert result.stderr == b"err\n"
    assert json.loads(result.output_json) == "x" * 300_000


async def test_limits_hold_for_its_run_from_its_own_beginning(box):
    lot = Lot(box, "import time\ndef run(p, c):\n    time.sleep(p)\n", wall_ms=300)
    name = await lot.parked()
    await asyncio.sleep(0.5)
    assert (await lot.use(name, 0)).outcome is Outcome.OK
    assert (await lot.use(await lot.parked(), 5)).outcome is Outcome.TIMEOUT
    lot = Lot(box, "def run(p, c):\n    while True:\n        pass\n", cpu_ms=200)
    assert (await lot.use(await lot.parked())).outcome is Outcome.CPU_EXCEEDED
    await gone(box)


async def test_a_kill_reaches_it_and_a_run_that_comes_for_it_is_refused(box):
    lot = Lot(box, "def run(p, c):\n    return 1\n")
    name = await lot.parked()
    box.client.kill(name, "killed")
    await gone(box)
    for _ in range(int(stretched(100))):
        if not box.client.is_parked(name):
            break
        await asyncio.sleep(0.01)
    with pytest.raises(IsolationUnavailableError) as refused:
        await lot.use(name)
    assert refused.value.step == NOT_PARKED


async def test_each_is_used_once(box):
    lot = Lot(box, "seen = []\ndef run(p, c):\n    seen.append(p)\n    return seen\n")
    name = await lot.parked()
    assert json.loads((await lot.use(name, 1)).output_json) == [1]
    with pytest.raises(IsolationUnavailableError):
        await lot.use(name, 2)
    assert await lot.value(3) == [3]


@attack(
    56,
    "guess what a sibling that waits draws at its import and in its run",
    "each is a clone of its own, and reseeded",
)
async def test_a_thousand_draw_nothing_twice(box):
    code = """
import os, random, secrets, ssl, tempfile, uuid
def draw():
    with tempfile.NamedTemporaryFile() as made:
        name = made.name
    return [random.random(), secrets.token_hex(8), ssl.RAND_bytes(8).hex(), uuid.uuid4().hex, name, os.urandom(8).hex()]
ahead = draw()
def run(payload, context):
    return ahead + draw()
"""
    lot = Lot(box, code)
    drawn: list[list[object]] = []
    for _ in range(125):
        names = [await lot.parked() for _ in range(8)]
        results = await asyncio.gather(*(lot.use(name) for name in names))
        drawn.extend(json.loads(result.output_json) for result in results)
    flat = [each for one in drawn for each in one]
    assert len(flat) == 125 * 8 * 12
    assert len(set(flat)) == len(flat), "two instances drew the same"


async def test_a_tier_has_only_so_many(box):
    lot = Lot(box, "def run(p, c):\n    return 1\n")
    most = 2 * box.profiles[2].parked
    names = [await lot.parked() for _ in range(most)]
    with pytest.raises(IsolationUnavailableError, match="has its 16 parked instances"):
        await lot.park()
    assert all(map(box.client.is_parked, names))
    assert (await box.value("def run(p, c):\n    return 1\n")) == 1, "they take no run's place"
