"""What the monitor knows of each version, in bounded memory and durably: one breaker a digest, fed by the ledger.

The ledger is the source: what is kept here is a fold over it up to `next_index`, so that nothing is lost by a crash
(what was not written yet is read from the ledger again) and no run waits for this file.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from plugind.errors import StateError
from plugind.governance import crowd, triggers
from plugind.governance.breaker import Breaker
from plugind.governance.crowd import Crowd
from plugind.governance.database import Database
from plugind.governance.observations import Anomaly, Observation
from plugind.governance.statistics import Statistics
from plugind.model import Monitoring, Outcome, Usage, Violation

MOST_IN_MEMORY: Final = 1024
"""Versions whose statistics are in memory; those of others are read when they run."""
MOST_ANOMALIES: Final = 1000
"""Of one version that are kept here; the ledger has them all."""

Thresholds = Callable[[str, int], Monitoring]
"""What holds for a version (digest) in a tier: the profile's, closer on probation."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one observation came to."""

    anomalies: tuple[Anomaly, ...] = ()
    opened: bool = False
    """The breaker lets nothing start for a while."""
    quarantine: bool = False
    """It has to be put into quarantine: for one event, or because the breaker's probes failed or it opens for ever."""


@dataclass(frozen=True, slots=True)
class Unwritten:
    """What has to be written: a consistent picture of one moment."""

    next_index: int
    statistics: tuple[tuple[str, str], ...]
    anomalies: tuple[tuple[str, str, int, str], ...]


class Monitor:
    """Of all versions. On one event loop, but for `write` and what reads anomalies, which block."""

    def __init__(self, database: Database, thresholds: Thresholds, cpus: int) -> None:
        """`cpus`: how many the machine has. Raises StateError."""
        self._database = database
        self._thresholds = thresholds
        self._cpus = cpus
        self._known: OrderedDict[str, Statistics] = OrderedDict()
        self._dirty: set[str] = set()
        self._writing: set[str] = set()
        self._anomalies: list[tuple[str, str, int, str]] = []
        with database.reading() as connection:
            row = connection.execute("SELECT next_index FROM progress").fetchone()
        self.next_index: int = row["next_index"] if row else 0
        """Of the first record that was not looked at yet."""
        self._crowd = Crowd(crowd.openings(self.anomalies(limit=crowd.MOST)[::-1]))

    def passed(self, index: int) -> None:
        """Everything before this index was looked at."""
        self.next_index = index

    def observe(self, seen: Observation) -> Finding:
        """One execution or denial, in the order of the ledger."""
        if not seen.digest:
            return Finding()
        breaker = self._breaker(seen.digest, seen.tier)
        thresholds = self._thresholds(seen.digest, seen.tier)
        observed = thresholds.mode == "observe"
        hard = tuple(replace(each, observed=observed) for each in triggers.hard(seen))
        judged = breaker.observe(seen)
        if judged.late:
            self._crowd.add(seen.at_unix_ms, seen.plugin)
        judged = self._crowd.hold_back(judged, thresholds)
        self._dirty.add(seen.digest)
        found = Finding(
            (*hard, *judged.anomalies),
            opened=judged.verdict == "opened" and not observed,
            quarantine=(bool(hard) or judged.verdict == "quarantine") and not observed,
        )
        for each in found.anomalies:
            self._anomalies.append((seen.digest, seen.plugin, seen.at_unix_ms, encode(each)))
        return found

    def why_not(self, digest: str, tier: int, now_unix_ms: int) -> str:
        """Why nothing of it may start now; empty: it may."""
        return self._breaker(digest, tier).admits(now_unix_ms)

    def begin(self, digest: str, tier: int, now_unix_ms: int) -> bool:
        """Whether this one may start: of a breaker that is half open only so many may."""
        breaker = self._breaker(digest, tier)
        free = breaker.begin(now_unix_ms)
        if breaker.state != "closed":
            self._dirty.add(digest)
        return free

    def released(self, digest: str) -> None:
        """It came out of quarantine: its breaker is closed, and on trial."""
        self._breaker(digest, -1).release()
        self._dirty.add(digest)

    def summary(self, digest: str) -> dict[str, str]:
        """What is known of it, for people."""
        return self._statistics(digest).summary()

    def _breaker(self, digest: str, tier: int) -> Breaker:
        return Breaker(self._thresholds(digest, tier), self._statistics(digest), self._cpus)

    def _statistics(self, digest: str) -> Statistics:
        known = self._known.get(digest)
        if known is None:
            known = self._known[digest] = self._load(digest)
            self._evict()
        else:
            self._known.move_to_end(digest)
        return known

    def _load(self, digest: str) -> Statistics:
        with self._database.reading() as connection:
            row = connection.execute("SELECT body FROM statistics WHERE digest = ?", (digest,)).fetchone()
        try:
            return Statistics.from_json(row["body"]) if row else Statistics()
        except ValueError as error:
            raise StateError(f"statistics of {digest}: {error}") from error

    def _evict(self) -> None:
        """Those that were used least recently and are written already."""
        for digest in list(self._known)[: max(0, len(self._known) - MOST_IN_MEMORY)]:
            if digest not in self._dirty | self._writing:
                del self._known[digest]

    # -- durably

    @property
    def has_unwritten(self) -> bool:
        """Whether something was learned since it was written last."""
        return bool(self._dirty or self._anomalies)

    def unwritten(self) -> Unwritten:
        """What is to be written. Whoever takes it gives it back: `written`, or else `put_back`."""
        bodies = tuple((digest, self._known[digest].to_json()) for digest in sorted(self._dirty))
        what = Unwritten(self.next_index, bodies, tuple(self._anomalies))
        self._writing |= self._dirty
        self._dirty, self._anomalies = set(), []
        return what

    def written(self, what: Unwritten) -> None:
        """It is in the file."""
        self._writing -= {digest for digest, _ in what.statistics}
        self._evict()

    def put_back(self, what: Unwritten) -> None:
        """It could not be written: it is, with what was learned meanwhile, the next time."""
        self._dirty |= {digest for digest, _ in what.statistics}
        self._writing -= self._dirty
        self._anomalies = [*what.anomalies, *self._anomalies]

    def write(self, what: Unwritten) -> None:
        """Blocks. Raises StateError."""
        with self._database.changing() as connection:
            connection.execute("INSERT OR REPLACE INTO progress VALUES (1, ?)", (what.next_index,))
            connection.executemany("INSERT OR REPLACE INTO statistics VALUES (?, ?)", what.statistics)
            query = "INSERT INTO anomalies (digest, plugin, at_unix_ms, body) VALUES (?, ?, ?, ?)"
            connection.executemany(query, what.anomalies)
            for digest in {each[0] for each in what.anomalies}:
                oldest = "SELECT id FROM anomalies WHERE digest = ? ORDER BY id DESC LIMIT 1 OFFSET ?"
                row = connection.execute(oldest, (digest, MOST_ANOMALIES)).fetchone()
                if row:
                    connection.execute("DELETE FROM anomalies WHERE digest = ? AND id <= ?", (digest, row["id"]))

    def anomalies(self, *, digest: str = "", plugin: str = "", limit: int = 100) -> list[Anomaly]:
        """Those of a version, of a plugin (by name), or of all; newest first. Blocks. Raises StateError."""
        where = ""
        values: list[str] = []
        if digest or plugin:
            where, values = ("WHERE digest = ?", [digest]) if digest else ("WHERE plugin = ?", [plugin])
        with self._database.reading() as connection:
            query = f"SELECT body FROM anomalies {where} ORDER BY id DESC LIMIT ?"  # noqa: S608 - two fixed texts
            found = connection.execute(query, (*values, limit)).fetchall()
        return [decode(row["body"]) for row in found]


def encode(anomaly: Anomaly) -> str:
    """As JSON, with what it was seen in."""
    return json.dumps(_plain(anomaly), default=_plain, separators=(",", ":"))


def decode(text: str) -> Anomaly:
    """The same back, as this module has written it."""
    fields = json.loads(text)
    seen: dict[str, Any] = fields.pop("seen")
    seen["codes"] = tuple(seen["codes"])
    seen["usage"] = Usage(**seen["usage"])
    seen["violations"] = tuple(Violation(**each) for each in seen["violations"])
    seen["outcome"] = Outcome(seen["outcome"]) if seen["outcome"] else None
    return Anomaly(**fields, seen=Observation(**seen))


def _plain(value: Any) -> dict[str, object]:
    return {name: getattr(value, name) for name in type(value).__match_args__}
