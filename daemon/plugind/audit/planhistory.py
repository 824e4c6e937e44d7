"""What runs, and the undoing of runs, meant for plans, and what became of it: read from the ledger.

A run's OUTCOME, or a RESTORE, says what is to come into a plan's folder, and a COMMITTED or UNDONE whether it did. Each
refers to an earlier record, so one way through the ledger, from the oldest that matters, finds all of it.
Raises StateError where the ledger is damaged, OSError.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from plugind.audit import reading
from plugind.audit.reading import Entry
from plugind.audit.records import PlanChange, PlanFile, Stored
from plugind.errors import InvalidRequestError

State = Literal["open", "committed", "undone", "sent"]
"""Not decided so far; in the plan's folder; not there; it went back to the caller, and no folder was meant."""
_WRITES: Final = frozenset({"OUTCOME", "RESTORE"})
_DECIDES: Final = frozenset({"COMMITTED", "UNDONE"})
_HAS_FILES: Final = b'"files":[{'
"""Text in data has its quotes escaped: this is not found within a value."""


@dataclass(frozen=True, slots=True)
class PlanWrite:
    """What a run, or the undoing of one, means for a plan."""

    index: int
    """Of its INTENT, or of the RESTORE."""
    of: int
    """Of a RESTORE: what it undoes; -1: it is a run's."""
    plugin_id: str
    plugin: str
    version: str
    digest: str
    plan_id: str
    plan_dir: str
    caller_uid: int
    files: tuple[PlanChange, ...]
    at_unix_ms: int
    """When it was recorded."""
    state: State = "open"
    why: str = ""
    """Of one that is undone."""

    @property
    def log_id(self) -> str:
        """Its log_N."""
        return f"log_{self.index}"


class PlanWrites:
    """Writes by their index, in the order in which they were recorded."""

    def __init__(self) -> None:
        self.by_index: dict[int, PlanWrite] = {}
        self._undone: dict[int, PlanWrite] = {}
        """By index, what has undone it."""
        self._being_undone: dict[int, PlanWrite] = {}
        self._known = True
        """Whether these two are as the writes are."""

    def add(self, fields: Mapping[str, Any]) -> None:
        """A record, in the order of the ledger; others than of writes and their ends do not matter."""
        if fields["event"] in _WRITES and fields["files"]:
            write = write_of(fields)
            self.by_index[write.index] = write
        elif fields["event"] in _DECIDES and (known := self.by_index.get(fields["intent"])):
            ended: State = "committed" if fields["event"] == "COMMITTED" else "undone"
            self.by_index[known.index] = replace(known, state=ended, why=fields.get("why", ""))
        self._known = False

    def in_force(self, write: PlanWrite) -> bool:
        """Whether it came into the plan's folder and was not undone since."""
        return write.state == "committed" and self.undone_by(write.index) is None

    def undone_by(self, index: int) -> PlanWrite | None:
        """The write that has undone this one, and is in force itself; None: there is none."""
        self._find_out()
        return self._undone.get(index)

    def being_undone(self, index: int) -> PlanWrite | None:
        """An undoing of it that is not decided so far."""
        self._find_out()
        return self._being_undone.get(index)

    def _find_out(self) -> None:
        if self._known:
            return
        self._known = True
        self._undone, self._being_undone = {}, {}
        # What undoes something is recorded after it: from the newest on, each is known to be in force or not.
        for write in reversed(self.by_index.values()):
            if write.of >= 0 and write.state == "open":
                self._being_undone[write.of] = write
            elif write.of >= 0 and self.in_force(write):
                self._undone[write.of] = write


@dataclass(frozen=True, slots=True)
class _Marked:
    """Records of some events; of an OUTCOME only one with files. `name`: of a plugin, or its id; empty: any."""

    events: frozenset[str]
    name: str = ""
    version: str = ""
    since_unix_ms: int = 0

    def may_take(self, text: bytes) -> bool:
        """See reading.Wanted."""
        event = reading.event_of(text)
        if not event:
            return True  # it is damaged, which comes out when it is taken apart
        if event not in self.events or self.name.encode() not in text:
            return False
        return event != "OUTCOME" or _HAS_FILES in text

    def takes(self, fields: dict[str, Any]) -> bool:
        """See reading.Wanted."""
        return (
            (not self.name or self.name in {fields.get("plugin"), fields.get("plugin_id")})
            and (not self.version or fields.get("version") == self.version)
            and int(fields["time_unix_ms"]) >= self.since_unix_ms
        )


class _About:
    """Records about one write and what undid it, as they come: each is referred to by later ones only."""

    since_unix_ms = 0

    def __init__(self, first: int) -> None:
        self._first = first
        self._marks = [b'"intent":%d,' % first]

    def may_take(self, text: bytes) -> bool:
        """See reading.Wanted."""
        event = reading.event_of(text)
        if event in ("", "RESTORE"):  # few; or damaged, which comes out when it is taken apart
            return True
        return (event in _DECIDES or (event == "OUTCOME" and _HAS_FILES in text)) and any(
            mark in text for mark in self._marks
        )

    def takes(self, fields: dict[str, Any]) -> bool:
        """See reading.Wanted."""
        if fields["event"] != "RESTORE":
            return True
        about = fields["index"] == self._first or b'"intent":%d,' % fields["of"] in self._marks
        if about and fields["index"] != self._first:
            self._marks.append(b'"intent":%d,' % fields["index"])
        return about


def writes_about(directory: Path, index: int, below: int = reading.ALL) -> tuple[PlanWrites, PlanWrite]:
    """What a run, or a RESTORE, wrote, with all that has undone it. `index`: of any record of it.

    One that wrote nothing has no files. Raises NotFoundError, and InvalidRequestError for a record that is of no run.
    """
    entry = _first_of(directory, reading.get(directory, index, below), below)
    writes = PlanWrites()
    for each in reading.matching(directory, entry.index, _About(entry.index), below):
        writes.add(each.fields)
    return writes, writes.by_index.get(entry.index) or write_of(entry.fields)


def later_of(directory: Path, index: int, below: int = reading.ALL) -> list[Entry]:
    """COMMITTED, UNDONE and RESTORE records of what a run, or a RESTORE, wrote: oldest first, without that one itself.

    `index` and errors: as of writes_about.
    """
    first = _first_of(directory, reading.get(directory, index, below), below)
    found = reading.matching(directory, first.index, _About(first.index), below)
    return [each for each in found if each.index != index and each.fields["event"] in {*_DECIDES, "RESTORE"}]


def writes_of(directory: Path, plugin: str, version: str, since_unix_ms: int, below: int = reading.ALL) -> PlanWrites:
    """All of a plugin's since then, with what undid them. `plugin`: name or id; `version` empty: of every one."""
    writes = PlanWrites()
    for fields in _fields(directory, _Marked(_WRITES | _DECIDES, plugin, version, since_unix_ms), below):
        writes.add(fields)
    return writes


def records_of(
    directory: Path, plugin: str, version: str, since_unix_ms: int, below: int = reading.ALL
) -> Iterator[dict[str, Any]]:
    """The fields of all records that tell what a plugin has read and written: oldest first."""
    wanted = _Marked(_WRITES | _DECIDES | {"INTENT"}, plugin, version, since_unix_ms)
    return _fields(directory, wanted, below)


def _fields(directory: Path, wanted: _Marked, below: int) -> Iterator[dict[str, Any]]:
    return (entry.fields for entry in reading.matching(directory, 0, wanted, below))


def _first_of(directory: Path, entry: Entry, below: int) -> Entry:
    """The INTENT, or the RESTORE, that a record belongs to; of a DENIED without an INTENT that itself."""
    event, intent = entry.fields["event"], entry.fields.get("intent", -1)
    if event in {"INTENT", "RESTORE"} or (event == "DENIED" and intent < 0):
        return entry
    if event in {"OUTCOME", "DENIED", *_DECIDES}:
        return reading.get(directory, intent, below)
    raise InvalidRequestError(f"log_{entry.index}: expected a record of a run, or of what undid one, got {event}")


def write_of(fields: Mapping[str, Any]) -> PlanWrite:
    """The write that an OUTCOME or a RESTORE tells of; of an INTENT or DENIED one without files."""
    event, index = fields["event"], fields["index"]
    told = {name: fields[name] for name in ("plugin_id", "plugin", "version", "digest", "plan_id", "caller_uid")}
    plan_dir = fields.get("plan_dir", "")
    # A run that wrote and did not end well has changed nothing, and nothing more will be said of it.
    ended_well = event == "RESTORE" or fields.get("outcome") == "ok"
    return PlanWrite(
        index=fields["intent"] if event == "OUTCOME" else index,
        of=fields["of"] if event == "RESTORE" else -1,
        **told,
        plan_dir=plan_dir,
        files=changes_of(fields["files"]) if event in _WRITES else (),
        at_unix_ms=fields["time_unix_ms"],
        state="undone" if not ended_well else "open" if plan_dir else "sent",
        why="" if ended_well else fields.get("outcome", ""),
    )


def changes_of(files: Iterable[Mapping[str, Any]]) -> tuple[PlanChange, ...]:
    """Files of an OUTCOME or a RESTORE."""
    return tuple(PlanChange(each["path"], Stored(**each["content"]), Stored(**each["replaced"])) for each in files)


def reads_of(fields: Mapping[str, Any]) -> tuple[PlanFile, ...]:
    """Files of an INTENT."""
    return tuple(PlanFile(each["path"], Stored(**each["content"])) for each in fields.get("files", ()))
