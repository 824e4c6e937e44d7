"""The registry of a plugind in memory: plugins, versions, approvals, holds, and the history of all of it.

Source: SPEC.md, "Registry, approval, holds".
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from plugind_client.errors import Conflict, InvalidRequest, NotFound
from plugind_client.memory.ledger import Ledger, now_ms
from plugind_client.records import Reason
from plugind_proto.v1 import common_pb2, governance_pb2, registry_pb2

LIMIT_NAMES: Final = ("wall_ms", "cpu_ms", "memory_bytes", "pids", "output_bytes", "scratch_bytes")
TIER: Final = 2
"""Of everything: no signature is looked at here, and without one nothing is more."""


class Registry:
    """Plugins by name."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.plugins: dict[str, registry_pb2.Plugin] = {}
        self.sources: dict[tuple[str, str], bytes] = {}
        """Of each submitted version, the entry point's module."""
        self.holds: list[registry_pb2.Hold] = []
        self._changes: list[registry_pb2.Change] = []

    # --- looking up ------------------------------------------------------------------------------------------------

    def find(self, name: str) -> registry_pb2.Plugin | None:
        """A plugin by name or id."""
        return next((each for each in self.plugins.values() if name in {each.name, each.plugin_id}), None)

    def plugin(self, name: str) -> registry_pb2.Plugin:
        """The same. Raises NotFound."""
        found = self.find(name)
        if found is None:
            raise NotFound("NOT_FOUND", detail=f"no plugin {name}")
        return found

    def version(self, name: str, version: str) -> tuple[registry_pb2.Plugin, registry_pb2.PluginVersion]:
        """A plugin with one of its versions. Raises NotFound."""
        plugin = self.plugin(name)
        found = stored(plugin, version)
        if found is None:
            raise NotFound("NOT_FOUND", detail=f"{plugin.name} has no version {version}")
        return plugin, found

    def holds_of(self, plugin: registry_pb2.Plugin, version: registry_pb2.PluginVersion) -> list[registry_pb2.Hold]:
        """What keeps a version from running."""
        targets = {"all", f"sha256:{version.digest}", plugin.name, f"{plugin.name}@{version.version}"}
        return [hold for hold in self.holds if hold.target in targets]

    def get(self, request: registry_pb2.GetRequest) -> registry_pb2.Plugin:
        """One plugin."""
        return self._shown(self.plugin(request.plugin))

    def list(self, _request: registry_pb2.ListRequest) -> registry_pb2.ListResponse:
        """All plugins."""
        return registry_pb2.ListResponse(plugins=map(self._shown, self.plugins.values()))

    def _shown(self, plugin: registry_pb2.Plugin) -> registry_pb2.Plugin:
        shown = registry_pb2.Plugin()
        shown.CopyFrom(plugin)
        for version in shown.versions:
            version.holds.extend(self.holds_of(plugin, version))
        return shown

    def history(self, request: registry_pb2.HistoryRequest) -> registry_pb2.HistoryResponse:
        """Every change."""
        name = self.plugin(request.plugin).name if request.plugin else ""
        return registry_pb2.HistoryResponse(changes=[each for each in self._changes if name in {"", each.plugin}])

    # --- versions --------------------------------------------------------------------------------------------------

    def install(self, name: str, version: str) -> None:
        """An approved and active version of whatever a test answers for, for all stages; nothing if it is there."""
        plugin = self._plugin_named(name)
        there = stored(plugin, version)
        if there is None:
            digest = hashlib.sha256(f"{name}@{version}".encode()).hexdigest()
            there = plugin.versions.add(version=version, digest=digest, tier=TIER, stages=["*"], interface="json")
            there.runtime, there.origin, there.summary = "python", "authored", "An answer that a test gives"
            there.submitted_unix_ms, there.submitted_by_uid = now_ms(), os.getuid()
        if not there.HasField("approval"):
            there.approval.CopyFrom(_approval(there, there, "a test answers for it", 0))
        _make_active(plugin, there)

    def permit(self, name: str, wanted: str, kinds: Mapping[str, Sequence[str]]) -> None:
        """Gives a version, without one the active one, these patterns for files. Raises NotFound."""
        plugin = self.plugin(name)
        _, version = self.version(name, wanted or plugin.active_version)
        entries = {kind: [{"path": path} for path in paths] for kind, paths in kinds.items()}
        for permissions in (version.permissions, version.approval.permissions):
            kept = [each for each in permissions if each.kind not in kinds]
            del permissions[:]
            permissions.extend([*kept, *_permissions(entries)])

    def submit(self, request: registry_pb2.SubmitRequest) -> registry_pb2.SubmitResponse:
        """Takes a bundle's manifest as it is. Raises InvalidRequest, Conflict."""
        manifest, code = _manifest(request.bundle)
        digest = hashlib.sha256(request.bundle).hexdigest()
        plugin = self._plugin_named(manifest["name"])
        version = stored(plugin, manifest["version"])
        if version is None:
            version = plugin.versions.add(version=manifest["version"], digest=digest, tier=TIER, state="submitted")
            _declare(version, manifest)
            self.sources[plugin.name, version.version] = code
            self._changed("submit", plugin, version, "")
            if version.origin == "synthesized" and not version.permissions:  # as a development daemon's policy has it
                version.approval.CopyFrom(_approval(version, version, "generated, and asks for nothing", 0))
                _make_active(plugin, version)
                self._changed("activate", plugin, version, "generated, and asks for nothing")
        elif version.digest != digest:
            raise Conflict("CONFLICT", detail=f"{plugin.name}@{version.version} is stored with other bytes")
        return registry_pb2.SubmitResponse(
            plugin_id=plugin.plugin_id,
            name=plugin.name,
            version=version.version,
            digest=digest,
            tier=version.tier,
            state=version.state,
        )

    def source(self, request: registry_pb2.SourceRequest) -> registry_pb2.SourceResponse:
        """The module of a plugin of functions that was submitted. Raises NotFound, Conflict."""
        plugin = self.plugin(request.plugin)
        plugin, version = self.version(plugin.name, request.version or plugin.active_version)
        code = self.sources.get((plugin.name, version.version))
        if code is None or version.interface != "functions":
            raise Conflict("CONFLICT", detail=f"{plugin.name}@{version.version} has no functions to be called")
        return registry_pb2.SourceResponse(
            name=plugin.name, version=version.version, digest=version.digest, source=code
        )

    def _plugin_named(self, name: str) -> registry_pb2.Plugin:
        made = registry_pb2.Plugin(plugin_id=f"plug_{len(self.plugins) + 1}", name=name)
        return self.plugins.setdefault(name, made)

    def approve(self, request: governance_pb2.ApproveRequest) -> registry_pb2.PluginVersion:
        """One approver is enough here. Raises NotFound, Conflict, InvalidRequest."""
        plugin, version = self.version(request.plugin, request.version)
        _with_reason(request.reason)
        if request.tier < version.tier:
            raise Conflict("CONFLICT", detail=f"tier: the evidence gives Tier {version.tier}, got {request.tier}")
        given = version if request.as_declared else request
        version.approval.CopyFrom(_approval(version, given, request.reason, request.not_after_unix_ms))
        if version.state != "active":
            version.state = "approved"
        return self._changed("approve", plugin, version, request.reason)

    def reject(self, request: governance_pb2.RejectRequest) -> registry_pb2.PluginVersion:
        """Takes the approval away. Raises NotFound, InvalidRequest."""
        plugin, version = self.version(request.plugin, request.version)
        _with_reason(request.reason)
        if version.state == "active":
            plugin.active_version = ""
        version.state = "submitted"
        version.ClearField("approval")
        return self._changed("reject", plugin, version, request.reason)

    def activate(self, request: governance_pb2.ActivateRequest) -> registry_pb2.PluginVersion:
        """Raises NotFound, Conflict."""
        plugin, version = self.version(request.plugin, request.version)
        if not version.HasField("approval"):
            raise Conflict("CONFLICT", detail=f"{plugin.name}@{version.version} is not approved")
        order = [each.version for each in plugin.versions]
        if plugin.active_version and order.index(version.version) < order.index(plugin.active_version):
            raise Conflict("CONFLICT", detail=f"a newer version is active (SEQUENCE_ROLLBACK): {plugin.active_version}")
        _make_active(plugin, version)
        return self._changed("activate", plugin, version, request.reason)

    def rollback(self, request: governance_pb2.RollbackRequest) -> registry_pb2.PluginVersion:
        """Raises NotFound, Conflict, InvalidRequest."""
        plugin = self.plugin(request.plugin)
        _with_reason(request.reason)
        before = [each for each in plugin.versions if each.state == "retired" and each.HasField("approval")]
        chosen = [each for each in before if request.version in {"", each.version}]
        if not chosen:
            raise Conflict("CONFLICT", detail=f"{plugin.name}: expected an approved version of before, found no such")
        _make_active(plugin, chosen[-1])
        return self._changed("rollback", plugin, chosen[-1], request.reason)

    # --- holds -----------------------------------------------------------------------------------------------------

    def hold(self, kind: str, request: governance_pb2.HoldRequest) -> registry_pb2.Hold:
        """Adds a hold. Raises NotFound, InvalidRequest."""
        _with_reason(request.reason)
        target = self._target(request.target)
        self.holds = [each for each in self.holds if (each.kind, each.target) != (kind, target)]
        self.holds.append(_hold(kind, target, request.reason))
        self._held({"suspended": "suspend", "killed": "kill"}[kind], target, request.reason)
        return self.holds[-1]

    def lift(self, kind: str, request: governance_pb2.HoldRequest) -> registry_pb2.Hold:
        """Takes a hold away. Raises NotFound, Conflict, InvalidRequest."""
        _with_reason(request.reason)
        target = self._target(request.target)
        kept = [each for each in self.holds if (each.kind, each.target) != (kind, target)]
        if len(kept) == len(self.holds):
            raise Conflict("CONFLICT", detail=f"{target}: expected one that is {kind}, got another")
        self.holds = kept
        self._held({"suspended": "resume", "killed": "kill_lift"}[kind], target, request.reason)
        return _hold(kind, target, request.reason)

    def _target(self, text: str) -> str:
        """As it is kept: by name and not by id."""
        if text == "all" or text.startswith("sha256:"):
            return text
        name, at, version = text.partition("@")
        plugin = self.version(name, version)[0] if at else self.plugin(name)
        return plugin.name + at + version

    # --- what was done ---------------------------------------------------------------------------------------------

    def _changed(
        self, action: str, plugin: registry_pb2.Plugin, version: registry_pb2.PluginVersion, why: str
    ) -> registry_pb2.PluginVersion:
        self._record(
            action,
            why,
            plugin_id=plugin.plugin_id,
            plugin=plugin.name,
            version=version.version,
            digest=version.digest,
            state=version.state,
        )
        return next(each for each in self._shown(plugin).versions if each.version == version.version)

    def _held(self, action: str, target: str, why: str) -> None:
        name, _, version = ("", "", "") if target == "all" or ":" in target else target.partition("@")
        plugin_id = self.plugin(name).plugin_id if name else ""
        detail = json.dumps({"target": target})
        self._record(action, why, plugin_id=plugin_id, plugin=name, version=version, detail_json=detail)

    def _record(self, action: str, why: str, **about: str) -> None:
        revision, uid = len(self._changes) + 1, os.getuid()
        change = registry_pb2.Change(
            revision=revision, action=action, why=why, by_uid=uid, at_unix_ms=now_ms(), **about
        )
        self._changes.append(change)
        self._ledger.append("CHANGE", {"action": action, "by_uid": uid, "why": why} | about)


def stored(plugin: registry_pb2.Plugin, version: str) -> registry_pb2.PluginVersion | None:
    """One version of a plugin."""
    return next((each for each in plugin.versions if each.version == version), None)


def _make_active(plugin: registry_pb2.Plugin, version: registry_pb2.PluginVersion) -> None:
    for other in plugin.versions:
        if other.state == "active":
            other.state = "retired"
    version.state = "active"
    plugin.active_version = version.version


def _approval(
    version: registry_pb2.PluginVersion,
    given: registry_pb2.PluginVersion | governance_pb2.ApproveRequest,
    reason: str,
    not_after_unix_ms: int,
) -> registry_pb2.Approval:
    return registry_pb2.Approval(
        by_uid=os.getuid(),
        at_unix_ms=now_ms(),
        tier=version.tier,
        stages=given.stages,
        permissions=given.permissions,
        limits=given.limits,
        reason=reason,
        not_after_unix_ms=not_after_unix_ms,
    )


def _hold(kind: str, target: str, reason: str) -> registry_pb2.Hold:
    return registry_pb2.Hold(kind=kind, target=target, reason=reason, by_uid=os.getuid(), at_unix_ms=now_ms())


def _with_reason(reason: str) -> None:
    if not reason.strip():
        raise InvalidRequest("INVALID_REQUEST", detail="reason: expected why, got nothing")


def _manifest(bundle: bytes) -> tuple[dict[str, Any], bytes]:
    """What plugin.json says, the first member of the tar, and the entry point's module. Raises InvalidRequest."""
    try:
        with tarfile.open(fileobj=io.BytesIO(bundle), mode="r:") as tar:
            first = tar.next()
            member = tar.extractfile(first) if first and first.name == "plugin.json" else None
            document = json.load(member) if member else {}
            manifest: dict[str, Any] = document["manifest"]
            name = str(manifest.get("entrypoint", "")).partition(":")[0].replace(".", "/") + ".py"
            module = tar.extractfile(name) if name in tar.getnames() else None
            code = module.read() if module else b""
        if not all(isinstance(manifest[name], str) and manifest[name] for name in ("name", "version")):
            raise TypeError("name and version: expected text")
    except (tarfile.TarError, ValueError, TypeError, KeyError) as error:
        found = f"expected a bundle with a plugin.json, got one without: {type(error).__name__}: {error}"
        reason = Reason("INVALID_BUNDLE", "bundle", actual=found)
        raise InvalidRequest("INVALID_REQUEST", detail="this is no valid bundle", reasons=(reason,)) from None
    return manifest, code


def _declare(version: registry_pb2.PluginVersion, manifest: Mapping[str, Any]) -> None:
    """What the manifest says."""
    for name in ("summary", "license", "origin", "runtime", "interface", "entrypoint"):
        setattr(version, name, str(manifest.get(name, "")))
    version.stages.extend(manifest.get("stages", ()))
    limits = manifest.get("limits", {})
    version.limits.CopyFrom(common_pb2.Limits(**{name: limits.get(name, 0) for name in LIMIT_NAMES}))
    version.permissions.extend(_permissions(manifest.get("permissions", {})))
    version.submitted_unix_ms, version.submitted_by_uid = now_ms(), os.getuid()


def _permissions(declared: Mapping[str, Sequence[object]]) -> Iterator[registry_pb2.Permission]:
    for kind, entries in declared.items():
        for entry in entries:
            yield registry_pb2.Permission(kind=kind, entry_json=json.dumps(entry, sort_keys=True, ensure_ascii=False))
