"""Ed25519 keys: PKCS#8 PEM with or without a passphrase, and their public halves. Source: RFC 8032, 8410, 5958."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from plugind.errors import InvalidRequestError


@dataclass(frozen=True, slots=True, order=True)
class PublicKey:
    """One public key. Two keys are the same when their 32 raw bytes are, whatever they are called elsewhere."""

    raw: bytes

    @property
    def keyid(self) -> str:
        """sha256 of the raw bytes, hex."""
        return hashlib.sha256(self.raw).hexdigest()

    @classmethod
    def from_pem(cls, pem: bytes) -> PublicKey:
        """Parse a SubjectPublicKeyInfo PEM. Raises InvalidRequestError."""
        try:
            key = serialization.load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InvalidRequestError(f"public key: expected PEM of an Ed25519 public key: {error}") from error
        if not isinstance(key, Ed25519PublicKey):
            raise InvalidRequestError(f"public key: expected Ed25519, got {type(key).__name__}")
        return cls(key.public_bytes_raw())

    def to_pem(self) -> bytes:
        """SubjectPublicKeyInfo PEM."""
        return Ed25519PublicKey.from_public_bytes(self.raw).public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether this key made the signature over the message."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


class PrivateKey:
    """A signing key. Its bytes leave this object only through `to_pem`."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"PrivateKey({self.public.keyid[:16]}…)"

    @classmethod
    def generate(cls) -> PrivateKey:
        """A new key from the system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes, passphrase: bytes | None = None) -> PrivateKey:
        """Parse a PKCS#8 PEM. Raises InvalidRequestError: wrong or missing passphrase, another kind of key, no key."""
        try:
            key = serialization.load_pem_private_key(pem, passphrase)
        except TypeError as error:
            expected = "a passphrase: the key has one" if passphrase is None else "no passphrase: the key has none"
            raise InvalidRequestError(f"private key: expected {expected}") from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InvalidRequestError("private key: expected PEM (PKCS#8) and the right passphrase") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise InvalidRequestError(f"private key: expected Ed25519, got {type(key).__name__}")
        return cls(key)

    def to_pem(self, passphrase: bytes | None) -> bytes:
        """PKCS#8 PEM, encrypted with the passphrase. None is for development keys only.

        Raises InvalidRequestError for an empty passphrase: it would not be one.
        """
        if passphrase == b"":
            raise InvalidRequestError("passphrase: expected one or more bytes, got none")
        encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        return self._key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of an Ed25519 signature."""
        return self._key.sign(message)
