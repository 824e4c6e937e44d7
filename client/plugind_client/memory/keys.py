"""Idempotency keys of a plugind in memory: the same request again gives the answer of the first time.

Source: SPEC.md, "The life of a run".
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from plugind_client.errors import Conflict, InvalidRequest

LONGEST: Final = 128
NOT_KEPT: Final = frozenset({"canceled", "killed", "fault", "unknown"})


class _Entry:
    def __init__(self, content: bytes) -> None:
        self.content: Final = content
        self.turn: Final = threading.Lock()
        self.answer: Any = None


class Keys:
    """What was answered to requests with a key, whatever their run_id. What did not run to its own end is not kept."""

    def __init__(self) -> None:
        self._entries: Final[dict[str, _Entry]] = {}

    def once(self, key: str, request: Any, answer: Callable[[Any], Any], beside: bytes = b"") -> Any:
        """The answer to a request, made only the first time. Who comes meanwhile waits for it.

        `beside`: what the request is besides its message.

        Raises:
            InvalidRequest: this is no key.
            Conflict: it belongs to another request.
        """
        if not key:
            return answer(request)
        if len(key) > LONGEST or not (key.isascii() and key.isprintable()) or " " in key:
            detail = (
                f"idempotency_key: expected 1 to {LONGEST} printable characters of ASCII, no spaces, got {key[:200]!r}"
            )
            raise InvalidRequest("INVALID_REQUEST", detail=detail)
        content = _content(request) + beside
        entry = self._entries.setdefault(key, _Entry(content))
        if entry.content != content:
            raise Conflict("CONFLICT", detail=f"idempotency_key: {key!r} was sent with another request")
        with entry.turn:
            if entry.answer is not None:
                return entry.answer
            made = answer(request)
            run = getattr(made, "run", made)  # of a map, how the whole ended
            if run.decision == "allow" and run.outcome not in NOT_KEPT:
                entry.answer = made
            return made


def _content(request: Any) -> bytes:
    said = type(request)()
    said.CopyFrom(request)
    getattr(said, "run", said).run_id = ""
    return type(request).__name__.encode() + bytes(said.SerializeToString(deterministic=True))
