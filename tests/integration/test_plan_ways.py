"""Files of a plan the ways that people have: a folder, files that are sent, maps, sessions; conflicts, quarantine, undo."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugind.provenance import bundle
from plugind.provenance.keys import PrivateKey
from plugind_client import AsyncClient, Client, Denied, Violated
from plugind_client.errors import PlugindError
from tests.escapes.attack import attack
from tests.support.daemon import Daemon
from tests.support.pace import stretched
from tests.support.plugins import attested, folder

pytestmark = pytest.mark.root

CODE = """
import os, time

def run(payload, context):
    with open(os.path.join(context.plan_dir, "in.txt")) as stream:
        text = stream.read()
    time.sleep(payload.get("sleep_s", 0))
    for name in payload.get("write", ["out.txt"]):
        os.makedirs(os.path.join(context.output_dir, os.path.dirname(name)), exist_ok=True)
        with open(os.path.join(context.output_dir, name), "w") as stream:
            stream.write(payload.get("text", text.upper()))
    return len(text)
"""
EXTRA = """[limits]
wall_ms = 60000
[[permissions.file_read]]
path = "in.txt"
[[permissions.file_write]]
path = "out*.txt"
[[permissions.file_write]]
path = "more/*.txt"
"""
REPORT = {"stage": "report"}


def install(client: Client, parent: Path, version: str = "1.0.0") -> None:
    data = bundle.build(folder(parent, "upper", version, code=CODE, extra=EXTRA))
    keys = [PrivateKey.generate(), PrivateKey.generate()]
    client.submit(data, attested(data, *keys), development_public_keys=[key.public.to_pem().decode() for key in keys])
    client.approve("upper", version, tier=1, as_declared=True, reason="a test")
    client.activate("upper", version)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon() as running:
        install(running.client(), tmp_path_factory.mktemp("plugins"))
        yield running


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return made(tmp_path / "plan")


def made(path: Path, text: str = "tomatoes") -> Path:
    path.mkdir()
    (path / "in.txt").write_text(text)
    return path


def contents(path: Path) -> dict[str, str]:
    return {str(each.relative_to(path)): each.read_text() for each in path.rglob("*") if each.is_file()}


PEEKS = """
import os

def run(payload, context):
    got = []
    for path in payload:
        for tried in (path, os.path.join(context.plan_dir, path), os.path.join(context.plan_dir, "..", path)):
            try:
                with open(tried) as stream:
                    got.append([tried, stream.read()])
            except OSError:
                pass
    return got, sorted(os.listdir(context.plan_dir)), sorted(os.listdir(os.path.dirname(context.plan_dir)))
"""


@attack(43, "a plugin reads another plan's files, by path, upwards, and what no pattern of its own plan means",
        "only a copy of what was granted is mounted")  # fmt: skip
def test_another_plan_is_not_there(daemon: Daemon, tmp_path: Path) -> None:
    mine, other = made(tmp_path / "mine"), made(tmp_path / "other", "SECRET")
    (mine / "prompt.txt").write_text("SECRET too")
    extra = '[[permissions.file_read]]\npath = "in.txt"\n'
    data = bundle.build(folder(tmp_path, "peeks", code=PEEKS, extra=extra))
    client = daemon.client()
    client.submit(data)
    client.approve("peeks", "1.0.0", tier=2, as_declared=True, reason="a test")
    client.activate("peeks", "1.0.0")
    wanted = [
        str(other / "in.txt"),
        "../other/in.txt",
        "other/in.txt",
        str(mine / "prompt.txt"),
        "prompt.txt",
        "in.txt",
    ]
    got, seen, beside = client.run("peeks", wanted, plan_dir=mine, **REPORT).output
    assert [text for _, text in got] == ["tomatoes"]
    assert (seen, beside) == (["in.txt"], ["plan"])


def test_files_that_are_sent_come_back_and_nothing_is_opened(daemon: Daemon, plan: Path) -> None:
    sent = {"in.txt": b"sent", "secret.txt": b"no pattern means it"}
    result = daemon.client().run("upper", {"write": ["out.txt", "more/b.txt"]}, files=sent, **REPORT)
    assert result.output == 4
    assert {each.path: each.content for each in result.files} == {"out.txt": b"SENT", "more/b.txt": b"SENT"}
    assert contents(plan) == {"in.txt": "tomatoes"}
    shown = daemon.command("audit", "show", result.audit_log, "--json")
    assert b"secret.txt" not in shown.stdout.encode(), "what was not granted is in no record"


def test_send_puts_what_comes_back_into_the_folder(daemon: Daemon, plan: Path) -> None:
    done = daemon.command("run", "upper", "--stage", "report", "--input", "-", "--plan-dir", plan, "--send", text="{}")
    assert done.returncode == 0, done.stderr
    assert contents(plan) == {"in.txt": "tomatoes", "out.txt": "TOMATOES"}
    assert "out.txt" in done.stdout + done.stderr


def test_a_caller_with_another_root_is_told_to_send(daemon: Daemon, plan: Path) -> None:
    """As in a container: the same path, and another folder."""
    code = (
        "import os, sys; from plugind_client import Client, Denied\n"
        "import json\n"
        "client = Client(sys.argv[1]); client.runs()\n"
        "os.chroot(sys.argv[3])\n"
        "try: print(client.run('upper', {}, stage='report', plan_dir=sys.argv[2]))\n"
        "except Denied as error: print(json.dumps([(r.code, r.rule, r.remedy) for r in error.reasons]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, daemon.socket, plan, plan.parent], capture_output=True, text=True, check=False
    )
    assert "plans.caller" in done.stdout, done
    assert "send" in done.stdout
    assert contents(plan) == {"in.txt": "tomatoes"}


def test_a_map_and_a_session_write_when_they_end(daemon: Daemon, plan: Path) -> None:
    client = daemon.client()
    many = client.map("upper", [{"text": "a", "write": ["out1.txt"]}, {"text": "b", "write": ["out2.txt"]}],
                      plan_dir=plan, **REPORT)  # fmt: skip
    assert [*many] == [8, 8]
    assert contents(plan) == {"in.txt": "tomatoes", "out1.txt": "a", "out2.txt": "b"}
    with client.session("upper", plan_dir=plan, **REPORT) as session:
        session.call({"text": "c", "write": ["out1.txt"]})
        assert contents(plan)["out1.txt"] == "a", "nothing before it ends well"
        session.call({"text": "d", "write": ["out3.txt"]})
    assert contents(plan) == {"in.txt": "tomatoes", "out1.txt": "c", "out2.txt": "b", "out3.txt": "d"}


async def test_asynchronous_runs_of_one_plan_follow_each_other(daemon: Daemon, plan: Path) -> None:
    async with AsyncClient(daemon.socket) as client:
        runs = [
            client.run("upper", {"text": str(number), "sleep_s": 0.05}, plan_dir=plan, timeout_ms=30_000, **REPORT)
            for number in range(5)
        ]
        results = await asyncio.gather(*runs)
    assert [each.outcome for each in results] == ["ok"] * 5
    before = sorted(each.files[0].replaced_sha256 for each in results)
    after = sorted(each.files[0].sha256 for each in results)
    assert len({*after} - {*before}) == 1, "each replaced what another wrote, and the last one is there"


def is_running(daemon: Daemon) -> None:
    """Wait until plugin code runs: its files have been copied."""
    deadline = time.monotonic() + stretched(10)
    client = daemon.client()
    while not [run for run in client.runs() if run.state == "running"]:
        assert time.monotonic() < deadline, client.runs()
        time.sleep(0.01)


def test_what_somebody_else_changes_meanwhile_is_a_conflict_and_not_lost(daemon: Daemon, plan: Path) -> None:
    (plan / "out.txt").write_text("before")
    errors: list[PlugindError] = []

    def run() -> None:
        try:
            daemon.client().run("upper", {"sleep_s": 2.0}, plan_dir=plan, **REPORT)
        except PlugindError as error:
            errors.append(error)

    caller = threading.Thread(target=run)
    caller.start()
    is_running(daemon)
    (plan / "out.txt").write_text("by somebody else")
    caller.join(stretched(20))
    assert contents(plan) == {"in.txt": "tomatoes", "out.txt": "by somebody else"}
    assert len(errors) == 1
    assert "out.txt" in json.dumps([str(each) for each in vars(errors[0]).values()])


@pytest.mark.parametrize("kind", ["link", "fifo", "hard link", "folder above is a link"])
def test_what_nobody_follows_refuses_the_run_by_name(daemon: Daemon, plan: Path, kind: str) -> None:
    (secret := plan.parent / "secret").write_text("not of this plan")
    (plan / "in.txt").unlink()
    asked = plan
    if kind == "link":
        (plan / "in.txt").symlink_to(secret)
    elif kind == "fifo":
        os.mkfifo(plan / "in.txt")
    elif kind == "hard link":
        os.link(secret, plan / "in.txt")
    else:
        (plan / "in.txt").write_text("tomatoes")
        (asked := plan.parent / "link").symlink_to(plan)
    with pytest.raises(Denied) as denied:
        daemon.client().run("upper", {}, plan_dir=asked, **REPORT)
    (reason,) = denied.value.reasons
    assert reason.rule in ("plans.file", "plans.folder")
    assert ("in.txt" in reason.actual) or ("link" in reason.actual)
    assert reason.remedy


def test_a_plugin_that_waits_while_its_caller_dies_writes_nothing(daemon: Daemon, plan: Path) -> None:
    code = (
        "import sys; from plugind_client import Client\n"
        "print('go', flush=True)\n"
        "Client(sys.argv[1]).run('upper', {'sleep_s': 20}, stage='report', plan_dir=sys.argv[2])\n"
    )
    caller = subprocess.Popen([sys.executable, "-c", code, daemon.socket, plan], stdout=subprocess.PIPE)
    assert caller.stdout is not None
    assert caller.stdout.readline() == b"go\n"
    is_running(daemon)
    deadline = time.monotonic() + stretched(10)
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    caller.stdout.close()
    while daemon.client().runs() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert daemon.client().runs() == []
    assert contents(plan) == {"in.txt": "tomatoes"}


def test_a_bad_versions_work_is_undone_over_all_plans(daemon: Daemon, tmp_path: Path) -> None:
    install(daemon.client(), tmp_path, "2.0.0")
    plans = [made(tmp_path / f"plan{number}") for number in range(3)]
    before = [contents(each) for each in plans]
    client = daemon.client()
    for each in plans:
        client.run("upper", {}, plan_dir=each, version="2.0.0", **REPORT)
        client.run("upper", {"text": "again"}, plan_dir=each, version="2.0.0", **REPORT)
    (plans[1] / "out.txt").write_text("mended by hand")
    impact = daemon.command("audit", "impact", "upper@2.0.0", "--json")
    assert sorted(each["plan_dir"] for each in json.loads(impact.stdout)["plans"]) == sorted(map(str, plans))
    asked = ("audit", "restore", "--plugin", "upper@2.0.0", "--since", "1h", "--json")
    rehearsed = json.loads(daemon.command(*asked, "--dry-run").stdout)
    assert [run["state"] for run in rehearsed["runs"]].count("conflict") >= 1
    assert contents(plans[0])["out.txt"] == "again", "nothing happened yet"
    done = daemon.command(*asked, "--reason", "2.0.0 shouts")
    assert done.returncode == 7, "one was changed since"
    assert [contents(each) for each in plans] == [before[0], {**before[1], "out.txt": "mended by hand"}, before[2]]
    log_id = next(run["log_id"] for run in json.loads(done.stdout)["runs"] if run["state"] == "conflict")
    shown = daemon.command("audit", "restore", log_id, "--reason", "look")
    assert "mended by hand" in shown.stdout + shown.stderr, "the difference is told"
    forced = daemon.command("audit", "restore", log_id, "--force", "--reason", "all of it", "--json")
    assert forced.returncode == 0, forced.stdout + forced.stderr
    kept = [text for name, text in contents(plans[1]).items() if ".plugind-kept-" in name]
    assert kept == ["mended by hand"]
    assert daemon.command("audit", "verify", "--no-journal").returncode == 0


def test_who_leaves_an_undeclared_file_is_in_quarantine(tmp_path: Path) -> None:
    plan = made(tmp_path / "plan")
    with Daemon(enforce=True) as daemon:
        client = daemon.client()
        install(client, tmp_path)
        with pytest.raises(Violated):
            client.run("upper", {"write": ["out.txt", "hidden.sh"]}, plan_dir=plan, **REPORT)
        assert contents(plan) == {"in.txt": "tomatoes"}
        deadline = time.monotonic() + stretched(5)
        codes: set[str] = set()
        while "QUARANTINED" not in codes and time.monotonic() < deadline:
            with pytest.raises((Denied, Violated)) as caught:
                client.run("upper", {"write": ["hidden.sh"]}, plan_dir=plan, **REPORT)
            codes = {each.code for each in getattr(caught.value, "reasons", ())}
        assert "QUARANTINED" in codes
    shutil.rmtree(plan)
