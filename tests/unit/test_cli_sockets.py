"""Which socket a command talks to: the run socket, or the one for what takes a role."""

import socket

import pytest

from plugind_client.cli.problems import explained
from plugind_client.cli.settings import Settings
from plugind_client.errors import Unavailable
from tests.support.fake_daemon import FakeDaemon, plugindctl

RUN = "/run/plugind/run/plugind.sock"
ADMIN = "/run/plugind/admin.sock"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in ("PLUGIND_SOCKET", "PLUGIND_ADMIN_SOCKET"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "run_option,admin_option,environment,run,admin",
    [
        (None, None, {}, RUN, ADMIN),
        (None, None, {"PLUGIND_SOCKET": "/dev.sock"}, "/dev.sock", "/dev.sock"),
        (None, None, {"PLUGIND_SOCKET": RUN}, RUN, ADMIN),
        (None, None, {"PLUGIND_SOCKET": ""}, RUN, ADMIN),
        (None, None, {"PLUGIND_ADMIN_SOCKET": "/a"}, RUN, "/a"),
        (None, None, {"PLUGIND_SOCKET": "/dev.sock", "PLUGIND_ADMIN_SOCKET": "/a"}, "/dev.sock", "/a"),
        ("/s", None, {"PLUGIND_SOCKET": "/dev.sock", "PLUGIND_ADMIN_SOCKET": "/a"}, "/s", "/s"),
        (None, "/b", {"PLUGIND_SOCKET": "/dev.sock", "PLUGIND_ADMIN_SOCKET": "/a"}, "/dev.sock", "/b"),
        ("/s", "/b", {}, "/s", "/b"),
    ],
)
def test_order_in_which_a_socket_is_chosen(monkeypatch, run_option, admin_option, environment, run, admin):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings(socket=run_option, admin_socket=admin_option)
    assert (settings.client().socket, settings.admin_client().socket) == (run, admin)


@pytest.fixture
def daemons(tmp_path, monkeypatch):
    """One behind each socket, as in production."""
    with FakeDaemon(str(tmp_path / "r")) as run, FakeDaemon(str(tmp_path / "a")) as admin:
        monkeypatch.setenv("PLUGIND_SOCKET", run.socket)
        monkeypatch.setenv("PLUGIND_ADMIN_SOCKET", admin.socket)
        yield run, admin


ON_RUN = [
    ("run", "p"),
    ("ps",),
    ("cancel", "r1"),
    ("list",),
    ("show", "p"),
    ("history",),
    ("status",),
    ("why",),
    ("policy", "explain", "p"),
]
ON_ADMIN = [
    ("approve", "p@1", "--reason", "r"),
    ("reject", "p@1", "--reason", "r"),
    ("activate", "p@1"),
    ("rollback", "p", "--reason", "r"),
    ("suspend", "p", "--reason", "r"),
    ("resume", "p", "--reason", "r"),
    ("kill", "p", "--reason", "r"),
    ("kill", "--lift", "p", "--reason", "r"),
]


@pytest.mark.parametrize("arguments", ON_RUN, ids=" ".join)
def test_command_that_everybody_may_give_goes_to_the_run_socket(daemons, arguments):
    plugindctl(*arguments)
    assert [len(daemon.requests) for daemon in daemons] == [1, 0]


@pytest.mark.parametrize("arguments", ON_ADMIN, ids=" ".join)
def test_command_that_takes_a_role_goes_to_the_admin_socket(daemons, arguments):
    plugindctl(*arguments)
    assert [len(daemon.requests) for daemon in daemons] == [0, 1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--admin-socket", "A", "kill", "p", "--reason", "r"),
        ("kill", "p", "--reason", "r", "--admin-socket", "A"),
        ("kill", "p", "--reason", "r", "--socket", "A"),
        ("--socket", "A", "kill", "p", "--reason", "r"),
        ("--admin-socket", "/nowhere", "kill", "p", "--reason", "r", "--admin-socket", "A"),
        ("--admin-socket", "/nowhere", "kill", "p", "--reason", "r", "--socket", "A"),
        ("--socket", "/nowhere", "kill", "p", "--reason", "r", "--admin-socket", "A"),
    ],
    ids=" ".join,
)
def test_admin_socket_is_named_before_or_after_the_command(tmp_path, monkeypatch, arguments):
    monkeypatch.setenv("PLUGIND_ADMIN_SOCKET", "/nowhere-either")
    with FakeDaemon(str(tmp_path / "a")) as daemon:
        done = plugindctl(*(daemon.socket if word == "A" else word for word in arguments))
    assert (done.code, done.err.splitlines()[0]) == (0, "p: killed; nothing of it ran")


def test_admin_socket_that_is_not_there_is_the_one_that_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PLUGIND_ADMIN_SOCKET", str(tmp_path / "a"))
    done = plugindctl("activate", "p@1")
    assert (done.code, done.err.splitlines()) == (
        5,
        [
            "plugindctl: plugind cannot be reached.",
            f"  {tmp_path}/a: there is no such socket",
            "  start it: `sudo systemctl start plugind`",
            "  or name another daemon's socket with --admin-socket or PLUGIND_ADMIN_SOCKET",
        ],
    )


@pytest.mark.parametrize("as_admin", [False, True])
def test_who_is_turned_away_at_the_admin_socket_learns_whom_it_is_for(tmp_path, as_admin):
    """The daemon hangs up on somebody without a role, which gRPC only calls unavailable."""
    path = str(tmp_path / "a")
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(path)
        there.listen()
        told = explained(Unavailable("UNAVAILABLE", detail="Socket closed"), path, as_admin=as_admin)
    assert (told.exit_code, told.lines[0]) == (5, f"{path}: Socket closed")
    assert any("members of plugind-operator" in line for line in told.lines) is as_admin
