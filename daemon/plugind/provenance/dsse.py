"""Dead Simple Signing Envelopes, one a line. Source: https://github.com/secure-systems-lab/dsse, version 1.0.

A signature counts for a public key, not for a key id: an id is a hint that anybody may write.
"""

from __future__ import annotations

import base64
import binascii
import io
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from plugind import jsontext
from plugind.errors import InvalidBundleError, InvalidJsonError
from plugind.jsontext import JsonValue
from plugind.provenance.keys import PrivateKey, PublicKey

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
MAX_LINES: Final = 64
MAX_SIGNATURES: Final = 32
MAX_VALUES: Final = 1000
"""Of one envelope as JSON: what cannot be signatures is refused before 4 MB of it become 140 MB of objects."""
MAX_ATTESTATIONS_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature with the id of the key that is said to have made it."""

    keyid: str
    sig: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload and signatures over it. Nothing is verified yet."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]

    def to_json(self) -> bytes:
        """One line without its end."""
        signatures: list[JsonValue] = [
            {"keyid": signature.keyid, "sig": base64.b64encode(signature.sig).decode()} for signature in self.signatures
        ]
        payload = base64.b64encode(self.payload).decode()
        return jsontext.dumps({"payload": payload, "payloadType": self.payload_type, "signatures": signatures})


def pae(payload_type: str, payload: bytes) -> bytes:
    """Pre-authentication encoding: what is signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload: bytes, keys: Iterable[PrivateKey], payload_type: str = PAYLOAD_TYPE) -> Envelope:
    """Sign a payload with each key."""
    message = pae(payload_type, payload)
    signatures = tuple(Signature(key.public.keyid, key.sign(message)) for key in keys)
    return Envelope(payload_type, payload, signatures)


def verify(envelope: Envelope, keys: Iterable[PublicKey]) -> frozenset[PublicKey]:
    """The keys that have signed: each counts once, however often it is listed or has signed.

    A threshold is the size of this set. Key ids are not looked at, so that a wrong one neither helps nor harms.
    """
    message = pae(envelope.payload_type, envelope.payload)
    return frozenset(
        key for key in set(keys) if any(key.verifies(signature.sig, message) for signature in envelope.signatures)
    )


def parse(line: bytes, where: str = "envelope") -> Envelope:
    """One envelope. Raises InvalidBundleError."""
    try:
        table = jsontext.loads(line, max_bytes=MAX_ATTESTATIONS_BYTES, max_values=MAX_VALUES)
    except InvalidJsonError as error:
        raise InvalidBundleError(f"{where}: {error}") from error
    if not isinstance(table, dict):
        raise InvalidBundleError(f"{where}: expected a DSSE envelope, got another JSON value")
    signatures = table.get("signatures")
    payload_type = table.get("payloadType")
    if not isinstance(payload_type, str) or not isinstance(signatures, list) or not signatures:
        raise InvalidBundleError(f"{where}: expected payloadType, payload and signatures, got no DSSE envelope")
    if len(signatures) > MAX_SIGNATURES:
        raise InvalidBundleError(f"{where}: expected at most {MAX_SIGNATURES} signatures, got {len(signatures)}")
    payload = _decoded(table.get("payload"), f"{where}: payload")
    return Envelope(payload_type, payload, tuple(_signature(item, where) for item in signatures))


def parse_lines(data: bytes, where: str = "attestations") -> tuple[Envelope, ...]:
    """The envelopes of an `.intoto.jsonl`; empty lines are skipped. Raises InvalidBundleError with the line."""
    if len(data) > MAX_ATTESTATIONS_BYTES:
        raise InvalidBundleError(f"{where}: expected at most {MAX_ATTESTATIONS_BYTES} bytes, got {len(data)}")
    # Not split at once: there can be millions of lines in it.
    numbered = ((number, line) for number, line in enumerate(io.BytesIO(data), 1) if line.strip())
    lines = list(itertools.islice(numbered, MAX_LINES + 1))
    if len(lines) > MAX_LINES:
        raise InvalidBundleError(f"{where}: expected at most {MAX_LINES} envelopes, got more")
    return tuple(parse(line, f"{where}: line {number}") for number, line in lines)


def to_lines(envelopes: Iterable[Envelope]) -> bytes:
    """The text of an `.intoto.jsonl`."""
    return b"".join(envelope.to_json() + b"\n" for envelope in envelopes)


def _signature(item: JsonValue, where: str) -> Signature:
    if not isinstance(item, dict):
        raise InvalidBundleError(f"{where}: signatures: expected objects with keyid and sig, got another JSON value")
    keyid = item.get("keyid", "")
    if not isinstance(keyid, str):
        raise InvalidBundleError(f"{where}: signatures: keyid: expected a string, got another JSON value")
    return Signature(keyid, _decoded(item.get("sig"), f"{where}: signatures: sig"))


def _decoded(text: JsonValue, where: str) -> bytes:
    """Standard or URL-safe base64, as the specification allows."""
    if not isinstance(text, str):
        raise InvalidBundleError(f"{where}: expected base64, got nothing")
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/").encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise InvalidBundleError(f"{where}: expected base64, got something else") from error
