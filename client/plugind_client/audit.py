"""The audit as a client sees it: records, the newest of them, new ones as they come, and whether all still holds.

Source of the fields and their meaning: proto/plugind_proto/v1/audit.proto, SPEC.md "Audit". All of it needs the role
operator, so it goes to the admin socket.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import grpc

from plugind_client.channel import call, translated
from plugind_client.errors import Fault, Unavailable
from plugind_client.undo import Impact, RestoredRun, impact, restored
from plugind_proto.v1 import audit_pb2
from plugind_proto.v1.audit_pb2_grpc import AuditStub

SHORT_CALL_S: Final = 60.0
"""Deadline of calls that read a part of the ledger."""
VERIFY_S: Final = 3600.0
"""Deadline of the whole check: about a minute for a million records."""
RESTORE_S: Final = 3600.0
"""Deadline of an undo, which may be of a thousand runs."""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """A record as it stands in the ledger. `fields` is all that it says, `line` the text that `leaf_hash` is of."""

    index: int
    time_unix_ms: int
    event: str
    fields: dict[str, Any]
    line: bytes
    leaf_hash: str

    @property
    def log_id(self) -> str:
        """Its id, such as "log_4001"."""
        return f"log_{self.index}"


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Records, newest first, and the ledger they are from: its own name, its size and Merkle root, the daemon's uid."""

    records: tuple[AuditRecord, ...]
    origin: str
    size: int
    root: str
    daemon_uid: int


@dataclass(frozen=True, slots=True)
class AuditFound:
    """A record, its other half (INTENT and OUTCOME or DENIED) where it has one, and the payload that was asked for."""

    record: AuditRecord
    other: AuditRecord | None
    payload: bytes
    later: tuple[AuditRecord, ...] = ()
    """What became of what it wrote into a plan: COMMITTED, UNDONE and RESTORE records, oldest first."""


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """Something that does not hold. `line` 0 and empty `log_id`: not about one."""

    segment: str
    line: int
    log_id: str
    expected: str
    got: str


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What was checked and what was found: no findings, and the ledger says what it always said."""

    origin: str
    segments: int
    records: int
    root: str
    checkpoint_size: int
    payloads: int
    payload_bytes: int
    open_intents: tuple[int, ...]
    journal_records: int
    findings: tuple[AuditFinding, ...]
    notes: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


class HasAudit(Protocol):
    """What of a connection is needed here."""

    audit: AuditStub


class Audit:
    """The calls. `connection` gives this process's connection."""

    def __init__(self, connection: Callable[[], HasAudit]) -> None:
        self._connection = connection

    def query(
        self,
        *,
        plugin: str = "",
        events: Sequence[str] = (),
        outcome: str = "",
        plan_id: str = "",
        since_unix_ms: int = 0,
        limit: int = 0,
    ) -> AuditPage:
        """The newest records that match, newest first; at most `limit` (0: 50, at most 1000).

        Raises:
            InvalidRequest, NotAllowed: as the words say.
        """
        request = audit_pb2.AuditQueryRequest(
            plugin=plugin,
            events=events,
            outcome=outcome,
            plan_id=plan_id,
            since_unix_ms=since_unix_ms,
            limit=limit,
        )
        page = call(self._connection().audit.Query, request, SHORT_CALL_S)
        return AuditPage(tuple(map(_record, page.records)), page.origin, page.size, page.root.hex(), page.daemon_uid)

    def get(self, log_id: str, payload: str = "") -> AuditFound:
        """One record with its other half; `payload` is input, output, stdout or stderr, or one of a plan's files.

        "file:PATH" is what the record says of that file: an INTENT what the run was given, an OUTCOME what it wrote;
        "replaced:PATH" is what was there before.

        Raises:
            NotFound, InvalidRequest, NotAllowed: as the words say.
            Fault: the ledger or the payload is damaged.
        """
        request = audit_pb2.AuditGetRequest(log_id=log_id, payload=payload)
        found = call(self._connection().audit.Get, request, SHORT_CALL_S)
        other = _record(found.other) if found.HasField("other") else None
        return AuditFound(_record(found.record), other, found.payload, tuple(map(_record, found.later)))

    def tail(self, from_index: int = 0, *, newest: int = 0, new_only: bool = False) -> Iterator[AuditRecord]:
        """Records from an index on, or the newest so many, and then each new one; ends when the iterator is closed.

        Raises:
            NotAllowed, Unavailable: as the words say.
        """
        request = audit_pb2.AuditTailRequest(from_index=from_index, newest=newest, new_only=new_only)
        try:
            stream = self._connection().audit.Tail(request)
        except ValueError as error:  # the channel was closed
            raise Unavailable("UNAVAILABLE", detail=str(error)) from None
        try:
            for record in stream:
                yield _record(record)
        except grpc.RpcError as error:
            raise translated(error) from None
        finally:
            stream.cancel()

    def verify(self, journal: Sequence[tuple[int, str]] | None = None) -> AuditReport:
        """Reads and checks the whole ledger. `journal`: index and leaf hash of what the journal has, read before."""
        request = audit_pb2.AuditVerifyRequest(
            journal=[
                audit_pb2.SeenRecord(index=index, leaf_hash=bytes.fromhex(digest)) for index, digest in journal or ()
            ],
            with_journal=journal is not None,
        )
        report = call(self._connection().audit.Verify, request, VERIFY_S)
        return AuditReport(
            origin=report.origin,
            segments=report.segments,
            records=report.records,
            root=report.root.hex(),
            checkpoint_size=report.checkpoint_size,
            payloads=report.payloads,
            payload_bytes=report.payload_bytes,
            open_intents=tuple(report.open_intents),
            journal_records=report.journal_records,
            findings=tuple(
                AuditFinding(each.segment, each.line, each.log_id, each.expected, each.got) for each in report.findings
            ),
            notes=tuple(report.notes),
        )

    def restore(
        self, log_id: str, reason: str = "", *, dry_run: bool = False, force: bool = False
    ) -> tuple[RestoredRun, ...]:
        """Puts back what a run, or the undoing of one, has replaced in a plan; one element says what became of it.

        `reason` is required, but for a dry run, which changes nothing. `force`: also where somebody has changed a file
        since; what is there now is kept beside it. What has kept it from being done is no error but in `state`.

        Raises:
            NotFound, InvalidRequest, NotAllowed: as the words say.
        """
        request = audit_pb2.RestoreRequest(log_id=log_id, reason=reason, dry_run=dry_run, force=force)
        return restored(call(self._connection().audit.Restore, request, RESTORE_S))

    def restore_all(
        self,
        plugin: str,
        version: str = "",
        *,
        since_unix_ms: int,
        reason: str = "",
        dry_run: bool = False,
        force: bool = False,
    ) -> tuple[RestoredRun, ...]:
        """The same for all runs of a plugin, or of one version, since then: the newest first, each by itself."""
        request = audit_pb2.RestoreRequest(
            plugin=plugin, version=version, since_unix_ms=since_unix_ms, reason=reason, dry_run=dry_run, force=force
        )
        return restored(call(self._connection().audit.Restore, request, RESTORE_S))

    def impact(self, plugin: str, version: str = "", *, since_unix_ms: int = 0) -> Impact:
        """The plans and files that a plugin, or one version, has read and written since then (0: ever).

        Raises:
            InvalidRequest, NotAllowed: as the words say.
        """
        request = audit_pb2.ImpactRequest(plugin=plugin, version=version, since_unix_ms=since_unix_ms)
        return impact(call(self._connection().audit.Impact, request, SHORT_CALL_S))


def _record(record: audit_pb2.AuditRecord) -> AuditRecord:
    """Raises Fault for one whose text is no JSON object."""
    try:
        fields = json.loads(record.record_json)
        if not isinstance(fields, dict):
            raise TypeError(f"expected an object, got {record.record_json[:80]!r}")
    except (ValueError, TypeError, RecursionError) as error:
        raise Fault("BAD_ANSWER", detail=f"log_{record.index} is no record: {error}") from None
    return AuditRecord(
        record.index, record.time_unix_ms, record.event, fields, record.record_json, record.leaf_hash.hex()
    )
