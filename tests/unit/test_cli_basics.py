"""plugindctl as a whole: help, usage, options before and after the command's name, what it loads."""

import importlib.metadata
import os
import subprocess
import sys

import pytest

from plugind_client import cli
from tests.support.fake_daemon import FakeDaemon, plugindctl, plugindctl_process

RUNNING = "new build try run list show ps top cancel doctor jail history status why sign".split()
ADMINISTRATION = "submit approve reject activate rollback suspend resume kill metrics drill".split()
COMMANDS = RUNNING + ADMINISTRATION
GROUPS = "keys policy audit environment incident quarantine".split()


@pytest.fixture
def daemon(tmp_path):
    with FakeDaemon(str(tmp_path / "d.sock")) as daemon:
        yield daemon


def test_script_is_the_main_that_the_tests_call():
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="plugindctl")
    assert script.load() is cli.main


def test_main_help_lists_exactly_the_commands_of_this_version_and_all_exit_codes():
    done = plugindctl("--help")
    listed = done.out.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert (done.code, sorted(line.split()[0] for line in listed)) == (0, sorted(COMMANDS + GROUPS))
    assert [line.split()[0] for line in done.out.partition("Exit codes:\n")[2].splitlines()[:8]] == list("01234567")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_has_examples_of_it_and_the_options_of_all(command):
    done = plugindctl(command, "--help")
    lines = [line.strip() for line in done.out.partition("Examples:\n")[2].splitlines()]
    assert (done.code, done.err) == (0, "")
    assert lines
    assert [line for line in lines if not line.startswith(f"plugindctl {command}")] == []
    assert "--json" in done.out
    assert "--socket PATH" in done.out
    assert ("--admin-socket PATH" in done.out) is (command in (*ADMINISTRATION, "ps", "cancel", "top", "run"))
    assert plugindctl(command, "-h") == done


@pytest.mark.parametrize("command", COMMANDS)
def test_list_shows_the_whole_first_line_of_each_command_on_80_columns(monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    first = plugindctl(command, "--help").out.splitlines()[2].strip()
    listed = [line.split(maxsplit=1) for line in plugindctl("--help").out.splitlines() if line.startswith("  ")]
    assert first.endswith(".")
    assert [command, first] in listed


@pytest.mark.parametrize(
    "arguments,said",
    [
        ([], "Usage: plugindctl"),
        (["frobnicate"], "No such command 'frobnicate'"),
        (["run"], "Missing argument 'PLUGIN[@V]'"),
        (["run", "p", "--frobnicate"], "No such option: --frobnicate"),
        (["run", "p", "--input"], "requires an argument"),
        (["run", "p", "--timeout-ms", "0"], "--timeout-ms"),
        (["run", "p", "--timeout-ms", "soon"], "--timeout-ms"),
        (["try", ".", "--tier", "0"], "--tier"),
        (["try", ".", "--tier", "3"], "--tier"),
        (["jail", ".", "--tier", "3"], "--tier"),
        (["cancel"], "Missing argument 'RUN'"),
        (["list", "extra"], "extra"),
        (["run", "p@"], "NAME or NAME@VERSION"),
        (["run", "@1.0.0"], "NAME or NAME@VERSION"),
    ],
)
def test_wrong_usage_is_told_and_ends_with_2(arguments, said):
    done = plugindctl(*arguments)
    assert done.code == 2
    assert said in done.out + done.err


def test_version_is_the_packages():
    assert plugindctl("--version").out == f"plugindctl {importlib.metadata.version('plugind')}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--socket", "SOCKET", "--json", "ps"),
        ("ps", "--socket", "SOCKET", "--json"),
        ("--json", "ps", "--socket", "SOCKET"),
        ("--socket", "SOCKET", "ps", "--json"),
        ("--socket", "/nowhere.sock", "ps", "--json", "--socket", "SOCKET"),
    ],
    ids=" ".join,
)
def test_socket_and_json_go_before_and_after_the_command(daemon, monkeypatch, arguments):
    monkeypatch.setenv("PLUGIND_SOCKET", "/nowhere-either.sock")
    done = plugindctl(*(daemon.socket if word == "SOCKET" else word for word in arguments))
    assert (done.code, done.out, done.err) == (0, "[]\n", "")


@pytest.mark.parametrize("arguments", [("--json", "run", "echo"), ("run", "echo", "--json")], ids=" ".join)
def test_socket_from_the_environment(daemon, monkeypatch, arguments):
    monkeypatch.setenv("PLUGIND_SOCKET", daemon.socket)
    assert plugindctl(*arguments).json["output"] == {}


def test_settings_of_one_call_do_not_leak_into_the_next(daemon, monkeypatch):
    monkeypatch.setenv("PLUGIND_SOCKET", daemon.socket)
    plugindctl("--json", "--socket", "/nowhere.sock", "ps")
    assert plugindctl("ps").err == "no run is in flight\n"


@pytest.mark.slow
def test_help_loads_neither_grpc_nor_the_daemon():
    script = (
        "import sys\nfrom plugind_client.cli.app import app\n"
        "try: app(['run', '--help'])\nexcept SystemExit: pass\n"
        "print([name for name in ('grpc', 'google', 'cryptography', 'jsonschema_rs', 'plugind') if name in sys.modules])"
    )
    out = subprocess.check_output([sys.executable, "-c", script], text=True)
    assert out.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_output_may_be_read_in_part(daemon):
    """`plugindctl run … | head -c 1`: who reads goes away, and nothing is wrong."""
    command = [sys.executable, "-m", "plugind_client.cli", "--socket", daemon.socket, "run", "echo", "-i", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write(b"[" + b"1," * 500_000 + b"1]")
        process.stdin.close()
        process.stdout.read(1)
        process.stdout.close()
        assert (process.wait(30), process.stderr.read()) == (0, b"")


@pytest.mark.slow
def test_any_locale_can_print_what_a_plugin_says(daemon):
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = plugindctl_process("--socket", daemon.socket, "run", "echo", "-i", "-", input='"grün"', env=environment)
    assert (done.code, done.out) == (0, '"gr\\xfcn"\n')
