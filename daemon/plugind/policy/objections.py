"""What speaks against a run: one small function for each check. Pure.

An objection of a rule in mode "warn" or "dryrun" does not deny. What is missing (no approval, no rule) always does.
"""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from plugind.model import SENSITIVITIES, Approval, Code, Hold, HoldKind, PluginVersion, Reason
from plugind.policy import network
from plugind.policy.facts import RunFacts
from plugind.policy.rules import Mode, ceilings

DEFAULT_SENSITIVITY: Final = "internal"
STARTS_IN_QUARANTINE: Final = "generated code starts in quarantine"
"""The reason of a hold that nothing has led to: such code can be tried."""
_OF_HOLD: Final[dict[HoldKind, tuple[Code, str]]] = {
    "killed": (Code.KILLED, "plugindctl kill --lift {target} --reason TEXT"),
    "suspended": (Code.SUSPENDED, "plugindctl resume {target} --reason TEXT"),
    "quarantined": (
        Code.QUARANTINED,
        "plugindctl quarantine show {label}; then submit a mended version: plugindctl submit FILE",
    ),
    "revalidation_required": (
        Code.REVALIDATION_REQUIRED,
        "have {label} vetted again: plugindctl sign FILE --key KEY, then: plugindctl submit FILE",
    ),
}
"""Code and remedy of each kind of hold."""


@dataclass(frozen=True, slots=True)
class Objection:
    """A reason, and what comes of it."""

    reason: Reason
    mode: Mode = "enforce"


def _objection(code: Code, rule: str, expected: str, actual: str, remedy: str, mode: Mode = "enforce") -> Objection:
    return Objection(Reason(code, rule, expected, actual, remedy), mode)


def caller(facts: RunFacts) -> Iterator[Objection]:
    """It has the role caller."""
    if "caller" not in facts.roles:
        has = ", ".join(sorted(facts.roles)) or "no role"
        actual = f"uid {facts.caller.uid} with {has}"
        remedy = "use the run socket (--socket)"
        yield _objection(Code.CALLER_NOT_ALLOWED, "gate.caller", "the role caller", actual, remedy)


def plugin(facts: RunFacts) -> Iterator[Objection]:
    """There is such a version, or one that is active."""
    if facts.record is not None:
        return
    asked = f"{facts.plugin}@{facts.version}" if facts.version else facts.plugin
    if facts.other_versions is None:
        expected = "the name or id of a submitted plugin"
        yield _objection(Code.PLUGIN_NOT_FOUND, "gate.plugin", expected, asked, "plugindctl list")
    elif facts.version:
        expected = f"one of {', '.join(facts.other_versions)}"
        yield _objection(Code.PLUGIN_NOT_FOUND, "gate.version", expected, asked, f"plugindctl show {facts.plugin}")
    else:
        states = ", ".join(f"{version} is {state}" for version, state in facts.other_versions.items())
        yield _objection(
            Code.NOT_APPROVED, "gate.active", "an active version", states or "no version", _to_activate(facts)
        )


def _to_activate(facts: RunFacts) -> str:
    """What makes a version active, of a plugin that has none: of the newest that is furthest."""
    versions = list((facts.other_versions or {}).items())
    for states, command in ((("approved", "retired"), "activate"), (("submitted",), "approve")):
        newest = [version for version, state in versions if state in states][-1:]
        if newest:
            return f"plugindctl {command} {facts.plugin}@{newest[0]}"
    return "plugindctl submit FILE"


def bundle(facts: RunFacts) -> Iterator[Objection]:
    """Its bytes are those that were submitted."""
    yield from map(Objection, facts.bundle_reasons)


def state(facts: RunFacts) -> Iterator[Objection]:
    """It is active. What was revoked never runs again."""
    record = facts.record
    if record is None:
        return
    if record.state == "revoked":
        yield _objection(
            Code.BUNDLE_REVOKED,
            "gate.revoked",
            f"{record.label} not revoked",
            f"sha256 {record.digest} is revoked for good",
            "submit another version: plugindctl submit FILE",
        )
    elif record.approval is not None and record.state != "active":
        remedy = f"plugindctl activate {record.label}"
        yield _objection(Code.NOT_APPROVED, "gate.state", f"{record.label} active", f"it is {record.state}", remedy)


def approval(facts: RunFacts) -> Iterator[Objection]:
    """It is approved, and the approval has not lapsed."""
    record = facts.record
    if record is None:
        return
    remedy = f"plugindctl approve {record.label}"
    approved = record.approval
    if approved is None:
        actual = f"it is {record.state}"
        yield _objection(Code.NOT_APPROVED, "gate.approval", f"{record.label} approved", actual, remedy)
    elif 0 < approved.not_after_unix_ms <= facts.now_unix_ms:
        expected = f"an approval of {record.label} that holds at {_utc(facts.now_unix_ms)}"
        actual = f"it lapsed {_utc(approved.not_after_unix_ms)}"
        yield _objection(Code.APPROVAL_EXPIRED, "gate.approval_expiry", expected, actual, remedy)


def holds(facts: RunFacts) -> Iterator[Objection]:
    """Nothing holds it: one objection for each hold; a probation, and the monitor, let it run now."""
    label = facts.record.label if facts.record else facts.plugin
    trial = facts.trial and not _unfit_for_trial(facts)
    yield from map(Objection, _unfit_for_trial(facts) if facts.trial else ())
    for hold in facts.holds:
        if trial and hold.kind == "quarantined" and hold.reason == STARTS_IN_QUARANTINE:
            continue
        code, remedy = _OF_HOLD[hold.kind]
        yield _objection(
            code,
            f"hold.{hold.kind}",
            f"no hold on {hold.target}",
            _said(hold),
            remedy.format(target=shlex.quote(hold.target), label=label),
        )

    yield from _probation(facts, label)
    yield from map(Objection, facts.monitor_reasons)


def _probation(facts: RunFacts, label: str) -> Iterator[Objection]:
    probation = facts.probation
    if probation is None or "*" in probation.stages or facts.stage in probation.stages:
        return
    yield _objection(
        Code.STAGE_NOT_ALLOWED,
        "probation.stages",
        f"one of {', '.join(probation.stages)}: {label} is on probation, {probation.runs_left} good runs to go",
        facts.stage or "no stage",
        f"plugindctl run {label} --stage {probation.stages[0]}; or: plugindctl quarantine show {label}",
    )


def _unfit_for_trial(facts: RunFacts) -> tuple[Reason, ...]:
    """Why this can be no trial: it is nothing that an operator tries with made-up input, or it would reach out."""
    wrong = []
    if "operator" not in facts.roles:
        wrong.append(("the role operator", ", ".join(sorted(facts.roles)) or "no role"))
    if facts.of_plan:
        wrong.append(("no plan: a trial's output goes into none", "a plan"))
    kinds = _kinds(facts.record) if facts.record else []
    if "network" in kinds or "external_api" in kinds:
        wrong.append(("no network", ", ".join(kinds)))
    remedy = "plugindctl run PLUGIN@V --trial --input FILE, without --plan, --plan-dir"
    return tuple(Reason(Code.QUARANTINED, "quarantine.trial", *each, remedy) for each in wrong)


def _said(hold: Hold) -> str:
    return f"{hold.kind} by uid {hold.by_uid} at {_utc(hold.at_unix_ms)}: {hold.reason}"


def evidence(facts: RunFacts) -> Iterator[Objection]:
    """It still has the evidence for the tier that was approved; if not, why not."""
    record, approved = _approved(facts)
    if record is None or approved is None or approved.tier >= facts.evidence_tier:
        return
    yield _objection(
        Code.TIER_NOT_ALLOWED,
        "gate.tier",
        f"evidence for Tier {approved.tier}, as approved",
        f"evidence for Tier {facts.evidence_tier}",
        f"sign {record.label} anew, or: plugindctl approve {record.label} --tier {facts.evidence_tier}",
    )
    yield from map(Objection, facts.evidence_reasons)


def tier(facts: RunFacts) -> Iterator[Objection]:
    """Profile and policy have the tier that was approved, it is enabled, and may run what this is."""
    record, approved = _approved(facts)
    if record is None or approved is None:
        return
    number = approved.tier
    if number not in facts.profiles:
        offered = ", ".join(f"Tier {each}" for each in sorted(facts.profiles)) or "no tier"
        expected = f"a profile for Tier {number}"
        yield _objection(Code.TIER_NOT_ALLOWED, "tier.profile", expected, offered, "plugindctl doctor")
    rule = facts.policy.tiers.get(number)
    if rule is None:
        listed = ", ".join(f"[tier.{each}]" for each in sorted(facts.policy.tiers)) or "no tier at all"
        yield _objection(
            Code.TIER_NOT_ALLOWED, f"tier.{number}", f"[tier.{number}] in policy.toml", listed, _edit(f"tier.{number}")
        )
    elif not rule.enabled:
        yield _objection(
            Code.TIER_NOT_ALLOWED,
            f"tier.{number}.enabled",
            f"Tier {number} enabled",
            "it is disabled",
            _edit(f"tier.{number}"),
            rule.mode,
        )
    yield from _runtime(facts, record, number)


def _runtime(facts: RunFacts, record: PluginVersion, number: int) -> Iterator[Objection]:
    profile = facts.profiles.get(number)
    if profile is None or profile.exec_allowed or record.manifest.runtime != "exec":
        return
    to_sign = (
        "have it vetted for Tier 1: plugindctl sign FILE --key KEY, then: plugindctl submit FILE"
        " (its author, with a development daemon: plugindctl try DIR --tier 1)"
    )
    yield _objection(
        Code.TIER_NOT_ALLOWED,
        f"tier.{number}.runtime",
        f'runtime = "python" in Tier {number}, whose profile has exec_allowed = false',
        f'{record.label} has runtime = "exec"',
        f"{to_sign}; or set exec_allowed = true in tier{number}.toml and start the daemon again",
    )


def stage(facts: RunFacts) -> Iterator[Objection]:
    """Manifest and approval name the stage, and the policy lets the tier run in it."""
    record, approved = _approved(facts)
    if record is not None:
        yield from _stage_named(facts, record, approved)
    name, rule = facts.policy.stage(facts.stage)
    asked = facts.stage or "no stage"
    if rule is None:
        expected = f"[{_table(facts.stage or name)}] in policy.toml" + (' or [stage."*"]' if facts.stage else "")
        remedy = _edit(_table(facts.stage or name))
        yield _objection(Code.STAGE_NOT_ALLOWED, "stage", expected, asked, remedy)
    elif approved is not None and approved.tier not in rule.tiers:
        yield _objection(
            Code.TIER_NOT_ALLOWED,
            f"{_table(name)}.tiers",
            f"for {asked}: {_tiers(rule.tiers)}",
            f"Tier {approved.tier}",
            _edit(_table(name)),
            rule.mode,
        )


def _stage_named(facts: RunFacts, record: PluginVersion, approved: Approval | None) -> Iterator[Objection]:
    sources = [("manifest.stages", record.manifest.stages)]
    if approved is not None:
        sources.append(("gate.stages", approved.stages))
    for rule, stages in sources:
        if "*" in stages or (facts.stage and facts.stage in stages):
            continue
        expected = f"one of {', '.join(stages)}" if stages else "a stage that is approved"
        to_run = f"plugindctl run {record.label} --stage {stages[0]}" if stages else ""
        remedy = to_run or f"plugindctl approve {record.label}"
        yield _objection(Code.STAGE_NOT_ALLOWED, rule, expected, facts.stage or "no stage", remedy)
        return  # what the manifest does not name cannot be approved


def permissions(facts: RunFacts) -> Iterator[Objection]:
    """Each is approved as it stands, and its kind is allowed by the tier's profile and by the policy."""
    record, approved = _approved(facts)
    if record is None or approved is None:
        return
    for permission in record.manifest.permissions:
        if permission not in approved.permissions:
            name = f"{permission.kind} {permission.entry}"
            remedy = f"plugindctl approve {record.label}"
            code = Code.PERMISSION_NOT_APPROVED
            yield _objection(code, "gate.permissions", f"{name} approved", "not approved", remedy)
    for kind in _kinds(record):
        yield from _kind(facts, approved, kind)
    for wildcard in network.unlisted(record.manifest.permissions, facts.policy.networks):
        table = f'network."{wildcard}"'
        expected = f"[{table}] in policy.toml, with the names that it stands for"
        yield _objection(Code.PERMISSION_NOT_APPROVED, table, expected, "no such table", _edit(table))


def _kind(facts: RunFacts, approved: Approval, kind: str) -> Iterator[Objection]:
    number, code = approved.tier, Code.PERMISSION_NOT_APPROVED
    profile = facts.profiles.get(number)
    if profile and kind not in profile.permissions:
        expected = f"Tier {number} allows {_listed(profile.permissions)}"
        remedy = "submit a version that does without, or one with the evidence for a lower tier number"
        yield _objection(code, f"tier.{number}.permissions", expected, kind, f"{remedy}: plugindctl submit FILE")
    rule = facts.policy.tiers.get(number)
    if rule and kind not in rule.permissions:
        expected = f"the policy allows Tier {number} {_listed(rule.permissions)}"
        remedy = _edit(f"tier.{number}")
        yield _objection(code, f"policy.tier.{number}.permissions", expected, kind, remedy, rule.mode)
    name, of_stage = facts.policy.stage(facts.stage)
    if of_stage and kind not in of_stage.permissions:
        expected = f"for {facts.stage or 'no stage'}: {_listed(of_stage.permissions)}"
        rule_name = f"{_table(name)}.permissions"
        yield _objection(code, rule_name, expected, kind, _edit(_table(name)), of_stage.mode)


def limits(facts: RunFacts) -> Iterator[Objection]:
    """None is above the ceiling of the tier's profile, or of the policy where that is lower."""
    record, approved = _approved(facts)
    profile = facts.profiles.get(approved.tier) if approved else None
    if record is None or approved is None or profile is None:
        return
    rule = facts.policy.tiers.get(approved.tier)
    agreed, highest = dict(approved.limits.items()), dict(profile.ceilings.items())
    narrower = dict(ceilings(profile, rule).items())
    for name, declared in record.manifest.limits.items():
        value = min(declared, agreed[name] or declared)  # zero, the default, is never above a ceiling
        remedy = f"lower limits.{name} in plugin.toml, or: plugindctl approve {record.label} with a lower one"
        code = Code.LIMIT_ABOVE_CEILING
        if value > highest[name]:
            where = f"tier.{approved.tier}.{name}"
            yield _objection(code, where, f"at most {highest[name]}", str(value), remedy)
        elif rule and value > narrower[name]:
            where = f"policy.tier.{approved.tier}.limits.{name}"
            yield _objection(code, where, f"at most {narrower[name]}", str(value), remedy, rule.mode)


def sensitivity(facts: RunFacts) -> Iterator[Objection]:
    """The policy lets the tier, with these permissions, see plans of this sensitivity."""
    level = facts.sensitivity or DEFAULT_SENSITIVITY
    code = Code.SENSITIVITY_TOO_HIGH
    if level not in SENSITIVITIES:
        expected = f"one of {', '.join(SENSITIVITIES)}"
        yield _objection(code, "gate.sensitivity", expected, level, f"--sensitivity {DEFAULT_SENSITIVITY}")
        return
    name = f"sensitivity.{level}"
    rule = facts.policy.sensitivities.get(level)
    if rule is None:
        yield _objection(code, name, f"[{name}] in policy.toml", f"{level}, for which there is none", _edit(name))
        return
    record, approved = _approved(facts)
    if approved is not None and approved.tier not in rule.tiers:
        expected = f"for {level} plans: {_tiers(rule.tiers)}"
        actual = f"Tier {approved.tier}"
        remedy = f"use a plugin with the evidence for a lower tier number, or {_edit(name)}"
        yield _objection(code, f"{name}.tiers", expected, actual, remedy, rule.mode)
    for kind in _kinds(record) if record else ():
        if kind not in rule.permissions:
            expected = f"for {level} plans: {_listed(rule.permissions)}"
            yield _objection(code, f"{name}.permissions", expected, kind, _edit(name), rule.mode)


def _approved(facts: RunFacts) -> tuple[PluginVersion | None, Approval | None]:
    return facts.record, facts.record.approval if facts.record else None


def _kinds(record: PluginVersion) -> list[str]:
    return sorted({permission.kind for permission in record.manifest.permissions})


def _table(stage_name: str) -> str:
    return f'stage."{stage_name}"'


def _edit(table: str) -> str:
    return f"edit [{table}] in policy.toml, then: plugindctl policy check"


def _listed(kinds: Sequence[str]) -> str:
    return ", ".join(kinds) or "no permission"


def _tiers(tiers: Sequence[int]) -> str:
    return ", ".join(f"Tier {each}" for each in tiers) or "no tier"


def _utc(unix_ms: int) -> str:
    moment = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(milliseconds=unix_ms)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
