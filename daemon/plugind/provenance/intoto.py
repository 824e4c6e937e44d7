"""in-toto Statements v1 about a bundle: the publisher's provenance and the vetter's summary.

Source: https://in-toto.io/Statement/v1, https://slsa.dev/spec/v1.0/provenance, …/verification_summary
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from plugind import jsontext
from plugind.errors import InvalidBundleError, InvalidJsonError
from plugind.jsontext import JsonValue
from plugind.model import Manifest

STATEMENT: Final = "https://in-toto.io/Statement/v1"
PROVENANCE: Final = "https://slsa.dev/provenance/v1"
VSA: Final = "https://slsa.dev/verification_summary/v1"
BUILD_TYPE: Final = "https://planexe.org/plugind/build/v1"
NOT_AFTER: Final = "https://planexe.org/plugind/not-after/v1"
"""The extension field of a VSA that says until when it holds. SLSA: extension fields are named by a URI."""
TIER_1: Final = "PLANEXE_TIER_1"
MAX_STATEMENT_BYTES: Final = 1024 * 1024

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement as it stands: who says it is the envelope's business."""

    subject_digests: tuple[str, ...]
    predicate_type: str
    predicate: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a vetter says. Times in milliseconds since the epoch."""

    verifier_id: str
    passed: bool
    levels: tuple[str, ...]
    policy_sha256: str
    verified_unix_ms: int
    not_after_unix_ms: int


def provenance(manifest: Manifest, bundle_name: str, digest: str, *, builder_id: str, now_unix_ms: int) -> bytes:
    """A publisher's statement: this bundle was built by `builder_id` from a folder with this manifest."""
    predicate: dict[str, JsonValue] = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"name": manifest.name, "version": manifest.version, "origin": manifest.origin},
            "internalParameters": {},
            "resolvedDependencies": [],
        },
        "runDetails": {"builder": {"id": builder_id}, "metadata": {"finishedOn": rfc3339(now_unix_ms)}},
    }
    return _statement(bundle_name, digest, PROVENANCE, predicate)


def summary(
    bundle_name: str,
    digest: str,
    *,
    verifier_id: str,
    policy_sha256: str,
    now_unix_ms: int,
    not_after_unix_ms: int,
    passed: bool = True,
) -> bytes:
    """A vetter's statement: the bundle passed, or failed, a check against a policy; it holds until `not_after`."""
    predicate: dict[str, JsonValue] = {
        "verifier": {"id": verifier_id},
        "timeVerified": rfc3339(now_unix_ms),
        "resourceUri": f"pkg:generic/{bundle_name}",
        "policy": {"digest": {"sha256": policy_sha256}},
        "verificationResult": "PASSED" if passed else "FAILED",
        "verifiedLevels": [TIER_1] if passed else [],
        "slsaVersion": "1.0",
        NOT_AFTER: rfc3339(not_after_unix_ms),
    }
    return _statement(bundle_name, digest, VSA, predicate)


def parse(payload: bytes) -> Statement:
    """The statement in a payload whose signature was verified. Raises InvalidBundleError."""
    try:
        table = jsontext.loads(payload, max_bytes=MAX_STATEMENT_BYTES)
    except InvalidJsonError as error:
        raise InvalidBundleError(f"statement: {error}") from error
    if not isinstance(table, dict) or table.get("_type") != STATEMENT:
        raise InvalidBundleError(f"statement: expected _type {STATEMENT}, got another")
    predicate_type, predicate = table.get("predicateType"), table.get("predicate")
    if not isinstance(predicate_type, str) or not isinstance(predicate, dict):
        raise InvalidBundleError("statement: expected predicateType and predicate, got none")
    subjects = table.get("subject")
    if not isinstance(subjects, list) or not subjects:
        raise InvalidBundleError("statement: expected a subject, got none")
    return Statement(tuple(_subject_digest(subject) for subject in subjects), predicate_type, predicate)


def check_provenance(predicate: Mapping[str, JsonValue]) -> str:
    """The builder's id. Raises InvalidBundleError when it is no SLSA provenance."""
    if not _text(predicate, "buildDefinition", "buildType"):
        raise InvalidBundleError("provenance: expected buildDefinition.buildType, got none")
    builder = _text(predicate, "runDetails", "builder", "id")
    if not builder:
        raise InvalidBundleError("provenance: expected runDetails.builder.id, got none")
    return builder


def parse_summary(predicate: Mapping[str, JsonValue]) -> Summary:
    """The vetter's summary. Raises InvalidBundleError when a field is missing: no expiry is no summary."""
    result = predicate.get("verificationResult")
    if result not in ("PASSED", "FAILED"):
        raise InvalidBundleError("summary: expected verificationResult PASSED or FAILED, got neither")
    verifier_id = _text(predicate, "verifier", "id")
    policy = _text(predicate, "policy", "digest", "sha256")
    levels = predicate.get("verifiedLevels")
    if not verifier_id or not _SHA256.fullmatch(policy) or not isinstance(levels, list):
        raise InvalidBundleError("summary: expected verifier.id, policy.digest.sha256 and verifiedLevels, got less")
    return Summary(
        verifier_id=verifier_id,
        passed=result == "PASSED",
        levels=tuple(level for level in levels if isinstance(level, str)),
        policy_sha256=policy,
        verified_unix_ms=parse_rfc3339(_text(predicate, "timeVerified"), "timeVerified"),
        not_after_unix_ms=parse_rfc3339(_text(predicate, NOT_AFTER), NOT_AFTER),
    )


def rfc3339(unix_ms: int) -> str:
    """A time in UTC, whole seconds, rounded down. Source: RFC 3339."""
    return datetime.datetime.fromtimestamp(unix_ms // 1000, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_rfc3339(text: str, where: str) -> int:
    """Milliseconds since the epoch of a time in UTC. Raises InvalidBundleError."""
    try:
        if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z", text):
            raise ValueError(text)
        return (datetime.datetime.fromisoformat(text) - _EPOCH) // datetime.timedelta(milliseconds=1)
    except ValueError as error:
        raise InvalidBundleError(f"{where}: expected a time such as 2027-01-31T12:00:00Z, got {text[:40]!a}") from error


def _statement(bundle_name: str, digest: str, predicate_type: str, predicate: JsonValue) -> bytes:
    return jsontext.dumps(
        {
            "_type": STATEMENT,
            "subject": [{"name": bundle_name, "digest": {"sha256": digest}}],
            "predicateType": predicate_type,
            "predicate": predicate,
        }
    )


def _subject_digest(subject: JsonValue) -> str:
    digest = _text(subject, "digest", "sha256")
    if not _SHA256.fullmatch(digest):
        raise InvalidBundleError("statement: expected a subject with a sha256 in hex, got none")
    return digest


def _text(value: object, *path: str) -> str:
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) else ""
