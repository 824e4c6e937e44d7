"""What the ledger says: one frozen record for each kind of event, written as one JSON object a line.

The ledger adds `index` and `time_unix_ms` before a record's own fields and `check`, the CRC-32 of what is before it,
after them: it names the line in which a disk or a hand changed something. Digests are sha256 in hex; empty means that
there was nothing to digest. Fields are flat: a subject's stand beside the record's own, and a payload `input` is
`input_sha256`, `input_bytes`, `input_pack` and `input_offset`.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, TypeAlias

from plugind.model import Limits, NetworkUse, Reason, Usage, Violation

PAYLOADS: Final = ("input", "output", "stdout", "stderr")
"""Names of the payloads that a record can refer to."""
OF_A_FILE: Final = {"file:": "content", "replaced:": "replaced"}
"""How payloads of a plan's files are named, before the path, and where a record has them."""
ENTRY_HEAD_BYTES: Final = 40
"""In a pack, before a payload: its sha256 and its length in 8 bytes."""
_CHECK: Final = b',"check":"'


@dataclass(frozen=True, slots=True)
class Stored:
    """A payload: its digest and size, and its place in the payload store. Empty digest: there was none."""

    sha256: str = ""
    bytes: int = 0
    pack: int = -1
    """Number of the pack file; -1: it is not stored."""
    offset: int = -1
    """Where its entry begins in the pack, bytes."""

    @property
    def end(self) -> tuple[int, int]:
        """Its pack and where its entry ends in it: of two payloads the later one has the greater end."""
        return self.pack, self.offset + ENTRY_HEAD_BYTES + self.bytes


@dataclass(frozen=True, slots=True)
class Subject:
    """Who wanted what to run. What a lookup did not find stays empty; tier -1: none was found."""

    run: str
    caller_uid: int
    plugin_id: str
    plugin: str
    version: str
    digest: str
    tier: int
    stage: str
    plan_id: str
    sensitivity: str
    input: Stored = Stored()
    mode: str = "run"
    """run, map (input and output are batches), session (the output is its transcript), or import: ahead of a run."""
    environment: str = ""
    """Digest of the environment's files, whose packages it had; empty: the standard library alone."""


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A file of a plan that a run was given."""

    path: str
    content: Stored


@dataclass(frozen=True, slots=True)
class PlanChange:
    """A file of a plan that a run, or the undoing of one, puts there: what it is then, and what it was before.

    Without a digest there is, or was, no such file.
    """

    path: str
    content: Stored
    replaced: Stored


@dataclass(frozen=True, slots=True)
class Intent:
    """It was allowed and is about to start. Its index is the run's log_N."""

    event: ClassVar[str] = "INTENT"
    subject: Subject
    permissions: tuple[str, ...]
    limits: Limits
    warnings: tuple[Reason, ...] = ()
    """What rules of the policy in mode warn had against it."""
    dry_run: tuple[Reason, ...] = ()
    """The same of rules in mode dryrun."""
    plan_dir: str = ""
    """The plan's folder, of a run with a permission for files; empty: it has none, or its caller sent the files."""
    files: tuple[PlanFile, ...] = ()
    """What it may read of them."""


@dataclass(frozen=True, slots=True)
class Denied:
    """It was refused, for all of these reasons, and never ran. `intent`: its INTENT, where only the jail failed."""

    event: ClassVar[str] = "DENIED"
    subject: Subject
    reasons: tuple[Reason, ...]
    intent: int = -1


@dataclass(frozen=True, slots=True)
class Ended:
    """How the run of the INTENT with index `intent` ended. The subject is the same: each record speaks for itself."""

    event: ClassVar[str] = "OUTCOME"
    intent: int
    subject: Subject
    outcome: str
    detail: str = ""
    output: Stored = Stored()
    stdout: Stored = Stored()
    stderr: Stored = Stored()
    usage: Usage = field(default_factory=Usage)
    violations: tuple[Violation, ...] = ()
    items: int = 0
    """Of a map, its items; of a session, the inputs that were answered."""
    items_failed: int = 0
    """How many of these came to an error."""
    imported: int = -1
    """The INTENT of the import ahead whose instance it used; -1: it had a fresh one."""
    beside: int = 0
    """Other runs at the same time, when it began or when it ended, whichever is more: they had the CPUs too."""
    network: NetworkUse = field(default_factory=NetworkUse)
    plan_dir: str = ""
    """Where `files` are to go; empty: they went back to the caller in the answer, or there are none."""
    files: tuple[PlanChange, ...] = ()
    """What it wrote. In the plan's folder only when a COMMITTED says so."""


@dataclass(frozen=True, slots=True)
class PlanRestore:
    """Somebody puts back what a run had replaced. As an OUTCOME with files: what became of it a COMMITTED says."""

    event: ClassVar[str] = "RESTORE"
    of: int
    """The INTENT of the run; or the RESTORE, where that is undone."""
    by_uid: int
    why: str
    plugin_id: str
    plugin: str
    version: str
    digest: str
    plan_id: str
    caller_uid: int
    """Of the run, as whom the plan's folder is opened."""
    plan_dir: str
    files: tuple[PlanChange, ...]
    forced: bool = False
    """Whether what had changed since is kept beside, and not minded."""


@dataclass(frozen=True, slots=True)
class _PlanSettled:
    """What became of the files of a run, or of its undoing."""

    intent: int
    """The INTENT of the run, or the RESTORE."""
    run: str
    plugin_id: str
    plugin: str
    version: str
    plan_id: str
    plan_dir: str


@dataclass(frozen=True, slots=True)
class PlanCommitted(_PlanSettled):
    """They are in the plan's folder, all of them."""

    event: ClassVar[str] = "COMMITTED"
    files: int


@dataclass(frozen=True, slots=True)
class PlanUndone(_PlanSettled):
    """They are not in the plan's folder, none of them: it is as it was."""

    event: ClassVar[str] = "UNDONE"
    why: str


@dataclass(frozen=True, slots=True)
class Changed:
    """Somebody changed what may run: registry, holds, policy or trust. `version` and `digest` empty: not about one."""

    event: ClassVar[str] = "CHANGE"
    action: str
    """submit, approve, reject, activate, suspend, resume, rollback, kill, kill_lift, policy_reload, …"""
    plugin_id: str
    plugin: str
    version: str
    digest: str
    by_uid: int
    why: str
    detail: str = ""
    """JSON: what exactly changed; empty where the action says all."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Somebody tried an administrative call without the role that it needs."""

    event: ClassVar[str] = "REFUSED"
    call: str
    by_uid: int
    role_needed: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Noticed:
    """The monitor found something out of the ordinary, with the numbers that made it so."""

    event: ClassVar[str] = "ANOMALY"
    trigger: str
    hard: bool
    severity: str
    plugin_id: str
    plugin: str
    version: str
    digest: str
    run: str
    plan_id: str
    intent: int
    """The INTENT of the run; -1: it never ran."""
    of_index: int
    """The OUTCOME or DENIED in which it was found."""
    expected: str
    actual: str
    numbers: Mapping[str, float]
    observed: bool = False
    """Whether the profile only observes: nothing came of it."""


@dataclass(frozen=True, slots=True)
class Started:
    """The daemon opened the ledger. Every INTENT before this record has its OUTCOME before it."""

    event: ClassVar[str] = "START"
    mode: str
    closed_as_unknown: int = 0
    cut_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Stopped:
    """The daemon ended in order."""

    event: ClassVar[str] = "STOP"
    reason: str


Record: TypeAlias = (
    Intent | Denied | Ended | PlanRestore | PlanCommitted | PlanUndone | Changed | Refused | Noticed | Started | Stopped
)
EVENTS: Final = tuple(
    kind.event
    for kind in (
        Started,
        Stopped,
        Intent,
        Ended,
        Denied,
        PlanRestore,
        PlanCommitted,
        PlanUndone,
        Changed,
        Refused,
        Noticed,
    )
)


def line(index: int, time_unix_ms: int, record: Record) -> bytes:
    """The record as its line, newline included. ASCII only, so no byte of it is ever NUL."""
    fields: dict[str, object] = {"index": index, "time_unix_ms": time_unix_ms, "event": record.event}
    _flatten(record, fields)
    body = _encode(fields)[:-1].encode("ascii")
    return b'%s,"check":"%08x"}\n' % (body, zlib.crc32(body))


def read_line(text: bytes) -> dict[str, Any]:
    """The fields of a line, newline or not, without its check. Raises ValueError for one that was not written so."""
    body, _, check = text.removesuffix(b"\n").rpartition(_CHECK)
    expected = b'%08x"}' % zlib.crc32(body)
    if check != expected:
        raise ValueError(f"expected a line that ends with its check {expected.decode()}, got {text[-20:]!r}")
    fields = json.loads(body + b"}")
    if not isinstance(fields, dict):
        raise ValueError(f"expected an object, got {text[:80]!r}")  # noqa: TRY004 - a line that was not written so
    return fields


def _flatten(record: Any, fields: dict[str, object]) -> None:
    for name in _names(type(record)):
        value = getattr(record, name)
        if type(value) is Stored:
            for part in _names(Stored):
                fields[f"{name}_{part}"] = getattr(value, part)
        elif type(value) is Subject:
            _flatten(value, fields)
        else:
            fields[name] = value


def _names(kind: type[Any]) -> tuple[str, ...]:
    names: tuple[str, ...] = kind.__match_args__  # the fields; dataclasses.fields() takes ten times as long
    return names


def _plain(value: Any) -> dict[str, object]:
    """Limits, reasons, usage and violations as objects."""
    return {name: getattr(value, name) for name in _names(type(value))}


_encode: Final = json.JSONEncoder(separators=(",", ":"), default=_plain).encode


def stored_of(fields: Mapping[str, Any], name: str) -> Stored:
    """A payload as a line's fields tell it; empty for a record that has no such payload."""
    if f"{name}_sha256" not in fields:
        return Stored()
    return Stored(*(fields[f"{name}_{part}"] for part in _names(Stored)))


def stored_as(fields: Mapping[str, Any], name: str) -> Stored | None:
    """A payload as whoever reads the audit names it: one of PAYLOADS, or OF_A_FILE and a path. None: it has none."""
    kind = next((each for each in OF_A_FILE if name.startswith(each)), "")
    if not kind:
        return stored_of(fields, name) if f"{name}_sha256" in fields else None
    path, part = name.removeprefix(kind), OF_A_FILE[kind]
    files = fields["files"] if _has_files(fields) else []
    found = next((file[part] for file in files if file["path"] == path and part in file), None)
    return Stored(**found) if found and found["sha256"] else None


def stored_in(fields: Mapping[str, Any]) -> list[Stored]:
    """Every payload that a line refers to: those of PAYLOADS that it has, and its files'."""
    found = [stored_of(fields, name) for name in PAYLOADS if f"{name}_sha256" in fields]
    files = [each for each in fields.get("files", ()) if isinstance(each, dict)] if _has_files(fields) else []
    found += [Stored(**file[name]) for file in files for name in ("content", "replaced") if name in file]
    return [each for each in found if each.sha256]


def _has_files(fields: Mapping[str, Any]) -> bool:
    return isinstance(fields.get("files"), list)  # of a COMMITTED it is their number


def subject_of(fields: Mapping[str, Any]) -> Subject:
    """Who wanted what, out of the fields of an INTENT. Raises ValueError when one is missing."""
    try:
        given = {name: fields[name] for name in _names(Subject) if name not in ("input", "mode", "environment")}
    except KeyError as error:
        raise ValueError(f"expected an INTENT with all its fields, got one without {error}") from None
    # An INTENT of before there were others was a run's, with the standard library.
    later = {"mode": fields.get("mode", "run"), "environment": fields.get("environment", "")}
    return Subject(**given, input=stored_of(fields, "input"), **later)


def sha256(data: bytes) -> str:
    """Digest of a payload, or the empty string where there is none."""
    return hashlib.sha256(data).hexdigest() if data else ""
