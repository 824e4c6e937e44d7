"""The numbered steps of `tier_of`, each with its reason code; and that nothing but evidence decides."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from plugind.model import Code
from plugind.provenance import dsse, intoto, manifest
from plugind.provenance.dsse import Envelope, Signature
from plugind.provenance.evidence import RoleKeys, Trust, TrustedKey, signers, tier_of
from plugind.provenance.keys import PrivateKey

PUBLISHER, VETTER, VETTER_2, STRANGER = (
    PrivateKey(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)) for number in (1, 2, 3, 4)
)
DIGEST, OTHER_DIGEST, POLICY = "a" * 64, "c" * 64, "b" * 64
NOW = 1_800_000_000_000
DAY = 86_400_000
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


def trust(publishers=(PUBLISHER,), vetters=(VETTER,), *, threshold=1, pin=""):
    return Trust(
        {
            "publisher": RoleKeys(tuple(TrustedKey(key.public) for key in publishers), 1),
            "vetter": RoleKeys(tuple(TrustedKey(key.public, pin) for key in vetters), threshold),
        }
    )


def provenance(digest=DIGEST, key=PUBLISHER):
    return dsse.sign(intoto.provenance(MANIFEST, "demo", digest, builder_id="urn:b", now_unix_ms=NOW), [key])


def vsa(digest=DIGEST, key=VETTER, *, at=NOW, until=NOW + DAY, passed=True, verifier="urn:v"):
    text = intoto.summary(
        "demo",
        digest,
        verifier_id=verifier,
        policy_sha256=POLICY,
        now_unix_ms=at,
        not_after_unix_ms=until,
        passed=passed,
    )
    return dsse.sign(text, [key])


def edited(envelope, key, **predicate):
    """The statement with other fields in its predicate, signed again."""
    table = json.loads(envelope.payload)
    table["predicate"] |= predicate
    table["predicate"] = {name: value for name, value in table["predicate"].items() if value is not None}
    return dsse.sign(json.dumps(table).encode(), [key])


def weigh(attestations, trusted=None, **options):
    return tier_of(DIGEST, attestations, trust() if trusted is None else trusted, now_unix_ms=NOW, **options)


def codes(evidence):
    return [(reason.code.value, reason.rule.removeprefix("provenance.")) for reason in evidence.reasons]


def test_publisher_and_vetter_make_tier_1():
    evidence = weigh([provenance(), vsa()])
    assert (evidence.tier, evidence.reasons, evidence.not_after_unix_ms) == (1, (), NOW + DAY)
    assert (evidence.publishers, evidence.vetters) == ((PUBLISHER.public.keyid,), (VETTER.public.keyid,))


def test_one_envelope_that_both_have_signed_counts_for_the_role_that_says_such_a_thing():
    both = dsse.sign(vsa().payload, [PUBLISHER, VETTER])
    assert codes(weigh([both])) == [("THRESHOLD_NOT_MET", "publisher.threshold")]


NO_PUBLISHER = ("THRESHOLD_NOT_MET", "publisher.threshold")
NO_VETTER = ("THRESHOLD_NOT_MET", "vetter.threshold")
BROKEN = Envelope(dsse.PAYLOAD_TYPE, vsa().payload, (Signature(VETTER.public.keyid, bytes(64)),))
STEPS = [
    ("2 none at all", [], [("NOT_SIGNED", "attestations"), NO_PUBLISHER, NO_VETTER]),
    ("3 a trusted id, a wrong signature", [provenance(), BROKEN], [("BAD_SIGNATURE", "signature"), NO_VETTER]),
    ("3 strangers do not count", [provenance(key=STRANGER), vsa(key=STRANGER)], [NO_PUBLISHER, NO_VETTER]),
    (
        "4 another payload type",
        [provenance(), dsse.sign(vsa().payload, [VETTER], "text/plain")],
        [("BAD_SIGNATURE", "statement"), NO_VETTER],
    ),
    ("4 no statement", [provenance(), dsse.sign(b"{}", [VETTER])], [("BAD_SIGNATURE", "statement"), NO_VETTER]),
    ("5 about another bundle", [provenance(), vsa(OTHER_DIGEST)], [("DIGEST_MISMATCH", "subject"), NO_VETTER]),
    (
        "6 a summary without expiry",
        [provenance(), edited(vsa(), VETTER, **{intoto.NOT_AFTER: None})],
        [("BAD_SIGNATURE", "statement"), NO_VETTER],
    ),
    (
        "6 provenance without a builder",
        [edited(provenance(), PUBLISHER, runDetails={}), vsa()],
        [("BAD_SIGNATURE", "statement"), NO_PUBLISHER],
    ),
    ("6 a vetter is no publisher", [provenance(key=VETTER), vsa()], [NO_PUBLISHER]),
    ("6 a publisher is no vetter", [provenance(), vsa(key=PUBLISHER)], [NO_VETTER]),
    ("7 expired", [provenance(), vsa(until=NOW - 1000)], [("ATTESTATION_EXPIRED", "expiry"), NO_VETTER]),
    ("7 expires now", [provenance(), vsa(until=NOW)], [("ATTESTATION_EXPIRED", "expiry"), NO_VETTER]),
    ("8 failed", [provenance(), vsa(passed=False)], [("THRESHOLD_NOT_MET", "summary"), NO_VETTER]),
    (
        "8 failed after it had passed",
        [provenance(), vsa(at=NOW, passed=False), vsa(at=NOW - DAY)],
        [("THRESHOLD_NOT_MET", "summary"), NO_VETTER],
    ),
    (
        "8 another level",
        [provenance(), edited(vsa(), VETTER, verifiedLevels=["SLSA_BUILD_LEVEL_3"])],
        [("THRESHOLD_NOT_MET", "summary"), NO_VETTER],
    ),
    ("9 no vetter", [provenance()], [NO_VETTER]),
    ("9 no publisher", [vsa()], [NO_PUBLISHER]),
]


@pytest.mark.parametrize(("attestations", "expected"), [row[1:] for row in STEPS], ids=[row[0] for row in STEPS])
def test_each_step_has_its_reason_and_all_are_told(attestations, expected):
    evidence = weigh(attestations)
    assert (evidence.tier, evidence.not_after_unix_ms) == (2, 0)
    assert codes(evidence) == expected
    assert all(reason.expected and reason.actual for reason in evidence.reasons)


def test_1_the_built_in_list_is_tier_0_without_any_attestation():
    assert weigh([], built_in={DIGEST}).tier == 0
    assert weigh([], built_in={OTHER_DIGEST}).tier == 2


def test_8_a_pinned_vetter_has_to_name_the_verifier_it_is_pinned_to():
    assert weigh([provenance(), vsa()], trust(pin="urn:v")).tier == 1
    evidence = weigh([provenance(), vsa(verifier="urn:\x1bother")], trust(pin="urn:v"))
    assert codes(evidence) == [("THRESHOLD_NOT_MET", "verifier"), NO_VETTER]
    assert evidence.reasons[0].actual == r"'urn:\x1bother'"


def test_9_a_threshold_counts_different_keys():
    two = trust(vetters=(VETTER, VETTER_2), threshold=2)
    assert weigh([provenance(), vsa(), vsa(key=VETTER_2)], two).tier == 1
    assert codes(weigh([provenance(), vsa(), vsa(verifier="urn:w", at=NOW - 1000)], two)) == [NO_VETTER]
    (signature,) = vsa().signatures
    renamed = replace(vsa(), signatures=(signature, Signature(VETTER_2.public.keyid, signature.sig)))
    assert codes(weigh([provenance(), renamed], two)) == [("BAD_SIGNATURE", "signature"), NO_VETTER]


def test_9_one_key_listed_twice_counts_once():
    listed_twice = Trust(
        {
            "publisher": RoleKeys((TrustedKey(PUBLISHER.public),), 1),
            "vetter": RoleKeys((TrustedKey(VETTER.public, "urn:v"), TrustedKey(VETTER.public, "urn:w")), 2),
        }
    )
    assert codes(weigh([provenance(), vsa(), vsa(verifier="urn:w")], listed_twice)) == [NO_VETTER]


def test_9_a_role_that_nobody_is_trusted_with_is_never_met():
    evidence = weigh([provenance(), vsa()], Trust())
    assert codes(evidence) == [NO_PUBLISHER, NO_VETTER]
    assert evidence.reasons[0].actual == "nobody is trusted as one"


def test_9_a_synthesized_plugin_is_tier_2_until_vetted_and_is_told_so():
    evidence = weigh([provenance()], origin="synthesized")
    assert (evidence.tier, codes(evidence)) == (2, [NO_VETTER])
    assert "synthesized" in evidence.reasons[0].expected
    assert weigh([provenance(), vsa()], origin="synthesized").tier == 1


def test_the_tier_lapses_when_the_threshold_is_not_met_any_more():
    attestations = [provenance(), vsa(until=NOW + DAY), vsa(key=VETTER_2, until=NOW + 2 * DAY)]
    both = (VETTER, VETTER_2)
    assert weigh(attestations, trust(vetters=both, threshold=1)).not_after_unix_ms == NOW + 2 * DAY
    assert weigh(attestations, trust(vetters=both, threshold=2)).not_after_unix_ms == NOW + DAY


def test_analysis_results_of_a_trusted_key_are_neither_good_nor_bad():
    table = json.loads(vsa().payload) | {"predicateType": "https://cyclonedx.org/bom", "predicate": {}}
    sbom = dsse.sign(json.dumps(table).encode(), [VETTER])
    assert weigh([provenance(), vsa(), sbom]).tier == 1
    assert codes(weigh([provenance(), sbom])) == [NO_VETTER]


def test_a_stranger_cannot_take_a_tier_away():
    noise = [
        provenance(key=STRANGER),
        vsa(key=STRANGER, passed=False),
        BROKEN,
        dsse.sign(b"{", [STRANGER]),
        Envelope("x", b"", (Signature(VETTER.public.keyid, b""),)),
    ]
    evidence = weigh([*noise, provenance(), vsa(), *noise])
    assert (evidence.tier, evidence.reasons) == (1, ())


SAID = [
    provenance(),
    vsa(until=NOW + DAY),
    vsa(until=NOW + 2 * DAY),
    vsa(at=NOW - 5000, passed=False),
    vsa(at=NOW - 5000),
    vsa(verifier="urn:w"),
    edited(vsa(), VETTER, verifiedLevels=[]),
    vsa(passed=False),
]


@settings(max_examples=40)  # signatures are slow
@given(st.lists(st.sampled_from(SAID), max_size=8), st.randoms())
def test_the_order_of_envelopes_decides_nothing(attestations, random):
    shuffled = list(attestations)
    random.shuffle(shuffled)
    for trusted in (trust(), trust(pin="urn:v")):
        one, other = weigh(attestations, trusted), weigh(shuffled, trusted)
        assert (one.tier, one.not_after_unix_ms, one.vetters) == (other.tier, other.not_after_unix_ms, other.vetters)


@settings(max_examples=40)  # signatures are slow
@given(st.lists(st.sampled_from(SAID), max_size=8))
def test_tier_1_always_has_both_roles_and_an_end_that_is_not_over(attestations):
    evidence = weigh(attestations)
    assert evidence.tier in (1, 2)
    assert (evidence.tier == 1) == (evidence.reasons == ())
    if evidence.tier == 1:
        assert evidence.publishers
        assert evidence.vetters
        assert evidence.not_after_unix_ms > NOW
    else:
        assert {reason.code for reason in evidence.reasons} & {Code.THRESHOLD_NOT_MET}


# --- who has signed, for holds ----------------------------------------------------------------------------------


def test_signers_are_all_who_signed_about_the_bundle_also_when_it_has_lapsed():
    lapsed = vsa(until=NOW - DAY)
    found = signers(DIGEST, [provenance(), lapsed, vsa(OTHER_DIGEST, VETTER_2)], trust(vetters=(VETTER, VETTER_2)))
    assert found == {PUBLISHER.public.keyid, VETTER.public.keyid}


def test_a_trusted_key_is_no_signer_of_what_only_says_so():
    good = provenance()
    lie = Envelope(good.payload_type, good.payload, (Signature(PUBLISHER.public.keyid, b"x" * 64),))
    assert signers(DIGEST, [lie], trust()) == frozenset()


def test_a_trusted_key_is_a_signer_whatever_it_is_called_there():
    good = provenance()
    hidden = Envelope(good.payload_type, good.payload, (replace(good.signatures[0], keyid="somebody"),))
    assert signers(DIGEST, [hidden], trust()) == {PUBLISHER.public.keyid, "somebody"}


def test_of_a_key_that_nobody_trusts_its_name_counts():
    assert signers(DIGEST, [provenance(key=STRANGER)], Trust()) == {STRANGER.public.keyid}


def test_what_is_no_statement_has_no_signers():
    assert signers(DIGEST, [dsse.sign(b"{", [PUBLISHER]), dsse.sign(b"[1]", [STRANGER])], trust()) == frozenset()


def test_a_threshold_below_one_is_a_fault():
    with pytest.raises(ValueError, match="expected 1 or more, got 0"):
        RoleKeys((), 0)
