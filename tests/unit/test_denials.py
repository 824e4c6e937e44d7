"""Every denial code there is, each brought about as it comes about, through a real catalog, policy and ledger."""

from __future__ import annotations

import dataclasses
import sqlite3

import pytest

from plugind.audit import segments
from plugind.errors import IsolationUnavailableError
from plugind.model import Code, Hold
from plugind.policy.rules import Policy
from plugind.provenance import bundle
from plugind.provenance.evidence import RoleKeys, Trust, TrustedKey
from plugind.provenance.keys import PrivateKey
from plugind.registry.database import Submission
from tests.support.desk import PROFILES, codes, until
from tests.support.fake_launcher import forever
from tests.support.plugins import CALLER, DAY_MS, approval, attested, built

PUBLISHER, VETTER = PrivateKey.generate(), PrivateKey.generate()
TRUST = Trust(
    {
        "publisher": RoleKeys((TrustedKey(PUBLISHER.public),), 1),
        "vetter": RoleKeys((TrustedKey(VETTER.public),), 1),
    }
)
READ = '[[permissions.file_read]]\npath = "*"\n'
NOT_OF_A_RUN = {
    Code.KEY_REVOKED: "revocations come with the trust root's rotation",
    Code.TRUST_STALE: "the same",
    Code.SEQUENCE_ROLLBACK: "activate tells it: test_registry.py",
}


def signed(desk, attestations):
    """A version that was approved as Tier 1 while its evidence held, and then has only these attestations."""
    desk.catalog._trust = TRUST
    data = built(desk.folder / "plugins")
    desk.catalog.submit(data, attested(data, PUBLISHER, VETTER), [], by_uid=1)
    desk.catalog.approve("echo", "1.0.0", approval(tier=1), approvers=1)
    desk.catalog.activate("echo", "1.0.0", by_uid=1)
    with sqlite3.connect(desk.folder / "registry.db") as database:
        database.execute("UPDATE versions SET attestations = ?", (attestations(data),))
    database.close()


def sql(desk, statement):
    with sqlite3.connect(desk.folder / "registry.db") as database:
        database.execute(statement)
    database.close()


def held(kind):
    def act(desk):
        desk.install()
        desk.catalog.holds.set(Hold(kind, "echo", "test", 1, 1))

    return act


def caller_not_allowed(desk):
    desk.install()
    return {"caller": dataclasses.replace(CALLER, roles=frozenset())}


def not_approved(desk):
    desk.catalog.submit(built(desk.folder / "plugins"), b"", [], by_uid=1)


def approval_expired(desk):
    desk.install()
    desk.catalog.approve("echo", "1.0.0", approval(not_after_unix_ms=1000), approvers=1)


def permission_not_approved(desk):
    desk.install(extra=READ)


def limit_above_ceiling(desk):
    desk.install(extra=f"[limits]\nwall_ms = {PROFILES[2].ceilings.wall_ms + 1}\n")


def revoked(desk):
    desk.install()
    sql(desk, "UPDATE versions SET state = 'revoked'")
    return {"version": "1.0.0"}


def digest_mismatch(desk):
    path = desk.catalog._store.path(desk.install().digest)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def unlisted_file(desk):
    """Bytes that are what their digest says, and no bundle."""
    read = bundle.read(built(desk.folder / "plugins"))
    digest = desk.catalog._store.put(b"no bundle")
    desk.registry.submit(Submission(read.manifest, digest, read.sequence, 2, b"", 1, 1))
    desk.catalog.approve("echo", "1.0.0", approval(), approvers=1)
    desk.catalog.activate("echo", "1.0.0", by_uid=1)


def tier_not_allowed(desk):
    desk.install()
    tiers = {**desk.policy.tiers, 2: dataclasses.replace(desk.policy.tiers[2], enabled=False)}
    desk.policy = dataclasses.replace(desk.policy, tiers=tiers)


def audit_unavailable(desk):
    desk.install()
    (segment,) = segments.segments(desk.folder / "ledger")
    segment.rename(segment.with_name("moved"))


def isolation_unavailable(desk):
    desk.install()

    async def fail(request):
        raise IsolationUnavailableError("seccomp", "no such filter")

    desk.sandbox.behaviour = fail


def policy_error(desk):
    desk.install()
    desk.policy = dataclasses.replace(desk.policy, stages=None)


def flipped(data):
    """The publisher's signature does not verify any more."""
    said = attested(data, PUBLISHER, VETTER).split(b"\n")
    head, _, tail = said[0].partition(b'"sig":"')
    return b"\n".join([head + b'"sig":"' + b"A" * 86 + b"==" + tail[tail.index(b'"') :], *said[1:]])


CASES = {
    Code.CALLER_NOT_ALLOWED: caller_not_allowed,
    Code.PLUGIN_NOT_FOUND: lambda desk: None,
    Code.NOT_SIGNED: lambda desk: signed(desk, lambda data: b""),
    Code.BAD_SIGNATURE: lambda desk: signed(desk, flipped),
    Code.THRESHOLD_NOT_MET: lambda desk: signed(desk, lambda data: attested(data, PUBLISHER)),
    Code.ATTESTATION_EXPIRED: lambda desk: signed(desk, lambda data: attested(data, PUBLISHER, VETTER, DAY_MS)),
    Code.DIGEST_MISMATCH: digest_mismatch,
    Code.UNLISTED_FILE: unlisted_file,
    Code.BUNDLE_REVOKED: revoked,
    Code.NOT_APPROVED: not_approved,
    Code.APPROVAL_EXPIRED: approval_expired,
    Code.PERMISSION_NOT_APPROVED: permission_not_approved,
    Code.STAGE_NOT_ALLOWED: lambda desk: desk.install(stages=("durations",)) and {"stage": "report"},
    Code.TIER_NOT_ALLOWED: tier_not_allowed,
    Code.SENSITIVITY_TOO_HIGH: lambda desk: desk.install() and {"sensitivity": "restricted"},
    Code.LIMIT_ABOVE_CEILING: limit_above_ceiling,
    Code.QUARANTINED: held("quarantined"),
    Code.KILLED: held("killed"),
    Code.SUSPENDED: held("suspended"),
    Code.REVALIDATION_REQUIRED: held("revalidation_required"),
    Code.INPUT_INVALID: lambda desk: desk.install(input_schema={"type": "object"}) and {"payload": 1},
    Code.INPUT_TOO_LARGE: lambda desk: desk.install() and {"payload": "x" * (PROFILES[2].input_bytes + 1)},
    Code.AUDIT_UNAVAILABLE: audit_unavailable,
    Code.ISOLATION_UNAVAILABLE: isolation_unavailable,
    Code.POLICY_ERROR: policy_error,
}


def test_the_table_has_every_code_of_a_run():
    assert set(CASES) | set(NOT_OF_A_RUN) | {Code.BUSY} == set(Code)


@pytest.mark.parametrize("code", CASES, ids=str)
async def test_each_denial_comes_with_its_code_and_is_recorded(desk, code):
    fields = CASES[code](desk)
    answer = await desk.run(**(fields if isinstance(fields, dict) else {}))
    assert answer.outcome is None
    assert str(code) in codes(answer)
    reason = next(reason for reason in answer.reasons if reason.code is code)
    assert reason.rule
    assert reason.expected
    assert reason.actual
    if code is not Code.AUDIT_UNAVAILABLE:
        assert str(code) in str(desk.events()[-1]["reasons"])


async def test_one_run_more_than_the_tier_has_places_for_is_busy(desk):
    import asyncio

    desk.install()
    desk.sandbox.behaviour = forever
    runs = [asyncio.create_task(desk.run()) for _ in range(PROFILES[2].instances)]
    await until(lambda: desk.sandbox.running == len(runs))
    assert codes(await desk.run()) == ["BUSY"]
    desk.runner.flights.end_all("canceled")
    await asyncio.gather(*runs)


async def test_an_empty_policy_allows_nothing(desk):
    desk.install()
    desk.policy = Policy()
    answer = await desk.run(stage="durations")
    assert answer.outcome is None
    assert {"TIER_NOT_ALLOWED", "STAGE_NOT_ALLOWED", "SENSITIVITY_TOO_HIGH"} <= set(codes(answer))
