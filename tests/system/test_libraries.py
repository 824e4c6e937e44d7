"""Ordinary libraries in the jail: what a tier allows works without one refused call, what it refuses is an error that
these libraries know."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plugind.model import Outcome
from tests.support.grant import READ_PLAN, WRITE_OUTPUT, move_in
from tests.support.jail import Jail, descendants, jail, living_instances

LIBRARIES = {
    "asyncio": """
import asyncio
async def main():
    reader, writer = await asyncio.to_thread(lambda: (1, 2))
    queue = asyncio.Queue()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(queue.put(reader + writer))
        return await queue.get()
def run(payload, context):
    return asyncio.run(main())
""",
    "threading": """
import concurrent.futures, threading
def run(payload, context):
    total, lock = [0], threading.Lock()
    def add():
        with lock:
            total[0] += 1
    threads = [threading.Thread(target=add) for _ in range(8)]
    [each.start() for each in threads], [each.join() for each in threads]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return total[0] - 8 + sum(pool.map(int, "111"))
""",
    "multiprocessing": """
import multiprocessing
def square(number):
    return number * number
def put(queue, lock):
    with lock:
        queue.put(2)
def run(payload, context):
    fork = multiprocessing.get_context("fork")
    queue, lock = fork.Queue(), fork.Lock()
    child = fork.Process(target=put, args=(queue, lock))
    child.start()
    two = queue.get(timeout=5)
    child.join()
    with fork.Pool(2) as pool:
        return sum(pool.map(square, [1, 0])) + two
""",
    "sqlite3 in memory": """
import sqlite3
def run(payload, context):
    with sqlite3.connect(":memory:") as base:
        base.execute("create table t (x)"), base.execute("insert into t values (1), (2)")
        return base.execute("select sum(x) from t").fetchone()[0]
""",
    "ssl": """
import hashlib, hmac, secrets, ssl
def run(payload, context):
    ssl.create_default_context(), ssl.RAND_bytes(8), secrets.token_hex(4)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="example.org")
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return 3 if outgoing.pending > 100 and hmac.new(b"k", b"m", hashlib.sha256).digest() else 0
""",
    "ctypes": """
import ctypes
def run(payload, context):
    libc = ctypes.CDLL(None)
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
    numbers = (ctypes.c_int * 3)(3, 1, 2)
    libc.qsort(numbers, 3, 4, kind(lambda a, b: a[0] - b[0]))
    return numbers[2]
""",
    "files": """
import csv, glob, json, os, pathlib, pickle, shutil, tempfile, zipfile
def run(payload, context):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "a.csv").write_text("x\\n1\\n2\\n")
        shutil.copytree(folder, folder / "sub"), os.replace(folder / "a.csv", folder / "sub/b.csv")
        with zipfile.ZipFile(folder / "z.zip", "w") as archive:
            archive.write(folder / "sub/a.csv", "a.csv")
        pickle.loads(pickle.dumps(json.loads("[1]")))
        return sum(int(row["x"]) for row in csv.DictReader(open(folder / "sub/b.csv"))) * len(glob.glob(name + "/z*"))
""",
}
ONLY_WHERE_ALLOWED = {
    "subprocess": """
import asyncio, subprocess
async def ask():
    child = await asyncio.create_subprocess_exec("/usr/bin/env", "echo", "2", stdout=subprocess.PIPE)
    return int((await child.communicate())[0])
def run(payload, context):
    one = int(subprocess.run(["/usr/bin/env", "echo", "1"], capture_output=True, check=True, timeout=5).stdout)
    return one + asyncio.run(ask())
""",
    "sqlite3 in a file": """
import sqlite3
def run(payload, context):
    for _ in range(2):
        with sqlite3.connect("/tmp/base") as base:
            base.execute("pragma journal_mode=wal"), base.execute("create table if not exists t (x)")
            base.execute("insert into t values (1.5)")
    return base.execute("select sum(x) from t").fetchone()[0]
""",
    "shared memory": """
import multiprocessing
from multiprocessing import shared_memory
def fill(name):
    memory = shared_memory.SharedMemory(name)
    memory.buf[0] = 3
    memory.close()
def run(payload, context):
    memory = shared_memory.SharedMemory(create=True, size=64)
    child = multiprocessing.get_context("fork").Process(target=fill, args=(memory.name,))
    child.start(), child.join()
    three = memory.buf[0]
    memory.close(), memory.unlink()
    return three
""",
}


@pytest.mark.parametrize("name", [*LIBRARIES, *ONLY_WHERE_ALLOWED])
async def test_works_in_tier_1_without_a_refused_call(name: str) -> None:
    async with jail() as box:
        result = await box.run({**LIBRARIES, **ONLY_WHERE_ALLOWED}[name], tier=1)
    assert result.outcome is Outcome.OK, (result.error, result.stderr)
    assert float(result.output_json or b"0") == 3
    assert result.violations == ()


@pytest.mark.parametrize("name", LIBRARIES)
async def test_works_in_tier_2_without_a_refused_call(name: str) -> None:
    async with jail() as box:
        result = await box.run(LIBRARIES[name], tier=2)
    assert result.outcome is Outcome.OK, (result.error, result.stderr)
    assert float(result.output_json or b"0") == 3
    assert result.violations == ()


@pytest.mark.parametrize(
    ("name", "error", "message", "refused"),
    [
        ("subprocess", "PermissionError", "Operation not permitted", {"execve"}),
        ("sqlite3 in a file", "OperationalError", "", {"fcntl"}),
    ],
)
async def test_what_tier_2_refuses_is_the_same_ordinary_error_each_time(
    name: str, error: str, message: str, refused: set[str]
) -> None:
    async with jail() as box:
        results = [await box.run(ONLY_WHERE_ALLOWED[name], tier=2) for _ in range(3)]
    for result in results:
        assert result.outcome is Outcome.FAILED
        assert result.error is not None
        assert result.error.type == error
        assert message in result.error.message
        assert {each.name for each in result.violations} == refused
    assert len({result.error.message for result in results if result.error}) == 1
    assert len({str(result.violations) for result in results}) == 1


@pytest.mark.parametrize(
    ("attempt", "error", "refused"),
    [
        ("socket.socket()", "PermissionError", "socket"),
        ("socket.create_connection(('192.0.2.1', 80), 1)", "PermissionError", "socket"),
        ("urllib.request.urlopen('http://192.0.2.1/', timeout=1)", "URLError", "socket"),
        ("fcntl.flock(open('/tmp/x', 'w'), fcntl.LOCK_EX)", "OSError", "flock"),
        ("os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))", "PermissionError", "sched_setscheduler"),
        ("asyncio.run(asyncio.open_connection('192.0.2.1', 80))", "PermissionError", "socket"),
        ("logging.handlers.SysLogHandler()", "PermissionError", "socket"),
        ("smtplib.SMTP('192.0.2.1', timeout=1)", "PermissionError", "socket"),
    ],
)
@pytest.mark.parametrize("tier", [1, 2])
async def test_a_refused_call_is_an_error_that_its_library_knows(
    tier: int, attempt: str, error: str, refused: str
) -> None:
    code = (
        "import asyncio, fcntl, logging.handlers, os, smtplib, socket, urllib.request\n"
        f"def run(payload, context):\n    {attempt}"
    )
    async with jail() as box:
        result = await box.run(code, tier=tier)
    assert result.outcome is Outcome.FAILED
    assert result.error is not None
    assert result.error.type == error, result.error
    assert {each.name for each in result.violations} == {refused}


# -- real packages. Environments are not there yet: they are moved in where granted folders will be.

WAIT = """
import os, sys, time
def granted(path):
    deadline = time.monotonic() + 20
    while not os.listdir(path):
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.01)
"""
PACKAGES = (
    WAIT
    + """
def run(payload, context):
    granted("/grant/read/plan")
    sys.path.insert(0, "/grant/read/plan")
    import numpy, pandas
    numbers = numpy.random.default_rng(7).normal(size=(200, 200))
    singular = numpy.linalg.svd(numbers, compute_uv=False)
    frame = pandas.DataFrame({"stage": ["a", "b", "a"], "cost": [1.0, 2.0, 3.0]})
    frame.to_csv("/tmp/costs.csv", index=False)
    back = pandas.read_csv("/tmp/costs.csv", parse_dates=False)
    times = pandas.date_range("2026-01-01", periods=3, tz="Europe/Berlin")
    return {"sum": back.groupby("stage")["cost"].sum().to_dict(), "largest": float(singular[0]),
            "threads": float((numbers @ numbers.T).trace()), "zone": str(times[0]), "numpy": numpy.__version__}
"""
)


async def run_and_move_in(box: Jail, code: str, folder: Path, target: str, **limits: int) -> Any:
    started = asyncio.Event()
    running = asyncio.create_task(box.run(code, on_started=started.set, **limits))
    await asyncio.wait_for(started.wait(), 20)
    (pid,) = living_instances(descendants(box.launcher_pid))
    await asyncio.to_thread(move_in, folder, pid, target)
    return await running


async def test_numpy_and_pandas_work_in_tier_1_without_a_refused_call() -> None:
    packages = Path(np.__file__).parents[1]
    async with jail() as box:
        result = await run_and_move_in(box, PACKAGES, packages, READ_PLAN, tier=1, wall_ms=60_000, cpu_ms=60_000)
    assert result.outcome is Outcome.OK, (result.error, result.stderr, result.violations)
    numbers = np.random.default_rng(7).normal(size=(200, 200))
    seen = eval(result.output_json)
    assert seen["sum"] == {"a": 4.0, "b": 2.0}
    assert seen["numpy"] == np.__version__
    assert seen["largest"] == pytest.approx(np.linalg.svd(numbers, compute_uv=False)[0])
    assert seen["threads"] == pytest.approx((numbers @ numbers.T).trace())
    assert result.violations == ()


@pytest.mark.parametrize(("target", "writable"), [(READ_PLAN, False), (WRITE_OUTPUT, True)])
@pytest.mark.parametrize("tier", [1, 2])
async def test_a_folder_that_is_moved_in_later_can_be_used_as_its_place_says(
    tmp_path: Path, tier: int, target: str, writable: bool
) -> None:
    tmp_path.chmod(0o777)
    (tmp_path / "input.json").write_text("7")
    (tmp_path / "input.json").chmod(0o644)
    for parent in list(tmp_path.parents)[:3]:
        parent.chmod(parent.stat().st_mode | 0o055)
    code = (
        WAIT
        + f"""
def run(payload, context):
    granted("{target}")
    read = open("{target}/input.json").read()
    try:
        open("{target}/output.json", "w").write("8")
    except PermissionError as error:
        return [read, str(error.errno)]
    return [read, "written"]
"""
    )
    async with jail() as box:
        result = await run_and_move_in(box, code, tmp_path, target, tier=tier)
    assert result.output_json == (b'["7","written"]' if writable else b'["7","13"]'), (result.error, result.detail)
    assert (tmp_path / "output.json").exists() == writable
