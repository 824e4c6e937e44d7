"""Which tier a bundle has earned: from signed statements and keys alone, never from its manifest.

Pure: the time, the trust and the built-in list are arguments. Source: SPEC.md, section "Provenance".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from plugind.errors import InvalidBundleError
from plugind.model import Code, Reason, Tier
from plugind.provenance import dsse, intoto
from plugind.provenance.dsse import Envelope
from plugind.provenance.intoto import Statement, Summary
from plugind.provenance.keys import PublicKey

Role = Literal["publisher", "vetter"]
ROLES: Final[tuple[Role, ...]] = ("publisher", "vetter")
_PREDICATES: Final[Mapping[str, Role]] = {intoto.PROVENANCE: "publisher", intoto.VSA: "vetter"}


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A key that may speak for a role. A vetter's may be pinned to the `verifier.id` that it must name."""

    key: PublicKey
    verifier_id: str = ""


@dataclass(frozen=True, slots=True)
class RoleKeys:
    """Who may speak for a role, and how many different keys have to."""

    keys: tuple[TrustedKey, ...]
    threshold: int

    def __post_init__(self) -> None:
        if self.threshold < 1:
            raise ValueError(f"threshold: expected 1 or more, got {self.threshold}")


@dataclass(frozen=True, slots=True)
class Trust:
    """The trusted keys by role. A role that is missing trusts nobody."""

    roles: Mapping[str, RoleKeys] = field(default_factory=dict)

    def keys_of(self, role: Role) -> tuple[TrustedKey, ...]:
        """The keys of a role."""
        return self.roles[role].keys if role in self.roles else ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """A tier, who vouches for it, until when, and why it is not Tier 1 if it is not."""

    tier: Tier
    reasons: tuple[Reason, ...] = ()
    publishers: tuple[str, ...] = ()
    """Key ids, sorted."""
    vetters: tuple[str, ...] = ()
    not_after_unix_ms: int = 0
    """When the tier lapses; 0: never."""


@dataclass(slots=True)
class _Findings:
    now_unix_ms: int
    digest: str
    reasons: list[Reason] = field(default_factory=list)
    publishers: set[PublicKey] = field(default_factory=set)
    summaries: dict[PublicKey, Summary] = field(default_factory=dict)

    def note(self, code: Code, rule: str, expected: str, actual: str, remedy: str = "") -> None:
        self.reasons.append(Reason(code, f"provenance.{rule}", expected, actual, remedy))


def tier_of(
    digest: str,
    attestations: Sequence[Envelope],
    trust: Trust,
    *,
    now_unix_ms: int,
    origin: str = "authored",
    built_in: Collection[str] = (),
) -> Evidence:
    """The tier of the bundle with this sha256.

    1. A digest in the root-owned built-in list is Tier 0.
    2. There are attestations at all: NOT_SIGNED.
    3. Signatures: a key counts once, whatever its id; a trusted key's id on a wrong signature: BAD_SIGNATURE.
    4. What a trusted key signed is a statement we understand: BAD_SIGNATURE.
    5. It is about this bundle: DIGEST_MISMATCH.
    6. It is the kind of statement that the key's role makes, in full: BAD_SIGNATURE.
    7. A vetter's summary, the newest of each key, has not expired: ATTESTATION_EXPIRED.
    8. It says PASSED, at the level of Tier 1, from the verifier its key is pinned to: THRESHOLD_NOT_MET.
    9. Enough different keys of each role: THRESHOLD_NOT_MET. This is also what vets a synthesized plugin.
    """
    if digest in built_in:  # 1
        return Evidence(tier=0)
    found = _Findings(now_unix_ms, digest)
    if not attestations:  # 2
        remedy = "plugindctl sign FILE --key KEY"
        found.note(Code.NOT_SIGNED, "attestations", "a publisher's and a vetter's statement", "none", remedy)
    for number, envelope in enumerate(attestations, 1):
        _weigh(found, f"envelope {number}", envelope, trust)
    vetters = {key for key, summary in found.summaries.items() if _vouches(found, key, summary, trust)}
    signers: Mapping[Role, set[PublicKey]] = {"publisher": found.publishers, "vetter": vetters}
    met = [_threshold_met(found, role, len(signers[role]), trust, origin) for role in ROLES]  # 9
    ends = [found.summaries[key].not_after_unix_ms for key in vetters]
    return Evidence(
        tier=1 if all(met) else 2,
        reasons=() if all(met) else tuple(found.reasons),
        publishers=tuple(sorted(key.keyid for key in found.publishers)),
        vetters=tuple(sorted(key.keyid for key in vetters)),
        not_after_unix_ms=_lapses(ends, trust) if all(met) else 0,
    )


def signers(digest: str, attestations: Sequence[Envelope], trust: Trust) -> frozenset[str]:
    """Ids of the keys that have signed a statement about the bundle with this sha256, of whatever kind, lapsed or not.

    A signature of a key that is not known cannot be checked: who it says has made it counts. This is for what keeps
    bundles from running, and a key that is not trusted any more is no reason to let them.
    """
    known = {trusted.key for role in ROLES for trusted in trust.keys_of(role)}
    ids = {key.keyid for key in known}
    found: set[str] = set()
    for envelope in attestations:
        if _is_about(envelope, digest):
            found |= {key.keyid for key in dsse.verify(envelope, known)}
            found |= {signature.keyid for signature in envelope.signatures} - ids
    return frozenset(found)


def _is_about(envelope: Envelope, digest: str) -> bool:
    try:
        return digest in intoto.parse(envelope.payload).subject_digests
    except InvalidBundleError:
        return False


def _weigh(found: _Findings, name: str, envelope: Envelope, trust: Trust) -> None:
    known = {trusted.key for role in ROLES for trusted in trust.keys_of(role)}
    signers = dsse.verify(envelope, known)  # 3
    claimed = {key.keyid for key in known} & {signature.keyid for signature in envelope.signatures}
    for keyid in sorted(claimed - {key.keyid for key in signers}):
        found.note(Code.BAD_SIGNATURE, "signature", f"{name}: a signature by key {keyid}", "one that does not verify")
    if not signers:
        return
    try:
        if envelope.payload_type != dsse.PAYLOAD_TYPE:  # 4
            raise InvalidBundleError(f"payloadType: expected {dsse.PAYLOAD_TYPE}, got {envelope.payload_type[:80]!a}")
        statement = intoto.parse(envelope.payload)
        if found.digest not in statement.subject_digests:  # 5
            got = ", ".join(statement.subject_digests)
            found.note(Code.DIGEST_MISMATCH, "subject", f"{name}: about sha256 {found.digest}", got)
            return
        _take(found, statement, signers, trust)  # 6
    except InvalidBundleError as error:
        found.note(Code.BAD_SIGNATURE, "statement", f"{name}: a statement in full", str(error))


def _take(found: _Findings, statement: Statement, signers: Collection[PublicKey], trust: Trust) -> None:
    role = _PREDICATES.get(statement.predicate_type)
    if role is None:  # analysis results, SBOM: others read them
        return
    entitled = {trusted.key for trusted in trust.keys_of(role)} & set(signers)
    if not entitled:
        return
    if role == "publisher":
        intoto.check_provenance(statement.predicate)
        found.publishers |= entitled
        return
    summary = intoto.parse_summary(statement.predicate)
    for key in entitled:
        before = found.summaries.get(key)
        if before is None or _counts(summary) > _counts(before):
            found.summaries[key] = summary


def _counts(summary: Summary) -> tuple[object, ...]:
    """Sorts the newest last, and of the same time the worse one: the order in the file must not decide."""
    good = summary.passed and intoto.TIER_1 in summary.levels
    return summary.verified_unix_ms, not good, -summary.not_after_unix_ms, summary.verifier_id


def _vouches(found: _Findings, key: PublicKey, summary: Summary, trust: Trust) -> bool:
    who = f"vetter {key.keyid}"
    if summary.not_after_unix_ms <= found.now_unix_ms:  # 7
        ended, now = intoto.rfc3339(summary.not_after_unix_ms), intoto.rfc3339(found.now_unix_ms)
        found.note(Code.ATTESTATION_EXPIRED, "expiry", f"{who}: a summary that holds at {now}", f"it ended {ended}")
        return False
    if not summary.passed or intoto.TIER_1 not in summary.levels:  # 8
        got = "FAILED" if not summary.passed else f"PASSED with {', '.join(summary.levels) or 'no level'}"
        found.note(Code.THRESHOLD_NOT_MET, "summary", f"{who}: PASSED with {intoto.TIER_1}", got)
        return False
    pins = {trusted.verifier_id for trusted in trust.keys_of("vetter") if trusted.key == key}
    if "" not in pins and summary.verifier_id not in pins:
        expected = f"{who}: verifier.id {' or '.join(sorted(pins))}"
        found.note(Code.THRESHOLD_NOT_MET, "verifier", expected, ascii(summary.verifier_id))
        return False
    return True


def _threshold_met(found: _Findings, role: Role, count: int, trust: Trust, origin: str) -> bool:
    keys = trust.roles.get(role)
    if keys is not None and count >= keys.threshold:
        return True
    expected = f"{keys.threshold} {role} key(s)" if keys else f"trusted {role} keys"
    actual = str(count) if keys else "nobody is trusted as one"
    if role == "vetter" and origin == "synthesized":
        expected += ', because origin = "synthesized" is Tier 2 until vetted'
    found.note(Code.THRESHOLD_NOT_MET, f"{role}.threshold", expected, actual)
    return False


def _lapses(ends: list[int], trust: Trust) -> int:
    """When so many summaries have ended that the threshold is not met any more."""
    return sorted(ends, reverse=True)[trust.roles["vetter"].threshold - 1]
