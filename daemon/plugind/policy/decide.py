"""May this run start? Every check looks for itself and all that object are heard. Pure: no I/O, no clock, no logging.

Default deny: without a plugin, a version, an approval or a profile there is nothing that could be granted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from plugind.model import SENSITIVITIES, Approval, Code, Limits, PluginVersion, Profile, Reason, Tier
from plugind.policy.facts import Decision, Grant, RunFacts

DEFAULT_SENSITIVITY: Final = "internal"
HIGHEST_SENSITIVITY: Final[dict[Tier, str]] = {0: "restricted", 1: "restricted", 2: "internal"}
"""The most sensitive plan that a plugin of a tier may see, until `[sensitivity.LEVEL]` of the policy file says more."""

_Checks = tuple[Callable[[RunFacts], Iterator[Reason]], ...]


def decide(facts: RunFacts) -> Decision:
    """Allow with a grant, or deny with all reasons, in the order of the checks.

    1. caller; 2. plugin and version; 3. bundle; 4. state and approval; 5. tier; 6. stage; 7. permissions; 8. limits;
    9. sensitivity.
    """
    reasons = tuple(reason for check in CHECKS for reason in check(facts))
    if reasons:
        return Decision(allowed=False, grant=None, reasons=reasons)
    record = facts.record
    if record is None or record.approval is None:
        raise ValueError("a run without a record or an approval passed every check")
    approval = record.approval
    grant = Grant(
        tier=approval.tier,
        limits=effective_limits(record, approval, facts.profiles[approval.tier], facts.timeout_ms),
        permissions=tuple(sorted(record.manifest.permissions)),
        stage=facts.stage,
        sensitivity=facts.sensitivity or DEFAULT_SENSITIVITY,
    )
    return Decision(allowed=True, grant=grant, reasons=())


def decide_safely(facts: RunFacts, evaluate: Callable[[RunFacts], Decision] = decide) -> Decision:
    """The same, where an error of the evaluator is a denial with POLICY_ERROR."""
    try:
        return evaluate(facts)
    except Exception as error:  # noqa: BLE001 - whatever it is, nothing may run on it
        reason = Reason(
            Code.POLICY_ERROR,
            "policy.evaluate",
            "a decision",
            f"{type(error).__name__}: {error}",
            "plugindctl audit list, and report it: this is a fault of plugind",
        )
        return Decision(allowed=False, grant=None, reasons=(reason,))


def effective_limits(record: PluginVersion, approval: Approval, profile: Profile, timeout_ms: int = 0) -> Limits:
    """The smallest of what was declared (or the profile's default), approved, and wanted by the caller."""
    values = {}
    defaults, approved = dict(profile.default_limits.items()), dict(approval.limits.items())
    for name, declared in record.manifest.limits.items():
        wanted = [declared or defaults[name], approved[name], timeout_ms if name == "wall_ms" else 0]
        values[name] = min(value for value in wanted if value)
    return Limits(**values)


def _caller(facts: RunFacts) -> Iterator[Reason]:
    if "caller" not in facts.roles:
        has = ", ".join(sorted(facts.roles)) or "no role"
        yield Reason(
            Code.CALLER_NOT_ALLOWED,
            "gate.caller",
            "the role caller",
            f"uid {facts.caller.uid} with {has}",
            "use the run socket (--socket)",
        )


def _found(facts: RunFacts) -> Iterator[Reason]:
    if facts.record is not None:
        return
    asked = f"{facts.plugin}@{facts.version}" if facts.version else facts.plugin
    if facts.other_versions is None:
        yield Reason(
            Code.PLUGIN_NOT_FOUND, "gate.plugin", "the name or id of a submitted plugin", asked, "plugindctl list"
        )
    elif facts.version:
        known = ", ".join(facts.other_versions)
        yield Reason(Code.PLUGIN_NOT_FOUND, "gate.version", f"one of {known}", asked, f"plugindctl show {facts.plugin}")
    else:
        states = ", ".join(f"{version} is {state}" for version, state in facts.other_versions.items())
        approved = [version for version, state in facts.other_versions.items() if state in ("approved", "retired")]
        remedy = f"plugindctl activate {facts.plugin}@{approved[-1]}" if approved else _approve(facts.plugin, facts)
        yield Reason(Code.NOT_APPROVED, "gate.active", "an active version", states or "no version", remedy)


def _approve(plugin: str, facts: RunFacts) -> str:
    newest = list(facts.other_versions or ())[-1:]
    return f"plugindctl approve {'@'.join([plugin, *newest])}"


def _bundle(facts: RunFacts) -> Iterator[Reason]:
    yield from facts.bundle_reasons


def _approved(facts: RunFacts) -> Iterator[Reason]:
    record = facts.record
    if record is None:
        return
    if record.approval is None:
        remedy = f"plugindctl approve {record.label}"
        yield Reason(Code.NOT_APPROVED, "gate.approval", f"{record.label} approved", f"it is {record.state}", remedy)
    elif record.state != "active":
        remedy = f"plugindctl activate {record.label}"
        yield Reason(Code.NOT_APPROVED, "gate.state", f"{record.label} active", f"it is {record.state}", remedy)


def _tier(facts: RunFacts) -> Iterator[Reason]:
    record, approval = facts.record, _approval(facts)
    if record is None or approval is None:
        return
    if approval.tier < facts.evidence_tier:
        yield Reason(
            Code.TIER_NOT_ALLOWED,
            "gate.tier",
            f"evidence for Tier {approval.tier}, as approved",
            f"evidence for Tier {facts.evidence_tier}",
            f"sign {record.label} anew, or: plugindctl approve {record.label} --tier {facts.evidence_tier}",
        )
        yield from facts.evidence_reasons
    if approval.tier not in facts.profiles:
        offered = ", ".join(f"Tier {tier}" for tier in sorted(facts.profiles)) or "no tier"
        yield Reason(
            Code.TIER_NOT_ALLOWED, "tier.profile", f"a profile for Tier {approval.tier}", offered, "plugindctl doctor"
        )


def _stage(facts: RunFacts) -> Iterator[Reason]:
    record, approval = facts.record, _approval(facts)
    if record is None:
        return
    for rule, stages in (
        ("manifest.stages", record.manifest.stages),
        ("gate.stages", approval.stages if approval else ("*",)),
    ):
        if "*" in stages or (facts.stage and facts.stage in stages):
            continue
        listed = f"one of {', '.join(stages)}" if stages else "no stage is approved"
        remedy = (
            f"plugindctl run {record.label} --stage {stages[0]}" if stages else f"plugindctl approve {record.label}"
        )
        yield Reason(Code.STAGE_NOT_ALLOWED, rule, listed, facts.stage or "no stage", remedy)
        return


def _permissions(facts: RunFacts) -> Iterator[Reason]:
    record, approval = facts.record, _approval(facts)
    if record is None or approval is None:
        return
    profile = facts.profiles.get(approval.tier)
    for permission in record.manifest.permissions:
        name = f"{permission.kind} {permission.entry}"
        if permission not in approval.permissions:
            remedy = f"plugindctl approve {record.label}"
            yield Reason(Code.PERMISSION_NOT_APPROVED, "gate.permissions", f"{name} approved", "not approved", remedy)
        if profile and permission.kind not in profile.permissions:
            allowed = ", ".join(profile.permissions) or "no permission"
            yield Reason(
                Code.PERMISSION_NOT_APPROVED,
                f"tier.{approval.tier}.permissions",
                f"Tier {approval.tier} allows {allowed}",
                name,
                "submit a version that does without, or one with the evidence for a lower tier number",
            )


def _limits(facts: RunFacts) -> Iterator[Reason]:
    record, approval = facts.record, _approval(facts)
    profile = facts.profiles.get(approval.tier) if approval else None
    if record is None or approval is None or profile is None:
        return
    ceilings = dict(profile.ceilings.items())
    for name, value in effective_limits(record, approval, profile).items():
        if value > ceilings[name]:
            remedy = f"lower limits.{name} in plugin.toml, or approve {record.label} with a lower one"
            rule = f"tier.{approval.tier}.{name}"
            yield Reason(Code.LIMIT_ABOVE_CEILING, rule, f"at most {ceilings[name]}", str(value), remedy)


def _sensitivity(facts: RunFacts) -> Iterator[Reason]:
    asked, approval = facts.sensitivity or DEFAULT_SENSITIVITY, _approval(facts)
    if asked not in SENSITIVITIES:
        words = f"one of {', '.join(SENSITIVITIES)}"
        yield Reason(
            Code.SENSITIVITY_TOO_HIGH, "gate.sensitivity", words, asked, f"--sensitivity {DEFAULT_SENSITIVITY}"
        )
    elif approval and SENSITIVITIES.index(asked) > SENSITIVITIES.index(HIGHEST_SENSITIVITY[approval.tier]):
        highest = HIGHEST_SENSITIVITY[approval.tier]
        remedy = "use a plugin with the evidence for Tier 1"
        yield Reason(
            Code.SENSITIVITY_TOO_HIGH, f"tier.{approval.tier}.sensitivity", f"at most {highest}", asked, remedy
        )


def _approval(facts: RunFacts) -> Approval | None:
    return facts.record.approval if facts.record else None


CHECKS: Final[_Checks] = (
    _caller,
    _found,
    _bundle,
    _approved,
    _tier,
    _stage,
    _permissions,
    _limits,
    _sensitivity,
)
