"""Reads policy.toml; what stands in it is plugind.policy.file's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from plugind.model import Profile
from plugind.policy.file import InvalidPolicyError, Policy, parse
from plugind.profiles import profiles_dir

MAX_BYTES: Final = 1 << 20
"""A longer file is no policy."""


def shipped_policy() -> Path:
    """The default policy that comes with this installation."""
    return profiles_dir() / "policy.toml"


def load_policy(path: Path, profiles: Mapping[int, Profile] | None = None) -> Policy:
    """The policy in a file; with the tiers' profiles also whether it stays within them.

    Raises InvalidPolicyError (a ConfigError) with every problem, each with line and column.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidPolicyError([f"{path}: the policy cannot be read: {error.strerror}"]) from error
    if len(data) > MAX_BYTES:
        raise InvalidPolicyError([f"{path}: expected at most {MAX_BYTES} bytes, got more"])
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8").split("\n")
        place = f"{len(before)}:{len(before[-1]) + 1}"
        raise InvalidPolicyError([f"{path}:{place}: expected UTF-8, got byte {data[error.start]:#04x}"]) from error
    return parse(text, str(path), profiles)
