"""run, ps and cancel: what is sent, what is printed for people and for programs, and every exit code."""

import json
import signal
import subprocess
import time

import pytest

from plugind_client import errors
from plugind_proto.v1 import common_pb2, runtime_pb2
from tests.support.fake_daemon import (
    COMMAND,
    GOVERNANCE,
    FakeDaemon,
    allowed,
    denied,
    ended,
    plugindctl,
    plugindctl_terminal,
)

KEYS = ["decision", "reasons", "governance", "outcome", "output", "usage", "violations", "stdout", "stderr"]
CODES = {
    "ok": 0,
    "failed": 1,
    "output_invalid": 1,
    "timeout": 4,
    "cpu_exceeded": 4,
    "out_of_memory": 4,
    "pids_exceeded": 4,
    "output_limit": 4,
    "violation": 4,
    "killed": 4,
    "canceled": 4,
    "fault": 6,
    "unknown": 6,
}
RAISED = runtime_pb2.PluginError(
    type="ZeroDivisionError",
    message="division by zero",
    traceback='Traceback (most recent call last):\n  File "/plugin/p.py", line 3, in run\n    1 / 0',
)
PTRACE = common_pb2.Violation(kind="syscall", name="ptrace", count=2, detail="refused")
LAST = "plug_1, Tier 2, file_read, limit 5000 ms; used 12 ms, 7 ms CPU, 0.0 MiB; audit record log_7"


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    with FakeDaemon(str(tmp_path / "d.sock")) as daemon:
        monkeypatch.setenv("PLUGIND_SOCKET", daemon.socket)
        monkeypatch.chdir(tmp_path)
        yield daemon


# --- what is sent --------------------------------------------------------------------------------------------------


def test_run_sends_every_option(daemon, tmp_path):
    (tmp_path / "in.json").write_bytes(b' {"a": 1.0} ')
    options = "--stage durations --input in.json --plan p1 --sensitivity confidential --timeout-ms 250"
    assert plugindctl("run", "echo@1.2.0", *options.split()).code == 0
    assert daemon.last("RunRequest") == runtime_pb2.RunRequest(
        plugin="echo",
        version="1.2.0",
        input_json=b' {"a": 1.0} ',
        stage="durations",
        plan_id="p1",
        sensitivity="confidential",
        timeout_ms=250,
    )


def test_input_is_an_empty_object_or_comes_from_standard_input(daemon):
    assert plugindctl("run", "echo", stdin=b"[1]").out == "{}\n"
    assert plugindctl("run", "echo", "-i", "-", stdin=b"[1]").out == "[\n  1\n]\n"


@pytest.mark.parametrize(
    "text,said",
    [
        (b'{"a": 1,\n "b": }', "in.json: line 2, column 7: expected JSON: "),
        (b"{'a': 1}", "in.json: line 1, column 2: expected JSON: "),
        (b"1 2", "in.json: line 1, column 3: expected JSON: "),
        (b"", "in.json: expected JSON, got nothing"),
        (b" \n", "in.json: expected JSON, got nothing"),
        (b'"\xff"', "in.json: expected UTF-8, got byte 0xff at offset 1"),
        (b"[" * 200_000, "in.json: "),
        (None, "in.json: cannot be read: No such file or directory"),
    ],
    ids=["column", "quotes", "two", "empty", "blank", "latin", "deep", "missing"],
)
@pytest.mark.parametrize("from_stdin", [False, True], ids=["file", "stdin"])
def test_input_that_is_no_json_is_told_by_line_and_column_and_not_sent(daemon, tmp_path, text, said, from_stdin):
    if from_stdin:
        done = plugindctl("run", "echo", "-i", "-", stdin=text or b"")
        said = "standard input: " if text is None else said.replace("in.json", "standard input")
    else:
        if text is not None:
            (tmp_path / "in.json").write_bytes(text)
        done = plugindctl("run", "echo", "-i", "in.json")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"plugindctl: {said}")
    assert daemon.requests == []


# --- --json --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [allowed(b"5"), denied("NOT_SIGNED", "BUSY"), ended("failed", "raised", error=RAISED), ended("fault")],
    ids=["ok", "denied", "failed", "fault"],
)
def test_json_object_has_exactly_the_keys_of_the_contract(daemon, answer):
    daemon.answers["p"] = answer
    done = plugindctl("run", "p", "--json")
    assert list(done.json) == KEYS
    assert list(done.json["governance"]) == ["plugin_id", "tier", "permissions", "execution_limit_ms", "audit_log"]
    assert list(done.json["usage"]) == ["wall_ms", "cpu_ms", "memory_peak_bytes"]
    assert [list(reason) for reason in done.json["reasons"]] == [
        ["code", "rule", "expected", "actual", "remedy"] for _ in answer.reasons
    ]
    assert done.err == ""


def test_json_object_tells_everything(daemon):
    daemon.answers["p"] = allowed(b'{"a": [1, null]}', stdout=b"o", stderr=b"e", violations=[PTRACE])
    assert plugindctl("run", "p", "--json").json == {
        "decision": "allow",
        "reasons": [],
        "governance": {
            "plugin_id": "plug_1",
            "tier": "Tier 2",
            "permissions": ["file_read"],
            "execution_limit_ms": 5000,
            "audit_log": "log_7",
        },
        "outcome": "ok",
        "output": {"a": [1, None]},
        "usage": {"wall_ms": 12, "cpu_ms": 7, "memory_peak_bytes": 4096},
        "violations": [{"kind": "syscall", "name": "ptrace", "count": 2, "detail": "refused"}],
        "stdout": "o",
        "stderr": "e",
    }


# --- how it ends ---------------------------------------------------------------------------------------------------


def test_every_outcome_has_an_exit_code():
    assert set(CODES) == {"ok", *errors.OUTCOMES}


@pytest.mark.parametrize("outcome", CODES)
@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["people", "json"])
def test_exit_code_of_each_outcome(daemon, outcome, flags):
    daemon.answers["p"] = allowed() if outcome == "ok" else ended(outcome, "what happened")
    done = plugindctl("run", "p", *flags)
    assert done.code == CODES[outcome]
    if flags:
        assert done.json["outcome"] == outcome
    else:
        lines = [line for line in done.err.splitlines() if not line.startswith("  what to do: ")]
        assert lines[-2:] == [
            f"p 1.0.0: {outcome}" + ("" if outcome == "ok" else ": what happened"),
            LAST,
        ]


def test_output_goes_to_standard_output_and_all_else_to_standard_error(daemon):
    daemon.answers["p"] = allowed(
        '{"n": "ü"}'.encode(), stdout=b"one\ntwo\n", stderr=b"warned", violations=[PTRACE], governance=GOVERNANCE
    )
    done = plugindctl("run", "p")
    assert (done.code, done.out) == (0, '{\n  "n": "ü"\n}\n')
    assert [line.rstrip() for line in done.err.splitlines()] == [
        "stdout | one",
        "stdout | two",
        "stderr | warned",
        "refused  name    times  detail",
        "syscall  ptrace  2      refused",
        "p 1.0.0: ok",
        LAST,
    ]


def test_failure_shows_the_traceback(daemon):
    daemon.answers["p"] = ended("failed", "it raised ZeroDivisionError", error=RAISED)
    done = plugindctl("run", "p")
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines() == [
        "raised | Traceback (most recent call last):",
        'raised |   File "/plugin/p.py", line 3, in run',
        "raised |     1 / 0",
        "raised | ZeroDivisionError: division by zero",
        "p 1.0.0: failed: it raised ZeroDivisionError",
        LAST,
    ]


def test_denial_shows_all_reasons_each_with_its_remedy_to_copy(daemon):
    daemon.answers["p"] = denied("NOT_APPROVED", "STAGE_NOT_ALLOWED", "INPUT_INVALID")
    done = plugindctl("run", "p")
    assert (done.code, done.out) == (3, "")
    assert done.err.splitlines() == [
        "p 1.0.0: denied, nothing ran (audit record log_7)",
        "  NOT_APPROVED (gate.not_approved): expected yes, got no",
        "    what to do: mend NOT_APPROVED",
        "  STAGE_NOT_ALLOWED (gate.stage_not_allowed): expected yes, got no",
        "    what to do: mend STAGE_NOT_ALLOWED",
        "  INPUT_INVALID (gate.input_invalid): expected yes, got no",
        "    what to do: mend INPUT_INVALID",
    ]


def test_unknown_plugin_is_denied(daemon):
    reason = common_pb2.Reason(code="PLUGIN_NOT_FOUND", rule="gate.plugin", actual="nope", remedy="plugindctl list")
    daemon.answers["nope"] = runtime_pb2.RunResponse(decision="deny", reasons=[reason])
    done = plugindctl("run", "nope")
    assert done.code == 3
    assert done.err.splitlines() == [
        "nope: denied, nothing ran (no audit record)",
        "  PLUGIN_NOT_FOUND (gate.plugin): nope",
        "    what to do: plugindctl list",
    ]


# --- Ctrl-C --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ctrl_c_cancels_the_run(daemon):
    daemon.answers["slow"] = daemon.slow
    with subprocess.Popen(
        [*COMMAND, "run", "slow"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        until = time.monotonic() + 20
        while not daemon.requests and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (4, "", "plugindctl: canceled\n")
    assert daemon.call_ended.wait(5)


# --- what a plugin says cannot steer a terminal ----------------------------------------------------------------------

STEERING = "\x1b[2J\x9b31m\u202eabc\x07\x7f\u2028"
SEEN = r"\u001b[2J\u009b31m\u202eabc\u0007\u007f"


@pytest.mark.slow
def test_escapes_of_a_plugin_are_made_visible_on_a_terminal(daemon):
    daemon.answers["evil"] = allowed(
        json.dumps({STEERING: STEERING}, ensure_ascii=False).encode(),
        stdout=STEERING.encode(),
        stderr=b"\x1b]0;title\x07\xff",
        violations=[common_pb2.Violation(kind="syscall", name="\x1b[1m", count=1)],
    )
    code, screen = plugindctl_terminal("run", "evil")
    assert code == 0
    assert [character for character in screen if character != "\n" and not character.isprintable()] == []
    assert f'"{SEEN}\\u2028": "{SEEN}\\u2028"' in screen
    assert f"stdout | {SEEN}\n" in screen
    assert r"stderr | \u001b]0;title\u0007" in screen


@pytest.mark.slow
def test_escapes_are_made_visible_in_json_on_a_terminal_and_kept_in_a_pipe(daemon):
    daemon.answers["evil"] = allowed(b"null", stdout=STEERING.encode())
    code, screen = plugindctl_terminal("run", "evil", "--json")
    assert (code, json.loads(screen)["stdout"]) == (0, STEERING)
    assert [character for character in screen if character != "\n" and not character.isprintable()] == []
    assert plugindctl("run", "evil", "--json").json["stdout"] == STEERING


@pytest.mark.parametrize("separator", ["\n", "\r", "\x0b", "\x85", "\u2028"], ids=ascii)
def test_exception_cannot_write_a_line_that_looks_like_ours(daemon, separator):
    lie = f"x{separator}p 1.0.0: ok"
    told = runtime_pb2.PluginError(type="E", message=lie, traceback=lie)
    daemon.answers["p"] = ended("failed", f"it raised E: {lie}", error=told, stdout=lie.encode(), version=f"1{lie}")
    lines = plugindctl("run", "p").err.split("\n")
    assert [line for line in lines if line.startswith("p 1.0.0: ok")] == []


def test_reason_of_several_lines_stays_on_one(daemon):
    reason = common_pb2.Reason(code="INPUT_INVALID", rule="r", actual="a\nb", remedy="c\n  d")
    daemon.answers["p"] = runtime_pb2.RunResponse(decision="deny", reasons=[reason])
    assert plugindctl("run", "p").err.splitlines()[1:] == [r"  INPUT_INVALID (r): a\nb", r"    what to do: c\n  d"]


# --- ps and cancel -------------------------------------------------------------------------------------------------


def running(**fields):
    given = {
        "run_id": "r9",
        "plugin_id": "plug_1",
        "plugin": "p",
        "version": "1.0.0",
        "tier": 2,
        "stage": "",
        "started_unix_ms": int((time.time() - 3) * 1000),
        "caller_uid": 1000,
        "state": "running",
    }
    return runtime_pb2.RunningRun(**(given | fields))


def test_ps_is_a_table_for_people(daemon):
    used = {"memory_bytes": 52 << 20, "cpu_ms": 1250, "pids": 4, "refused_calls": 0}
    daemon.running += [
        running(**used),
        running(run_id="r10", stage="durations", started_unix_ms=1 << 50, state="starting"),
    ]
    done = plugindctl("ps")
    rows = [line.split() for line in done.out.splitlines()]
    assert (done.code, done.err) == (0, "")
    assert rows[0] == "run plugin id tier stage for cpu memory pids refused uid state".split()
    assert rows[1][:6] == ["r9", "p", "1.0.0", "plug_1", "2", "-"]
    assert 3 <= float(rows[1][6]) < 60
    assert rows[1][8:] == ["1.2", "s", "52.0", "MiB", "4", "0", "1000", "running"]
    assert rows[2] == "r10 p 1.0.0 plug_1 2 durations 0.0 s - - - - 1000 starting".split()


def test_ps_as_json(daemon):
    daemon.running.append(running(started_unix_ms=5))
    assert plugindctl("ps", "--json").json == [
        {
            "run_id": "r9",
            "plugin_id": "plug_1",
            "plugin": "p",
            "version": "1.0.0",
            "tier": 2,
            "stage": "",
            "started_unix_ms": 5,
            "caller_uid": 1000,
            "state": "running",
            "memory_bytes": None,
            "cpu_ms": None,
            "pids": None,
            "refused_calls": None,
            "sampled_unix_ms": 0,
        }
    ]


def test_ps_says_when_there_is_nothing(daemon):
    done = plugindctl("ps")
    assert (done.code, done.out, done.err) == (0, "", "no run is in flight\n")


def test_cancel(daemon):
    daemon.running.append(running())
    done = plugindctl("cancel", "r9")
    assert (done.code, done.out, done.err) == (0, "", "r9: canceled\n")
    assert plugindctl("cancel", "r9", "--json").json == {"run_id": "r9", "found": True}
    assert daemon.last("CancelRequest").run_id == "r9"


def test_cancel_of_what_does_not_run(daemon):
    done = plugindctl("cancel", "r8")
    assert (done.code, done.err) == (3, "plugindctl: r8: no such run of yours is in flight\n")
    assert plugindctl("cancel", "r8", "--json").json["error"]["code"] == "NOT_FOUND"


@pytest.mark.slow
def test_table_fits_the_terminal_and_is_as_wide_as_it_is_in_a_pipe(daemon):
    daemon.running.append(running(plugin="p" * 62, stage="s" * 62))
    _, screen = plugindctl_terminal("ps", columns=80)
    assert max(map(len, screen.splitlines())) <= 80
    assert len(plugindctl("ps").out.splitlines()) == 2
