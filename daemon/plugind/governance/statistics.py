"""What the monitor keeps of a version: bounded, whatever it does and for how long, and as one JSON text. Pure.

The state of its breaker (breaker.py) is in it: a restart must not close one.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from plugind import jsontext
from plugind.errors import InvalidJsonError
from plugind.governance import samples, sequential
from plugind.governance.observations import Observation
from plugind.governance.samples import Samples
from plugind.governance.sequential import Sequential
from plugind.jsontext import JsonValue
from plugind.model import Outcome

State = Literal["closed", "open", "half_open"]
STATES: Final[tuple[State, ...]] = ("closed", "open", "half_open")
MEASURES: Final = ("wall_ms", "memory_peak_bytes", "output_bytes", "parked_wall_ms")
"""What runs are compared by. One whose instance had imported ahead takes a fraction of the time of one that imports."""
DURATIONS: Final = ("wall_ms", "parked_wall_ms")
FAILURES: Final = frozenset(
    {
        Outcome.FAILED,
        Outcome.TIMEOUT,
        Outcome.CPU_EXCEEDED,
        Outcome.OUT_OF_MEMORY,
        Outcome.PIDS_EXCEEDED,
        Outcome.OUTPUT_LIMIT,
        Outcome.OUTPUT_INVALID,
        Outcome.VIOLATION,
    }
)
"""The plugin's doing. Killed, canceled, fault and unknown are others'."""
MOST_OUTCOMES: Final = 100
MOST_PROBES: Final = 20
MOST_LATE: Final = 20
MOST_BYTES: Final = 64 * 1024
"""Of the JSON text. It has less than half of it."""
_SCHEMA: Final = 4
_BEFORE_STREAKS: Final = 1
"""The schema that had none. What it says goes on with an empty one."""
_BEFORE_PARKED: Final = (1, 2)
"""Those that had one duration for all runs. It goes on as that of instances that were parked, which most were."""
_BEFORE_BESIDE: Final = (1, 2, 3)
"""Those that told neither how many runs there were beside nor how large inputs were. As if all were small."""
_MOST: Final = 2**53 - 1


@dataclass(slots=True)
class Level:
    """One measure: what is usual, how often of late it was exceeded, and what the probes had."""

    samples: Samples = field(default_factory=Samples)
    beside: Samples = field(default_factory=Samples)
    """Of a duration: how many other runs each sample had beside it."""
    beyond: Sequential = field(default_factory=Sequential)
    probed: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Streak:
    """Openings of a breaker that has not recovered in between, and what came since the first of them."""

    openings: int = 0
    late_unix_ms: list[int] = field(default_factory=list)
    """When those were that were for time alone; the last MOST_LATE."""
    runs: int = 0
    failures: int = 0
    medians: dict[str, float] = field(default_factory=dict)
    """Of the measures, before the first; of those of which there was one."""


@dataclass(slots=True)
class BreakerState:
    """Where a breaker is. Times are those of the ledger, milliseconds."""

    state: State = "closed"
    why: str = ""
    """The triggers that opened it last."""
    opened_unix_ms: int = 0
    openings: int = 0
    probe_unix_ms: int = 0
    """When the probe was begun that is on its way; 0: none is."""
    probed: list[bool] = field(default_factory=list)
    """Of each probe that has ended, whether it failed."""
    late: int = 0
    """How many of these ended as timeout."""
    trial: int = 0
    """So many more runs have to go well before it is trusted as before it was opened."""
    streak: Streak = field(default_factory=Streak)


@dataclass(slots=True)
class Statistics:
    """Of one version. Changed by its Breaker alone."""

    next_index: int = 0
    """Of the ledger: what is before it was seen."""
    first_unix_ms: int = 0
    last_unix_ms: int = 0
    denied: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """Executions by outcome, imports too."""
    outcomes: deque[str] = field(default_factory=lambda: deque(maxlen=MOST_OUTCOMES))
    """The last ones, the oldest first."""
    failures: Sequential = field(default_factory=Sequential)
    schema_failures: int = 0
    """In a row."""
    inputs: Samples = field(default_factory=Samples)
    """Bytes, of good runs."""
    levels: dict[str, Level] = field(default_factory=lambda: {name: Level() for name in MEASURES})
    breaker: BreakerState = field(default_factory=BreakerState)

    def note(self, seen: Observation) -> None:
        """Count it. What it means is the breaker's to say."""
        self.next_index = seen.index + 1
        self.first_unix_ms = self.first_unix_ms or seen.at_unix_ms
        self.last_unix_ms = max(self.last_unix_ms, seen.at_unix_ms)
        if seen.outcome is None:
            self.denied += 1
        else:
            self.counts[str(seen.outcome)] += 1
            self.outcomes.append(str(seen.outcome))

    def to_json(self) -> str:
        """All of it."""
        return json.dumps(
            {
                "schema": _SCHEMA,
                "next_index": self.next_index,
                "first_unix_ms": self.first_unix_ms,
                "last_unix_ms": self.last_unix_ms,
                "denied": self.denied,
                "counts": dict(sorted(self.counts.items())),
                "outcomes": list(self.outcomes),
                "failures": _sequential_fields(self.failures),
                "schema_failures": self.schema_failures,
                "inputs": list(self.inputs.values),
                "levels": {
                    name: {
                        "samples": list(level.samples.values),
                        "beside": list(level.beside.values),
                        "beyond": _sequential_fields(level.beyond),
                        "probed": level.probed,
                    }
                    for name, level in self.levels.items()
                },
                "breaker": dataclasses.asdict(self.breaker),
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str) -> Statistics:
        """What to_json gave. Raises ValueError for anything else."""
        try:
            found = jsontext.loads(text.encode("utf-8", "surrogatepass"), max_bytes=MOST_BYTES)
        except InvalidJsonError as error:
            raise ValueError(f"statistics: expected what was written, got {error}") from None
        if isinstance(found, dict) and found.get("schema") in _BEFORE_BESIDE:
            found = {**found, "inputs": []}
        table = _table(found, "statistics", "schema", *(each.name for each in dataclasses.fields(cls)))
        if table["schema"] not in (*_BEFORE_BESIDE, _SCHEMA):
            raise ValueError(f"statistics: schema: expected {_SCHEMA}, got {table['schema']!r:.60}")
        levels = _levels(table["levels"], table["schema"])
        return cls(
            next_index=_number(table, "next_index"),
            first_unix_ms=_number(table, "first_unix_ms"),
            last_unix_ms=_number(table, "last_unix_ms"),
            denied=_number(table, "denied"),
            counts=_counts(table["counts"]),
            outcomes=deque((str(Outcome(each)) for each in _list(table, "outcomes", MOST_OUTCOMES)), MOST_OUTCOMES),
            failures=_sequential(table["failures"], "failures"),
            schema_failures=_number(table, "schema_failures"),
            inputs=Samples(_numbers(table, "inputs", samples.MOST)),
            levels=levels,
            breaker=_breaker(table["breaker"], old=table["schema"] == _BEFORE_STREAKS),
        )

    def summary(self) -> dict[str, str]:
        """What a person wants to know, by its name."""
        recent = self.failures.recent
        shown = {
            "runs": ", ".join(f"{count} {name}" for name, count in self.counts.most_common()) or "none",
            "denied": str(self.denied),
            "failures": f"{sum(recent)} of the last {len(recent)}; usually {self.failures.usual:.0%}",
        }
        for name, level in self.levels.items():
            kept = level.samples
            shown[name] = (
                f"median {kept.median:.0f}, MAD {kept.mad:.0f} of {len(kept)} samples" if kept else "no samples"
            )
        state = self.breaker
        trial = f"; on trial for {state.trial} more runs" if state.trial else ""
        why = f" ({state.why})" if state.why and state.state != "closed" else ""
        shown["breaker"] = f"{state.state}{why}, opened {state.openings} times{trial}"
        return shown


def _sequential_fields(found: Sequential) -> dict[str, Any]:
    return {"runs": found.runs, "hits": found.hits, "score": found.score, "recent": list(map(int, found.recent))}


def _table(value: JsonValue, name: str, *keys: str) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != set(keys):
        raise ValueError(f"statistics: {name}: expected a table with {', '.join(keys)}, got {value!r:.60}")
    return value


def _number(table: dict[str, Any], key: str, most: int = _MOST) -> int:
    value = table[key]
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"statistics: {key}: expected a whole number from 0 to {most}, got {value!r:.60}")
    return value


def _real(table: dict[str, Any], key: str, most: float) -> float:
    value = table[key]
    if type(value) not in (int, float) or not math.isfinite(value) or not 0 <= value <= most:
        raise ValueError(f"statistics: {key}: expected a number from 0 to {most:.0f}, got {value!r:.60}")
    return float(value)


def _list(table: dict[str, Any], key: str, most: int) -> list[Any]:
    value = table[key]
    if not isinstance(value, list) or len(value) > most:
        raise ValueError(f"statistics: {key}: expected a list of {most} at most, got {value!r:.60}")
    return value


def _numbers(table: dict[str, Any], key: str, most: int) -> list[int]:
    return [_number({key: each}, key) for each in _list(table, key, most)]


def _bools(table: dict[str, Any], key: str, most: int) -> list[bool]:
    values = _list(table, key, most)
    if any(each not in (0, 1) for each in values):
        raise ValueError(f"statistics: {key}: expected a list of 0 and 1, got {values!r:.60}")
    return list(map(bool, values))


def _counts(value: JsonValue) -> Counter[str]:
    table = _table(value, "counts", *(value if isinstance(value, dict) else ()))
    return Counter({str(Outcome(name)): _number(table, name) for name in table})


def _sequential(value: JsonValue, name: str) -> Sequential:
    table = _table(value, name, "runs", "hits", "score", "recent")
    runs = _real(table, "runs", sequential.MEMORY)
    recent = deque(_bools(table, "recent", sequential.MOST_RECENT))
    return Sequential(runs, _real(table, "hits", runs), _real(table, "score", 1000.0), recent)


def _levels(value: JsonValue, schema: int) -> dict[str, Level]:
    old = schema in _BEFORE_PARKED
    names = MEASURES[:-1] if old else MEASURES
    table = _table(value, "levels", *names)
    found = {name: _level(table[name], name, old=schema in _BEFORE_BESIDE) for name in names}
    return {**found, "wall_ms": Level(), "parked_wall_ms": found["wall_ms"]} if old else found


def _level(value: JsonValue, name: str, *, old: bool) -> Level:
    if old and isinstance(value, dict):
        value = {**value, "beside": []}
    table = _table(value, name, "samples", "beside", "beyond", "probed")
    return Level(
        Samples(_numbers(table, "samples", samples.MOST)),
        Samples(_numbers(table, "beside", samples.MOST)),
        _sequential(table["beyond"], f"{name}.beyond"),
        _numbers(table, "probed", MOST_PROBES),
    )


def _breaker(value: JsonValue, *, old: bool) -> BreakerState:
    if old and isinstance(value, dict):
        value = {**value, "late": 0, "streak": dataclasses.asdict(Streak())}
    table = _table(value, "breaker", *(each.name for each in dataclasses.fields(BreakerState)))
    if table["state"] not in STATES or not isinstance(table["why"], str):
        raise ValueError(f"statistics: breaker: expected one of {', '.join(STATES)}, got {table['state']!r:.60}")
    return BreakerState(
        state=table["state"],
        why=table["why"],
        opened_unix_ms=_number(table, "opened_unix_ms"),
        openings=_number(table, "openings"),
        probe_unix_ms=_number(table, "probe_unix_ms"),
        probed=_bools(table, "probed", MOST_PROBES),
        late=_number(table, "late", MOST_PROBES),
        trial=_number(table, "trial"),
        streak=_streak(table["streak"]),
    )


def _streak(value: JsonValue) -> Streak:
    table = _table(value, "streak", *(each.name for each in dataclasses.fields(Streak)))
    medians = _table(table["medians"], "medians", *(table["medians"] if isinstance(table["medians"], dict) else ()))
    if not medians.keys() <= set(MEASURES):
        raise ValueError(f"statistics: medians: expected those of {', '.join(MEASURES)}, got {medians!r:.60}")
    return Streak(
        openings=_number(table, "openings"),
        late_unix_ms=_numbers(table, "late_unix_ms", MOST_LATE),
        runs=_number(table, "runs"),
        failures=_number(table, "failures"),
        medians={name: _real(medians, name, _MOST) for name in medians},
    )
