"""Every record in the systemd journal too, after it is durable in the ledger, which alone decides.

A thread of its own sends, in order, so that no run waits for journald. Nothing is lost silently: what cannot be sent
is counted, told once, and `state` says it. Names of the fields: SPEC.md; PLUGIND_LOG tells the ledgers of
one host apart.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from plugind.audit.records import (
    Changed,
    Denied,
    Ended,
    Intent,
    Noticed,
    PlanCommitted,
    PlanRestore,
    PlanUndone,
    Record,
    Refused,
    Started,
    Stopped,
    Subject,
)
from plugind.config import log

SOCKET: Final = Path("/run/systemd/journal/socket")
IDENTIFIER: Final = "plugind"
ROOM: Final = 65_536
"""Records that may wait to be sent."""
DRAIN_S: Final = 2.0
NO_JOURNALD: Final = "no journald here: records are in the ledger only"

MESSAGE_IDS: Final[Mapping[str, str]] = {
    "START": "c4d1037ef3864248b0de696305b1f0b3",
    "STOP": "4d271d8ac57540e6a32c78abe8cc4d6d",
    "INTENT": "16c959f89e7145aebf36590b6d79c828",
    "OUTCOME": "593f21866829434f8f930006fc2f8523",
    "DENIED": "80b925133d8f41949113894039c4164e",
    "CHANGE": "697e54fe3d244f139eb625338e09c64c",
    "REFUSED": "c4d496f4e3c54236bb571a00c0f4349f",
    "RESTORE": "ce5604dc986844798340554b7644b86d",
    "COMMITTED": "9d0568345ef245f6ac6cb346bec399bc",
    "UNDONE": "c39271addb8a465484daffa74decfd17",
    "ANOMALY": "50d1b8a1e0b94b6bb9a7d3a1f6a0c2de",
}
"""One for each event; packaging/plugind.catalog explains each. Made once (uuid4), never changed."""

_WARNING, _NOTICE, _INFO = "4", "5", "6"
_MESSAGE_CHARS: Final = 2000
_FIELD_CHARS: Final = 1000
_FINE: Final = frozenset({"ok", "canceled"})

Send: TypeAlias = Callable[..., object]
"""systemd.journal.sendv: texts "FIELD=value"."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A record as it stands in the ledger with this origin."""

    origin: str
    index: int
    time_unix_ms: int
    record: Record
    leaf_hash: bytes


def visible(text: str) -> str:
    """The text with all that could break or steer a line as escapes. A record's data comes from anybody."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


class Journal:
    """Sends records. `state` is what to tell an operator."""

    def __init__(self, send: Send | None = None, socket: Path = SOCKET, room: int = ROOM) -> None:
        self._send = send or _systemd()
        self._socket = socket
        self._room = room
        self._queue: deque[Committed] = deque()
        self._changed = threading.Condition()  # guards the queue and the flags
        self._closing = False
        self._trouble = "" if socket.exists() else NO_JOURNALD
        self.sent = 0
        self.lost = 0
        """Records that are in the ledger and were not sent."""
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._thread.start()

    @property
    def state(self) -> str:
        """What an operator should know; empty: every record so far was sent."""
        if self.lost:
            return f"{self._trouble or 'sending again'} ({self.lost} records are in the ledger only)"
        return self._trouble

    def put(self, records: Sequence[Committed]) -> None:
        """Send them later; never waits."""
        with self._changed:
            room = max(self._room - len(self._queue), 0)
            self._queue.extend(records[:room])
            self._changed.notify()
        if len(records) > room:
            self._lose(len(records) - room, f"journald is too slow: more than {self._room} records wait for it")

    def _lose(self, count: int, why: str) -> None:
        first = why != self._trouble
        self._trouble = why
        with self._changed:
            self.lost += count
        if first:
            log(f"journal: {why}; records stay in the ledger only, and are counted")

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closing:
                    self._changed.wait()
                if not self._queue:
                    return
                record = self._queue.popleft()
            self._pass_on(record)

    def _pass_on(self, record: Committed) -> None:
        # sd_journal_sendv drops silently where nobody listens.
        if not self._socket.exists():
            self._lose(1, NO_JOURNALD)
            return
        try:
            self._send(*(f"{name}={value}" for name, value in entry(record).items()))
        except Exception as error:  # noqa: BLE001 - whatever it is, the ledger has the record and the thread goes on
            self._lose(1, f"journald refuses a record: {error!r}")
            return
        self.sent += 1
        if self._trouble and not self._closing:
            log(f"journal: records are sent again from log_{record.index} on; {self.lost} are in the ledger only")
            self._trouble = ""

    def close(self, patience_s: float = DRAIN_S) -> None:
        """Send what waits; whatever journald does not take in this time is counted as lost. Blocks."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(patience_s)
        with self._changed:
            left = len(self._queue)
            self._queue.clear()
        if left:
            self._lose(left, f"journald did not take {left} records in {patience_s} s")


def _systemd() -> Send:
    from systemd import journal  # noqa: PLC0415 - needs libsystemd, which a test of the rest does without

    send: Send = journal.sendv
    return send


def entry(committed: Committed) -> dict[str, str]:
    """The journal's fields of a record; what it does not have is left out."""
    record = committed.record
    own = {
        "MESSAGE": f"log_{committed.index}: {message(record)}"[:_MESSAGE_CHARS],
        "MESSAGE_ID": MESSAGE_IDS[record.event],
        "PRIORITY": _priority(record),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "PLUGIND_LOG": committed.origin,
        "PLUGIND_AUDIT_ID": f"log_{committed.index}",
        "PLUGIND_EVENT": record.event,
        "PLUGIND_LEAF_HASH": committed.leaf_hash.hex(),
        "PLUGIND_LEAF_INDEX": str(committed.index),
    }
    about = {name: visible(value)[:_FIELD_CHARS] for name, value in _about(record).items() if value}
    return own | about


def _about(record: Record) -> dict[str, str]:  # noqa: PLR0911 - one for each kind
    match record:
        case Intent():
            return _of(record.subject) | {"PLUGIND_DECISION": "allow"}
        case Denied():
            codes = " ".join(dict.fromkeys(str(reason.code) for reason in record.reasons))
            return _of(record.subject) | {"PLUGIND_DECISION": "deny", "PLUGIND_REASONS": codes}
        case Ended():
            return _of(record.subject) | {"PLUGIND_DECISION": "allow", "PLUGIND_OUTCOME": record.outcome}
        case PlanRestore() | PlanCommitted() | PlanUndone():
            plugin = {"PLUGIND_PLUGIN": record.plugin or record.plugin_id, "PLUGIND_VERSION": record.version}
            return plugin | {"PLUGIND_PLAN": record.plan_id}
        case Changed() | Noticed():
            return {"PLUGIND_PLUGIN": record.plugin or record.plugin_id, "PLUGIND_VERSION": record.version}
        case Refused():
            return {"PLUGIND_DECISION": "deny", "PLUGIND_REASONS": "NOT_ALLOWED"}
        case Started() | Stopped():
            return {}


def _of(subject: Subject) -> dict[str, str]:
    return {
        "PLUGIND_PLUGIN": subject.plugin or subject.plugin_id,
        "PLUGIND_VERSION": subject.version,
        "PLUGIND_TIER": str(subject.tier) if subject.tier >= 0 else "",
        "PLUGIND_STAGE": subject.stage,
        "PLUGIND_PLAN": subject.plan_id,
    }


def _priority(record: Record) -> str:
    match record:
        case Denied() | Refused() | Noticed() | PlanUndone():
            return _WARNING
        case Ended():
            return _INFO if record.outcome in _FINE else _WARNING
        case Changed() | PlanRestore():
            return _NOTICE
        case _:
            return _INFO


def message(record: Record) -> str:
    """The record as a sentence on one line."""
    return visible(_sentence(record))


def _sentence(record: Record) -> str:  # noqa: C901, PLR0911 - one for each kind
    match record:
        case Intent():
            allowed = ", ".join(record.permissions) or "no permissions"
            return f"{_named(record.subject)} may run {_where(record.subject)}, with {allowed}"
        case Denied():
            codes = ", ".join(dict.fromkeys(str(reason.code) for reason in record.reasons))
            return f"{_named(record.subject)} was denied {_where(record.subject)}: {codes}"
        case Ended():
            detail = f": {record.detail}" if record.detail else ""
            return f"{_named(record.subject)} ended as {record.outcome} (log_{record.intent}){detail}"
        case PlanRestore():
            forced = ", whatever changed since" if record.forced else ""
            what = f"what log_{record.of} replaced in {record.plan_dir}"
            return f"uid {record.by_uid} puts back {what}{forced}: {record.why}"
        case PlanCommitted():
            return f"{record.files} files of log_{record.intent} are in {record.plan_dir}"
        case PlanUndone():
            return f"no file of log_{record.intent} is in {record.plan_dir}: {record.why}"
        case Changed():
            subject = " ".join(filter(None, (record.plugin or record.plugin_id, record.version)))
            return f"{record.action} {subject or 'everything'} by uid {record.by_uid}: {record.why}"
        case Refused():
            return f"{record.call} was refused to uid {record.by_uid}, it needs the role {record.role_needed}"
        case Noticed():
            subject = f"{record.plugin or record.plugin_id} {record.version}"
            only = ", only observed" if record.observed else ""
            found = f"expected {record.expected}, got {record.actual}"
            return f"{record.trigger} ({record.severity}{only}) of {subject}: {found}"
        case Started():
            return f"plugind started ({record.mode}); {record.closed_as_unknown} open runs closed as unknown"
        case Stopped():
            return f"plugind stopped: {record.reason}"


def _named(subject: Subject) -> str:
    tier = f" (Tier {subject.tier})" if subject.tier >= 0 else ""
    return f"{' '.join(filter(None, (subject.plugin or subject.plugin_id, subject.version)))}{tier}"


def _where(subject: Subject) -> str:
    parts = (
        subject.stage and f"in stage {subject.stage}",
        subject.plan_id and f"for plan {subject.plan_id}",
        f"as {subject.run} for uid {subject.caller_uid}",
    )
    return " ".join(filter(None, parts))


def seen(origin: str, uid: int | None = None, directory: Path | None = None) -> Iterator[tuple[int, str]]:
    """Index and leaf hash of each record of this ledger that the local journal has, oldest first.

    `uid`: only what this user sent, because anybody may send such fields. Raises OSError, ImportError.
    """
    from systemd import journal  # noqa: PLC0415 - the same

    reader: Any = journal.Reader(path=str(directory)) if directory else journal.Reader()
    try:
        reader.add_match(SYSLOG_IDENTIFIER=IDENTIFIER, PLUGIND_LOG=origin)
        if uid is not None:
            reader.add_match(_UID=str(uid))
        for fields in reader:
            try:
                yield int(fields["PLUGIND_LEAF_INDEX"]), str(fields["PLUGIND_LEAF_HASH"])
            except (KeyError, ValueError):
                continue  # not one that we wrote
    finally:
        reader.close()
