"""What launcher and resolver say to each other, as messages: names asked for, and what became of each.

The resolver reads what the internet sends it, and may be somebody else's by now: whatever it says is held to what was
asked and to the form that it has to have. That an address may be talked to is for plugind.addresses to say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from plugind import addresses

MAX_MESSAGE_BYTES: Final = 16 * 1024
_TOKEN: Final = re.compile(r"[!-~]{1,128}")
_WORDS: Final = re.compile(r"[ -~]{1,160}")


@dataclass(frozen=True, slots=True)
class Answer:
    """To one request: each name of it either has addresses, or failed in words."""

    token: str
    addresses: dict[str, tuple[str, ...]]
    failed: dict[str, str]


def encode_request(token: str, names: Sequence[str]) -> bytes:
    """For the resolver. Raises ValueError for what nobody could answer."""
    if not _TOKEN.fullmatch(token):
        raise ValueError(f"token: expected 1 to 128 printable characters, got {token!r:.200}")
    if not 0 < len(set(names)) <= addresses.MOST_NAMES:
        raise ValueError(f"names: expected 1 to {addresses.MOST_NAMES}, got {len(set(names))}")
    for name in names:
        if why := addresses.name_objection(name):
            raise ValueError(f"{name!r:.300}: {why}")
    return _encode({"token": token, "names": list(dict.fromkeys(names))})


def decode_request(data: bytes) -> tuple[str, list[str]]:
    """The launcher's, which is believed. Raises ValueError, KeyError for what is none."""
    message = json.loads(data)
    return message["token"], message["names"]


def encode_answer(answer: Answer) -> bytes:
    """For the launcher. More than fits into a message is more than a run may have."""
    data = _encode({"token": answer.token, "addresses": answer.addresses, "failed": answer.failed})
    if len(data) <= MAX_MESSAGE_BYTES:
        return data
    names = [*answer.addresses, *answer.failed]
    failed = dict.fromkeys(names, "more addresses than one run may have")
    return _encode({"token": answer.token, "addresses": {}, "failed": failed})


def decode_answer(data: bytes, asked: Mapping[str, frozenset[str]]) -> Answer | None:
    """The resolver's to one of the requests in `asked`, by token; None: to another one. Raises ValueError."""
    try:
        message = json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    match message:
        case {"token": str(token), "addresses": dict(found), "failed": dict(failed)} if len(message) == 3:
            names = asked.get(token)
        case _:
            raise ValueError(f"expected token, addresses and failed, got {data!r:.100}")
    if names is None:
        return None
    if found.keys() & failed.keys() or found.keys() | failed.keys() != names:
        raise ValueError("expected each name that was asked for, and no other")
    told = {name: _addresses(found[name]) for name in found}
    return Answer(token, told, {name: _words(failed[name]) for name in failed})


def _addresses(texts: Any) -> tuple[str, ...]:
    if not isinstance(texts, list) or not 0 < len(texts) <= addresses.MOST_ADDRESSES:
        raise ValueError(f"expected 1 to {addresses.MOST_ADDRESSES} addresses")
    if any(str(addresses.parse(text)) != text for text in texts) or len(set(texts)) != len(texts):
        raise ValueError(f"expected addresses as they are written, each once: {texts!r:.200}")
    return tuple(texts)


def _words(text: Any) -> str:
    if not isinstance(text, str) or not _WORDS.fullmatch(text):
        raise ValueError(f"expected words, got {text!r:.100}")
    return text


def _encode(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()
