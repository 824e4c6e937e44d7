"""Plugins with an environment, from the call to the audit, on a real daemon."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from plugind.environments.shelf import Shelf, path_of
from plugind_client import Denied
from tests.support.daemon import Daemon
from tests.support.environments import shelve
from tests.support.pace import stretched
from tests.support.plugins import folder

pytestmark = pytest.mark.root

USES = "import greeting\n\ndef run(payload, context):\n    return greeting.of(payload)\n"
HELLO = {"greeting.py": "def of(name): return f'hello {name}'"}
GOOD_DAY = {"greeting.py": "def of(name): return f'good day {name}'"}


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with Daemon() as running:
        yield running


@pytest.fixture
def shelf(daemon: Daemon) -> Shelf:
    return Shelf(path_of(daemon.state))


def records(daemon: Daemon) -> list[dict]:
    files = sorted(daemon.state.glob("ledger/*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def reach(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + stretched(20)
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def waiting(daemon: Daemon, plugin: str) -> int:
    """How many imports ahead have ended well."""
    found = [each for each in records(daemon) if each["event"] == "OUTCOME" and each["plugin"] == plugin]
    return sum(each["mode"] == "import" and each["outcome"] == "ok" for each in found)


def test_a_run_is_denied_until_its_environment_is_built_and_the_denial_says_how(daemon, shelf, tmp_path):
    daemon.install(folder(tmp_path, "early", code=USES, environment="later"))
    client = daemon.client()
    with pytest.raises(Denied) as caught:
        client.run("early", "x")
    (reason,) = caught.value.reasons
    assert reason.code == "ISOLATION_UNAVAILABLE"
    assert "no environment later was built" in reason.actual
    assert "plugindctl environment build later --lock" in reason.remedy
    shelve(shelf, HELLO, name="later")
    assert client.run("early", "x").output == "hello x"


def test_the_audit_says_which_packages_a_run_had_and_who_imported_them(daemon, shelf, tmp_path):
    daemon.install(folder(tmp_path, "seen", code=USES, environment="seen"))
    made = shelve(shelf, {**HELLO, "odd.py": "import nowhere"}, name="seen")
    client = daemon.client()
    log = client.run("seen", "x").governance.audit_log
    assert client.audit.get(log).record.fields["environment"] == made.digest
    (imported,) = [
        each for each in records(daemon) if each.get("action") == "environment_import" and each["digest"] == made.digest
    ]
    facts = json.loads(imported["detail"])
    assert facts["tier"] == 2
    assert facts["uid"] > 65535
    assert facts["user_namespace"] != str(Path("/proc/self/ns/user").readlink())
    assert facts["failed"] == {"odd": "ModuleNotFoundError: No module named 'nowhere'"}
    assert client.audit.verify().holds


def test_one_that_waits_has_its_environment_and_goes_when_that_is_built_anew(daemon, shelf, tmp_path):
    daemon.install(folder(tmp_path, "warm", code=USES, environment="warm"))
    shelve(shelf, HELLO, name="warm")
    client = daemon.client()
    assert client.run("warm", "x").output == "hello x"
    reach(lambda: waiting(daemon, "warm") == 1)
    assert client.run("warm", "y").output == "hello y"
    runs = [each for each in records(daemon) if each["event"] == "OUTCOME" and each["plugin"] == "warm"]
    assert [each["imported"] >= 0 for each in runs if each["mode"] == "run"] == [False, True]
    reach(lambda: waiting(daemon, "warm") == 2)
    shelve(shelf, GOOD_DAY, name="warm")
    assert client.run("warm", "z").output == "good day z"


def test_maps_and_sessions_have_it_too(daemon, shelf, tmp_path):
    daemon.install(folder(tmp_path, "many", code=USES, environment="many"))
    shelve(shelf, HELLO, name="many")
    client = daemon.client()
    assert list(client.map("many", ["a", "b"])) == ["hello a", "hello b"]
    with client.session("many") as session:
        assert session.call("c") == "hello c"


def test_a_broken_record_of_one_denies_its_plugins_and_says_so(daemon, shelf, tmp_path):
    daemon.install(folder(tmp_path, "torn", code=USES, environment="torn"))
    shelve(shelf, HELLO, name="torn")
    Path(shelf.folder, "torn.json").write_text("{")
    with pytest.raises(Denied) as caught:
        daemon.client().run("torn", "x")
    assert "torn.json" in caught.value.reasons[0].actual
