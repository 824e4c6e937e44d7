"""May this run start? Every code that the policy gives, default deny in every direction, modes, and explanations."""

import dataclasses
import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugind.model import (
    PERMISSION_KINDS,
    SENSITIVITIES,
    TIERS,
    Approval,
    Caller,
    Code,
    Hold,
    Limits,
    Manifest,
    Permission,
    PluginVersion,
    Reason,
)
from plugind.policy.decide import CHECKS, decide, decide_safely, effective_limits, explain
from plugind.policy.facts import Decision, RunFacts
from plugind.policy.rules import MODES, Policy, SensitivityRule, StageRule, TierRule
from plugind.policyfile import load_policy, shipped_policy
from plugind.profiles import load_profiles, profiles_dir

PROFILES = load_profiles(profiles_dir())
SHIPPED = load_policy(shipped_policy(), PROFILES)
NOW = 1_800_000_000_000
READ, NET = Permission("file_read", '{"path": "a"}'), Permission("network", '{"host": "b"}')
OPEN = Policy(
    tiers={tier: TierRule(PERMISSION_KINDS) for tier in TIERS},
    stages={name: StageRule(TIERS, PERMISSION_KINDS) for name in ("durations", "report", "*")},
    sensitivities={level: SensitivityRule(TIERS, PERMISSION_KINDS) for level in SENSITIVITIES},
)


def record(
    *,
    tier=1,
    state="active",
    stages=("*",),
    permissions=(READ,),
    limits=Limits(),  # noqa: B008 - frozen
    approved=None,
    runtime="python",
    **approval,
):
    manifest = Manifest(
        *("costs", "1.0.0", "", "MIT", "authored", runtime, ">=3.11", "base", "json", "m:run"),
        stages=tuple(stages),
        deterministic=True,
        limits=limits,
        permissions=tuple(permissions),
        input_schema="",
        output_schema="",
    )
    given = {"tier": tier, "stages": tuple(stages), "permissions": tuple(permissions), "limits": limits}
    given |= {"by_uid": 7, "at_unix_ms": NOW - 9, "reason": "because"} | approval
    return PluginVersion(
        *("plug_1", "d" * 64, 1, state, tier, manifest, b""),
        Approval(**given) if approved is None else None,
        8,
        NOW - 10,
    )


def facts(**fields):
    base = {
        "caller": Caller(1000, 1000, 5),
        "roles": frozenset({"caller"}),
        "plugin": "costs",
        "version": "",
        "stage": "durations",
        "sensitivity": "",
        "timeout_ms": 0,
        "profiles": PROFILES,
        "policy": OPEN,
        "now_unix_ms": NOW,
        "holds": (),
        "record": record(),
        "evidence_tier": 1,
    }
    return RunFacts(**(base | fields))


def hold(kind, target="costs@1.0.0"):
    return Hold(kind, target, "it misbehaved", 42, NOW - 60_000)


def policy(**tables):
    return dataclasses.replace(OPEN, **tables)


def without(table, key):
    return dataclasses.replace(
        OPEN, **{table: {name: rule for name, rule in getattr(OPEN, table).items() if name != key}}
    )


def with_rule(table, key, **fields):
    rules = dict(getattr(OPEN, table))
    return dataclasses.replace(OPEN, **{table: rules | {key: dataclasses.replace(rules[key], **fields)}})


def found(decision):
    return [(str(reason.code), reason.rule) for reason in decision.reasons]


def test_what_nothing_speaks_against_is_granted_as_declared_approved_and_asked_for():
    limits = Limits(wall_ms=5000, pids=8)
    decision = decide(
        facts(record=record(limits=limits, permissions=(NET, READ)), timeout_ms=700, sensitivity="public")
    )
    assert (decision.allowed, decision.reasons, decision.warnings, decision.dry_run) == (True, (), (), ())
    grant = decision.grant
    assert (grant.tier, grant.stage, grant.sensitivity, grant.permissions) == (1, "durations", "public", (READ, NET))
    assert grant.limits == dataclasses.replace(PROFILES[1].default_limits, wall_ms=700, pids=8)


SUBMITTED = {"record": record(state="submitted", approved=False)}
DENIALS = [
    ({"roles": frozenset()}, "CALLER_NOT_ALLOWED", "gate.caller"),
    ({"roles": frozenset({"operator"})}, "CALLER_NOT_ALLOWED", "gate.caller"),
    ({"record": None}, "PLUGIN_NOT_FOUND", "gate.plugin"),
    ({"record": None, "version": "9.9.9", "other_versions": {"1.0.0": "active"}}, "PLUGIN_NOT_FOUND", "gate.version"),
    ({"record": None, "other_versions": {"1.0.0": "approved"}}, "NOT_APPROVED", "gate.active"),
    ({"record": None, "other_versions": {"1.0.0": "submitted"}}, "NOT_APPROVED", "gate.active"),
    ({"record": None, "other_versions": {"1.0.0": "revoked"}}, "NOT_APPROVED", "gate.active"),
    ({"bundle_reasons": (Reason(Code.DIGEST_MISMATCH, "gate.bundle", "a", "b", "plugindctl submit FILE"),)}, "DIGEST_MISMATCH", "gate.bundle"),
    ({"bundle_reasons": (Reason(Code.UNLISTED_FILE, "gate.bundle", "a", "b", "plugindctl submit FILE"),)}, "UNLISTED_FILE", "gate.bundle"),
    ({"record": record(state="revoked")}, "BUNDLE_REVOKED", "gate.revoked"),
    ({"record": record(state="approved")}, "NOT_APPROVED", "gate.state"),
    ({"record": record(state="retired")}, "NOT_APPROVED", "gate.state"),
    (SUBMITTED, "NOT_APPROVED", "gate.approval"),
    ({"record": record(not_after_unix_ms=NOW)}, "APPROVAL_EXPIRED", "gate.approval_expiry"),
    ({"holds": (hold("killed"),)}, "KILLED", "hold.killed"),
    ({"holds": (hold("quarantined"),)}, "QUARANTINED", "hold.quarantined"),
    ({"holds": (hold("suspended"),)}, "SUSPENDED", "hold.suspended"),
    ({"holds": (hold("revalidation_required"),)}, "REVALIDATION_REQUIRED", "hold.revalidation_required"),
    ({"evidence_tier": 2}, "TIER_NOT_ALLOWED", "gate.tier"),
    ({"profiles": {2: PROFILES[2]}}, "TIER_NOT_ALLOWED", "tier.profile"),
    ({"policy": without("tiers", 1)}, "TIER_NOT_ALLOWED", "tier.1"),
    ({"policy": with_rule("tiers", 1, enabled=False)}, "TIER_NOT_ALLOWED", "tier.1.enabled"),
    ({"record": record(tier=2, permissions=(), runtime="exec"), "evidence_tier": 2}, "TIER_NOT_ALLOWED", "tier.2.runtime"),
    ({"record": record(stages=["report"])}, "STAGE_NOT_ALLOWED", "manifest.stages"),
    ({"record": record(stages=["report"]), "stage": ""}, "STAGE_NOT_ALLOWED", "manifest.stages"),
    ({"record": dataclasses.replace(record(), approval=dataclasses.replace(record().approval, stages=()))}, "STAGE_NOT_ALLOWED", "gate.stages"),
    ({"policy": without("stages", "*"), "stage": "elsewhere"}, "STAGE_NOT_ALLOWED", "stage"),
    ({"policy": without("stages", "*"), "stage": ""}, "STAGE_NOT_ALLOWED", "stage"),
    ({"policy": with_rule("stages", "durations", tiers=(0,))}, "TIER_NOT_ALLOWED", 'stage."durations".tiers'),
    ({"policy": with_rule("stages", "*", tiers=(0,)), "stage": ""}, "TIER_NOT_ALLOWED", 'stage."*".tiers'),
    ({"policy": with_rule("stages", "durations", permissions=())}, "PERMISSION_NOT_APPROVED", 'stage."durations".permissions'),
    ({"policy": with_rule("tiers", 1, permissions=("network",))}, "PERMISSION_NOT_APPROVED", "policy.tier.1.permissions"),
    ({"record": record(tier=2, permissions=[NET]), "evidence_tier": 2}, "PERMISSION_NOT_APPROVED", "tier.2.permissions"),
    ({"record": dataclasses.replace(record(), approval=dataclasses.replace(record().approval, permissions=(NET,)))}, "PERMISSION_NOT_APPROVED", "gate.permissions"),
    ({"record": dataclasses.replace(record(), approval=dataclasses.replace(record().approval, permissions=(Permission("file_read", '{"path": "b"}'),)))}, "PERMISSION_NOT_APPROVED", "gate.permissions"),
    ({"record": record(limits=Limits(wall_ms=300_001))}, "LIMIT_ABOVE_CEILING", "tier.1.wall_ms"),
    ({"record": record(limits=Limits(pids=6)), "policy": with_rule("tiers", 1, limits=Limits(pids=5))}, "LIMIT_ABOVE_CEILING", "policy.tier.1.limits.pids"),
    ({"sensitivity": "secret"}, "SENSITIVITY_TOO_HIGH", "gate.sensitivity"),
    ({"policy": without("sensitivities", "restricted"), "sensitivity": "restricted"}, "SENSITIVITY_TOO_HIGH", "sensitivity.restricted"),
    ({"policy": without("sensitivities", "internal")}, "SENSITIVITY_TOO_HIGH", "sensitivity.internal"),
    ({"policy": with_rule("sensitivities", "internal", tiers=(0,))}, "SENSITIVITY_TOO_HIGH", "sensitivity.internal.tiers"),
    ({"policy": with_rule("sensitivities", "internal", permissions=("network",))}, "SENSITIVITY_TOO_HIGH", "sensitivity.internal.permissions"),
]  # fmt: skip
COMMANDS = {
    "approve",
    "activate",
    "resume",
    "kill --lift",
    "submit",
    "try",
    "sign",
    "show",
    "list",
    "policy check",
    "run",
    "doctor",
    "quarantine show",
}


@pytest.mark.parametrize("fields,code,rule", DENIALS, ids=[f"{code} {rule}" for _, code, rule in DENIALS])
def test_denial_has_its_one_reason_with_all_that_belongs_to_it(fields, code, rule):
    decision = decide(facts(**fields))
    assert (decision.allowed, decision.grant, found(decision)) == (False, None, [(code, rule)])
    (reason,) = decision.reasons
    assert reason.expected
    assert reason.actual
    assert reason.expected != reason.actual
    commands = [part.split("plugindctl ")[1] for part in [reason.remedy[at:] for at in starts(reason.remedy)]]
    assert all(any(command.startswith(known) for known in COMMANDS) for command in commands)
    assert commands or "policy.toml" in reason.remedy or "--s" in reason.remedy


def starts(text):
    return [at for at in range(len(text)) if text.startswith("plugindctl ", at)]


def test_every_code_that_the_policy_gives_is_in_the_table():
    elsewhere = {  # of the input, the daemon, the trust root; and those that come as evidence_reasons, below
        *("INPUT_INVALID INPUT_TOO_LARGE AUDIT_UNAVAILABLE ISOLATION_UNAVAILABLE BUSY POLICY_ERROR".split()),
        *("KEY_REVOKED SEQUENCE_ROLLBACK TRUST_STALE".split()),
        *("NOT_SIGNED BAD_SIGNATURE THRESHOLD_NOT_MET ATTESTATION_EXPIRED".split()),
    }
    assert {code for _, code, _ in DENIALS} == {str(code) for code in Code} - elsewhere


@pytest.mark.parametrize("code", ["NOT_SIGNED", "BAD_SIGNATURE", "THRESHOLD_NOT_MET", "ATTESTATION_EXPIRED"])
def test_evidence_below_what_was_approved_says_why(code):
    why = Reason(Code(code), "provenance.x", "a", "b")
    assert found(decide(facts(evidence_tier=2, evidence_reasons=(why,)))) == [
        ("TIER_NOT_ALLOWED", "gate.tier"),
        (code, "provenance.x"),
    ]
    below = facts(evidence_tier=2, evidence_reasons=(why,), record=record(tier=2))
    assert decide(below).allowed  # approved for Tier 2: nobody asks for more


@pytest.mark.parametrize(
    "kind,target,command",
    [
        ("killed", "all", "plugindctl kill --lift all --reason TEXT"),
        ("killed", "sha256:" + "d" * 64, "plugindctl kill --lift sha256:" + "d" * 64 + " --reason TEXT"),
        ("suspended", "costs@1.0.0", "plugindctl resume costs@1.0.0 --reason TEXT"),
        ("suspended", "costs", "plugindctl resume costs --reason TEXT"),
    ],
)
def test_hold_tells_who_when_why_and_what_lifts_it(kind, target, command):
    (reason,) = decide(facts(holds=(hold(kind, target),))).reasons
    assert reason.remedy == command
    assert reason.expected == f"no hold on {target}"
    assert reason.actual == f"{kind} by uid 42 at 2027-01-15T07:59:00Z: it misbehaved"


def test_each_hold_is_a_reason():
    kinds = ["killed", "suspended", "quarantined", "revalidation_required", "killed"]
    denied = decide(facts(holds=tuple(hold(kind) for kind in kinds)))
    assert [reason.rule for reason in denied.reasons] == [f"hold.{kind}" for kind in kinds]


@pytest.mark.parametrize("not_after,allowed", [(0, True), (1, False), (NOW - 1, False), (NOW, False), (NOW + 1, True)])
def test_approval_lapses_at_its_moment(not_after, allowed):
    assert decide(facts(record=record(not_after_unix_ms=not_after))).allowed is allowed


@pytest.mark.parametrize(
    "versions,command",
    [
        ({"1.0.0": "approved", "2.0.0": "submitted"}, "plugindctl activate costs@1.0.0"),
        ({"1.0.0": "retired", "2.0.0": "retired"}, "plugindctl activate costs@2.0.0"),
        ({"1.0.0": "submitted", "2.0.0": "revoked"}, "plugindctl approve costs@1.0.0"),
        ({"1.0.0": "revoked"}, "plugindctl submit FILE"),
    ],
)
def test_remedy_for_a_plugin_without_an_active_version(versions, command):
    (reason,) = decide(facts(record=None, other_versions=versions)).reasons
    assert reason.remedy == command
    assert shlex.split(command)[1] in COMMANDS


def test_all_reasons_are_told_in_the_order_of_the_checks():
    bad = record(
        state="revoked", permissions=[NET, READ], limits=Limits(wall_ms=10**9), stages=["report"], not_after_unix_ms=1
    )
    asked = facts(roles=frozenset(), record=bad, holds=(hold("killed"),), policy=Policy(), sensitivity="restricted")
    assert [code for code, _ in found(decide(asked))] == [
        *("CALLER_NOT_ALLOWED", "BUNDLE_REVOKED", "APPROVAL_EXPIRED", "KILLED", "TIER_NOT_ALLOWED"),
        *("STAGE_NOT_ALLOWED", "STAGE_NOT_ALLOWED", "LIMIT_ABOVE_CEILING", "SENSITIVITY_TOO_HIGH"),
    ]


def test_policy_lowers_what_a_plugin_gets_that_asks_for_nothing():
    low = with_rule("tiers", 1, limits=Limits(wall_ms=9, memory_bytes=10**18))
    granted = decide(facts(policy=low)).grant.limits
    assert granted == dataclasses.replace(PROFILES[1].default_limits, wall_ms=9)


@given(
    st.builds(Limits, **{name: st.integers(0, 10**6) for name, _ in Limits().items()}), st.integers(0, 10**4), st.data()
)
def test_granted_limits_are_never_above_any_ceiling(limits, timeout_ms, data):
    tier = data.draw(st.sampled_from(TIERS))
    narrowed = with_rule(
        "tiers", tier, limits=data.draw(st.builds(Limits, wall_ms=st.integers(0, 500), pids=st.integers(0, 64)))
    )
    decision = decide(
        facts(record=record(tier=tier, limits=limits), timeout_ms=timeout_ms, policy=narrowed, evidence_tier=tier)
    )
    if decision.allowed:
        for (name, value), (_, most) in zip(
            decision.grant.limits.items(), PROFILES[tier].ceilings.items(), strict=True
        ):
            policys = getattr(narrowed.tiers[tier].limits, name)
            asked = getattr(limits, name)
            assert 0 < value <= min(filter(None, (most, policys, asked, timeout_ms if name == "wall_ms" else 0)))
    else:
        assert {reason.code for reason in decision.reasons} == {Code.LIMIT_ABOVE_CEILING}


def test_effective_limits_without_a_policy_are_those_of_declaration_approval_and_profile():
    declared = record(limits=Limits(wall_ms=50, pids=9))
    approval = dataclasses.replace(declared.approval, limits=Limits(pids=5))
    assert effective_limits(declared, approval, PROFILES[1]) == dataclasses.replace(
        PROFILES[1].default_limits, wall_ms=50, pids=5
    )


# --- modes ------------------------------------------------------------------------------------------------------------

NARROW = [
    each
    for each in DENIALS
    if "policy" in each[0] and "." in each[2] and not each[2].endswith(("tier.1", "restricted", "sensitivity.internal"))
]


@pytest.mark.parametrize("fields,code,rule", NARROW, ids=[rule for *_, rule in NARROW])
@pytest.mark.parametrize("mode,where", [("warn", "warnings"), ("dryrun", "dry_run")])
def test_rule_that_is_not_enforced_is_reported_and_does_not_deny(fields, code, rule, mode, where):
    lax = {
        table: {name: dataclasses.replace(each, mode=mode) for name, each in getattr(fields["policy"], table).items()}
        for table in ("tiers", "stages", "sensitivities")
    }
    decision = decide(facts(**(fields | {"policy": policy(**lax)})))
    assert (decision.allowed, decision.reasons) == (True, ())
    told = {"warnings": decision.warnings, "dry_run": decision.dry_run}
    assert [(str(reason.code), reason.rule) for reason in told.pop(where)] == [(code, rule)]
    assert list(told.values()) == [()]


def test_warnings_come_with_a_denial_too():
    lax = with_rule("tiers", 1, enabled=False, mode="warn")
    denied = decide(facts(policy=lax, holds=(hold("killed"),)))
    assert [reason.rule for reason in denied.warnings] == ["tier.1.enabled"]
    assert found(denied) == [("KILLED", "hold.killed")]


@pytest.mark.parametrize("mode", ["warn", "dryrun"])
def test_ceilings_of_the_profile_hold_whatever_the_mode_of_the_policy(mode):
    lax = with_rule("tiers", 1, limits=Limits(wall_ms=10), mode=mode)
    assert found(decide(facts(policy=lax, record=record(limits=Limits(wall_ms=300_001))))) == [
        ("LIMIT_ABOVE_CEILING", "tier.1.wall_ms")
    ]
    assert decide(facts(policy=lax)).grant.limits.wall_ms == PROFILES[1].default_limits.wall_ms


# --- default deny -----------------------------------------------------------------------------------------------------

KINDS = st.lists(st.sampled_from(PERMISSION_KINDS), unique=True).map(tuple)
SOME_TIERS = st.lists(st.sampled_from(TIERS), unique=True).map(tuple)
ENFORCED = st.just("enforce")
STAGE_NAMES = ["durations", "report", "*"]


@st.composite
def policies(draw, modes=ENFORCED):
    def some(names, rule):
        return {
            name: draw(rule) for name in draw(st.lists(st.sampled_from(names), unique=True, min_size=len(names) - 1))
        }

    few = st.builds(Limits, wall_ms=st.sampled_from([0, 100, 1000]), pids=st.sampled_from([0, 4]))
    # Mostly wide: a policy that denies everything shows nothing.
    kinds, tiers = st.just(PERMISSION_KINDS) | KINDS, st.just(TIERS) | SOME_TIERS
    return Policy(
        tiers=some(TIERS, st.builds(TierRule, kinds, few, st.sampled_from([True, True, False]), modes)),
        stages=some(STAGE_NAMES, st.builds(StageRule, tiers, kinds, modes)),
        sensitivities=some(SENSITIVITIES, st.builds(SensitivityRule, tiers, kinds, modes)),
    )


@st.composite
def requests(draw, rules):
    tier = draw(st.sampled_from(TIERS))
    limits = draw(st.builds(Limits, wall_ms=st.sampled_from([0, 50, 500, 5000]), pids=st.sampled_from([0, 3, 9])))
    permissions = draw(st.lists(st.sampled_from([READ, NET]), unique=True, max_size=1))
    return facts(
        policy=draw(rules),
        stage=draw(st.sampled_from(["", "durations", "report", "other"])),
        sensitivity=draw(st.sampled_from(["", *SENSITIVITIES, "secret"])),
        record=record(tier=tier, limits=limits, permissions=permissions),
        evidence_tier=tier,
        holds=draw(st.sampled_from([(), (), (hold("suspended"),)])),
    )


def removed(rules):
    """The policy without each one of its tables, and that table's place."""
    for table in ("tiers", "stages", "sensitivities"):
        for key in getattr(rules, table):
            left = {name: rule for name, rule in getattr(rules, table).items() if name != key}
            yield table, key, dataclasses.replace(rules, **{table: left})


@pytest.mark.slow
@settings(max_examples=80)
@given(requests(policies()))
def test_removing_a_table_never_allows_more(asked):
    """A named stage without its table has the rule of "*", by definition: then it is no more than that."""
    before = decide(asked).allowed
    for table, key, less in removed(asked.policy):
        if table == "stages" and key == asked.stage and "*" in less.stages:
            star = dataclasses.replace(less, stages={key: less.stages["*"]})
            expected = decide(dataclasses.replace(asked, policy=star)).allowed
            assert decide(dataclasses.replace(asked, policy=less)).allowed is expected
        else:
            assert decide(dataclasses.replace(asked, policy=less)).allowed <= before


@pytest.mark.slow
@settings(max_examples=80)
@given(requests(policies()), st.data())
def test_taking_anything_out_of_a_rule_never_allows_more(asked, data):
    table = data.draw(st.sampled_from(["tiers", "stages", "sensitivities"]))
    rules = getattr(asked.policy, table)
    if not rules:
        return
    key = data.draw(st.sampled_from(sorted(rules)))
    rule = rules[key]
    fields = {"permissions": rule.permissions[1:]}
    fields |= {"enabled": False} if table == "tiers" else {"tiers": rule.tiers[1:]}
    name = data.draw(st.sampled_from(sorted(fields)))
    narrower = rules | {key: dataclasses.replace(rule, **{name: fields[name]})}
    less = dataclasses.replace(asked, policy=dataclasses.replace(asked.policy, **{table: narrower}))
    assert decide(less).allowed <= decide(asked).allowed


@settings(max_examples=60)
@given(requests(st.just(SHIPPED)))
def test_more_sensitive_plan_never_has_more_with_the_shipped_policy(asked):
    """policy.file refuses every policy whose levels are not nested like this."""
    allowed = [decide(dataclasses.replace(asked, sensitivity=level)).allowed for level in SENSITIVITIES]
    assert allowed == sorted(allowed, reverse=True)
    assert not decide(dataclasses.replace(asked, sensitivity="secret")).allowed


def test_empty_policy_allows_nothing():
    assert [code for code, _ in found(decide(facts(policy=Policy())))] == [
        "TIER_NOT_ALLOWED",
        "STAGE_NOT_ALLOWED",
        "SENSITIVITY_TOO_HIGH",
    ]


@pytest.mark.parametrize(
    "tier,permissions,stage,sensitivity,allowed",
    [
        (2, [READ], "durations", "", True),
        (2, [], "", "", True),
        (2, [READ], "durations", "public", True),
        (2, [READ], "durations", "confidential", False),
        (2, [READ], "screen_planning_prompt", "", False),
        (2, [NET], "find_team_members", "", False),
        (1, [NET], "find_team_members", "", True),
        (1, [NET], "find_team_members", "confidential", False),
        (1, [NET], "durations", "", False),
        (1, [READ], "report", "restricted", True),
        (0, [READ], "a_stage_of_next_year", "restricted", True),
    ],
)
def test_shipped_policy(tier, permissions, stage, sensitivity, allowed):
    asked = facts(
        policy=SHIPPED,
        stage=stage,
        sensitivity=sensitivity,
        record=record(tier=tier, permissions=permissions),
        evidence_tier=tier,
    )
    assert decide(asked).allowed is allowed


# --- explanations and faults --------------------------------------------------------------------------------------------


def agrees(asked):
    decision, explained = decide(asked), explain(asked)
    assert [each.name for each in explained] == [name for name, _ in CHECKS]
    assert all(each.ok for each in explained) is decision.allowed
    told = sorted(reason.rule for each in explained for reason in each.reasons)
    assert told == sorted(reason.rule for reason in (*decision.reasons, *decision.warnings, *decision.dry_run))
    assert {each.name for each in explained if not each.ok} <= {each.name for each in explained if each.reasons}


@pytest.mark.parametrize("fields", [fields for fields, *_ in DENIALS])
def test_explanation_agrees_with_each_denial(fields):
    agrees(facts(**fields))


@pytest.mark.slow
@settings(max_examples=60)
@given(requests(policies(st.sampled_from(MODES))))
def test_explanation_agrees_with_the_decision(asked):
    agrees(asked)


def test_error_of_the_evaluator_denies():
    broken = facts(profiles=None)  # what a profile is looked up in
    denied = decide_safely(broken)
    assert (denied.allowed, denied.grant, [reason.code for reason in denied.reasons]) == (
        False,
        None,
        [Code.POLICY_ERROR],
    )
    assert "TypeError" in denied.reasons[0].actual
    failed = {each.name: each.reasons[0].code for each in explain(broken) if not each.ok}
    assert set(failed.values()) == {Code.POLICY_ERROR}
    assert "tier" in failed


def test_error_of_any_evaluator_denies_and_a_decision_is_passed_on():
    def breaks(_):
        raise RecursionError("too deep")

    assert decide_safely(facts(), breaks).reasons[0].actual == "RecursionError: too deep"
    assert decide_safely(facts()) == decide(facts())
    assert isinstance(decide_safely(facts()), Decision)


def test_programs_run_in_a_tier_whose_profile_lets_them():
    asked = facts(record=record(tier=2, permissions=(), runtime="exec"), evidence_tier=2)
    denied = decide(asked)
    (reason,) = denied.reasons
    assert (reason.expected, reason.actual) == (
        'runtime = "python" in Tier 2, whose profile has exec_allowed = false',
        'costs@1.0.0 has runtime = "exec"',
    )
    assert "set exec_allowed = true in tier2.toml" in reason.remedy
    assert [each.name for each in explain(asked) if not each.ok] == ["tier"]
    let = {2: dataclasses.replace(PROFILES[2], exec_allowed=True)}
    assert decide(dataclasses.replace(asked, profiles=let)).allowed
    assert decide(facts(record=record(runtime="exec"))).allowed, "Tier 1, as shipped"


WILD = Permission("network", '{"host": "*.example.org", "port": 443, "protocol": "tcp"}')


def test_a_wildcard_without_names_in_the_policy_denies_whatever_the_modes_are():
    decision = decide(facts(record=record(permissions=(WILD, READ)), sensitivity="public"))
    assert found(decision) == [("PERMISSION_NOT_APPROVED", 'network."*.example.org"')]
    assert decision.reasons[0].remedy == 'edit [network."*.example.org"] in policy.toml, then: plugindctl policy check'
    for mode in MODES:
        lenient = with_rule("tiers", 1, mode=mode)
        assert not decide(facts(record=record(permissions=(WILD,)), policy=lenient)).allowed


def test_a_wildcard_is_granted_as_the_names_that_the_policy_lists():
    names = policy(networks={"*.example.org": ("b.example.org", "a.example.org")})
    grant = decide(facts(record=record(permissions=(WILD, READ)), policy=names)).grant
    assert [wanted.host for wanted in grant.network] == ["a.example.org", "b.example.org"]
    assert {permission.kind for permission in grant.permissions} == {"network", "file_read"}
    unapproved = record(permissions=(WILD,))
    unapproved = dataclasses.replace(unapproved, approval=dataclasses.replace(unapproved.approval, permissions=()))
    assert found(decide(facts(record=unapproved, policy=names))) == [("PERMISSION_NOT_APPROVED", "gate.permissions")]
