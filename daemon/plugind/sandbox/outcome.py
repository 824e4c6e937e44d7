"""From how an instance ended and what came through the result pipe to its outcome. Pure.

Frame: inside/runner.py. It is believed only when the process ended by itself with 0 and the pipe held exactly one
frame with the run's nonce.
"""

from __future__ import annotations

import dataclasses
import json
import signal
from dataclasses import dataclass
from typing import Final

from plugind.model import Limits, Outcome, PluginError, Violation
from plugind.sandbox.inside.functions import MESSAGE_CHARS, TRACEBACK_CHARS, TYPE_CHARS
from plugind.sandbox.inside.runner import HEADER
from plugind.sandbox.protocol import Ended

KINDS: Final = (b"V", b"E", b"I")
"""Of frames: a value, an exception, a value that is no JSON."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run has come to. `output_json` is set only for ok, `error` only where the plugin raised."""

    outcome: Outcome
    detail: str = ""
    output_json: bytes | None = None
    error: PluginError | None = None
    violations: tuple[Violation, ...] = ()


def judge(ended: Ended, result: bytes, nonce: bytes, limits: Limits) -> Verdict:
    """The one outcome of a run that started."""
    verdict = _end(ended, limits) or _judge_frame(result, nonce)
    return dataclasses.replace(verdict, violations=ended.violations)


def judge_session(ended: Ended, problem: str, unanswered: bool, over: bool, limits: Limits) -> Verdict:
    """The one outcome of a session that started.

    `problem`: what was wrong with its frames, or nothing; `unanswered`: a request; `over`: it was to end.
    """
    if problem and ended.cause in ("", "output_limit"):  # it was ended for that, or had ended by itself
        verdict = Verdict(Outcome.OUTPUT_INVALID, problem)
    elif unanswered or not over:
        when = "without an answer" if unanswered else "before its session was over"
        verdict = _end(ended, limits) or Verdict(Outcome.OUTPUT_INVALID, f"the plugin's process ended {when}")
    else:
        verdict = _end(ended, limits) or Verdict(Outcome.OK)
    return dataclasses.replace(verdict, violations=ended.violations)


def judge_import(ended: Ended, limits: Limits) -> Verdict:
    """Why an import ahead came to nothing."""
    verdict = _end(ended, limits) or Verdict(Outcome.FAILED, "it ended while it was imported")
    if verdict.outcome is Outcome.KILLED and ended.detail:
        verdict = Verdict(Outcome.FAILED, ended.detail)  # the launcher gave it up
    return dataclasses.replace(verdict, violations=ended.violations)


def judge_frame(kind: bytes, body: bytes) -> Verdict:
    """What one answer of a session is: ok, failed or output_invalid."""
    return _judge_body(kind, body)


def _end(ended: Ended, limits: Limits) -> Verdict | None:
    """What the end of its process alone says; None: it ended by itself, and well."""
    if ended.cause:
        return Verdict(Outcome(ended.cause), _cause_text(ended, limits))
    if ended.exit_code == -signal.SIGKILL:
        return Verdict(Outcome.KILLED, "killed from outside plugind")
    if ended.exit_code < 0:
        return Verdict(Outcome.FAILED, f"died by {_signal_name(-ended.exit_code)}")
    if ended.exit_code > 0:
        return Verdict(Outcome.FAILED, f"ended with exit status {ended.exit_code} and without a result")
    return None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"


def _cause_text(ended: Ended, limits: Limits) -> str:
    return {
        "timeout": f"wall clock: more than {limits.wall_ms} ms",
        "cpu_exceeded": f"CPU time: more than {limits.cpu_ms} ms over all its processes",
        "out_of_memory": f"memory: more than {limits.memory_bytes} bytes",
        "pids_exceeded": f"processes and threads: more than {limits.pids}",
        "output_limit": f"output: more than {limits.output_bytes} bytes",
        "killed": "killed by the operator",
        "canceled": "canceled by the caller",
        "violation": ended.detail or _forbidden(ended.violations),
    }.get(ended.cause, ended.detail or "the sandbox lost the instance")


def _forbidden(violations: tuple[Violation, ...]) -> str:
    name = violations[0].name if violations else "one"
    return f"made a system call that no plugin may make: {name}"


def _judge_frame(result: bytes, nonce: bytes) -> Verdict:
    problem = _frame_problem(result, nonce)
    if problem:
        return Verdict(Outcome.OUTPUT_INVALID, problem)
    _, kind, _ = HEADER.unpack_from(result)
    return _judge_body(kind, result[HEADER.size :])


def _judge_body(kind: bytes, body: bytes) -> Verdict:
    if kind == b"V":
        return Verdict(Outcome.OK, output_json=body)
    # From here on nothing is taken for granted: the plugin has the nonce too, and could have made the frame itself.
    try:
        fields = json.loads(body)
        if kind == b"I":
            problem = _text(fields, MESSAGE_CHARS)
            return Verdict(Outcome.OUTPUT_INVALID, f"the plugin returned something that is no JSON: {problem:.500}")
        error = PluginError(
            type=_text(fields["type"], TYPE_CHARS),
            message=_text(fields["message"], MESSAGE_CHARS),
            traceback=_text(fields["traceback"], TRACEBACK_CHARS),
        )
        return Verdict(Outcome.FAILED, f"raised {error.type}: {error.message:.500}", error=error)
    except (ValueError, KeyError, TypeError, RecursionError):
        return Verdict(Outcome.OUTPUT_INVALID, "the result frame is malformed")


def _text(value: object, limit_chars: int) -> str:
    """A text that can go on, into UTF-8 too: half a surrogate pair cannot. Raises TypeError."""
    if not isinstance(value, str):
        raise TypeError("expected a text")
    return value[:limit_chars].encode("utf-8", "replace").decode()


def _frame_problem(result: bytes, nonce: bytes) -> str:
    """Why these bytes are not exactly one frame of this run; empty when they are."""
    if not result:
        return "the plugin's process ended without a result"
    if len(result) < HEADER.size:
        return "the result frame is cut off"
    claimed, kind, length = HEADER.unpack_from(result)
    if claimed != nonce:
        return "the result frame does not carry this run's nonce"
    if kind not in KINDS:
        return "the result frame is of an unknown kind"
    if len(result) != HEADER.size + length:
        return f"expected exactly one result frame of {length} bytes, got {len(result) - HEADER.size}"
    return ""
