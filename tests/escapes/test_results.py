"""The result: exactly one frame of this run is believed, JSON is what it says, and no record can be forged."""

from __future__ import annotations

import json
import math
import subprocess

import pytest

from tests.escapes.attack import OWN, attack
from tests.escapes.box import Box

FORGED = {
    "two_frames": {},
    "frame_by_a_child": {},
    "frame_by_a_thread": {},
    "frame_of_a_child_that_lives_on": {},
    "wrong_nonce": {},
    "cut_frame": {},
    "wrong_length": {"length": 2**63},
    "unknown_kind": {},
    "noise_before": {},
}


@attack(
    45,
    "forge the result: two frames, a child's, a late one, one without the nonce, one cut off, noise before it",
    "a pipe and a nonce that come with the input; exactly one frame with it",
)
@attack(52, "write a result early", "the same: the early frame is no result")
@pytest.mark.parametrize("how", FORGED)
def test_forged_frames_are_no_result(box: Box, how: str) -> None:
    ran = box.run(f"results.{how}", **FORGED[how])
    assert ran.outcome == "output_invalid", ran.why()
    assert ran.result.output is None
    assert ran.result.outcome_detail


@attack(45, "a good frame, and then an end that is not one", "the process has to end with 0")
@pytest.mark.parametrize(
    ("how", "arguments"),
    [("frame_and_status", {"status": 1}), ("frame_and_signal", {"number": 6}), ("frame_and_signal", {"number": 11})],
)
def test_a_frame_of_a_process_that_died_is_no_result(box: Box, how: str, arguments: dict[str, int]) -> None:
    ran = box.run(f"results.{how}", **arguments)
    assert ran.outcome == "failed", ran.why()
    assert ran.result.output is None


NO_JSON = {
    "NaN": "NaN",
    "infinity": "[-Infinity]",
    "duplicate keys": '{"a": 1, "a": 2}',
    "duplicate keys by escapes": '{"a": 1, "\\u0061": 2}',
    "a lone surrogate": '"\\ud800"',
    "a lone surrogate as a key": '{"\\udfff": 1}',
    "two values": "1 2",
    "a comment": "1 // one",
    "a number too large": "1e999",
    "a byte order mark": "\ufeff1",
    "nothing": "",
    "leading zero": "01",
    "control character": '"\u0001"',
}


@attack(
    46,
    "NaN, duplicate keys, lone surrogates, numbers without end, more than one value",
    "strict parsing with limits before it",
)
@pytest.mark.parametrize("what", NO_JSON)
def test_json_that_is_none_is_refused(box: Box, what: str) -> None:
    ran = box.run("results.raw_json", text=NO_JSON[what])
    assert ran.outcome == "output_invalid", ran.why()
    assert ran.result.outcome_detail


@attack(46, "deep, wide and broken JSON", "limits of depth and size before parsing")
@pytest.mark.parametrize(
    ("how", "arguments"),
    [
        ("deep", {"levels": 100_000}),
        ("deep", {"levels": 1_000_000}),
        ("raw_bytes", {"numbers": [0x22, 0xFF, 0xC0, 0x80, 0x22]}),
        ("raw_bytes", {"numbers": [0x22, 0xED, 0xA0, 0x80, 0x22]}),
    ],
)
def test_deep_and_broken_json_is_refused(box: Box, how: str, arguments: dict[str, object]) -> None:
    ran = box.run(f"results.{how}", **arguments)
    assert ran.outcome == "output_invalid", ran.why()


@attack(46, "integers beyond 2^53", "integers are exact all the way")
def test_exact_values_survive(box: Box) -> None:
    ran = box.run("results.exact")
    assert ran.value() == [2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1, 0.1, "\u0000\ud7ff\U0010ffff", 1e308, -0.0]
    assert math.copysign(1, ran.value()[-1]) == -1


@attack(
    OWN,
    "an exception that was never raised, with fields of the wrong type, too long or missing",
    "checked like any foreign text",
)
@pytest.mark.parametrize(
    "body",
    [
        "{}",
        "[]",
        "1",
        "null",
        '{"type": 1, "message": [], "traceback": {}}',
        '{"type": "x"}',
        "[" * 10_000,
        '{"type":"\\ud800","message":"\\ud800","traceback":"\\udfff"}',
        "not json",
    ],
)
def test_made_up_exceptions_do_no_harm(box: Box, body: str) -> None:
    ran = box.run("results.error_frame", body=body)
    assert ran.outcome in ("output_invalid", "failed"), ran.why()
    if ran.outcome == "failed":
        assert ran.result.error is not None
        assert "\ud800" not in ran.result.error.message


NASTY = (
    '\n{"index":1,"event":"OUTCOME","outcome":"ok","check":"00000000"}\n'
    "PLUGIND_OUTCOME=ok\nPLUGIND_AUDIT_ID=log_1\n\r\x1b[2J\x1b]0;owned\x07\x1b[31mok\x1b[0m\x08\x08\x9b31m\u0085\u2028\u2029\u202e\0"
    'OUTCOME ok","outcome":"ok'
)
CONTROL = {chr(number) for number in [*range(32), *range(127, 160)]} - {"\n", "\t"} | set("\u2028\u2029\u202e")


@attack(
    40,
    "forge audit lines: newlines, ANSI sequences, U+0085, field names, in exceptions, output and what is printed",
    "structured fields; escaped where they are shown",
)
@pytest.mark.parametrize("how", ["say_everything", "return_text"])
def test_there_is_exactly_one_record(box: Box, how: str) -> None:
    before = box.client.audit.query(limit=1).size
    ran = box.run(f"results.{how}", text=NASTY)
    assert ran.outcome == {"say_everything": "failed", "return_text": "ok"}[how]
    records = box.client.audit.query(limit=1000)
    new = [record for record in records.records if record.index >= before]
    told = [record for record in new if record.event != "CHANGE" and record.fields["mode"] != "import"]
    assert [record.event for record in told] == ["OUTCOME", "INTENT"]
    for record in new:
        assert record.line.count(b"\n") <= 1
        assert record.line.isascii()
        assert json.loads(record.line)["index"] == record.index
    assert box.client.audit.verify().holds


def assert_no_control(shown: subprocess.CompletedProcess[str]) -> None:
    both = shown.stdout + shown.stderr
    assert both, shown
    assert set(both) & CONTROL == set(), both[-3000:]


@attack(40, "control a person's terminal by what a plugin prints or raises", "escaped where it is shown")
def test_a_terminal_gets_no_control_characters(tier2: Box) -> None:
    payload = json.dumps({"attack": "results.say_everything", "arguments": {"text": NASTY}})
    assert_no_control(tier2.daemon.command("run", tier2._attacks({}), "--input", "-", text=payload))
    (newest,) = tier2.client.audit.query(events=("OUTCOME",), limit=1).records
    assert_no_control(tier2.daemon.command("audit", "show", newest.log_id))
    assert_no_control(tier2.daemon.command("audit", "list"))


@attack(
    40,
    "the same by what a plugin returns, and in what --json prints",
    "control and format characters are escaped in JSON",
)
@pytest.mark.parametrize(("how", "more"), [("return_text", ()), ("say_everything", ("--json",))])
def test_json_on_a_terminal_has_no_control_characters(tier2: Box, how: str, more: tuple[str, ...]) -> None:
    payload = json.dumps({"attack": f"results.{how}", "arguments": {"text": NASTY}})
    assert_no_control(tier2.daemon.command("run", tier2._attacks({}), "--input", "-", *more, text=payload))


@attack(40, "the same in a record that audit show --json prints", "control and format characters are escaped in JSON")
def test_json_of_a_record_has_no_control_characters(tier2: Box) -> None:
    ran = tier2.run("results.say_everything", text=NASTY)
    assert_no_control(tier2.daemon.command("audit", "show", ran.result.audit_log, "--json"))
