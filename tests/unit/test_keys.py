"""Ed25519 keys in PEM, and that nothing else is taken for one."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from plugind.errors import InvalidRequestError
from plugind.provenance.keys import PrivateKey, PublicKey

# RFC 8032, section 7.1, test 2.
SECRET = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)
KEY = PrivateKey(Ed25519PrivateKey.from_private_bytes(SECRET))
OTHER_KIND = generate_private_key(SECP256R1())


def test_signatures_are_those_of_rfc_8032():
    assert KEY.public.raw == PUBLIC
    assert KEY.sign(b"\x72") == SIGNATURE
    assert KEY.public.verifies(SIGNATURE, b"\x72")
    assert not KEY.public.verifies(SIGNATURE, b"\x73")
    assert KEY.public.keyid == hashlib.sha256(PUBLIC).hexdigest()


@pytest.mark.parametrize("passphrase", [None, b"secret", "größer".encode()])
def test_a_private_key_survives_its_pem(passphrase):
    pem = KEY.to_pem(passphrase)
    assert pem.startswith(b"-----BEGIN PRIVATE KEY" if passphrase is None else b"-----BEGIN ENCRYPTED PRIVATE KEY")
    assert PrivateKey.from_pem(pem, passphrase).public == KEY.public


def test_a_public_key_survives_its_pem():
    assert PublicKey.from_pem(KEY.public.to_pem()) == KEY.public


def test_generated_keys_differ():
    assert PrivateKey.generate().public != PrivateKey.generate().public


def test_an_empty_passphrase_does_not_write_an_open_key():
    with pytest.raises(InvalidRequestError, match="passphrase: expected one or more bytes"):
        KEY.to_pem(b"")


@pytest.mark.parametrize(
    ("pem", "passphrase", "words"),
    [
        (KEY.to_pem(b"secret"), None, "expected a passphrase: the key has one"),
        (KEY.to_pem(b"secret"), b"wrong", "the right passphrase"),
        (KEY.to_pem(b"secret"), b"", "passphrase"),
        (KEY.to_pem(None), b"secret", "expected no passphrase: the key has none"),
        (KEY.public.to_pem(), None, "PKCS#8"),
        (b"", None, "PKCS#8"),
        (
            OTHER_KIND.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            None,
            "expected Ed25519, got EC.*PrivateKey",
        ),
    ],
    ids=["no passphrase", "a wrong one", "an empty one", "a needless one", "a public key", "nothing", "another kind"],
)
def test_what_is_no_private_key_is_refused_without_its_bytes(pem, passphrase, words):
    with pytest.raises(InvalidRequestError, match=words):
        PrivateKey.from_pem(pem, passphrase)


def test_what_is_no_public_key_is_refused():
    other = OTHER_KIND.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for pem, words in ((other, "expected Ed25519"), (KEY.to_pem(None), "PEM"), (b"", "PEM")):
        with pytest.raises(InvalidRequestError, match=words):
            PublicKey.from_pem(pem)


@given(st.binary(max_size=100) | st.binary(max_size=100).map(lambda b: b"-----BEGIN PUBLIC KEY-----\n" + b))
def test_arbitrary_bytes_are_no_keys(data):
    for load in (PublicKey.from_pem, PrivateKey.from_pem):
        with pytest.raises(InvalidRequestError):
            load(data)


@given(st.binary(max_size=70), st.binary(max_size=70), st.binary(max_size=10))
def test_arbitrary_keys_and_signatures_verify_nothing(raw, signature, message):
    assert not PublicKey(raw).verifies(signature, message)
    assert not KEY.public.verifies(signature, message)


def test_a_private_key_shows_only_its_id():
    assert SECRET.hex()[:16] not in repr(KEY)
    assert KEY.public.keyid[:16] in repr(KEY)
