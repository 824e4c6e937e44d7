"""What a plugin has touched, as the ledger of a plugind in memory tells it. Nothing is undone there.

Source: SPEC.md, "Files of a plan"; proto/plugind_proto/v1/audit.proto, Impact.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NoReturn

from plugind_client.errors import InvalidRequest
from plugind_proto.v1 import audit_pb2


def restore(_request: audit_pb2.RestoreRequest) -> NoReturn:
    """Raises InvalidRequest."""
    detail = "restore: expected a daemon, which undoes runs as the users who wrote, got one in memory"
    raise InvalidRequest("INVALID_REQUEST", detail=detail)


def impact(records: Iterable[audit_pb2.AuditRecord], request: audit_pb2.ImpactRequest) -> audit_pb2.ImpactResponse:
    """Plans and files, newest first."""
    plans: dict[tuple[str, str], audit_pb2.PlanImpact] = {}
    begun: set[int] = set()
    for record in records:
        fields = json.loads(record.record_json)
        if not _is_meant(fields, record, request):
            continue
        if record.event == "INTENT":
            begun.add(fields["index"])
            plan = _plan(plans, fields)
            plan.runs += 1
            plan.last_unix_ms = record.time_unix_ms
            plan.versions[:] = sorted({*plan.versions, fields["version"]})
            _touch(plan, fields, "", "read")
        elif record.event == "OUTCOME" and fields.get("files"):
            # Here what is recorded as written is in its folder already.
            state = "written" if fields.get("plan_dir") else "sent"
            # Of a run that began before `since` nothing is told, as by a daemon.
            if fields["intent"] in begun:
                _touch(_plan(plans, fields), fields, f"log_{fields['intent']}", state)
    found = sorted(plans.values(), key=lambda plan: -plan.last_unix_ms)
    return audit_pb2.ImpactResponse(plans=found, runs=sum(plan.runs for plan in found))


def _is_meant(fields: dict[str, Any], record: audit_pb2.AuditRecord, request: audit_pb2.ImpactRequest) -> bool:
    return (
        request.plugin in {fields.get("plugin"), fields.get("plugin_id")}
        and (not request.version or request.version == fields.get("version"))
        and record.time_unix_ms >= request.since_unix_ms
    )


def _plan(plans: dict[tuple[str, str], audit_pb2.PlanImpact], fields: dict[str, Any]) -> audit_pb2.PlanImpact:
    key = (fields["plan_id"], fields.get("plan_dir", ""))
    return plans.setdefault(key, audit_pb2.PlanImpact(plan_id=key[0], plan_dir=key[1]))


def _touch(plan: audit_pb2.PlanImpact, fields: dict[str, Any], log_id: str, state: str) -> None:
    known = {file.path: file for file in plan.files}
    for each in fields.get("files", ()):
        path = each["path"]
        file = known.get(path) or plan.files.add(path=path, state="read")
        file.sha256, file.bytes = each["content"]["sha256"], each["content"]["bytes"]
        if log_id:
            file.log_id, file.state = log_id, state
