"""The wheel as PlanExe's containers install it: gRPC and protobuf beside it and nothing else, no daemon, no root.

Each Python is asked that this machine has: the one of the tests, and 3.13, which is PlanExe's. Needs pip's cache or an index.
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.pace import stretched

pytestmark = [pytest.mark.slow, pytest.mark.timeout(stretched(600))]
ROOT = Path(__file__).parents[2]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "daemon", "proto", "client", "profiles", "packaging")
PLANEXE = (3, 13)

USED = """
import json, sys, time

started = time.monotonic()
import plugind_client
from plugind_client.testing import AsyncFakeClient, FakeClient

light = sorted({name.partition(".")[0] for name in sys.modules} & {"grpc", "plugind", "typer", "cryptography"})
assert FakeClient({"x": lambda payload: payload}).run("x", [1]).output == [1]
client = plugind_client.Client(sys.argv[1])
try:
    client.run("x", {})
except plugind_client.Unavailable as error:
    told = [str(error), error.code, error.retryable]
for module in ("aio", "audit", "calls", "channel", "client", "errors", "records", "wire"):
    __import__(f"plugind_client.{module}")
heavy = sorted({name.partition(".")[0] for name in sys.modules} & {"plugind", "typer", "rich", "cryptography"})
print(json.dumps({"light": light, "heavy": heavy, "told": told, "version": sys.version_info[:2]}))
"""

TYPED = """
import asyncio
from collections.abc import Sequence
from typing import assert_type

from plugind_client import (
    AsyncClient,
    Client,
    ColumnResult,
    Columns,
    Denied,
    MapResult,
    PlugindError,
    PluginFailed,
    PluginModule,
    Reason,
    RunResult,
    SessionResult,
    Status,
)
from plugind_client.testing import AsyncFakeClient, FakeClient


def cost(client: Client, amounts: Sequence[float]) -> float:
    try:
        result = client.run("cost_breakdown", list(amounts), stage="durations", timeout_ms=500)
    except Denied as error:
        assert_type(error.reasons, tuple[Reason, ...])
        return 0.0
    except PluginFailed as error:
        assert_type(error.traceback, str)
        return -1.0
    except PlugindError as error:
        assert_type(error.retryable, bool)
        raise
    assert_type(result, RunResult)
    assert_type(client.status(), Status)
    return float(result.output)


def costs(client: Client, module: PluginModule, amounts: Sequence[float]) -> SessionResult:
    many = client.map(module, [Columns("cost", {"amount": amounts, "rate": 1.5})], idempotency_key="plan_7")
    assert_type(many, MapResult)
    column = many[0]
    assert isinstance(column, ColumnResult)
    assert_type(column.errors, dict[int, PlugindError])
    with client.session(module, idle_ms=500) as session:
        session.call({"function": "cost", "arguments": {"amount": 1.0, "rate": 1.5}})
    return session.close()


async def condition(client: AsyncClient) -> Status:
    status = await client.status()
    assert_type(status, Status)
    return status


fake = FakeClient({"cost_breakdown": sum})
fake.denies("risk_score", "NOT_APPROVED")
assert_type(fake.run("cost_breakdown", [1]), RunResult)
print(cost(fake, [1.0, 2.0]), asyncio.run(condition(AsyncFakeClient())).mode)
"""
MISTAKES = """
from plugind_client import Client

client = Client()
client.run(5, {})
client.run("x", {}, stge="durations")
client.run("x", {}).outptu
"""


def python_of_planexe():
    """Where it is; None: nowhere. pyenv's shim is no interpreter, so each candidate has to say what it is."""
    candidates = [shutil.which("python3.13")]
    if shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=False).stdout.strip()
        candidates += sorted(map(str, Path(root).glob("versions/3.13.*/bin/python3.13")))
    return next((each for each in candidates if each and version_of(each) == PLANEXE), None)


def version_of(python):
    done = subprocess.run(
        [python, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True, check=False
    )
    return tuple(map(int, done.stdout.split())) if done.returncode == 0 else None


def ran(*command, **options):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: building generates code, and a checkout that is a user's may get no file of root's."""
    copy = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    ran(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", copy / "out", copy)
    (built,) = (copy / "out").glob("plugind-*.whl")
    return built


@pytest.fixture(scope="module", params=["of the tests", "3.13"])
def installed(request, wheel, tmp_path_factory):
    """The interpreter of a new environment that has the wheel and what it requires."""
    base = sys._base_executable if request.param == "of the tests" else python_of_planexe()
    if base is None:
        pytest.skip("NOT TESTED: there is no Python 3.13 on this machine, which is the one that PlanExe has")
    if request.param == "3.13" and version_of(sys.executable) == PLANEXE:
        pytest.skip("the tests run in Python 3.13: it was asked already")
    folder = tmp_path_factory.mktemp("venv")
    ran(base, "-m", "venv", folder)
    python = folder / "bin/python"
    ran(python, "-I", "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel, timeout=stretched(300))
    return python


def test_base_dependencies_are_grpc_and_protobuf_alone(installed):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {re.match(r"[a-z]+", each)[0] for each in project["dependencies"]} == {"grpcio", "protobuf"}
    listed = json.loads(ran(installed, "-I", "-m", "pip", "list", "--format=json", "--disable-pip-version-check"))
    # typing-extensions is gRPC's own.
    assert {each["name"].lower().replace("_", "-") for each in listed} - {"pip", "setuptools", "wheel"} == {
        "plugind",
        "grpcio",
        "protobuf",
        "typing-extensions",
    }


def test_client_and_its_fake_work_in_it_without_a_daemon(installed, tmp_path):
    script = tmp_path / "used.py"
    script.write_text(USED)
    # -W error: a warning here would be one in every program that uses the client.
    done = json.loads(ran(installed, "-I", "-W", "error", script, tmp_path / "nobody.sock"))
    assert done["told"] == ["plugind cannot be reached.", "UNAVAILABLE", True]
    assert (done["light"], done["heavy"]) == ([], [])
    assert tuple(done["version"]) == version_of(installed)


def test_it_is_typed_for_whoever_uses_it(installed, tmp_path):
    """mypy finds py.typed in the installed package: --strict holds, and mistakes are found."""
    (tmp_path / "user.py").write_text(TYPED)
    (tmp_path / "wrong.py").write_text(MISTAKES)
    assert ran(installed, "-I", tmp_path / "user.py") == "3.0 dev\n"
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", installed, "--config-file", ""]
    environment = {"PATH": "/usr/bin:/bin", "MYPY_CACHE_DIR": str(tmp_path / "cache")}
    assert ran(*mypy, "user.py", cwd=tmp_path, env=environment).startswith("Success")
    wrong = subprocess.run(
        [*map(str, mypy), "wrong.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (wrong.returncode, wrong.stderr) == (1, "")
    assert [line.split(":")[1] for line in wrong.stdout.splitlines() if ": error:" in line] == ["5", "6", "7"]
