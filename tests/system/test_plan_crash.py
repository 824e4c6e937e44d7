"""kill -9 of front or launcher at any moment of runs that write: all of it is new or all is old, and the record says."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugind.audit import reading
from plugind.audit.reading import Filter
from plugind.provenance import bundle
from plugind.provenance.keys import PrivateKey
from plugind_client import Client, PlugindError
from tests.support.daemon import Daemon
from tests.support.pace import stretched
from tests.support.plugins import attested, folder

KILLS = 12
FILES = 5
CODE = f"""
import os

def run(payload, context):
    for number in range({FILES}):
        with open(os.path.join(context.output_dir, f"out_{{number}}.txt"), "w") as stream:
            stream.write(payload * 1000)
"""
EXTRA = '[[permissions.file_write]]\npath = "out_*.txt"\n'


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with Daemon() as running:
        yield running


def install(client: Client, parent: Path) -> None:
    data = bundle.build(folder(parent, "writes", code=CODE, extra=EXTRA))
    keys = [PrivateKey.generate(), PrivateKey.generate()]
    client.submit(data, attested(data, *keys), development_public_keys=[key.public.to_pem().decode() for key in keys])
    client.approve("writes", "1.0.0", tier=1, as_declared=True, reason="a test")
    client.activate("writes", "1.0.0")


def written(plan: Path) -> str:
    """The letter that all files consist of; what is not whole fails."""
    texts = [(plan / f"out_{number}.txt").read_text() for number in range(FILES)]
    assert len({*texts}) == 1, [text[:5] for text in texts]
    assert texts[0] == texts[0][0] * 1000
    return texts[0][0]


def last_run(ledger: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The newest INTENT, and what followed it."""
    intent = reading.newest(ledger, Filter(plugin="writes", events=frozenset({"INTENT"})), 1)[0].fields
    events = frozenset({"OUTCOME", "DENIED", "COMMITTED", "UNDONE"})
    found = [each.fields for each in reading.newest(ledger, Filter(plugin="writes", events=events), 50)]
    return intent, [each for each in reversed(found) if each["intent"] == intent["index"]]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("whom", ["front", "launcher"])
def test_whoever_is_killed_a_plan_is_all_new_or_all_old(daemon: Daemon, tmp_path: Path, whom: str) -> None:
    install(daemon.client(), tmp_path)
    plan = tmp_path / "plan"
    plan.mkdir()
    client = daemon.client()
    client.run("writes", "a", plan_dir=plan, stage="report")
    began = time.perf_counter()
    client.run("writes", "b", plan_dir=plan, stage="report")
    usual_s = time.perf_counter() - began
    chance, seen, letter = random.Random(whom), set[str](), "b"
    for number in range(KILLS):
        before, letter = letter, chr(ord("c") + number)
        caller = threading.Thread(target=_run, args=(daemon.client(), letter, plan))
        caller.start()
        time.sleep(chance.uniform(0, 1.2 * usual_s))
        os.kill(daemon.process.pid if whom == "front" else daemon.pids[1], signal.SIGKILL)
        assert daemon.wait_gone(10)
        daemon.restart()
        caller.join(stretched(20))
        assert not caller.is_alive()
        now = written(plan)
        assert now in (before, letter)
        assert [path.name for path in plan.iterdir() if path.name.startswith(".")] == []
        intent, followed = last_run(daemon.state / "ledger")
        if json.loads(_input_of(daemon, intent)) != letter:
            assert now == before, "it was killed before the INTENT"
            seen.add("no intent")
        else:
            events = [each["event"] for each in followed]
            is_staged = bool(followed and followed[0].get("outcome") == "ok")
            if is_staged:
                assert events == ["OUTCOME", "COMMITTED" if now == letter else "UNDONE"]
            else:
                assert events in (["OUTCOME"], ["DENIED"]), "one end, and nothing of it in the plan"
                assert now == before
            seen.add(events[-1])
        letter = now
        report = daemon.client().audit.verify()
        assert not report.findings, report.findings
    print(whom, sorted(seen))


def _run(client: Client, letter: str, plan: Path) -> None:
    with contextlib.suppress(PlugindError):
        client.run("writes", letter, plan_dir=plan, stage="report")


def _input_of(daemon: Daemon, intent: dict[str, Any]) -> bytes:
    answer = daemon.command("audit", "show", f"log_{intent['index']}", "--payload", "input")
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.encode()
