"""DSSE envelopes: ours and those of securesystemslib verify each other, and a signature counts for a key, not an id."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope as OracleEnvelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from plugind.errors import InvalidBundleError
from plugind.provenance import dsse
from plugind.provenance.dsse import Envelope, Signature
from plugind.provenance.keys import PrivateKey, PublicKey

ONE, TWO, OTHER = (PrivateKey(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (1, 2, 3))
SIGNED = dsse.sign(b"payload", [ONE, TWO])


def oracle_key(public, keyid=None):
    return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(public.raw), keyid or public.keyid)


def test_what_is_signed_is_the_encoding_of_the_specification():
    """The example of the DSSE protocol document."""
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert dsse.pae("ä", b"") == b"DSSEv1 2 \xc3\xa4 0 "


@given(st.binary(max_size=200), st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_an_envelope_survives_its_line_and_verifies(payload, kind):
    envelope = dsse.sign(payload, [ONE, TWO], kind)
    line = envelope.to_json()
    assert b"\n" not in line
    assert dsse.parse(line) == envelope
    assert dsse.verify(dsse.parse(line), [ONE.public, TWO.public, OTHER.public]) == {ONE.public, TWO.public}


@given(st.binary(max_size=200))
def test_securesystemslib_verifies_ours(payload):
    ours = OracleEnvelope.from_dict(json.loads(dsse.sign(payload, [ONE, TWO]).to_json()))
    assert ours.payload == payload
    keys = [oracle_key(ONE.public), oracle_key(TWO.public)]
    assert set(ours.verify(keys, 2)) == {ONE.public.keyid, TWO.public.keyid}
    with pytest.raises(VerificationError):
        ours.verify([oracle_key(OTHER.public), oracle_key(ONE.public)], 2)


@given(st.binary(max_size=200))
def test_we_verify_what_securesystemslib_has_signed(payload):
    theirs = OracleEnvelope(payload, dsse.PAYLOAD_TYPE, {})
    signers = [CryptoSigner(key._key, oracle_key(key.public)) for key in (ONE, TWO)]
    for signer in signers:
        theirs.sign(signer)
    envelope = dsse.parse(json.dumps(theirs.to_dict()).encode())
    assert (envelope.payload, dsse.pae(envelope.payload_type, payload)) == (payload, theirs.pae())
    assert dsse.verify(envelope, [ONE.public, TWO.public]) == {ONE.public, TWO.public}
    assert dsse.verify(envelope, [OTHER.public]) == frozenset()


def test_one_key_under_two_ids_counts_once_where_securesystemslib_counts_two():
    (signature,) = dsse.sign(b"p", [ONE]).signatures
    envelope = Envelope(dsse.PAYLOAD_TYPE, b"p", (Signature("id-1", signature.sig), Signature("id-2", signature.sig)))
    oracle = OracleEnvelope.from_dict(json.loads(envelope.to_json()))
    assert len(oracle.verify([oracle_key(ONE.public, "id-1"), oracle_key(ONE.public, "id-2")], 2)) == 2
    same = PublicKey(bytes(ONE.public.raw))
    assert dsse.verify(envelope, [ONE.public, same, ONE.public]) == {ONE.public}


def test_a_wrong_key_id_neither_helps_nor_harms():
    (signature,) = dsse.sign(b"p", [ONE]).signatures
    for keyid in ("", "nonsense", TWO.public.keyid):
        envelope = Envelope(dsse.PAYLOAD_TYPE, b"p", (Signature(keyid, signature.sig),))
        assert dsse.verify(envelope, [ONE.public, TWO.public]) == {ONE.public}


@given(st.data())
def test_no_signature_survives_a_change(data):
    payload, sig = SIGNED.payload, SIGNED.signatures[0].sig
    place = data.draw(st.integers(0, len(payload) + len(sig) - 1))
    mask = data.draw(st.integers(1, 255))
    both = bytearray(payload + sig)
    both[place] ^= mask
    changed = Envelope(
        SIGNED.payload_type, bytes(both[: len(payload)]), (Signature("", bytes(both[len(payload) :])),)
    )  # fmt: skip
    assert dsse.verify(changed, [ONE.public]) == frozenset()


def test_the_payload_type_is_signed():
    assert dsse.verify(Envelope("other", SIGNED.payload, SIGNED.signatures), [ONE.public, TWO.public]) == frozenset()


@pytest.mark.parametrize("sig", [b"", b"x", bytes(63), bytes(64), bytes(65)])
def test_a_signature_of_another_length_does_not_verify(sig):
    assert dsse.verify(Envelope("t", b"p", (Signature(ONE.public.keyid, sig),)), [ONE.public]) == frozenset()


def test_url_safe_base64_is_read_as_well():
    payload = b"\xfb\xff\xfe" * 5
    line = json.dumps(
        {
            "payload": base64.urlsafe_b64encode(payload).decode(),
            "payloadType": "t",
            "signatures": [{"sig": "-_8="}],
        }
    )
    assert dsse.parse(line.encode()) == Envelope("t", payload, (Signature("", b"\xfb\xff"),))


SIG = [{"keyid": "k", "sig": "AAAA"}]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ([], "expected a DSSE envelope"),
        ({}, "payloadType, payload and signatures"),
        ({"payload": "", "signatures": SIG}, "payloadType, payload and signatures"),
        ({"payload": "", "payloadType": 1, "signatures": SIG}, "payloadType, payload and signatures"),
        ({"payload": "", "payloadType": "t", "signatures": []}, "payloadType, payload and signatures"),
        ({"payload": "", "payloadType": "t", "signatures": {}}, "payloadType, payload and signatures"),
        ({"payloadType": "t", "signatures": SIG}, "payload: expected base64, got nothing"),
        ({"payload": "A", "payloadType": "t", "signatures": SIG}, "payload: expected base64, got something else"),
        ({"payload": "AAA A", "payloadType": "t", "signatures": SIG}, "payload: expected base64, got something else"),
        ({"payload": "ä===", "payloadType": "t", "signatures": SIG}, "payload: expected base64, got something else"),
        ({"payload": "", "payloadType": "t", "signatures": [1]}, "signatures: expected objects"),
        ({"payload": "", "payloadType": "t", "signatures": [{}]}, "signatures: sig: expected base64, got nothing"),
        ({"payload": "", "payloadType": "t", "signatures": [{"keyid": 1, "sig": ""}]}, "keyid: expected a string"),
        ({"payload": "", "payloadType": "t", "signatures": SIG * 33}, "at most 32 signatures, got 33"),
    ],
)
def test_what_is_no_envelope_is_refused_with_its_place(table, words):
    with pytest.raises(InvalidBundleError, match=f"here: .*{words}"):
        dsse.parse(json.dumps(table).encode(), "here")


@given(st.binary(max_size=200))
def test_arbitrary_lines_are_refused(data):
    with pytest.raises(InvalidBundleError):
        dsse.parse(data)


def test_lines_are_read_and_written_in_order_and_empty_ones_are_skipped():
    envelopes = (dsse.sign(b"a", [ONE]), dsse.sign(b"b", [TWO]))
    text = dsse.to_lines(envelopes)
    assert dsse.parse_lines(text) == envelopes
    assert dsse.parse_lines(b"\n\r\n" + text.replace(b"\n", b"\r\n\n")) == envelopes
    assert dsse.parse_lines(b"") == ()


def test_a_bad_line_is_named_by_its_number():
    with pytest.raises(InvalidBundleError, match=r"^f\.jsonl: line 3: "):
        dsse.parse_lines(b"\n" + SIGNED.to_json() + b"\n{}\n", "f.jsonl")


def test_lines_are_limited_before_they_are_parsed():
    with pytest.raises(InvalidBundleError, match="at most 64 envelopes, got more"):
        dsse.parse_lines(b"{\n" * 65)
    with pytest.raises(InvalidBundleError, match="at most 4194304 bytes, got 4194305"):
        dsse.parse_lines(b"{" * 4194305)
