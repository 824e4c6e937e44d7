"""Records as the database keeps them: JSON text of the frozen values of plugind.model."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from plugind.errors import StateError
from plugind.model import Approval, Limits, Manifest, Permission


def encode_manifest(manifest: Manifest) -> str:
    """A manifest as JSON."""
    return json.dumps(dataclasses.asdict(manifest), sort_keys=True)


def decode_manifest(text: str) -> Manifest:
    """The manifest again. Raises StateError."""
    try:
        table = json.loads(text)
        table["limits"] = Limits(**table["limits"])
        table["permissions"] = _permissions(table["permissions"])
        table["stages"] = tuple(table["stages"])
        table["capability"] = {key: tuple(words) for key, words in table["capability"].items()}
        return Manifest(**table)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StateError(f"registry: a stored manifest cannot be read: {error}") from error


def encode_approval(approval: Approval) -> str:
    """An approval as JSON."""
    return json.dumps(dataclasses.asdict(approval), sort_keys=True)


def decode_approval(text: str) -> Approval:
    """The approval again. Raises StateError."""
    try:
        table = json.loads(text)
        table["limits"] = Limits(**table["limits"])
        table["permissions"] = _permissions(table["permissions"])
        table["stages"] = tuple(table["stages"])
        return Approval(**table)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StateError(f"registry: a stored approval cannot be read: {error}") from error


def _permissions(items: list[dict[str, Any]]) -> tuple[Permission, ...]:
    return tuple(Permission(**item) for item in items)
