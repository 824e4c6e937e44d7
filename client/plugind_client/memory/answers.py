"""What a test says that a plugin gives, and what comes of it: a value, an exception of the plugin, or another end.

Source: SPEC.md, "The life of a run".
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from plugind_client.errors import DENIALS, OUTCOMES, PlugindError
from plugind_client.records import Reason
from plugind_proto.v1 import common_pb2, runtime_pb2

OF_AN_INPUT: Final = frozenset({"INPUT_INVALID", "INPUT_TOO_LARGE"})
"""Codes of denials that are about one input; all others are about whether the plugin may run."""


class Answers:
    """What a test says for one version of a plugin: one answer a run or input, and the last one ever after."""

    def __init__(self, answers: Sequence[object]) -> None:
        self._left = list(answers)

    @property
    def first(self) -> object:
        """The same, and it stays the next one."""
        return self._left[0]

    def next(self) -> object:
        """The answer to the next run or input."""
        return self._left.pop(0) if len(self._left) > 1 else self._left[0]


@dataclass(frozen=True, slots=True)
class Ending:
    """How an answer ends a run. With reasons it is a denial."""

    outcome: str = "ok"
    detail: str = ""
    output: bytes = b""
    error: runtime_pb2.PluginError | None = None
    reasons: tuple[Reason, ...] = ()
    violations: tuple[common_pb2.Violation, ...] = ()


def evaluated(answer: object, input_json: bytes, interface: str, context: Callable[[], object]) -> Ending:
    """What a run gives. An error of the call itself, such as Unavailable, is raised.

    `context` gives what a function has as its second argument, where it takes one.
    """
    floats = interface == "functions"  # the only one where NaN and its like may pass
    try:
        payload = json.loads(input_json, parse_constant=None if floats else _no_constant)
    except ValueError as error:
        return Ending(reasons=(Reason("INPUT_INVALID", "gate.input", "JSON", str(error)),))
    try:
        value = _value(answer, payload, context)
    except PlugindError as error:
        return _ended_by(error)
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises is told and not raised
        return _failed(error)
    try:
        return Ending(output=json.dumps(value, allow_nan=floats, ensure_ascii=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        return Ending("output_invalid", f"the result is no JSON: {error}")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _value(answer: object, payload: object, context: Callable[[], object]) -> object:
    if isinstance(answer, type) and issubclass(answer, BaseException):
        raise answer
    value = answer(payload, *([context()] if _takes_context(answer) else [])) if callable(answer) else answer
    if isinstance(value, BaseException):
        raise value
    return value


def _takes_context(answer: Callable[..., object]) -> bool:
    """Whether it wants two arguments, as a plugin's own run(payload, context)."""
    try:
        signature = inspect.signature(answer)
        signature.bind(None, None)
    except (TypeError, ValueError):
        return False
    try:
        signature.bind(None)
    except TypeError:
        return True
    return False


def _ended_by(error: PlugindError) -> Ending:
    """How a run ends that this error is to come of."""
    if error.code in DENIALS:
        return Ending(reasons=denial(error))
    if error.code in OUTCOMES:
        return Ending(error.code, error.detail)
    raise error


def denial(error: PlugindError) -> tuple[Reason, ...]:
    """The reasons that one of the client's errors stands for."""
    return error.reasons or (Reason(error.code, "test", actual=error.detail),)


def _failed(error: Exception) -> Ending:
    """As an instance tells it."""
    name = type(error).__name__
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    frames = "".join(traceback.format_list(own))
    raised = runtime_pb2.PluginError(type=name, message=str(error), traceback=frames)
    return Ending("failed", f"raised {name}: {error}", error=raised)


# --- one input of many -----------------------------------------------------------------------------------------------


def item_error(ending: Ending) -> runtime_pb2.ItemError | None:
    """Why an input has no output. None: it has one, or this is how all of it ended."""
    if ending.reasons:
        told = [reason_message(reason) for reason in ending.reasons]
        return runtime_pb2.ItemError(refused=runtime_pb2.Refusal(reasons=told))
    if ending.outcome == "failed" and ending.error is not None:
        return runtime_pb2.ItemError(raised=ending.error)
    if ending.outcome == "output_invalid":
        return runtime_pb2.ItemError(output_invalid=ending.detail)
    return None


def reason_message(reason: Reason) -> common_pb2.Reason:
    """A reason as a message."""
    return common_pb2.Reason(**dataclasses.asdict(reason))
