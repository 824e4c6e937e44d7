"""Network permissions with a wildcard: what the policy lets them stand for. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from plugind import addresses
from plugind.model import Permission


def unlisted(permissions: Iterable[Permission], networks: Mapping[str, Sequence[str]]) -> list[str]:
    """Wildcards for which the policy lists no names, each once."""
    hosts = (_wildcard(permission) for permission in permissions)
    return list(dict.fromkeys(host for host in hosts if host and host not in networks))


def listed(permissions: Iterable[Permission], networks: Mapping[str, Sequence[str]]) -> Iterator[Permission]:
    """The same permissions, with the listed names in the place of a wildcard. Raises KeyError where none are listed."""
    found = (each for permission in permissions for each in _names(permission, networks))
    yield from dict.fromkeys(found)  # also named by itself, or by two wildcards


def _names(permission: Permission, networks: Mapping[str, Sequence[str]]) -> Iterator[Permission]:
    wildcard = _wildcard(permission)
    if not wildcard:
        yield permission
        return
    entry = json.loads(permission.entry)
    for host in networks[wildcard]:
        yield Permission("network", json.dumps({**entry, "host": host}, sort_keys=True, ensure_ascii=False))


def _wildcard(permission: Permission) -> str:
    """Of a network permission, else nothing."""
    if permission.kind != "network":
        return ""
    host = json.loads(permission.entry)["host"]
    return host if addresses.is_wildcard(host) else ""
