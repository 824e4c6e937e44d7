"""What a person at a terminal is told to do when a run, a key or a bundle is not as it should be."""

import pytest

from plugind.model import Outcome
from plugind_client.cli.problems import REMEDY_OF_OUTCOME
from plugind_proto.v1 import runtime_pb2
from tests.support import plugins
from tests.support.fake_daemon import FakeDaemon, ended, plugindctl, plugindctl_terminal

SPEAKS_FOR_ITSELF = {"ok", "failed", "canceled"}
LIMIT = {
    "timeout": "wall_ms",
    "cpu_exceeded": "cpu_ms",
    "out_of_memory": "memory_bytes",
    "pids_exceeded": "pids",
    "output_limit": "output_bytes",
}


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    with FakeDaemon(str(tmp_path / "d.sock")) as daemon:
        monkeypatch.setenv("PLUGIND_SOCKET", daemon.socket)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        yield daemon


def test_every_other_outcome_has_its_remedy():
    assert set(REMEDY_OF_OUTCOME) == {str(outcome) for outcome in Outcome} - SPEAKS_FOR_ITSELF


@pytest.mark.parametrize("outcome", sorted(REMEDY_OF_OUTCOME))
def test_end_of_a_run_says_what_to_do(daemon, outcome):
    daemon.answers["late"] = ended(outcome, "in detail")
    lines = plugindctl("run", "late").err.splitlines()
    told = lines.index(f"late 1.0.0: {outcome}: in detail")
    assert lines[told + 1] == f"  what to do: {REMEDY_OF_OUTCOME[outcome]}"
    assert LIMIT.get(outcome, "") in lines[told + 1]


@pytest.mark.parametrize("outcome", ["failed", "canceled"])
def test_end_that_speaks_for_itself_gets_no_advice(daemon, outcome):
    daemon.answers["bad"] = ended(outcome)
    assert "what to do" not in plugindctl("run", "bad").err


@pytest.mark.parametrize("traceback", ['  File "a.py", line 1\nValueError: bad\n', '  File "a.py", line 1\n', ""])
def test_exception_is_told_once(daemon, traceback):
    raised = runtime_pb2.PluginError(type="ValueError", message="bad", traceback=traceback)
    daemon.answers["bad"] = ended("failed", "raised ValueError: bad", error=raised)
    code, screen = plugindctl_terminal("run", "bad")
    assert code == 1
    lines = [line for line in screen.splitlines() if line.startswith("raised | ")]
    assert lines[-1] == "raised | ValueError: bad"
    assert [line for line in lines if line != 'raised |   File "a.py", line 1'] == ["raised | ValueError: bad"]


def test_broken_development_key_says_how_to_get_another(daemon, tmp_path):
    key = tmp_path / "config/plugind/dev-publisher.pem"
    key.parent.mkdir(parents=True)
    key.write_text("rubbish")
    key.chmod(0o600)
    (tmp_path / "in.json").write_text("{}")
    arguments = ("try", plugins.folder(tmp_path), "--input", tmp_path / "in.json")
    done = plugindctl(*arguments)
    assert done.code == 2
    assert done.err.splitlines()[1] == f"  `rm {key}`: the next try makes a new one"
    key.unlink()
    assert plugindctl(*arguments).code == 0


def test_file_that_is_no_bundle_says_how_to_make_one(daemon, tmp_path):
    (tmp_path / "file").write_text("x")
    done = plugindctl("submit", tmp_path / "file")
    assert done.code == 2
    assert done.err.splitlines()[-1] == "  `plugindctl build DIR` makes one of a plugin's folder"
