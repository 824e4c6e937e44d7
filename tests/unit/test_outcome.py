"""Every way an instance can end has exactly one outcome."""

from __future__ import annotations

import json
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.model import Limits, Outcome
from plugind.sandbox.inside.runner import HEADER
from plugind.sandbox.outcome import judge, judge_session
from plugind.sandbox.protocol import Ended

NONCE = bytes(range(16))
LIMITS = Limits(wall_ms=5000, cpu_ms=2000, memory_bytes=1 << 28, pids=32, output_bytes=1 << 20, scratch_bytes=1 << 24)


def frame(body: bytes, kind: bytes = b"V", nonce: bytes = NONCE) -> bytes:
    return HEADER.pack(nonce, kind, len(body)) + body


def ended(cause: str = "", exit_code: int = 0) -> Ended:
    return Ended("r", cause, exit_code, 1, 1, 1)


@pytest.mark.parametrize(
    ("end", "result", "outcome"),
    [
        (ended(), frame(b"1"), Outcome.OK),
        (ended(), b"", Outcome.OUTPUT_INVALID),
        (ended(), frame(b"1")[:-1], Outcome.OUTPUT_INVALID),
        (ended(), frame(b"1") + b"x", Outcome.OUTPUT_INVALID),
        (ended(), frame(b"1") * 2, Outcome.OUTPUT_INVALID),
        (ended(), frame(b"1", nonce=bytes(16)), Outcome.OUTPUT_INVALID),
        (ended(), frame(b"1", kind=b"X"), Outcome.OUTPUT_INVALID),
        (ended(), frame(b'"TypeError: set"', kind=b"I"), Outcome.OUTPUT_INVALID),
        (ended(), frame(b"{}", kind=b"E"), Outcome.OUTPUT_INVALID),
        (ended(), frame(b"[", kind=b"E"), Outcome.OUTPUT_INVALID),
        (ended(), frame(b'{"type":"E"}', kind=b"E"), Outcome.OUTPUT_INVALID),
        (ended(), frame(b'{"type":5,"message":"m","traceback":"t"}', kind=b"E"), Outcome.OUTPUT_INVALID),
        (ended(), frame(b'{"type":"E","message":"m","traceback":null}', kind=b"E"), Outcome.OUTPUT_INVALID),
        (ended(), frame(b"{}", kind=b"I"), Outcome.OUTPUT_INVALID),
        (ended(), frame(b"1.5", kind=b"I"), Outcome.OUTPUT_INVALID),
        (ended(), frame(b"[" * 5000, kind=b"I"), Outcome.OUTPUT_INVALID),
        (ended(exit_code=-40), b"", Outcome.FAILED),
        (ended(exit_code=3), b"", Outcome.FAILED),
        (ended(exit_code=1), frame(b"1"), Outcome.FAILED),
        (ended(exit_code=-signal.SIGSEGV), b"", Outcome.FAILED),
        (ended(exit_code=-signal.SIGSYS), b"", Outcome.FAILED),
        (ended(exit_code=-signal.SIGKILL), b"", Outcome.KILLED),
        *((ended(cause=str(outcome), exit_code=-9), frame(b"1"), outcome) for outcome in Outcome if outcome != "ok"),
    ],
)
def test_outcomes(end: Ended, result: bytes, outcome: Outcome) -> None:
    verdict = judge(end, result, NONCE, LIMITS)
    assert verdict.outcome is outcome
    assert (verdict.output_json is not None) == (outcome is Outcome.OK)
    assert bool(verdict.detail) == (outcome is not Outcome.OK)


@pytest.mark.parametrize(
    ("end", "problem", "unanswered", "over", "outcome", "words"),
    [
        (ended(), "", False, True, Outcome.OK, ""),
        (ended(), "", False, False, Outcome.OUTPUT_INVALID, "before its session was over"),
        (ended(), "", True, True, Outcome.OUTPUT_INVALID, "without an answer"),
        (ended(), "", True, False, Outcome.OUTPUT_INVALID, "without an answer"),
        (ended(), "a forged frame", False, True, Outcome.OUTPUT_INVALID, "a forged frame"),
        (ended("output_limit", -9), "a forged frame", True, False, Outcome.OUTPUT_INVALID, "a forged frame"),
        (ended("killed", -9), "a forged frame", True, False, Outcome.KILLED, "operator"),
        (ended("timeout", -9), "", True, False, Outcome.TIMEOUT, "wall clock"),
        (ended(exit_code=3), "", False, True, Outcome.FAILED, "exit status 3"),
        (ended(exit_code=3), "", True, False, Outcome.FAILED, "exit status 3"),
        (ended(exit_code=-9), "", False, False, Outcome.KILLED, "outside"),
    ],
)
def test_outcomes_of_a_session(
    end: Ended, problem: str, unanswered: bool, over: bool, outcome: Outcome, words: str
) -> None:
    verdict = judge_session(end, problem, unanswered, over, LIMITS)
    assert verdict.outcome is outcome
    assert words in verdict.detail
    assert bool(verdict.detail) == (outcome is not Outcome.OK)


def test_what_the_plugin_raised_is_told() -> None:
    body = json.dumps({"type": "ZeroDivisionError", "message": "division by zero", "traceback": "…"}).encode()
    verdict = judge(ended(), frame(body, b"E"), NONCE, LIMITS)
    assert verdict.outcome is Outcome.FAILED
    assert verdict.error is not None
    assert verdict.error.type == "ZeroDivisionError"


def test_a_forged_exception_is_cut_and_can_be_sent() -> None:
    body = json.dumps({"type": "T" * 999, "message": "\ud800" * 99_999, "traceback": "t" * 99_999}).encode()
    error = judge(ended(), frame(body, b"E"), NONCE, LIMITS).error
    assert error is not None
    assert [len(text.encode()) for text in (error.type, error.message, error.traceback)] == [256, 4096, 16384]


@given(st.binary(max_size=200))
def test_forged_bytes_are_never_a_result(result: bytes) -> None:
    assert judge(ended(), result, NONCE, LIMITS).outcome is Outcome.OUTPUT_INVALID
