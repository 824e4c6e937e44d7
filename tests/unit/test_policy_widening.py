"""What an update asks for beyond what was approved: nothing for the same, a sentence for each thing more."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.model import TIERS, Approval, Limits, Manifest, Permission, PluginVersion
from plugind.policy.widening import widens

LIMITS = [name for name, _ in Limits().items()]
PERMISSIONS = [Permission(kind, entry) for kind in ("file_read", "network") for entry in ('{"a": 1}', '{"b": 2}')]
STAGES = ["a", "b", "c"]


def version(tier=1, stages=("a",), permissions=(), limits=Limits(), approval=True):  # noqa: B008 - frozen
    manifest = Manifest(
        *("costs", "1.0.0", "", "MIT", "authored", "python", ">=3.11", "base", "json", "m:run"),
        stages=tuple(stages),
        deterministic=True,
        limits=limits,
        permissions=tuple(permissions),
        input_schema="",
        output_schema="",
    )
    approved = Approval(tier, tuple(stages), tuple(permissions), limits, 1, 2, "because") if approval else None
    return PluginVersion("plug_1", "d" * 64, 1, "approved", tier, manifest, b"", approved, 1, 2)


VERSIONS = st.builds(
    version,
    tier=st.sampled_from(TIERS),
    stages=st.lists(st.sampled_from([*STAGES, "*"]), unique=True),
    permissions=st.lists(st.sampled_from(PERMISSIONS), unique=True),
    limits=st.builds(Limits, **dict.fromkeys(LIMITS, st.integers(0, 3))),
)


def meaning(each):
    """What two versions have to share to ask for the same."""
    stages = {"*"} if "*" in each.manifest.stages else set(each.manifest.stages)
    return each.tier, stages, set(each.manifest.permissions), each.manifest.limits


@given(VERSIONS)
def test_the_same_again_widens_nothing(each):
    assert widens(each, each) == []


@given(VERSIONS, VERSIONS)
def test_two_that_do_not_widen_each_other_ask_for_the_same(one, other):
    equal = meaning(one) == meaning(other)
    assert (widens(one, other) == [] and widens(other, one) == []) is equal


@given(VERSIONS, VERSIONS, VERSIONS)
def test_a_chain_of_narrower_versions_never_arrives_at_a_wider_one(first, second, third):
    if not widens(first, second) and not widens(second, third):
        assert widens(first, third) == []


@given(VERSIONS, st.data())
def test_adding_anything_widens_and_taking_it_away_does_not(each, data):
    manifest = each.manifest
    what = data.draw(st.sampled_from(["stage", "permission", "tier", *LIMITS]))
    if what == "stage":
        stages = tuple(stage for stage in manifest.stages if stage not in {"*", "new"})
        each = version(each.tier, stages, manifest.permissions, manifest.limits)
        wider = version(
            each.tier, (*stages, data.draw(st.sampled_from(["new", "*"]))), manifest.permissions, manifest.limits
        )
    elif what == "permission":
        new = Permission("file_write", "{}")
        wider = version(each.tier, manifest.stages, (*manifest.permissions, new), manifest.limits)
    elif what == "tier":
        each = version(2, manifest.stages, manifest.permissions, manifest.limits)
        wider = version(data.draw(st.sampled_from([0, 1])), manifest.stages, manifest.permissions, manifest.limits)
    else:
        value = data.draw(st.integers(1, 9))
        each = version(
            each.tier, manifest.stages, manifest.permissions, dataclasses.replace(manifest.limits, **{what: value})
        )
        more = dataclasses.replace(manifest.limits, **{what: value + data.draw(st.integers(1, 9))})
        wider = version(each.tier, manifest.stages, manifest.permissions, more)
    said = widens(each, wider)
    assert len(said) == 1
    assert said[0].startswith(
        {"stage": "stages", "permission": "permissions", "tier": "tier"}.get(what, f"limits.{what}")
    )
    assert widens(wider, each) == []


@pytest.mark.parametrize(
    "old,new,said",
    [
        ({"tier": 2}, {"tier": 1}, "tier: Tier 2 was approved, Tier 1 is asked for"),
        ({"stages": ["a", "b"]}, {"stages": ["a", "c"]}, "stages: a, b approved, c added"),
        ({"stages": []}, {"stages": ["*"]}, "stages: no stage approved, every stage added"),
        ({}, {"permissions": PERMISSIONS[:1]}, 'permissions: no file_read approved, file_read {"a": 1} added'),
        ({"permissions": PERMISSIONS[:1]}, {"permissions": PERMISSIONS[1:2]}, 'permissions: file_read {"a": 1} approved, file_read {"b": 2} added'),
        ({"limits": Limits(pids=3)}, {"limits": Limits(pids=4)}, "limits.pids: 3 approved, 4 asked for"),
        ({"limits": Limits(pids=3)}, {}, "limits.pids: 3 approved, the default asked for"),
        ({}, {"limits": Limits(pids=1)}, "limits.pids: the default approved, 1 asked for"),
    ],
)  # fmt: skip
def test_difference_is_told(old, new, said):
    assert widens(version(**old), version(**new)) == [said]


def test_what_counts_is_what_was_approved_and_not_what_was_asked_for():
    old = version(1, ["a", "b"], PERMISSIONS, Limits(pids=9, wall_ms=7))
    approval = dataclasses.replace(old.approval, tier=2, stages=("a",), permissions=(), limits=Limits(pids=5))
    narrowed = dataclasses.replace(old, approval=approval)
    assert [said.split(":")[0] for said in widens(narrowed, old)] == [
        "tier",
        "stages",
        *["permissions"] * 4,
        "limits.pids",
    ]


def test_nothing_can_be_compared_with_what_nobody_approved():
    with pytest.raises(ValueError, match=r"costs@1\.0\.0: expected an approved version"):
        widens(version(approval=False), version())
