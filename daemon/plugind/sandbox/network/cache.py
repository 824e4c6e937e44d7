"""What names were found to mean, for as long as whoever owns them lets it hold, within bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SHORTEST_S: Final = 5.0
"""Also for what failed."""
LONGEST_S: Final = 3600.0
MOST_NAMES: Final = 4096


@dataclass(frozen=True, slots=True)
class Found:
    """What became of one name: addresses, or why there are none."""

    addresses: tuple[str, ...] = ()
    failed: str = ""
    ttl_s: float = 0.0


class Cache:
    """By name. Nothing comes out of it that has expired."""

    def __init__(self, most: int = MOST_NAMES) -> None:
        self._most = most
        self._known: dict[str, tuple[float, Found]] = {}

    def get(self, name: str, now_s: float) -> Found | None:
        """What holds now, if anything does."""
        until_s, found = self._known.get(name, (0.0, None))
        if found is not None and now_s < until_s:
            return found
        self._known.pop(name, None)
        return None

    def put(self, name: str, found: Found, now_s: float) -> None:
        """Keep it for its time to live. Who has been here longest makes room."""
        self._known.pop(name, None)
        if len(self._known) >= self._most:
            self._known.pop(next(iter(self._known)))
        ttl_s = SHORTEST_S if found.failed else min(max(found.ttl_s, SHORTEST_S), LONGEST_S)
        self._known[name] = (now_s + ttl_s, found)
