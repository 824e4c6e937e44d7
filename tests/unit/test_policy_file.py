"""policy.toml: what is read from it, and every mistake with its line and column."""

import dataclasses
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugind.errors import ConfigError
from plugind.model import PERMISSION_KINDS, SENSITIVITIES, TIERS, Limits
from plugind.policy.file import InvalidPolicyError, parse
from plugind.policy.rules import Policy, SensitivityRule, Settings, StageRule, Synthesized, TierRule, ceilings
from plugind.policyfile import MAX_BYTES, load_policy, shipped_policy
from plugind.profiles import load_profiles, profiles_dir

PROFILES = load_profiles(profiles_dir())
STAGES = """
    setup screen_planning_prompt extract_constraints premise_attack potential_levers select_scenario physical_locations
    currency_strategy identify_risks make_assumptions project_plan governance_phase1_audit governance_phase2_bodies
    governance_phase3_impl_plan governance_phase4_decision_escalation_matrix governance_phase5_monitoring_progress
    governance_phase6_extra find_team_members expert_review wbs_level1 wbs_level2 wbs_level3 dependencies durations
    create_schedule executive_summary premortem self_audit report *
""".split()

FULL = """schema = 1
[tier.1]
permissions = ["file_read", "network"]
mode = "warn"
[tier.1.limits]
wall_ms = 1000
pids = 4
[tier.2]
permissions = []
enabled = false
[stage."durations"]
tiers = [0, 1]
permissions = ["file_read"]
mode = "dryrun"
[stage."*"]
tiers = []
permissions = []
[sensitivity.internal]
tiers = [1, 2]
permissions = ["network", "file_read"]
[sensitivity.restricted]
tiers = [1]
permissions = ["file_read"]
[settings]
approvers = 1
approver_may_be_submitter = true
narrower_updates = "automatic"
[synthesized]
run_unapproved_tier2 = true
[network."*.example.org"]
hosts = ["a.example.org", "b.c.example.org"]
[plans]
roots = ["/srv/plans", "/home/a/plans"]
"""


def problems(text, profiles=None):
    with pytest.raises(InvalidPolicyError) as raised:
        parse(text, "p.toml", profiles)
    assert isinstance(raised.value, ConfigError)
    assert str(raised.value) == "\n".join(raised.value.problems)
    return list(raised.value.problems)


def test_everything_is_read():
    assert parse(FULL, "p.toml", PROFILES) == Policy(
        tiers={
            1: TierRule(("file_read", "network"), Limits(wall_ms=1000, pids=4), mode="warn"),
            2: TierRule((), enabled=False),
        },
        stages={"durations": StageRule((0, 1), ("file_read",), "dryrun"), "*": StageRule()},
        sensitivities={
            "internal": SensitivityRule((1, 2), ("network", "file_read")),
            "restricted": SensitivityRule((1,), ("file_read",)),
        },
        settings=Settings(1, True, "automatic"),
        synthesized=Synthesized(run_unapproved_tier2=True),
        networks={"*.example.org": ("a.example.org", "b.c.example.org")},
        plan_roots=("/srv/plans", "/home/a/plans"),
        digest=hashlib.sha256(FULL.encode()).hexdigest(),
    )


def test_what_is_not_said_is_the_strictest():
    policy = parse("schema = 1", "p.toml")
    assert (policy.tiers, policy.stages, policy.sensitivities) == ({}, {}, {})
    assert policy.settings == Settings(2, False, "approve")
    assert policy.synthesized.run_unapproved_tier2 is None  # only a development daemon takes that for true


def test_line_ends_of_another_system_are_understood():
    assert problems("schema = 1\r\n\r\n[tier.1]\r\npermissions = [\r\n  'x']\r\n")[0].startswith("p.toml:5:3: ")


@pytest.mark.parametrize(
    "text,said",
    [
        ("", "p.toml:1:1: schema: expected a value, got nothing"),
        ("schema = 2", "p.toml:1:10: schema: expected 1, got 2"),
        ("schema = true", "p.toml:1:10: schema: expected 1, got True"),
        ("schema = 1\ntiers = 1", "p.toml:2:1: tiers: expected one of schema, tier, stage, sensitivity, network, plans, settings, synthesized, quarantine, got an unknown key; did you mean tier?"),
        ("schema = 1\ntier = 3", "p.toml:2:8: tier: expected a table, got 3"),
        ("schema = 1\n[tier]\n3 = {}", "p.toml:3:1: tier.3: expected one of 0, 1, 2, got an unknown key"),
        ("schema = 1\n[tier.01]\npermissions = []", "p.toml:2:7: tier.01: expected one of 0, 1, 2, got an unknown key; did you mean 1?"),
        ("schema = 1\n[tier]\n1 = 5", "p.toml:3:5: tier.1: expected a table, got 5"),
        ("schema = 1\n[tier.1]\npermissions = []\nlimits = 1", "p.toml:4:10: tier.1.limits: expected a table, got 1"),
        ("schema = 1\n[tier.1]", "p.toml:2:7: tier.1.permissions: expected a value, got nothing"),
        ("schema = 1\n[tier.1]\npermissions = ['file_raed']", f"p.toml:3:16: tier.1.permissions: expected some of {', '.join(PERMISSION_KINDS)}, got 'file_raed'; did you mean file_read?"),
        ("schema = 1\n[tier.1]\npermissions = [\n 'network',\n 'network']", "p.toml:5:2: tier.1.permissions: expected each once, got 'network' again"),
        ("schema = 1\n[tier.1]\npermissions = 'network'", f"p.toml:3:15: tier.1.permissions: expected a list of some of {', '.join(PERMISSION_KINDS)}, got 'network'"),
        ("schema = 1\n[tier.1]\npermissions = []\nenabled = 1", "p.toml:4:11: tier.1.enabled: expected true or false, got 1"),
        ("schema = 1\n[tier.1]\npermissions = []\nmode = 'wran'", "p.toml:4:8: tier.1.mode: expected one of enforce, warn, dryrun, got 'wran'; did you mean warn?"),
        ("schema = 1\n[tier.1]\npermissions = []\nmode = ['warn']", "p.toml:4:8: tier.1.mode: expected one of enforce, warn, dryrun, got ['warn']"),
        ("schema = 1\n[tier.1]\npermissions = []\n[tier.1.limits]", "p.toml:4:9: tier.1.limits: expected some of wall_ms, cpu_ms, memory_bytes, pids, output_bytes, scratch_bytes, got nothing"),
        ("schema = 1\n[tier.1]\npermissions = []\nlimits.pids = 0", f"p.toml:4:15: tier.1.limits.pids: expected a whole number from 1 to {2**53 - 1}, got 0"),
        ("schema = 1\n[tier.1]\npermissions = []\nlimits.pids = 1.5", f"p.toml:4:15: tier.1.limits.pids: expected a whole number from 1 to {2**53 - 1}, got 1.5"),
        ("schema = 1\n[tier.1]\npermissions = []\nlimits.wall = 1", "p.toml:4:8: tier.1.limits.wall: expected one of wall_ms, cpu_ms, memory_bytes, pids, output_bytes, scratch_bytes, got an unknown key; did you mean wall_ms?"),
        ('schema = 1\n[stage."durations"]\npermissions = []\ntiers = [0, 3]', 'p.toml:4:13: stage."durations".tiers: expected some of 0, 1, 2, got 3'),
        ('schema = 1\n[stage."*"]\npermissions = []\ntiers = [true]', 'p.toml:4:10: stage."*".tiers: expected some of 0, 1, 2, got True'),
        ("schema = 1\n[stage.x]\npermissions = []", 'p.toml:2:8: stage."x".tiers: expected a value, got nothing'),
        ('schema = 1\n[stage." "]\npermissions = []\ntiers = []', """p.toml:2:8: stage." ": expected the name of a stage, or "*", got ' '"""),
        ("schema = 1\n[sensitivity.secret]", "p.toml:2:14: sensitivity.secret: expected one of public, internal, confidential, restricted, got an unknown key"),
        ("schema = 1\n[sensitivity.public]\ntiers = [1]\npermissions = []\n[sensitivity.restricted]\ntiers = [1,2]\npermissions = []", "p.toml:6:12: sensitivity.restricted.tiers: expected only what sensitivity.public allows too (1), got 2"),
        ("schema = 1\n[settings]\napprovers = 3", "p.toml:3:13: settings.approvers: expected 1 or 2, got 3"),
        ("schema = 1\n[settings]\napprovers = true", "p.toml:3:13: settings.approvers: expected 1 or 2, got True"),
        ("schema = 1\n[settings]\nnarrower_updates = 'auto'", "p.toml:3:20: settings.narrower_updates: expected one of approve, automatic, got 'auto'; did you mean automatic?"),
        ("schema = 1\n[settings]\napprover_may_be_submitter = 'yes'", "p.toml:3:29: settings.approver_may_be_submitter: expected true or false, got 'yes'"),
        ("schema = 1\n[synthesized]\nrun_unapproved_tier2 = 1", "p.toml:3:24: synthesized.run_unapproved_tier2: expected true or false, got 1"),
        ("schema = 1\n[network]\nhosts = ['a.b']", "p.toml:3:9: network.\"hosts\": expected a wildcard such as \"*.example.org\", got 'hosts'"),
        ("schema = 1\n[network.'*.org']\nhosts = ['a.org']", "p.toml:2:10: network.\"*.org\": expected a wildcard such as \"*.example.org\", got '*.org'"),
        ("schema = 1\n[network.'*.a.org']", 'p.toml:2:10: network."*.a.org".hosts: expected a value, got nothing'),
        ("schema = 1\n[network.'*.a.org']\nhosts = []", 'p.toml:3:9: network."*.a.org".hosts: expected a list of 1 to 32 names, got []'),
        ("schema = 1\n[network.'*.a.org']\nhosts = 'b.a.org'", "p.toml:3:9: network.\"*.a.org\".hosts: expected a list of 1 to 32 names, got 'b.a.org'"),
        ("schema = 1\n[network.'*.a.org']\nhosts = ['b.a.org', 'a.org']", "p.toml:3:21: network.\"*.a.org\".hosts: expected names that end in .a.org, in lower case, got 'a.org'"),
        ("schema = 1\n[network.'*.a.org']\nhosts = [1]", 'p.toml:3:10: network."*.a.org".hosts: expected names that end in .a.org, in lower case, got 1'),
        ("schema = 1\n[network.'*.a.org']\nhosts = ['*.b.a.org']", "p.toml:3:10: network.\"*.a.org\".hosts: expected names that end in .a.org, in lower case, got '*.b.a.org'"),
        ("schema = 1\n[network.'*.a.org']\nhosts = ['B.a.org']", "p.toml:3:10: network.\"*.a.org\".hosts: expected names that end in .a.org, in lower case, got 'B.a.org'"),
        ("schema = 1\n[network.'*.a.org']\nhosts = ['xa.org']", "p.toml:3:10: network.\"*.a.org\".hosts: expected names that end in .a.org, in lower case, got 'xa.org'"),
        ("schema = 1\n[network.'*.a.org']\nhosts = ['b.a.org', 'b.a.org']", "p.toml:3:21: network.\"*.a.org\".hosts: expected each once, got 'b.a.org' again"),
        ("schema = 1\n[network.'*.a.org']\nhosts = ['b.a.org']\nports = [1]", 'p.toml:4:1: network."*.a.org".ports: expected one of hosts, got an unknown key; did you mean hosts?'),
        ("schema = 1\n[plans]\nroots = '/a'", "p.toml:3:9: plans.roots: expected a list of at most 64 folders, got '/a'"),
        ("schema = 1\n[plans]\nroots = ['/a', 'b']", "p.toml:3:16: plans.roots: expected absolute folders below /, without empty, . or .. parts, got 'b'"),
        ("schema = 1\n[plans]\nroots = ['/a/../b']", "p.toml:3:10: plans.roots: expected absolute folders below /, without empty, . or .. parts, got '/a/../b'"),
        ("schema = 1\n[plans]\nroots = ['/']", "p.toml:3:10: plans.roots: expected absolute folders below /, without empty, . or .. parts, got '/'"),
        ("schema = 1\n[plans]\nroots = ['/a', '/a']", "p.toml:3:16: plans.roots: expected each once, got '/a' again"),
        ("schema = 1\n[plans]\nroot = []", "p.toml:3:1: plans.root: expected one of roots, got an unknown key; did you mean roots?"),
        ("schema = 1\n[synthesized]\nrun = true", "p.toml:3:1: synthesized.run: expected one of run_unapproved_tier2, got an unknown key"),
        ("schema = 1\n[[exception]]\nowner = 'x'", "p.toml:2:3: exception: expected one of schema, tier, stage, sensitivity, network, plans, settings, synthesized, quarantine, got an unknown key"),
        ("schema = 1\ntier = ", "p.toml:2:8: expected TOML: Invalid value"),
        ("schema = 1\nschema = 1", "p.toml:2:11: expected TOML: Cannot overwrite a value"),
        ("schema = [1", "p.toml:1:12: expected TOML: Unclosed array"),
    ],
)  # fmt: skip
def test_one_mistake_with_its_place(text, said):
    assert problems(text) == [said]


def test_all_mistakes_are_told_in_the_order_of_the_text():
    text = 'schema = 1\n[settings]\napprovers = 0\n[stage.x]\ntiers = [7]\npermissions = ["y"]\nwhat = 1\n[tier.9]\n'
    assert [said.split(": ")[:2] for said in problems(text)] == [
        ["p.toml:3:13", "settings.approvers"],
        ["p.toml:5:10", 'stage."x".tiers'],
        ["p.toml:6:16", 'stage."x".permissions'],
        ["p.toml:7:1", 'stage."x".what'],
        ["p.toml:8:7", "tier.9"],
    ]


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "schema = " + "9" * 10_000, "\x00", "\ud800"])
def test_text_that_breaks_parsers_is_refused_all_the_same(text):
    (said,) = problems(text)
    assert said.startswith("p.toml:1:")


def test_policy_cannot_go_beyond_the_profiles():
    text = 'schema = 1\n[tier.2]\npermissions = ["network"]\n[tier.2.limits]\nwall_ms = 60001\ncpu_ms = 30000\n'
    assert problems(text, PROFILES) == [
        "p.toml:3:16: tier.2.permissions: expected some of file_read, got 'network'",
        "p.toml:5:11: tier.2.limits.wall_ms: expected a whole number from 1 to 60000, the profile's ceiling, got 60001",
    ]
    assert parse(text, "p.toml").tiers[2].limits.wall_ms == 60001  # without profiles nobody knows


def test_ceilings_are_the_narrower_ones():
    rule = TierRule((), Limits(wall_ms=5, pids=10**9))
    expected = dataclasses.replace(PROFILES[1].ceilings, wall_ms=5)
    assert ceilings(PROFILES[1], rule) == expected
    assert ceilings(PROFILES[1], None) == PROFILES[1].ceilings


# --- one injected mistake ---------------------------------------------------------------------------------------------

KINDS = st.lists(st.sampled_from(PERMISSION_KINDS), unique=True)
SOME_TIERS = st.lists(st.sampled_from(TIERS), unique=True)
NAMES = st.text(alphabet='abz_*. é"[#', min_size=1, max_size=6).filter(lambda name: name == name.strip())
COMMENTS = st.sampled_from(["", "  # why = [", "\n", "\n# [tier.7]\n"])


def quoted(name):
    return '"' + name.replace('"', '\\"') + '"'


@st.composite
def tables(draw):
    """The lines of a correct policy, as lists that begin with a header."""
    made = [[f"[tier.{tier}]", f"permissions = {draw(KINDS)}"] for tier in draw(SOME_TIERS)]
    made += [
        [f"[stage.{quoted(name)}]", f"tiers = {draw(SOME_TIERS)}", f"permissions = {draw(KINDS)}"]
        for name in draw(st.lists(NAMES, unique=True, max_size=3))
    ]
    tiers, kinds = draw(SOME_TIERS), draw(KINDS)
    made += [
        [f"[sensitivity.{level}]", f"tiers = {tiers}", f"permissions = {kinds}"]
        for level in draw(st.lists(st.sampled_from(SENSITIVITIES), unique=True))
    ]
    for table in made:
        if draw(st.booleans()):
            table.append(f'mode = "{draw(st.sampled_from(["enforce", "warn", "dryrun"]))}"')
    return [["schema = 1"], *draw(st.permutations(made))]


def text_of(lines, data):
    """The text, and where each line begins (from 1)."""
    text, starts = "", []
    for line in lines:
        starts.append(text.count("\n") + 1)
        text += line + data.draw(COMMENTS) + "\n"
    return text, starts


@settings(max_examples=30)
@given(tables(), st.data())
def test_generated_policies_are_read_without_a_complaint(made, data):
    text, _ = text_of([line for table in made for line in table], data)
    policy = parse(text, "p.toml")
    assert len(policy.tiers) + len(policy.stages) + len(policy.sensitivities) == len(made) - 1


@settings(max_examples=30)
@given(
    tables(),
    st.sampled_from(["nonsense = 1", "mode = 'never'", "permissions = ['x']", "mode = true", "permissions = 1", "= 3"]),
    st.data(),
)
def test_line_of_an_injected_mistake_is_reported(made, mistake, data):
    table = data.draw(st.sampled_from(made[1:] or [["[tier.1]", "permissions = []"]]))
    made = made if table in made else [*made, table]
    key = mistake.split("=")[0]
    kept = [line for line in table if not key or not line.startswith(key)]
    place = data.draw(st.integers(1, len(kept)))
    changed = [*kept[:place], mistake, *kept[place:]]
    at = made.index(table)
    lines = [line for each in (*made[:at], changed, *made[at + 1 :]) for line in each]
    text, starts = text_of(lines, data)
    number = starts[sum(len(each) for each in made[:at]) + place]
    found = problems(text)
    assert len(found) == 1
    assert found[0].startswith(f"p.toml:{number}:")


# --- files ------------------------------------------------------------------------------------------------------------


def test_shipped_policy_names_every_stage_of_planexe_and_is_for_one_person():
    policy = load_policy(shipped_policy(), PROFILES)
    assert sorted(policy.stages) == sorted(STAGES)
    assert set(policy.tiers) == set(TIERS)
    assert set(policy.sensitivities) == set(SENSITIVITIES)
    assert policy.tiers[2].permissions == ("file_read",)
    assert [level for level in SENSITIVITIES if 2 in policy.sensitivities[level].tiers] == ["public", "internal"]
    assert policy.settings == Settings(1, True, "approve")
    assert {rule.mode for rule in (*policy.tiers.values(), *policy.stages.values())} == {"enforce"}


def test_every_table_and_setting_of_the_shipped_policy_is_explained():
    lines = shipped_policy().read_text().splitlines()
    settings = [line for line in lines[lines.index("[settings]") + 1 :] if "=" in line and not line.startswith("#")]
    assert len(settings) == 5
    for line in settings:
        explained = "#" in line or lines[lines.index(line) - 1].startswith("#")
        assert explained, line


@pytest.mark.parametrize(
    "data,said",
    [
        (None, "the policy cannot be read: No such file or directory"),
        (b"schema = 1\n# \xc3\xa9\n a = '\xff'", "3:7: expected UTF-8, got byte 0xff"),
        (b"#" * (MAX_BYTES + 1), f"expected at most {MAX_BYTES} bytes, got more"),
        (b"schema = 2", "1:10: schema: expected 1, got 2"),
    ],
)
def test_file_that_is_no_policy(tmp_path, data, said):
    path = tmp_path / "policy.toml"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InvalidPolicyError) as raised:
        load_policy(path)
    assert raised.value.problems[0].removeprefix(f"{path}:").strip() == said
