"""What a hold can name, and that a run is meant by exactly what it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind import targets
from plugind.errors import InvalidRequestError
from plugind.targets import Targets, canonical, key_prefix

DIGEST = "ab" * 32
WHOLE = [
    "all",
    "tier:0",
    "tier:2",
    "caller:0",
    "caller:4294967294",
    "plan:rooftop garden",
    "plan:a:b",
    "plan: ",
    f"key:{DIGEST}",
]


@pytest.mark.parametrize("text", [*WHOLE, f"sha256:{DIGEST}", "pkg:pypi/numpy@1.26.4"])
def test_what_needs_no_look_into_the_registry_is_kept_as_it_is(text):
    assert canonical(text) == text


def test_digest_and_package_have_more_than_one_spelling():
    assert canonical(DIGEST) == f"sha256:{DIGEST}"
    assert canonical("pkg:pypi/NumPy@1.26.0") == "pkg:pypi/numpy@1.26"


@pytest.mark.parametrize("text", ["echo", "echo@1.0.0", "plug_1", "plug_1@1", "", "@", "echo@", "tier", "key", "pkg"])
def test_what_may_be_a_plugin_is_looked_up(text):
    assert (canonical(text), key_prefix(text)) == ("", "")


@pytest.mark.parametrize("digits", [8, 63])
def test_the_beginning_of_a_key_is_looked_up(digits):
    text = f"key:{DIGEST[:digits]}"
    assert (canonical(text), key_prefix(text)) == ("", DIGEST[:digits])


@pytest.mark.parametrize(
    "text",
    [
        *("key:", "key:abcdef1", f"key:{DIGEST}0", f"key:{DIGEST.upper()}", "key:zzzzzzzz", "plan:", "plan:a\nb"),
        *(f"plan:{'x' * 257}", "caller:", "caller:-1", "caller:01", "caller:4294967295", "caller:99999999999"),
        *(
            "caller:\u0661",
            "caller:root",
            "tier:3",
            "tier:-1",
            "tier:",
            "tier:\u0662",
            "sha256:ab",
            "user:1",
            ":",
            "a:b@1",
        ),
        *("pkg:npm/a", "pkg:", "all:", "Plan:x", "TIER:1"),
    ],
)
def test_what_it_cannot_be_is_refused_with_what_it_may_be(text):
    with pytest.raises(InvalidRequestError, match=r"^target: expected .*, got"):
        canonical(text)


@given(
    st.text(max_size=30) | st.tuples(st.sampled_from(["key", "plan", "caller", "tier", "pkg"]), st.text()).map(":".join)
)
def test_what_is_kept_is_kept_once_and_for_all(text):
    try:
        kept = canonical(text)
    except InvalidRequestError:
        return
    assert not kept or canonical(kept) == kept


def test_a_run_is_meant_by_each_of_its_parts_and_by_nothing_else():
    meant = Targets((frozenset({"all", "echo"}), targets.of_run(2, plan_id="p", caller_uid=1000)))
    for target in ("all", "echo", "tier:2", "plan:p", "caller:1000"):
        assert target in meant
    for target in ("other", "tier:1", "plan:", "plan:q", "caller:100", ""):
        assert target not in meant


def test_a_run_of_no_plan_is_meant_by_none():
    assert targets.of_run(1, plan_id="", caller_uid=0) == {"tier:1", "caller:0"}
