"""environment build and list: what an operator sees, from the first build to every way in which it can fail."""

import json
import os
import pty
import subprocess
import sys

import pytest

from plugind.environments import tree
from plugind.environments.shelf import Shelf, abi, path_of
from tests.support.fake_daemon import COMMAND, plugindctl, plugindctl_terminal
from tests.support.wheels import lock, wheel

GROUPED = ("build", "list")


@pytest.fixture(autouse=True)
def _pip_as_it_comes(monkeypatch):
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


@pytest.fixture
def state(tmp_path, monkeypatch):
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "state.json").write_text("{}")
    monkeypatch.setenv("PLUGIND_STATE", str(folder))
    return folder


@pytest.fixture
def science(tmp_path, state):
    """A lock of two packages, and the arguments that build it."""
    wheels = tmp_path / "wheels"
    made = [wheel(wheels, "one", "1.0", {"one/__init__.py": ""}), wheel(wheels, "two", "2.1", {"two.py": ""})]
    path = lock(tmp_path / "requirements.lock", *made)
    return ["environment", "build", "science", "--lock", path, "--wheels", wheels]


@pytest.mark.parametrize("command", GROUPED)
def test_help_has_examples_and_says_where_the_state_is(command):
    done = plugindctl("environment", command, "--help")
    lines = [line.strip() for line in done.out.partition("Examples:\n")[2].splitlines()]
    assert (done.code, done.err) == (0, "")
    assert lines
    assert [line for line in lines if not line.startswith(f"plugindctl environment {command}")] == []
    assert "--json" in done.out
    assert "--state DIR" in done.out


# --- as root -----------------------------------------------------------------------------------------------------------


@pytest.mark.root
def test_build_and_list(state, science):
    done = plugindctl(*science)
    built = Shelf(path_of(state)).get("science")
    assert (done.code, done.out) == (0, "")
    lines = done.err.splitlines()
    assert lines[0] == f"2 packages of {science[4]}"
    assert lines[-4:] == [
        f"science: built, {built.files} files with 0.0 MB, sha256 {built.digest}",
        "  packages: one 1.0, two 2.1",
        "  imported ahead: one, two",
        '  plugins get it from now on that have environment = "science" in plugin.toml',
    ]
    done = plugindctl("environment", "list")
    assert (done.code, done.err) == (0, "reading science\n")
    headings, row = done.out.splitlines()
    assert headings.split() == "name sha256 packages size built usable".split()
    assert row.startswith(f"science  {built.digest[:12]}  one 1.0, two 2.1  {built.files} files with 0.0 MB  20")
    assert row.split()[-1] == "yes"


@pytest.mark.root
def test_json(state, science):
    done = plugindctl(*science, "--json", "--import", "two", "--import", "json")
    assert done.code == 0
    assert (done.json["imports"], done.json["abi"]) == (["two", "json"], abi())
    assert done.json["packages"] == [{"name": "one", "version": "1.0"}, {"name": "two", "version": "2.1"}]
    listed = plugindctl("environment", "list", "--json").json
    assert listed == {"folder": f"{state}.environments", "environments": [done.json | {"problem": ""}], "broken": []}


@pytest.mark.root
def test_state_can_be_named(state, science, monkeypatch):
    monkeypatch.delenv("PLUGIND_STATE")
    monkeypatch.chdir(state.parent)
    assert plugindctl(*science, "--state", "state").code == 0
    listed = plugindctl("environment", "list", "--state", state, "--json").json
    assert [each["name"] for each in listed["environments"]] == ["science"]


@pytest.mark.root
def test_terminal_shows_one_line_that_changes_and_then_the_end(science):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *map(str, science)], stdout=theirs, stderr=theirs, env=os.environ | {"TERM": "xterm"}
    )
    os.close(theirs)
    screen = b""
    try:
        while read := os.read(ours, 65536):
            screen += read
    except OSError:  # EIO: nobody has it open any more
        pass
    os.close(ours)
    assert process.wait(30) == 0
    assert b"\x1b[2K" in screen  # the line is wiped
    assert "imported ahead: one, two" in screen.decode()
    assert "Processing" not in screen.decode().rpartition("\x1b")[2]


@pytest.mark.root
def test_dumb_terminal_gets_a_line_each(science):
    code, screen = plugindctl_terminal(*science)
    assert code == 0
    assert "\x1b" not in screen
    assert screen.splitlines()[0] == f"2 packages of {science[4]}"


@pytest.mark.root
def test_many_packages_do_not_flood_the_table(tmp_path, state):
    made = [wheel(tmp_path / "wheels", f"p{number}") for number in range(5)]
    path = lock(tmp_path / "requirements.lock", *made)
    assert plugindctl("environment", "build", "many", "--lock", path, "--wheels", tmp_path / "wheels").code == 0
    assert "p0 1.0, p1 1.0, p2 1.0, and 2 more" in plugindctl("environment", "list").out


def usable(state):
    return {each["name"]: each["problem"] for each in plugindctl("environment", "list", "--json").json["environments"]}


@pytest.mark.root
def test_what_cannot_be_used_says_why(state, science):
    plugindctl(*science)
    shelf = Shelf(path_of(state))
    folder = shelf.tree(shelf.get("science").digest)
    (folder / "two.py").write_text("changed")
    problem = usable(state)["science"]
    assert problem.startswith(f"expected files with the sha256 {folder.name}, got {tree.digest_of(folder)}: build it")
    assert "no: expected files with" in plugindctl("environment", "list").out
    (folder / "two.py").chmod(0o644)
    assert usable(state)["science"] == f"{folder}: expected mode 0444 or 0555, got 0644: two.py: build it again"
    folder.rename(folder.with_name("away"))
    assert usable(state)["science"] == f"{folder}: expected a folder, got No such file or directory: build it again"
    path = shelf.folder / "science.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"abi": "cpython-39-x86_64-linux-gnu"}))
    assert usable(state)["science"].startswith(f"expected to be built for {abi()}, got cpython-39")


@pytest.mark.root
def test_broken_record_is_listed_beside_the_others(state, science):
    plugindctl(*science)
    (path_of(state) / "bad.json").write_text("{")
    done = plugindctl("environment", "list", "--json")
    assert (done.code, [each["name"] for each in done.json["environments"]]) == (0, ["science"])
    (broken,) = done.json["broken"]
    assert broken["name"] == "bad"
    assert broken["problem"].startswith(f"{path_of(state)}/bad.json: expected JSON")
    rows = plugindctl("environment", "list").out.splitlines()
    assert [row.split()[0] for row in rows] == ["name", "bad", "science"]
    assert f"no: {path_of(state)}/bad.json: expected JSON" in rows[1]


@pytest.mark.root
def test_folder_that_others_can_write_is_told(state, science):
    plugindctl(*science)
    path_of(state).chmod(0o777)
    done = plugindctl("environment", "list")
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith(f"plugindctl: {state}.environments: expected to be root's, and writable for root only")
    assert plugindctl(*science).code == 2


def test_no_environments(state):
    done = plugindctl("environment", "list")
    assert (done.code, done.out) == (0, "")
    assert done.err == (
        f"{state}.environments: no environments; `plugindctl environment build NAME --lock FILE` makes one, as root\n"
    )
    assert plugindctl("environment", "list", "--json").json["environments"] == []


# --- what goes wrong ---------------------------------------------------------------------------------------------------


def told(done, code):
    """The lines of an error, after the steps."""
    lines = done.err.splitlines()
    (first,) = (number for number, line in enumerate(lines) if line.startswith("plugindctl: "))
    assert (done.code, done.out) == (code, "")
    return [line.removeprefix("plugindctl: ").strip() for line in lines[first:]]


def test_only_root_builds(science, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    wanted = ["environment build: needs root: what plugins import may be written by root only"]
    assert told(plugindctl(*science), 3) == wanted
    assert plugindctl("environment", "list").code == 0


@pytest.mark.root
def test_no_state_folder(science):
    wanted = ["/nowhere: expected the state folder of a daemon; name it with --state or PLUGIND_STATE"]
    assert told(plugindctl(*science, "--state", "/nowhere"), 2) == wanted


@pytest.mark.root
def test_no_lock(state):
    first, hint = told(plugindctl("environment", "build", "science", "--lock", "none.lock"), 2)
    assert first == "none.lock: expected a lock, there is none"
    assert hint.startswith("make one: `pip-compile --generate-hashes")


@pytest.mark.root
def test_lock_that_pins_nothing(tmp_path, state):
    path = tmp_path / "requirements.lock"
    path.write_text("# what I need\nnumpy>=2\n")
    (line,) = told(plugindctl("environment", "build", "science", "--lock", path), 2)
    assert line.startswith(f"{path}: line 2: expected NAME==VERSION, got 'numpy>=2': write the lock with `pip-compile")


@pytest.mark.root
def test_what_pip_says_is_shown_below(science, tmp_path):
    (tmp_path / "wheels/two-2.1-py3-none-any.whl").unlink()
    first, *lines = told(plugindctl(*science), 2)
    assert first.startswith("expected pip to install what the lock names, but it failed: put a wheel of it for CPython")
    assert lines[-1] == "ERROR: No matching distribution found for two==2.1"
    done = plugindctl(*science, "--json")
    assert (done.json["error"]["code"], done.json["error"]["problems"]) == ("INVALID_ENVIRONMENT", lines)


@pytest.mark.root
@pytest.mark.parametrize("name", ["base", "Science"])
def test_wrong_name(science, name):
    (line,) = told(plugindctl(*science[:2], name, *science[3:]), 2)
    assert line == f"environment: expected a name like [a-z][a-z0-9_-]{{0,62}}, not base, got '{name}'"


@pytest.mark.root
def test_wrong_module(science):
    (line,) = told(plugindctl(*science, "--import", "twoo"), 2)
    assert line == "expected modules of these packages, got twoo; those at the top: one, two"


@pytest.mark.root
def test_another_build_at_work(state, science):
    plugindctl(*science)
    code = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, 2); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, path_of(state) / "lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        wanted = [f"{state}.environments: another environment is being built; wait until it is done"]
        assert told(plugindctl(*science), 3) == wanted
        other.communicate()


@pytest.mark.root
def test_lock_is_asked_for():
    done = plugindctl("environment", "build", "science")
    assert (done.code, "Missing option '--lock'" in done.err) == (2, True)
