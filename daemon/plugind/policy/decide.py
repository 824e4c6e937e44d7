"""May this run start? Every check looks for itself and all that object are heard. Pure: no I/O, no clock, no logging.

Default deny: without a plugin, a version, an approval, a profile, or a rule of the policy for its tier, its stage and
its sensitivity there is nothing that could be granted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from plugind.model import Approval, Code, Limits, PluginVersion, Profile, Reason
from plugind.policy import network, objections
from plugind.policy.facts import Decision, Explained, Grant, RunFacts
from plugind.policy.objections import DEFAULT_SENSITIVITY, Objection
from plugind.policy.rules import ceilings

CHECKS: Final[tuple[tuple[str, Callable[[RunFacts], Iterator[Objection]]], ...]] = (
    ("caller", objections.caller),  # 1. it has the role caller
    ("plugin", objections.plugin),  # 2. there is such a version
    ("bundle", objections.bundle),  # 3. its bytes are those that were submitted
    ("state", objections.state),  # 4. it is active and not revoked
    ("approval", objections.approval),  # 5. it is approved, and the approval has not lapsed
    ("holds", objections.holds),  # 6. nothing holds it
    ("evidence", objections.evidence),  # 7. it still has the evidence for the tier that was approved
    ("tier", objections.tier),  # 8. profile and policy have that tier, it is enabled, and may run what this is
    ("stage", objections.stage),  # 9. manifest, approval and policy allow the stage
    ("permissions", objections.permissions),  # 10. approved, and allowed by profile, tier and stage
    ("limits", objections.limits),  # 11. within the ceilings of profile and policy
    ("sensitivity", objections.sensitivity),  # 12. tier and permissions are allowed for such plans
)
"""The checks in their order. None depends on what another one finds."""


def decide(facts: RunFacts) -> Decision:
    """Allow with a grant, or deny with all reasons, in the order of CHECKS."""
    found = [objection for _, check in CHECKS for objection in check(facts)]
    reasons, warnings, dry_run = (_of_mode(found, mode) for mode in ("enforce", "warn", "dryrun"))
    if reasons:
        return Decision(allowed=False, grant=None, reasons=reasons, warnings=warnings, dry_run=dry_run)
    return Decision(allowed=True, grant=_grant(facts), reasons=(), warnings=warnings, dry_run=dry_run)


def decide_safely(facts: RunFacts, evaluate: Callable[[RunFacts], Decision] = decide) -> Decision:
    """The same, where an error of the evaluator is a denial with POLICY_ERROR."""
    try:
        return evaluate(facts)
    except Exception as error:  # noqa: BLE001 - whatever it is, nothing may run on it
        return Decision(allowed=False, grant=None, reasons=(_fault("policy.evaluate", error),))


def explain(facts: RunFacts) -> tuple[Explained, ...]:
    """Every check for one request, those that hold too. All are ok exactly when the request would be allowed."""
    return tuple(_explained(name, check, facts) for name, check in CHECKS)


def effective_limits(
    record: PluginVersion,
    approval: Approval,
    profile: Profile,
    timeout_ms: int = 0,
    at_most: Limits | None = None,
) -> Limits:
    """The smallest of what was declared, approved, and wanted by the caller.

    What declares nothing gets the profile's default, or the policy's ceiling `at_most` where that is lower.
    """
    most = dict((at_most or profile.ceilings).items())
    defaults, approved = dict(profile.default_limits.items()), dict(approval.limits.items())
    values = {}
    for name, declared in record.manifest.limits.items():
        wanted = [
            declared or min(defaults[name], most[name]),
            approved[name],
            timeout_ms if name == "wall_ms" else 0,
        ]
        values[name] = min(value for value in wanted if value)
    return Limits(**values)


def _grant(facts: RunFacts) -> Grant:
    record = facts.record
    if record is None or record.approval is None:
        raise ValueError("a run without a record or an approval passed every check")
    approval = record.approval
    profile, rule = facts.profiles[approval.tier], facts.policy.tiers.get(approval.tier)
    enforced = rule if rule and rule.mode == "enforce" else None
    return Grant(
        tier=approval.tier,
        limits=effective_limits(record, approval, profile, facts.timeout_ms, ceilings(profile, enforced)),
        permissions=tuple(sorted(network.listed(record.manifest.permissions, facts.policy.networks))),
        stage=facts.stage,
        sensitivity=facts.sensitivity or DEFAULT_SENSITIVITY,
    )


def _explained(name: str, check: Callable[[RunFacts], Iterator[Objection]], facts: RunFacts) -> Explained:
    try:
        found = list(check(facts))
    except Exception as error:  # noqa: BLE001 - as in decide_safely
        return Explained(name, ok=False, reasons=(_fault(f"policy.{name}", error),))
    ok = not _of_mode(found, "enforce")
    return Explained(name, ok, tuple(objection.reason for objection in found))


def _of_mode(found: list[Objection], mode: str) -> tuple[Reason, ...]:
    return tuple(objection.reason for objection in found if objection.mode == mode)


def _fault(rule: str, error: Exception) -> Reason:
    return Reason(
        Code.POLICY_ERROR,
        rule,
        "a decision",
        f"{type(error).__name__}: {error}",
        "plugindctl policy check; if that finds nothing, report it: this is a fault of plugind",
    )
