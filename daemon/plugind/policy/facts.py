"""What the policy is asked, and what it answers. Values only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from plugind.model import (
    Caller,
    Hold,
    Limits,
    Permission,
    PluginVersion,
    Probation,
    Profile,
    Reason,
    State,
    Tier,
    Wanted,
)
from plugind.policy.rules import Policy


@dataclass(frozen=True, slots=True)
class RunFacts:
    """One request to run a plugin, with everything that a decision may depend on."""

    caller: Caller
    roles: frozenset[str]
    """What the caller may do, by the socket it came from: "caller", "operator", …"""
    plugin: str
    """As asked: a name or an id."""
    version: str
    """As asked; empty: the active one."""
    stage: str
    """As asked; empty: none."""
    sensitivity: str
    """Of the plan; empty: internal."""
    timeout_ms: int
    """Wall limit that the caller wants; 0: none of its own."""
    profiles: Mapping[int, Profile]
    policy: Policy
    now_unix_ms: int
    """For what expires."""
    holds: tuple[Hold, ...]
    """All that are on this run: on its version, who signed that, its packages, plan, caller or tier, or everything."""
    record: PluginVersion | None = None
    """The version asked for, or else the active one. None: there is none."""
    other_versions: Mapping[str, State] | None = None
    """Versions of the plugin with their states, when there is no record. None: the plugin is unknown."""
    evidence_tier: Tier = 2
    """The tier that the evidence gives now."""
    evidence_reasons: tuple[Reason, ...] = ()
    """Why it is not Tier 1."""
    probation: Probation | None = None
    """What it is held to since it was released from quarantine."""
    of_plan: bool = False
    """Whether it names a plan."""
    trial: bool = False
    """Whether this is a trial of generated code that starts in quarantine: by an operator, with made-up input."""
    monitor_reasons: tuple[Reason, ...] = ()
    """Why the monitor lets nothing of it start at this moment."""
    bundle_reasons: tuple[Reason, ...] = ()
    """What is wrong with the stored bytes: DIGEST_MISMATCH, UNLISTED_FILE, …; each denies."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What an allowed run gets: no more than was declared, approved, asked for and possible in the tier."""

    tier: Tier
    limits: Limits
    permissions: tuple[Permission, ...]
    stage: str
    sensitivity: str

    @property
    def network(self) -> tuple[Wanted, ...]:
        """Whom it may talk to."""
        entries = (json.loads(each.entry) for each in self.permissions if each.kind == "network")
        return tuple(Wanted(each["host"], each["port"], each["protocol"]) for each in entries)

    def files(self, kind: Literal["file_read", "file_write"]) -> tuple[str, ...]:
        """The patterns of the plan's files that it may read, or write."""
        return tuple(json.loads(each.entry)["path"] for each in self.permissions if each.kind == kind)

    @property
    def of_one_run(self) -> bool:
        """Whether an instance of it has something that belongs to one run: then it is made for that one."""
        return any(each.kind in ("network", "file_read", "file_write") for each in self.permissions)


@dataclass(frozen=True, slots=True)
class Decision:
    """Allowed with a grant, or denied with every reason."""

    allowed: bool
    grant: Grant | None
    reasons: tuple[Reason, ...]
    warnings: tuple[Reason, ...] = ()
    """What rules in mode "warn" do not allow; told with the answer."""
    dry_run: tuple[Reason, ...] = ()
    """What rules in mode "dryrun" would deny; for the audit only."""


@dataclass(frozen=True, slots=True)
class Explained:
    """One check of a request. `reasons` are also what a rule in mode "warn" or "dryrun" found, while `ok` holds."""

    name: str
    ok: bool
    reasons: tuple[Reason, ...]
