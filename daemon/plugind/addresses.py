"""Temporary."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence

from plugind.errors import IsolationUnavailableError
from plugind.model import Endpoint, Wanted


def is_address(text: str) -> bool:
    """Whether it is one."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_name(text: str) -> bool:
    """Whether it is one."""
    return re.fullmatch(r"[a-z0-9.-]{1,253}", text) is not None


def check(
    wanted: Sequence[Wanted], answers: Mapping[str, Sequence[str]], private: Sequence[object]
) -> tuple[Endpoint, ...]:
    """Temporary."""
    found = []
    for each in wanted:
        for address in answers.get(each.host, [each.host]):
            parsed = ipaddress.ip_address(address)
            if not parsed.is_global and not any(parsed in network for network in private):
                raise IsolationUnavailableError("network.addresses", f"{each.host}: {address}: not public")
            found.append(Endpoint(str(parsed), each.protocol, each.port))
    return tuple(dict.fromkeys(found))


def hosts_text(answers: Mapping[str, Sequence[str]]) -> str:
    """Temporary."""
    lines = ["127.0.0.1 localhost", "::1 localhost"]
    lines += [f"{address} {name}" for name, found in answers.items() for address in found]
    return "\n".join(lines) + "\n"
