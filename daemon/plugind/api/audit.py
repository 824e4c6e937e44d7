"""plugind.v1.Audit: Query, Get, Tail, Verify; Restore and Impact are in undoing. Files are read in threads."""

from __future__ import annotations

import asyncio
import os
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import grpc

from plugind.api.accept import Callers
from plugind.api.calls import LOG_ID, Refusals, admitted, call, matching, plugin_name
from plugind.api.errors import Context, abort
from plugind.api.roles import Role
from plugind.api.undoing import UndoCalls
from plugind.audit import payloads, planhistory, reading
from plugind.audit.ledger import Ledger
from plugind.audit.reading import Entry, Filter, Follower
from plugind.audit.records import EVENTS, OF_A_FILE, PAYLOADS, stored_as
from plugind.audit.verify import Report, verify
from plugind.config import log
from plugind.errors import InvalidRequestError, NotFoundError, PlugindError
from plugind.model import Caller, Outcome
from plugind.plans.undo import Undo
from plugind.targets import PLAN_ID
from plugind_proto.v1 import audit_pb2, audit_pb2_grpc

USUAL: Final = 50
MOST: Final = 1000
_POLL_S: Final = 0.1


class AuditService(UndoCalls, audit_pb2_grpc.AuditServicer):
    """What operators may know of the ledger, which nobody can change."""

    def __init__(self, callers: Callers, refusals: Refusals, ledger: Ledger, directory: Path, undo: Undo) -> None:
        self.callers = callers
        self.refusals = refusals
        self._ledger = ledger
        self._directory = directory
        self._undo = undo
        self._verifying = asyncio.Lock()

    @call(Role.OPERATOR)
    async def Query(self, request: audit_pb2.AuditQueryRequest, caller: Caller) -> audit_pb2.AuditQueryResponse:  # noqa: N802
        """The newest records that match."""
        del caller
        wanted = _filter(request)
        if request.limit > MOST:
            raise InvalidRequestError(f"limit: expected at most {MOST}, got {request.limit}")
        size, root = self._ledger.size, self._ledger.root()
        found = await asyncio.to_thread(reading.newest, self._directory, wanted, request.limit or USUAL, size)
        return audit_pb2.AuditQueryResponse(
            records=map(_record, found), origin=self._ledger.origin, size=size, root=root, daemon_uid=os.getuid()
        )

    @call(Role.OPERATOR)
    async def Get(self, request: audit_pb2.AuditGetRequest, caller: Caller) -> audit_pb2.AuditGetResponse:  # noqa: N802
        """One record, its other half, a payload."""
        del caller
        matching("log_id", request.log_id, LOG_ID, "an id like log_4001")
        if request.payload and request.payload not in PAYLOADS and not request.payload.startswith(tuple(OF_A_FILE)):
            expected = ", ".join((*PAYLOADS, *(f"{each}PATH" for each in OF_A_FILE)))
            raise InvalidRequestError(f"payload: expected one of {expected}, got {request.payload[:80]!r}")
        return await asyncio.to_thread(self._get, int(request.log_id.removeprefix("log_")), request.payload)

    def _get(self, index: int, payload: str) -> audit_pb2.AuditGetResponse:
        below = self._ledger.size
        entry = reading.get(self._directory, index, below)
        other = reading.other_half(self._directory, entry, below)
        answer = audit_pb2.AuditGetResponse(record=_record(entry))
        if other is not None:
            answer.other.CopyFrom(_record(other))
        if any(each.fields.get("plan_dir") for each in (entry, other) if each):
            answer.later.extend(map(_record, planhistory.later_of(self._directory, index, below)))
        if payload:
            having = [stored_as(each.fields, payload) for each in (entry, other) if each]
            stored = next((each for each in having if each is not None), None)
            if stored is None:
                raise NotFoundError(f"log_{index}: the record has no {payload[:200]}")
            answer.payload = payloads.read(self._directory, stored)
        return answer

    async def Tail(  # noqa: N802
        self, request: audit_pb2.AuditTailRequest, context: Context
    ) -> AsyncIterator[audit_pb2.AuditRecord]:
        """Records from an index on, then each new one, until the caller has enough."""
        try:
            await admitted(self, context, Role.OPERATOR, "Tail")
            async for entry in self._follow(_first(request, self._ledger.size)):
                yield _record(entry)
        except PlugindError as error:
            await abort(context, error)
        except Exception:  # noqa: BLE001 - as in calls.call, which is for calls with one answer
            log(f"fault in Tail:\n{traceback.format_exc()}")
            await context.abort(grpc.StatusCode.INTERNAL, "a fault of plugind in Tail; see its log")

    async def _follow(self, index: int) -> AsyncIterator[Entry]:
        follower = Follower(self._directory, index)
        while True:
            size = self._ledger.size
            found = await asyncio.to_thread(follower.read, size) if size > index else []
            for entry in found:
                yield entry
            index += len(found)
            if not found:
                await asyncio.sleep(_POLL_S)

    @call(Role.OPERATOR)
    async def Verify(self, request: audit_pb2.AuditVerifyRequest, caller: Caller) -> audit_pb2.AuditReport:  # noqa: N802
        """Read and check everything; one at a time, because it takes a core."""
        del caller
        seen = [(each.index, each.leaf_hash.hex()) for each in request.journal]
        async with self._verifying:
            report = await asyncio.to_thread(verify, self._directory, seen if request.with_journal else None)
        return _report(report)


def _first(request: audit_pb2.AuditTailRequest, size: int) -> int:
    if request.new_only:
        return size
    return max(size - request.newest, 0) if request.newest else request.from_index


def _filter(request: audit_pb2.AuditQueryRequest) -> Filter:
    """Each field checked: a misspelt one would find nothing. Raises InvalidRequestError."""
    if unknown := sorted(set(request.events) - set(EVENTS)):
        raise InvalidRequestError(f"events: expected {', '.join(EVENTS)}, got {unknown[0][:80]!r}")
    if request.outcome and request.outcome not in set(Outcome):
        raise InvalidRequestError(f"outcome: expected {', '.join(Outcome)}, got {request.outcome[:80]!r}")
    return Filter(
        plugin=request.plugin and plugin_name(request.plugin),
        events=frozenset(request.events),
        outcome=request.outcome,
        plan_id=request.plan_id
        and matching("plan_id", request.plan_id, PLAN_ID, "1 to 256 characters without control characters"),
        since_unix_ms=request.since_unix_ms,
    )


def _record(entry: Entry) -> audit_pb2.AuditRecord:
    return audit_pb2.AuditRecord(
        index=entry.index,
        time_unix_ms=entry.fields["time_unix_ms"],
        event=entry.fields["event"],
        record_json=entry.text,
        leaf_hash=entry.leaf_hash,
    )


def _report(report: Report) -> audit_pb2.AuditReport:
    return audit_pb2.AuditReport(
        origin=report.origin,
        segments=report.segments,
        records=report.records,
        root=report.root,
        checkpoint_size=report.checkpoint_size,
        payloads=report.payloads,
        payload_bytes=report.payload_bytes,
        open_intents=report.open_intents,
        journal_records=report.journal_records,
        findings=[
            audit_pb2.AuditFinding(
                segment=each.segment,
                line=each.line,
                log_id=each.log_id,
                expected=each.expected,
                got=each.got.encode("utf-8", "backslashreplace").decode(),
            )
            for each in report.findings
        ],
        notes=report.notes,
    )
