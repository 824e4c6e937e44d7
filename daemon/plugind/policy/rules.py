"""The policy as values: what tiers, stages and sensitivities allow at most, and how approvals work.

A rule only ever takes away: what may run is what the tier's rule and the stage's rule and the sensitivity's rule allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from plugind.model import Limits, Profile, Tier

Mode = Literal["enforce", "warn", "dryrun"]
"""What comes of what a rule does not allow: a denial; a warning with the answer; only a line in the audit."""
MODES: Final[tuple[Mode, ...]] = ("enforce", "warn", "dryrun")
NarrowerUpdates = Literal["approve", "automatic"]
NARROWER_UPDATES: Final[tuple[NarrowerUpdates, ...]] = ("approve", "automatic")
ANY_STAGE: Final = "*"


@dataclass(frozen=True, slots=True)
class TierRule:
    """`[tier.N]`: kinds of permission that may be approved and used, and limits below the profile's (0: as there)."""

    permissions: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    enabled: bool = True
    mode: Mode = "enforce"


@dataclass(frozen=True, slots=True)
class StageRule:
    """`[stage."NAME"]`: who may run in a stage, and with which kinds of permission."""

    tiers: tuple[Tier, ...] = ()
    permissions: tuple[str, ...] = ()
    mode: Mode = "enforce"


@dataclass(frozen=True, slots=True)
class SensitivityRule:
    """`[sensitivity.LEVEL]`: who may see plans of a level, and with which kinds of permission."""

    tiers: tuple[Tier, ...] = ()
    permissions: tuple[str, ...] = ()
    mode: Mode = "enforce"


Rule: TypeAlias = TierRule | StageRule | SensitivityRule


@dataclass(frozen=True, slots=True)
class Settings:
    """`[settings]`: how approvals work. What is not said is the strictest."""

    approvers: int = 2
    """Distinct people who have to approve."""
    approver_may_be_submitter: bool = False
    narrower_updates: NarrowerUpdates = "approve"
    """Whether a version that asks for nothing wider than what was approved may follow without a new approval."""


@dataclass(frozen=True, slots=True)
class Synthesized:
    """`[synthesized]`: what generated code may do that nobody has looked at."""

    run_unapproved_tier2: bool | None = None
    """Whether code that asks for no permission is approved for Tier 2 by this rule. None, not said: in a development
    daemon only."""


@dataclass(frozen=True, slots=True)
class QuarantineRule:
    """`[quarantine]`: how what was put there comes out of it."""

    approvers: int = 2
    """Distinct people who have to say that it is safe again."""
    probation_runs: int = 50
    """Runs that have to go well before it is as it was before; 0: there is no probation."""


@dataclass(frozen=True, slots=True)
class Policy:
    """policy.toml, checked. An empty one allows nothing."""

    tiers: Mapping[int, TierRule] = field(default_factory=dict)
    stages: Mapping[str, StageRule] = field(default_factory=dict)
    sensitivities: Mapping[str, SensitivityRule] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    synthesized: Synthesized = field(default_factory=Synthesized)
    quarantine: QuarantineRule = field(default_factory=QuarantineRule)
    networks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """`[network."*.example.org"]`: the names that a wildcard stands for, and no others."""
    plan_roots: tuple[str, ...] = ()
    """`[plans] roots`: the folders below which plans lie whose files plugins may be given. None: there are none."""
    digest: str = ""
    """sha256 of the text, hex."""

    def stage(self, name: str) -> tuple[str, StageRule | None]:
        """The rule for a stage and the name it stands under; `*` is for stages that have none, and for no stage."""
        known = name if name in self.stages else ANY_STAGE
        return known, self.stages.get(known)


def ceilings(profile: Profile, rule: TierRule | None) -> Limits:
    """The narrower of profile and policy, whatever the rule's mode."""
    narrower = dict(rule.limits.items()) if rule else {}
    return Limits(**{name: min(value, narrower.get(name) or value) for name, value in profile.ceilings.items()})
