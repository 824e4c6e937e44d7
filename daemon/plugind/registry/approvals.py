"""What may be approved: nothing beyond what the bundle declares and its evidence gives. Pure."""

from __future__ import annotations

import dataclasses
import json

from plugind.errors import ConflictError, InvalidRequestError
from plugind.model import Approval, Manifest, PluginVersion, Tier


def as_declared(
    manifest: Manifest, *, tier: Tier, by_uid: int, at_unix_ms: int, reason: str, not_after_unix_ms: int = 0
) -> Approval:
    """Approve every permission, stage and limit that the manifest declares."""
    return Approval(
        tier=tier,
        stages=manifest.stages,
        permissions=manifest.permissions,
        limits=manifest.limits,
        by_uid=by_uid,
        at_unix_ms=at_unix_ms,
        reason=reason,
        not_after_unix_ms=not_after_unix_ms,
    )


def content(approval: Approval) -> str:
    """What is approved, without who, when and why: two voices agree when this is the same."""
    said = dataclasses.asdict(approval)
    return json.dumps({name: said[name] for name in ("tier", "stages", "permissions", "limits")}, sort_keys=True)


def check(version: PluginVersion, approval: Approval) -> None:
    """Raise InvalidRequestError for an approval without a reason, ConflictError for one that goes too far."""
    if not approval.reason.strip():
        raise InvalidRequestError("reason: expected why this is approved, got nothing")
    manifest = version.manifest
    problems = []
    if approval.tier < version.tier:
        problems.append(f"tier: expected {version.tier} or higher, as the evidence gives, got {approval.tier}")
    if "*" not in manifest.stages:
        problems += [
            f"stages: expected some of {', '.join(manifest.stages)}, got {stage}"
            for stage in approval.stages
            if stage not in manifest.stages
        ]
    problems += [
        f"permissions: expected only what {version.label} declares, got {permission.kind} {permission.entry}"
        for permission in approval.permissions
        if permission not in manifest.permissions
    ]
    for (name, declared), (_, approved) in zip(manifest.limits.items(), approval.limits.items(), strict=True):
        if approved < 0 or (declared and approved > declared):
            problems.append(f"limits.{name}: expected at most {declared}, as declared, got {approved}")
    if problems:
        raise ConflictError(f"{version.plugin_id} {version.label}: {'; '.join(problems)}")
