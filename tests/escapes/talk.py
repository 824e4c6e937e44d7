"""Attacks as the inputs of a session, one after the other, through a real daemon."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plugind_client import PlugindError
from plugind_client.results import SessionResult
from tests.escapes.box import Box, Ran

Input = tuple[str, Mapping[str, Any]] | str | float
"""An attack with its arguments, or without; or a pause in seconds."""


@dataclass(frozen=True)
class Talked:
    """A session that is over: what came of each input that was asked, and how it ended."""

    answers: list[Any]
    """Values, and the errors of inputs that have none."""
    session: SessionResult
    ran: Ran

    @property
    def outcome(self) -> str:
        return self.ran.outcome

    def why(self) -> str:
        return f"{self.answers!r:.500} why {self.session.why!r} {self.ran.why()}"


def talk(box: Box, *inputs: Input, limits: dict[str, int] | None = None, close: bool = True) -> Talked:
    """Ask one input after the other until all are asked, or the session has ended; then close it."""
    session = box.client.session(box._attacks(limits or {}))
    answers: list[Any] = []
    for each in inputs:
        if isinstance(each, float):
            time.sleep(each)
            continue
        attack, arguments = each if isinstance(each, tuple) else (each, {})
        try:
            answers.append(session.call({"attack": f"sessions.{attack}", "arguments": dict(arguments)}))
        except PlugindError as error:
            answers.append(error)
        if session.result is not None:
            break
    if session.result is None and close:
        with contextlib.suppress(PlugindError):
            session.close()
    assert session.result is not None, answers
    ran = box.ran(session.result.run)
    assert ran.record["mode"] == "session"
    assert ran.record["items"] == session.result.answered
    assert ran.record["output_sha256"] == session.result.frames_sha256
    assert bool(session.result.why) == (ran.outcome == "ok"), "it ended well, and says why, or neither"
    return Talked(answers, session.result, ran)
