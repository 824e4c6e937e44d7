"""Parts of requests, and the one complaint about arguments that do not make one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from plugind_client.errors import InvalidRequest

Request = TypeVar("Request")


def message(kind: Callable[..., Request], **fields: object) -> Request:
    """A message, with Python's complaint about a wrong argument as InvalidRequest."""
    try:
        return kind(**{name: value for name, value in fields.items() if value is not None})
    except (TypeError, ValueError) as error:
        raise InvalidRequest("INVALID_REQUEST", detail=str(error)) from None


def named(name: str, version: str | None) -> tuple[str, str | None]:
    """A name and version out of "plugin@version".

    Raises:
        InvalidRequest: the name is empty, or the version is given twice and differs.
    """
    plugin, at, said = name.partition("@")
    if not plugin or (at and not said):
        raise InvalidRequest("INVALID_REQUEST", detail=f"a plugin is NAME or NAME@VERSION, got {name!r}")
    if said and version and said != version:
        raise InvalidRequest("INVALID_REQUEST", detail=f"{name!r} and version {version!r} contradict each other")
    return plugin, said or version
