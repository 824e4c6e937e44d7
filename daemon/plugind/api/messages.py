"""Our values as messages, and back: every field of plugins, versions and approvals is named here and nowhere else."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from plugind import jsontext
from plugind.catalog import Catalog
from plugind.errors import InvalidJsonError, InvalidRequestError
from plugind.model import PERMISSION_KINDS, Approval, Hold, Limits, Permission, PluginVersion, Reason
from plugind.provenance.manifest import MAX_MANIFEST_BYTES, canonical_entry
from plugind.registry.connection import Change
from plugind.registry.rows import Plugin
from plugind_proto.v1 import common_pb2, registry_pb2


def reason_message(reason: Reason) -> common_pb2.Reason:
    """A reason as it goes over the wire."""
    return common_pb2.Reason(
        code=str(reason.code),
        rule=reason.rule,
        expected=printable(reason.expected),
        actual=printable(reason.actual),
        remedy=printable(reason.remedy),
    )


def printable(text: str) -> str:
    """A text of a plugin may hold lone surrogates, which protobuf refuses."""
    return text.encode("utf-8", "backslashreplace").decode()


def hold_message(hold: Hold) -> registry_pb2.Hold:
    """A hold."""
    return registry_pb2.Hold(**dataclasses.asdict(hold))


def change_message(change: Change) -> registry_pb2.Change:
    """An entry of the history."""
    fields = dataclasses.asdict(change)
    return registry_pb2.Change(**{"detail_json" if name == "detail" else name: fields[name] for name in fields})


def plugin_message(plugin: Plugin, catalog: Catalog) -> registry_pb2.Plugin:
    """A plugin with its versions."""
    active = plugin.active
    return registry_pb2.Plugin(
        plugin_id=plugin.plugin_id,
        name=plugin.name,
        active_version=active.manifest.version if active else "",
        versions=[version_message(version, catalog) for version in plugin.versions],
    )


def version_message(version: PluginVersion, catalog: Catalog) -> registry_pb2.PluginVersion:
    """One version, with what it asks for, what was approved, and what holds it."""
    manifest = version.manifest
    return registry_pb2.PluginVersion(
        version=manifest.version,
        digest=version.digest,
        state=version.state,
        tier=version.tier,
        summary=manifest.summary,
        license=manifest.license,
        origin=manifest.origin,
        runtime=manifest.runtime,
        interface=manifest.interface,
        entrypoint=manifest.entrypoint,
        stages=manifest.stages,
        limits=limits_message(manifest.limits),
        permissions=_permissions(manifest.permissions),
        approval=_approval(version.approval) if version.approval else None,
        submitted_unix_ms=version.submitted_unix_ms,
        submitted_by_uid=version.submitted_by_uid,
        holds=[hold_message(hold) for hold in catalog.holds.on(catalog.targets(version))],
        widens=catalog.widened(version),
    )


def _approval(approval: Approval) -> registry_pb2.Approval:
    return registry_pb2.Approval(
        by_uid=approval.by_uid,
        at_unix_ms=approval.at_unix_ms,
        tier=approval.tier,
        stages=approval.stages,
        permissions=_permissions(approval.permissions),
        limits=limits_message(approval.limits),
        reason=approval.reason,
        not_after_unix_ms=approval.not_after_unix_ms,
    )


def _permissions(items: Iterable[Permission]) -> list[registry_pb2.Permission]:
    return [registry_pb2.Permission(kind=item.kind, entry_json=item.entry) for item in items]


def permissions_of(items: Iterable[registry_pb2.Permission]) -> tuple[Permission, ...]:
    """Permissions out of a request. Raises InvalidRequestError."""
    return tuple(_permission(item) for item in items)


def _permission(item: registry_pb2.Permission) -> Permission:
    if item.kind not in PERMISSION_KINDS:
        expected = ", ".join(PERMISSION_KINDS)
        raise InvalidRequestError(f"permissions.kind: expected one of {expected}, got {item.kind[:80]!r}")
    try:
        # Strictly, as a manifest's: what is stored and told again is Unicode, and JSON for everybody.
        table = jsontext.loads(item.entry_json.encode(), max_bytes=MAX_MANIFEST_BYTES)
    except InvalidJsonError as error:
        raise InvalidRequestError(f"permissions.entry_json: expected JSON: {error}") from error
    if not isinstance(table, dict):
        raise InvalidRequestError(f"permissions.entry_json: expected an object, got {item.entry_json[:80]!r}")
    return Permission(item.kind, canonical_entry(table))


def limits_message(limits: Limits) -> common_pb2.Limits:
    """Limits as a message."""
    return common_pb2.Limits(**dict(limits.items()))


def limits_of(message: common_pb2.Limits) -> Limits:
    """Limits out of a request. Raises InvalidRequestError for what no limit can be."""
    values = {name: int(getattr(message, name)) for name, _ in Limits().items()}
    for name, value in values.items():
        if value >= 2**53:
            raise InvalidRequestError(f"limits.{name}: expected less than 2^53, got {value}")
    return Limits(**values)
