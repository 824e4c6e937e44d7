"""Statements of publisher and vetter: what we write we read, and what lacks a field is none."""

from __future__ import annotations

import datetime
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.errors import InvalidBundleError
from plugind.provenance import intoto, manifest

MANIFEST = manifest.manifest_from_table(
    {
        "schema": 1,
        "name": "demo",
        "version": "1.2.3",
        "summary": "Doubles",
        "license": "MIT",
        "origin": "authored",
        "entrypoint": "demo:run",
        "stages": ["*"],
    },
    "table",
)
DIGEST, POLICY = "a" * 64, "b" * 64
NOW = 1_800_000_000_000
PROVENANCE = intoto.provenance(MANIFEST, "demo-1.2.3.plugin.tar", DIGEST, builder_id="urn:me", now_unix_ms=NOW)
SUMMARY = intoto.summary(
    "demo-1.2.3.plugin.tar",
    DIGEST,
    verifier_id="urn:vetter",
    policy_sha256=POLICY,
    now_unix_ms=NOW + 999,
    not_after_unix_ms=NOW + 86_400_000,
)


def test_provenance_is_a_slsa_v1_statement():
    statement = intoto.parse(PROVENANCE)
    assert statement.subject_digests == (DIGEST,)
    assert statement.predicate_type == "https://slsa.dev/provenance/v1"
    assert intoto.check_provenance(statement.predicate) == "urn:me"
    table = json.loads(PROVENANCE)
    assert table["_type"] == "https://in-toto.io/Statement/v1"
    assert table["subject"] == [{"name": "demo-1.2.3.plugin.tar", "digest": {"sha256": DIGEST}}]
    assert table["predicate"]["buildDefinition"]["externalParameters"]["version"] == "1.2.3"


def test_a_summary_is_read_as_it_was_written():
    statement = intoto.parse(SUMMARY)
    assert statement.predicate_type == "https://slsa.dev/verification_summary/v1"
    assert intoto.parse_summary(statement.predicate) == intoto.Summary(
        "urn:vetter", True, ("PLANEXE_TIER_1",), POLICY, NOW, NOW + 86_400_000
    )


def test_a_failed_summary_has_no_level():
    text = intoto.summary(
        "n", DIGEST, verifier_id="v", policy_sha256=POLICY, now_unix_ms=NOW, not_after_unix_ms=NOW, passed=False
    )
    summary = intoto.parse_summary(intoto.parse(text).predicate)
    assert (summary.passed, summary.levels) == (False, ())


def changed(text, path, value):
    """The table with the value at a path replaced, or without it (...)."""
    table = json.loads(text)
    *parents, last = path
    place = table
    for part in parents:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(table).encode()


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (["_type"], ..., "expected _type"),
        (["_type"], "https://in-toto.io/Statement/v0.1", "expected _type"),
        (["predicateType"], ..., "expected predicateType"),
        (["predicateType"], 1, "expected predicateType"),
        (["predicate"], ..., "expected predicateType and predicate"),
        (["predicate"], [], "expected predicateType and predicate"),
        (["subject"], ..., "expected a subject"),
        (["subject"], [], "expected a subject"),
        (["subject"], [1], "a subject with a sha256"),
        (["subject", 0, "digest"], {"sha512": DIGEST}, "a subject with a sha256"),
        (["subject", 0, "digest", "sha256"], DIGEST.upper(), "a subject with a sha256"),
        (["subject", 0, "digest", "sha256"], DIGEST + "\n", "a subject with a sha256"),
        (["subject", 0, "digest", "sha256"], "a" * 63, "a subject with a sha256"),
    ],
)
def test_what_is_no_statement_is_refused(path, value, words):
    with pytest.raises(InvalidBundleError, match=f"statement: .*{words}"):
        intoto.parse(changed(PROVENANCE, path, value))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (["predicate", "buildDefinition"], "buildDefinition.buildType"),
        (["predicate", "buildDefinition", "buildType"], "buildDefinition.buildType"),
        (["predicate", "runDetails"], "runDetails.builder.id"),
        (["predicate", "runDetails", "builder", "id"], "runDetails.builder.id"),
    ],
)
def test_provenance_that_lacks_a_field_is_refused(path, words):
    statement = intoto.parse(changed(PROVENANCE, path, ...))
    with pytest.raises(InvalidBundleError, match=words):
        intoto.check_provenance(statement.predicate)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("verificationResult", "passed", "PASSED or FAILED"),
        ("verificationResult", ..., "PASSED or FAILED"),
        ("verificationResult", True, "PASSED or FAILED"),
        ("verifier", {}, "verifier.id"),
        ("policy", {"digest": {"sha256": "x"}}, "policy.digest.sha256"),
        ("verifiedLevels", "PLANEXE_TIER_1", "verifiedLevels"),
        ("verifiedLevels", ..., "verifiedLevels"),
        ("timeVerified", ..., "timeVerified: expected a time"),
        ("timeVerified", 1_800_000_000, "timeVerified: expected a time"),
        (intoto.NOT_AFTER, ..., "not-after/v1: expected a time"),
        (intoto.NOT_AFTER, "never", "not-after/v1: expected a time"),
    ],
)
def test_a_summary_that_lacks_a_field_is_refused(field, value, words):
    statement = intoto.parse(changed(SUMMARY, ["predicate", field], value))
    with pytest.raises(InvalidBundleError, match=words):
        intoto.parse_summary(statement.predicate)


@given(st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(9999, 12, 31)), st.integers(0, 999))  # noqa: DTZ001
def test_times_are_exact_to_the_millisecond(moment, millisecond):
    moment = moment.replace(microsecond=0)
    seconds = (moment - datetime.datetime(1970, 1, 1)) // datetime.timedelta(seconds=1)  # noqa: DTZ001
    text = f"{moment.isoformat()}.{millisecond:03}Z"
    assert intoto.parse_rfc3339(text, "t") == seconds * 1000 + millisecond
    assert intoto.rfc3339(seconds * 1000 + millisecond) == moment.isoformat() + "Z"


@pytest.mark.parametrize(
    "text",
    [
        *("", "2027-01-31", "2027-01-31T12:00:00", "2027-01-31T12:00:00+00:00", "2027-01-31t12:00:00z"),
        *("2027-02-30T12:00:00Z", "2027-01-31T25:00:00Z", "2027-01-31T12:60:00Z", "0000-01-01T00:00:00Z"),
        *("2027-01-31T12:00:00.Z", "2027-01-31 12:00:00Z", "2027-01-31T12:00:00Z\n", "２027-01-31T12:00:00Z"),
    ],
)
def test_a_time_in_another_form_is_refused(text):
    with pytest.raises(InvalidBundleError, match="t: expected a time such as"):
        intoto.parse_rfc3339(text, "t")


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_no_statement(data):
    with pytest.raises(InvalidBundleError):
        intoto.parse(data)
