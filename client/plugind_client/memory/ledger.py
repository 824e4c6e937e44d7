"""The ledger of a plugind in memory: records with the names of the real one's fields, and the calls that read them.

Source: SPEC.md, "Audit"; RFC 6962, section 2.1, for leaves and root.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from plugind_client.errors import InvalidRequest, NotFound
from plugind_client.memory.impact import impact
from plugind_proto.v1 import audit_pb2

ORIGIN: Final = "plugind-in-memory"
PAYLOADS: Final = ("input", "output", "stdout", "stderr")
MOST: Final = 1000
"""Records that one query may ask for."""


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class Ledger:
    """Records in their order."""

    def __init__(self) -> None:
        self._records: list[audit_pb2.AuditRecord] = []
        self._payloads: dict[tuple[int, str], bytes] = {}
        self._halves: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._records)

    def append(
        self, event: str, fields: dict[str, Any], files: Mapping[str, bytes] | None = None, **payloads: bytes
    ) -> int:
        """Adds a record; its index. `files`: payloads "file:PATH" and "replaced:PATH", which `fields` tell of."""
        index = len(self._records)
        told: dict[str, Any] = {
            f"{name}_sha256": hashlib.sha256(data).hexdigest() if data else "" for name, data in payloads.items()
        }
        told |= {f"{name}_bytes": len(data) for name, data in payloads.items()}
        line = json.dumps({"index": index, "time_unix_ms": now_ms(), "event": event} | fields | told).encode()
        self._records.append(
            audit_pb2.AuditRecord(
                index=index,
                time_unix_ms=now_ms(),
                event=event,
                record_json=line,
                leaf_hash=hashlib.sha256(b"\0" + line).digest(),
            )
        )
        self._payloads |= {(index, name): data for name, data in (payloads | dict(files or {})).items()}
        return index

    def end(
        self, intent: int, fields: dict[str, Any], files: Mapping[str, bytes] | None = None, **payloads: bytes
    ) -> None:
        """Adds the OUTCOME of an INTENT."""
        index = self.append("OUTCOME", {"intent": intent} | fields, files, **payloads)
        self._halves |= {intent: index, index: intent}

    def root(self) -> bytes:
        """The Merkle root of all records."""
        return _root([record.leaf_hash for record in self._records])

    # --- the calls -------------------------------------------------------------------------------------------------

    def query(self, request: audit_pb2.AuditQueryRequest) -> audit_pb2.AuditQueryResponse:
        """The newest records that match."""
        if request.limit > MOST:
            raise InvalidRequest("INVALID_REQUEST", detail=f"limit: expected at most {MOST}, got {request.limit}")
        found = [record for record in reversed(self._records) if _matches(record, request)]
        return audit_pb2.AuditQueryResponse(
            records=found[: request.limit or 50],
            origin=ORIGIN,
            size=len(self._records),
            root=self.root(),
            daemon_uid=os.getuid(),
        )

    def get(self, request: audit_pb2.AuditGetRequest) -> audit_pb2.AuditGetResponse:
        """One record, its other half, and a payload of either."""
        number = request.log_id.removeprefix("log_")
        if not (request.log_id.startswith("log_") and number.isdecimal()):
            raise InvalidRequest("INVALID_REQUEST", detail=f"log_id: expected log_N, got {request.log_id!r}")
        of_a_file = request.payload.startswith(("file:", "replaced:"))
        if request.payload and request.payload not in PAYLOADS and not of_a_file:
            expected = f"{', '.join(PAYLOADS)}, file:PATH or replaced:PATH"
            raise InvalidRequest("INVALID_REQUEST", detail=f"payload: expected {expected}, got {request.payload!r}")
        index = int(number)
        if index >= len(self._records):
            raise NotFound("NOT_FOUND", detail=f"no record {request.log_id}")
        other = self._halves.get(index)
        answer = audit_pb2.AuditGetResponse(
            record=self._records[index], other=None if other is None else self._records[other]
        )
        if request.payload:
            having = [each for each in (index, other) if (each, request.payload) in self._payloads]
            if not having:
                raise NotFound("NOT_FOUND", detail=f"{request.log_id}: the record has no {request.payload}")
            answer.payload = self._payloads[having[0] or 0, request.payload]
        return answer

    def tail(self, request: audit_pb2.AuditTailRequest) -> Iterator[audit_pb2.AuditRecord]:
        """What is there. It does not wait for more: whoever reads it in a test would be who has to write it."""
        if request.new_only:
            return iter(())
        start = max(0, len(self._records) - request.newest) if request.newest else request.from_index
        return iter(self._records[start:])

    def impact(self, request: audit_pb2.ImpactRequest) -> audit_pb2.ImpactResponse:
        """What a plugin has touched."""
        return impact(self._records, request)

    def verify(self, request: audit_pb2.AuditVerifyRequest) -> audit_pb2.AuditReport:
        """Everything holds, but for what a journal says otherwise."""
        leaves = {record.index: record.leaf_hash for record in self._records}
        findings = [
            audit_pb2.AuditFinding(
                segment="memory",
                line=seen.index + 1,
                log_id=f"log_{seen.index}",
                expected=seen.leaf_hash.hex(),
                got=leaves.get(seen.index, b"").hex(),
            )
            for seen in request.journal
            if leaves.get(seen.index) != seen.leaf_hash
        ]
        return audit_pb2.AuditReport(
            origin=ORIGIN,
            segments=1,
            records=len(leaves),
            root=self.root(),
            checkpoint_size=len(leaves),
            payloads=len(self._payloads),
            payload_bytes=sum(map(len, self._payloads.values())),
            journal_records=len(request.journal),
            findings=findings,
        )


def _matches(record: audit_pb2.AuditRecord, request: audit_pb2.AuditQueryRequest) -> bool:
    fields = json.loads(record.record_json)
    return (
        (not request.plugin or request.plugin in {fields.get("plugin"), fields.get("plugin_id")})
        and (not request.events or record.event in request.events)
        and (not request.outcome or fields.get("outcome") == request.outcome)
        and (not request.plan_id or fields.get("plan_id") == request.plan_id)
        and record.time_unix_ms >= request.since_unix_ms
    )


def _root(leaves: list[bytes]) -> bytes:
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256().digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + _root(leaves[:split]) + _root(leaves[split:])).digest()
