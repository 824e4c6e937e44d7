"""What is known of plugins: the registry's rows, the store's bytes and the evidence for them, each verified once.

A bundle is checked in full when it is submitted, and again before its first run in this process; what was verified then
is what the launcher gets. Everything found is kept until the registry changes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from plugind import targets
from plugind.errors import (
    ConflictError,
    InvalidBundleError,
    InvalidEnvironmentError,
    InvalidRequestError,
    NotAllowedError,
    NotFoundError,
    StateError,
)
from plugind.model import POLICY_UID, Approval, Code, Hold, PluginVersion, Reason, State
from plugind.payload import Contract
from plugind.policy import synthesized, widening
from plugind.policy.objections import STARTS_IN_QUARANTINE
from plugind.provenance import bundle, contents, dsse, evidence, staticcheck
from plugind.provenance.bundle import Bundle
from plugind.provenance.evidence import Evidence, RoleKeys, Trust, TrustedKey
from plugind.provenance.keys import PublicKey
from plugind.registry import approvals
from plugind.registry.connection import Change
from plugind.registry.database import Act, Registry, Submission
from plugind.registry.rows import Plugin
from plugind.registry.store import Store
from plugind.targets import Targets

_HANDED_IN: Final = ("submit", "attest")
"""Changes that decide nothing."""
MOST_KEPT: Final = 4096
"""Versions whose verification is remembered."""


class Environments(Protocol):
    """What is asked of plugind.environments.shelf.Shelf."""

    def in_force(self, name: str) -> str:
        """Digest of what a name stands for now. Raises InvalidEnvironmentError."""
        ...

    def purls(self, digest: str) -> frozenset[str]:
        """Package URLs that mean an environment."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """What a name and a version lead to. Without a record there is nothing that could run."""

    record: PluginVersion | None = None
    other_versions: Mapping[str, State] | None = None
    """Versions with their states, when there is no record; None: no such plugin."""
    evidence: Evidence = Evidence(tier=2)  # noqa: RUF009 - frozen
    contract: Contract | None = None
    bundle_reasons: tuple[Reason, ...] = ()
    """Why the stored bytes may not run."""

    @property
    def tier(self) -> int:
        """The one it runs in: that was approved, or else that the evidence gives."""
        return self.record.approval.tier if self.record and self.record.approval else self.evidence.tier


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Catalog:
    """The registry and the store with what was verified of them. Changes block: call them from a thread."""

    def __init__(
        self,
        registry: Registry,
        store: Store,
        *,
        trust: Trust,
        built_in: Collection[str] = (),
        development: bool = False,
        now_ms: Callable[[], int] = _now_ms,
        environments: Environments | None = None,
    ) -> None:
        self._registry = registry
        self._store = store
        self._production_trust = trust
        self._built_in = built_in
        self._development = development
        self._now_ms = now_ms
        self._trust = self._trusted()
        self.development = development
        """Whether one person does everything here."""
        self.holds = registry.holds
        self.quarantines = registry.quarantines
        self._found: dict[tuple[str, str], Found] = {}
        self._found_at = -1
        self._environments = environments
        self._keys: dict[str, frozenset[str]] = {}
        """Targets of the keys that have signed, by digest; as old as `_found`."""

    def close(self) -> None:
        """Release the files."""
        self._registry.close()

    # -- for a run

    @property
    def revision(self) -> int:
        """Of the registry: while it is the same, so is what `find` finds."""
        return self._registry.revision

    def find(self, plugin: str, version: str) -> Found:
        """The version asked for, or else the active one, verified. Raises StateError."""
        self._forget_what_is_old()
        key = (plugin, version)
        found = self._found.get(key)
        if found is None or self._lapsed(found.evidence):
            found = self._found[key] = self._look_up(plugin, version)
        return found

    def _forget_what_is_old(self) -> None:
        if self._found_at != self._registry.revision or max(len(self._found), len(self._keys)) > MOST_KEPT:
            self._found.clear()
            self._keys.clear()
            self._found_at = self._registry.revision

    def targets(self, record: PluginVersion, environment: str | None = None) -> Targets:
        """The holds that mean a version, with the packages of an environment (digest); None: of the one in force."""
        if environment is None:
            environment = self._in_force(record)
        packages = self._environments.purls(environment) if self._environments and environment else frozenset()
        return Targets((record.targets, self._signed(record), packages))

    def _in_force(self, record: PluginVersion) -> str:
        if self._environments is not None:
            with contextlib.suppress(InvalidEnvironmentError):  # then nothing runs in it
                return self._environments.in_force(record.manifest.environment)
        return ""

    def _signed(self, record: PluginVersion) -> frozenset[str]:
        if not record.attestations:
            return frozenset()
        self._forget_what_is_old()
        found = self._keys.get(record.digest)
        if found is None:
            ids = evidence.signers(record.digest, dsse.parse_lines(record.attestations), self._trust)
            found = self._keys[record.digest] = frozenset(f"key:{keyid}" for keyid in ids)
        return found

    def bundle(self, digest: str) -> bytes:
        """The bytes, their sha256 checked. Raises NotFoundError, StateError, OSError."""
        return self._store.load(digest)

    def _lapsed(self, found: Evidence) -> bool:
        return 0 < found.not_after_unix_ms <= self._now_ms()

    def _look_up(self, plugin: str, version: str) -> Found:
        try:
            known = self._registry.get(plugin)
        except NotFoundError:
            return Found()
        record = next((each for each in known.versions if each.manifest.version == version), None)
        if not version:
            record = known.active
        if record is None:
            return Found(other_versions={each.manifest.version: each.state for each in known.versions})
        return self._verified(record)

    def _verified(self, record: PluginVersion) -> Found:
        try:
            read = bundle.read(self._store.load(record.digest))
        except InvalidBundleError as error:
            reasons = tuple(_bundle_reason(Code.UNLISTED_FILE, record, problem) for problem in error.problems)
            return Found(record, bundle_reasons=reasons)
        except (StateError, NotFoundError, OSError) as error:
            return Found(record, bundle_reasons=(_bundle_reason(Code.DIGEST_MISMATCH, record, str(error)),))
        contract = Contract(record.manifest.interface, read.input_schema, read.output_schema)
        return Found(record, evidence=self._weigh(read, record.attestations), contract=contract)

    def _weigh(self, read: Bundle, attestations: bytes) -> Evidence:
        return evidence.tier_of(
            read.digest,
            dsse.parse_lines(attestations),
            self._trust,
            now_unix_ms=self._now_ms(),
            origin=read.manifest.origin,
            built_in=self._built_in,
        )

    # -- for people

    def target(self, text: str) -> str:
        """A hold's target as it is kept. May block. Raises NotFoundError, InvalidRequestError, ConflictError."""
        if known := targets.canonical(text):
            return known
        prefix = targets.key_prefix(text)
        return self._key(prefix) if prefix else self.holds.target(text)

    def _key(self, prefix: str) -> str:
        """The one key whose id begins so: of all that are trusted, that have signed, or that a hold is on."""
        known = {f"key:{each.key.keyid}" for role in evidence.ROLES for each in self._trust.keys_of(role)}
        known.update(*(self._signed(each) for plugin in self.plugins() for each in plugin.versions))
        known.update(hold.target for hold in self.holds.all())
        found = sorted(each for each in known if each.startswith(f"key:{prefix}") and targets.key_prefix(each))
        if not found:
            raise NotFoundError(
                f"key:{prefix}: expected the beginning of a known key's id, got another; give all of it"
            )
        if len(found) > 1:
            raise ConflictError(f"key:{prefix}: expected one key, got {len(found)}: {', '.join(found)}; give all of it")
        return found[0]

    def plugins(self) -> list[Plugin]:
        """All plugins, by id."""
        return self._registry.plugins()

    def plugin(self, plugin: str) -> Plugin:
        """One plugin. Raises NotFoundError."""
        return self._registry.get(plugin)

    def of_digest(self, digest: str) -> PluginVersion:
        """The version with these bytes. Raises NotFoundError."""
        return self._registry.of_digest(digest)

    def proved(self, digest: str) -> None:
        """One more run of a version on probation went well; the last one ends it."""
        self.quarantines.went_well(self.of_digest(digest), self._now_ms())

    def version(self, plugin: str, version: str) -> PluginVersion:
        """One version. Raises NotFoundError."""
        return self._registry.version(plugin, version)

    def source(self, plugin: str, version: str) -> tuple[PluginVersion, bytes]:
        """The module of a version (empty: the active one) with interface "functions".

        Raises NotFoundError, ConflictError, StateError, InvalidBundleError, OSError.
        """
        record = self.version(plugin, version) if version else self.plugin(plugin).active
        if record is None:
            raise NotFoundError(f"{plugin}: expected an active version, got none")
        if record.manifest.interface != "functions":
            raise ConflictError(
                f'{record.plugin_id} {record.label}: expected interface "functions", got "{record.manifest.interface}"'
            )
        files = bundle.read(self._store.load(record.digest)).files
        return record, files[contents.module_file(record.manifest, files)]

    def history(self, plugin: str) -> list[Change]:
        """Every change to a plugin, or to all and everything. Raises NotFoundError."""
        return self._registry.history(plugin)

    def history_about(self, name: str, digest: str) -> list[Change]:
        """Every change to a plugin of this name, or to the version of this digest: holds by digest have no name."""
        return self._registry.history_about(name, digest)

    def widened(self, record: PluginVersion) -> list[str]:
        """What a version asks for beyond the one that was approved last, one sentence each."""
        before = self._approved_before(record)
        if record.approval is not None or before is None:
            return []
        return widening.widens(before, record)

    def _approved_before(self, record: PluginVersion) -> PluginVersion | None:
        """The active version, or else the newest that is approved; another than this one."""
        others = self._registry.get(record.plugin_id).versions
        approved = [each for each in others if each.approval is not None and each.digest != record.digest]
        return max(approved, key=lambda each: (each.state == "active", each.sequence), default=None)

    def submit(
        self,
        data: bytes,
        attestations: bytes,
        development_keys: Collection[str],
        *,
        by_uid: int,
        narrower_follows: bool = False,
        synthesized_runs: bool | None = False,
        generated_only: bool = False,
    ) -> PluginVersion:
        """Check a bundle in full, keep it, and register it.

        With `narrower_follows` a version that asks for nothing wider than the one approved before, on evidence that is
        no worse, is approved by that rule. With `synthesized_runs` (None: in a development daemon) so is generated code
        that asks for nothing, and it becomes active. With `generated_only` nothing else is taken: whoever hands it in
        may not do more.
        Raises InvalidBundleError with every problem, InvalidRequestError, ConflictError, NotAllowedError.
        """
        runs_at_once = self._development if synthesized_runs is None else synthesized_runs
        if generated_only and not runs_at_once:
            raise NotAllowedError("Submit: expected role operator, or a policy with synthesized.run_unapproved_tier2")
        keys = self._development_keys(development_keys)
        read = bundle.read(data)
        if generated_only and (why := self._objection_to_caller(read, by_uid, attested=bool(attestations or keys))):
            raise NotAllowedError(f"Submit: expected role operator, or generated code that may run at once: {why}")
        dsse.parse_lines(attestations)
        if keys:
            self._registry.trust_for_development(key.raw for key in keys)
            self._trust = self._trusted()
        found = self._weigh(read, attestations)
        is_new = not self._registry.has(read.digest)
        self._store.put(data)
        self._found_at = -1  # the same bytes again may have repaired the stored ones
        record = self._registry.submit(
            Submission(
                manifest=read.manifest,
                digest=read.digest,
                sequence=read.sequence,
                tier=found.tier,
                attestations=attestations,
                by_uid=by_uid,
                at_unix_ms=self._now_ms(),
            )
        )
        if runs_at_once:
            record = self._run_at_once(record, read)
        if is_new and read.manifest.origin == "synthesized" and record.state != "active":
            target = f"sha256:{record.digest}"
            self.quarantines.put(Hold("quarantined", target, STARTS_IN_QUARANTINE, POLICY_UID, self._now_ms()))
        return self._follow(record, by_uid) if narrower_follows else record

    def _objection_to_caller(self, read: Bundle, by_uid: int, *, attested: bool) -> str:
        """Why this is nothing that a caller may hand in without the role for it; empty: it may."""
        try:
            known = self._registry.get(read.manifest.name)
            decisions = self._decisions(known.plugin_id)
        except NotFoundError:
            known, decisions = None, []
        versions = known.versions if known else ()
        if any(each.digest == read.digest for each in versions):
            return ""  # it is here, and nothing comes of it
        found = staticcheck.look(read.files, read.executable)
        return synthesized.objection_to_caller(read.manifest, versions, decisions, by_uid, attested) or found.problem

    def _decisions(self, plugin: str) -> list[int]:
        """Who made each change to a plugin, but for handing in."""
        return [each.by_uid for each in self._registry.history(plugin) if each.action not in _HANDED_IN]

    def _run_at_once(self, record: PluginVersion, read: Bundle) -> PluginVersion:
        """Approved and active by the policy, which is recorded in the place of a person; or left as it is."""
        versions = self._registry.get(record.plugin_id).versions
        if synthesized.objection(record, versions, self._decisions(record.plugin_id)):
            return record
        found = staticcheck.look(read.files, read.executable)
        if found.problem:
            return record
        act = Act(POLICY_UID, self._now_ms(), synthesized.reason(found.imports))
        if record.approval is None:
            approval = approvals.as_declared(
                record.manifest, tier=2, by_uid=act.by_uid, at_unix_ms=act.at_unix_ms, reason=act.why
            )
            self._registry.approve(record.plugin_id, record.manifest.version, approval)
        return self._registry.activate(record.plugin_id, record.manifest.version, act)

    def _follow(self, record: PluginVersion, by_uid: int) -> PluginVersion:
        before = self._approved_before(record)
        if record.approval is not None or before is None or before.approval is None:
            return record
        if record.tier > before.tier or widening.widens(before, record):
            return record
        approval = approvals.as_declared(
            record.manifest,
            tier=max(record.tier, before.approval.tier),
            by_uid=by_uid,
            at_unix_ms=self._now_ms(),
            reason=f"by the rule settings.narrower_updates: nothing wider than {before.label}",
        )
        return self._registry.approve(record.plugin_id, record.manifest.version, approval)

    def approve(self, plugin: str, version: str, approval: Approval, *, approvers: int) -> PluginVersion:
        """Approve what is named. Raises NotFoundError, InvalidRequestError, ConflictError."""
        return self._registry.approve(plugin, version, approval, approvers=approvers)

    def reject(self, plugin: str, version: str, *, by_uid: int, why: str) -> PluginVersion:
        """Take its approval away. Raises NotFoundError, InvalidRequestError."""
        return self._registry.reject(plugin, version, self._act(by_uid, why))

    def activate(self, plugin: str, version: str, *, by_uid: int, why: str = "") -> PluginVersion:
        """Make it the active one. Raises NotFoundError, ConflictError."""
        return self._registry.activate(plugin, version, self._act(by_uid, why))

    def rollback(self, plugin: str, version: str, *, by_uid: int, why: str) -> PluginVersion:
        """Make an earlier one active again. Raises NotFoundError, InvalidRequestError, ConflictError."""
        return self._registry.rollback(plugin, version, self._act(by_uid, why))

    def _act(self, by_uid: int, why: str) -> Act:
        return Act(by_uid, self._now_ms(), why)

    # -- trust

    def _development_keys(self, pems: Collection[str]) -> list[PublicKey]:
        if pems and not self._development:
            raise InvalidRequestError(
                "development_public_keys: expected none, because this is no --dev daemon; sign with a key that its"
                " trust root names"
            )
        return [PublicKey.from_pem(pem.encode()) for pem in pems]

    def _trusted(self) -> Trust:
        if not self._development:
            return self._production_trust
        keys = tuple(TrustedKey(PublicKey(raw)) for raw in self._registry.development_keys())
        return Trust({role: RoleKeys(keys, 1) for role in evidence.ROLES})


def _bundle_reason(code: Code, record: PluginVersion, problem: str) -> Reason:
    return Reason(
        code,
        "gate.bundle",
        expected=f"{record.plugin_id} {record.label}: the bytes that were submitted, sha256 {record.digest}",
        actual=problem,
        remedy="submit the same bundle again: that repairs the store",
    )
