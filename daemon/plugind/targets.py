"""What a hold can name, as it is kept, and which of these names mean a run. Pure.

all   sha256:HEX   NAME   NAME@VERSION   key:ID   pkg:pypi/NAME[@VERSION]   plan:ID   caller:UID   tier:N
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from plugind import purl
from plugind.errors import InvalidRequestError
from plugind.model import POLICY_UID, TIERS

ALL: Final = "all"
EXPECTED: Final = (
    "all, a sha256, NAME, NAME@VERSION, key:ID, pkg:pypi/NAME, pkg:pypi/NAME@VERSION, plan:ID, caller:UID or tier:N"
)
PLAN_ID: Final = re.compile(r"[^\x00-\x1f\x7f]{1,256}")
_DIGEST: Final = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_KEY: Final = re.compile(r"key:([0-9a-f]{8,64})")
_UID: Final = re.compile(r"0|[1-9][0-9]{0,9}")
_KEY_DIGITS: Final = 64
_FORMS: Final[Mapping[str, Callable[[str], bool]]] = {
    "key": lambda value: bool(key_prefix(f"key:{value}")),
    "plan": lambda value: PLAN_ID.fullmatch(value) is not None,
    "caller": lambda value: _UID.fullmatch(value) is not None and int(value) < POLICY_UID,
    "tier": lambda value: value in map(str, TIERS),
}
_EXPECTED: Final[Mapping[str, str]] = {
    "key": "key: and a key's id, or 8 or more of the hex digits that it begins with",
    "plan": "plan: and a plan's id, 1 to 256 characters on one line",
    "caller": f"caller: and a uid, 0 to {POLICY_UID - 1}",
    "tier": "tier:0, tier:1 or tier:2",
}


@dataclass(frozen=True, slots=True)
class Targets:
    """The names of holds that mean one run, or one version, in parts: each is made once, and they are not joined."""

    parts: tuple[frozenset[str], ...] = ()

    def __contains__(self, target: object) -> bool:
        return any(target in part for part in self.parts)


def of_run(tier: int, *, plan_id: str, caller_uid: int) -> frozenset[str]:
    """The targets that mean a run whatever it is a run of."""
    of_call = {of_tier(tier), f"caller:{caller_uid}"}
    return frozenset({*of_call, f"plan:{plan_id}"} if plan_id else of_call)


def of_tier(tier: int) -> str:
    """The target that means everything in a tier."""
    return f"tier:{tier}"


def canonical(text: str) -> str:
    """A target as it is kept, where that takes no look into the registry; empty: it does (`key_prefix`, a plugin's).

    A digest, a key, a package, a plan and a caller need not be known. Raises InvalidRequestError.
    """
    if digest := _DIGEST.fullmatch(text):
        return f"sha256:{digest[1]}"
    kind, colon, value = text.partition(":")
    if kind == "pkg" and colon:
        return purl.parse(text)
    if colon and not (kind in _FORMS and _FORMS[kind](value)):
        raise InvalidRequestError(f"target: expected {_EXPECTED.get(kind, EXPECTED)}, got {text[:80]!r}")
    is_whole = colon and (kind != "key" or len(value) == _KEY_DIGITS)
    return text if is_whole or text == ALL else ""


def key_prefix(text: str) -> str:
    """Of key:ID the id, or the eight or more digits that it begins with; empty: it is something else."""
    found = _KEY.fullmatch(text)
    return found[1] if found else ""
