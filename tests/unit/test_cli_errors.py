"""What a person reads, and which exit code comes, when the call itself fails."""

import os
import socket
import stat
import subprocess
import sys

import grpc
import pytest

from tests.support.fake_daemon import FakeDaemon, plugindctl, plugindctl_terminal

REASON = {
    "code": "INVALID_BUNDLE",
    "rule": "bundle",
    "expected": "a file",
    "actual": "member 3 is a link",
    "remedy": "build it again",
}


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    with FakeDaemon(str(tmp_path / "d.sock")) as daemon:
        monkeypatch.setenv("PLUGIND_SOCKET", daemon.socket)
        yield daemon


def unreachable(path):
    done = plugindctl("run", "echo", "--socket", path)
    assert (done.code, done.out) == (5, "")
    first, *lines = done.err.splitlines()
    assert first == "plugindctl: plugind cannot be reached."
    return [line.strip() for line in lines]


# --- no daemon -----------------------------------------------------------------------------------------------------


def test_no_socket(tmp_path):
    assert unreachable(tmp_path / "d.sock") == [
        f"{tmp_path}/d.sock: there is no such socket",
        f"start it: `sudo plugind serve --standalone --dev --socket {tmp_path}/d.sock`",
        "or name another daemon's socket with --socket or PLUGIND_SOCKET",
    ]


def test_command_to_copy_is_quoted_for_the_shell(tmp_path):
    assert unreachable(tmp_path / "a b")[1].endswith(f"--socket '{tmp_path}/a b'`")


def test_nobody_listens(tmp_path):
    path = tmp_path / "d.sock"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert unreachable(path)[0] == f"{path}: nobody listens there"


def test_a_file_is_no_socket(tmp_path):
    (tmp_path / "file").write_text("")
    assert unreachable(tmp_path / "file") == [
        f"{tmp_path}/file: this is no socket",
        "name another daemon's socket with --socket or PLUGIND_SOCKET",
    ]
    assert unreachable(tmp_path / "file/below")[0] == f"{tmp_path}/file/below: Not a directory"


def test_path_that_no_socket_can_have(tmp_path, monkeypatch):
    assert unreachable(tmp_path / ("x" * 120))[0].endswith("x: AF_UNIX path too long")
    deep = tmp_path / ("y" * 120)
    deep.mkdir()
    monkeypatch.chdir(deep)
    assert unreachable("d.sock")[0] == "d.sock: AF_UNIX path too long"


def test_who_listens_is_not_plugind(tmp_path):
    path = tmp_path / "d.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        script = "import sys; from tests.support.fake_daemon import plugindctl; d = plugindctl(*sys.argv[1:])\n"
        script += "print(d.code, d.err)"
        asked = subprocess.Popen(
            [sys.executable, "-c", script, "ps", "--socket", path], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2):  # gRPC's attempt, and then ours that asks why
            other.accept()[0].close()
        out, _ = asked.communicate(timeout=30)
    assert out.startswith("5 plugindctl: plugind cannot be reached.")
    assert "somebody listens there, and not as plugind does" in out


NO_PERMISSION = """
import os, sys
from tests.support.fake_daemon import plugindctl

assert plugindctl("ps").code == 5  # loads all that it needs: afterwards the interpreter may be out of reach
if os.geteuid() == 0:
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
done = plugindctl("ps", "--socket", sys.argv[1])
print(done.code, os.getuid(), done.err, sep="\\n")
"""


def test_no_permission(daemon, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir()
    (tmp_path / "d.sock").rename(closed / "d.sock")
    closed.chmod(0)
    environment = os.environ | {"PLUGIND_SOCKET": str(tmp_path / "missing.sock")}
    try:
        out = subprocess.check_output(
            [sys.executable, "-c", NO_PERMISSION, closed / "d.sock"], text=True, env=environment
        )
    finally:
        closed.chmod(0o700)
    code, uid, first, *lines = out.splitlines()
    assert (code, first) == ("5", "plugindctl: plugind cannot be reached.")
    assert lines[:2] == [
        f"  {closed}/d.sock: permission denied for uid {uid}",
        "  a --dev daemon serves only the user who started it; otherwise ask the operator for access",
    ]


def test_unreachable_as_json(tmp_path):
    done = plugindctl("list", "--json", "--socket", tmp_path / "d.sock")
    assert (done.code, done.err, set(done.json)) == (5, "", {"error"})
    assert done.json["error"]["code"] == "UNAVAILABLE"
    assert done.json["error"]["problems"][0] == f"{tmp_path}/d.sock: there is no such socket"


# --- a daemon that refuses -------------------------------------------------------------------------------------------

STATUS = {
    "ABORTED": 3,
    "ALREADY_EXISTS": 3,
    "CANCELLED": 4,
    "DATA_LOSS": 6,
    "DEADLINE_EXCEEDED": 5,
    "FAILED_PRECONDITION": 3,
    "INTERNAL": 6,
    "INVALID_ARGUMENT": 2,
    "NOT_FOUND": 3,
    "OUT_OF_RANGE": 2,
    "PERMISSION_DENIED": 3,
    "RESOURCE_EXHAUSTED": 2,
    "UNAUTHENTICATED": 3,
    "UNAVAILABLE": 5,
    "UNIMPLEMENTED": 6,
    "UNKNOWN": 6,
}


def test_table_below_is_complete():
    assert set(STATUS) == {status.name for status in grpc.StatusCode} - {"OK"}


@pytest.mark.parametrize("name", STATUS)
def test_exit_code_of_each_status(daemon, name):
    daemon.refusal = (grpc.StatusCode[name], "what happened", [])
    done = plugindctl("list")
    assert (done.code, done.out) == (STATUS[name], "")
    assert done.err.startswith("plugindctl: ")
    assert "Traceback" not in done.err
    assert name == "CANCELLED" or "what happened" in done.err


@pytest.mark.parametrize("name", ["INVALID_ARGUMENT", "UNAVAILABLE", "FAILED_PRECONDITION", "PERMISSION_DENIED"])
def test_refusal_with_reasons_is_refused_and_tells_them_all(daemon, name):
    daemon.refusal = (grpc.StatusCode[name], "bad", [REASON, REASON | {"expected": "", "actual": "no", "remedy": ""}])
    done = plugindctl("list")
    assert done.code == 3
    assert done.err.splitlines()[1:] == [
        "  INVALID_BUNDLE (bundle): expected a file, got member 3 is a link",
        "    what to do: build it again",
        "  INVALID_BUNDLE (bundle): no",
    ]
    problems = plugindctl("list", "--json").json["error"]["problems"]
    assert problems[0] == "INVALID_BUNDLE (bundle): expected a file, got member 3 is a link"


def test_who_lacks_a_role_is_told_where_roles_are(daemon):
    daemon.refusal = (grpc.StatusCode.PERMISSION_DENIED, "Submit: expected role operator", [])
    first, why, *where = plugindctl_terminal("list")[1].splitlines()
    assert first == "plugindctl: The role of the caller does not allow this."
    assert why == "  Submit: expected role operator"
    assert "--admin-socket" in where[0]
    assert "--dev" in where[-1]
    assert "`plugindctl try`" in where[-1]


def test_fault_of_the_command_itself_is_told_as_one(daemon, monkeypatch):
    """No answer of a daemon that is as it should be leads here: a time that no calendar has."""
    from plugind_proto.v1 import registry_pb2

    plugin = registry_pb2.Plugin(plugin_id="plug_1", name="p")
    plugin.versions.add(version="1.0.0", submitted_unix_ms=1 << 62)
    daemon.plugins["p"] = plugin
    done = plugindctl("show", "p")
    assert done.code == 6
    assert done.err.splitlines()[-1].startswith("plugindctl: a fault of plugindctl: ")


def test_escapes_in_an_error_are_made_visible_on_a_terminal(daemon):
    daemon.refusal = (grpc.StatusCode.NOT_FOUND, "no plugin \x1b[2J\u202e", [])
    code, screen = plugindctl_terminal("show", "x\x1b[1m", "--json")
    assert code == 3
    assert [character for character in screen if character != "\n" and not character.isprintable()] == []
    assert r"\u001b[2J" in screen
