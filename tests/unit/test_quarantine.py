"""The way into quarantine and out of it, in a real registry."""

from __future__ import annotations

import pytest

from plugind.errors import AuditUnavailableError, ConflictError, InvalidRequestError
from plugind.model import Hold
from plugind.registry.database import Registry
from tests.support.desk import Desk


@pytest.fixture
async def desk(tmp_path):
    desk = Desk(tmp_path)
    yield desk
    await desk.runner.stop(1)
    await desk.ledger.close()


def held(version, reason="test"):
    return Hold("quarantined", f"sha256:{version.digest}", reason, 1, 1)


def release(desk, version, uid, stages=("durations",), approvers=2, runs=3, why="it was a false alarm"):
    named = {"by_uid": uid, "why": why, "at_unix_ms": 5, "approvers": approvers, "runs": runs}
    return desk.registry.quarantines.release(version, stages, **named)


def actions(desk):
    return [change.action for change in desk.registry.history()]


async def test_two_people_have_to_say_the_same(desk):
    version = desk.install()
    quarantines = desk.registry.quarantines
    quarantines.put(held(version))
    assert quarantines.hold(version.digest) is not None
    assert not release(desk, version, 1)
    assert not release(desk, version, 1), "one person twice is one voice"
    assert not release(desk, version, 2, stages=("report",)), "other stages are something else"
    assert quarantines.votes(version.digest) == (1, 2)
    assert release(desk, version, 3)
    assert quarantines.hold(version.digest) is None
    probation = quarantines.probation(version.digest)
    assert probation is not None
    assert (probation.stages, probation.runs_left) == (("durations",), 3)
    assert actions(desk)[-5:] == ["quarantine", "release_vote", "release_vote", "release_vote", "release"]


async def test_probation_ends_after_its_runs_and_is_in_the_history(desk):
    version = desk.install()
    desk.registry.quarantines.put(held(version))
    assert release(desk, version, 1, approvers=1, runs=2)
    desk.catalog.proved(version.digest)
    assert desk.registry.quarantines.probation(version.digest).runs_left == 1
    desk.catalog.proved(version.digest)
    assert desk.registry.quarantines.probation(version.digest) is None
    assert actions(desk)[-1] == "probation_end"


async def test_what_was_decided_survives_a_restart(desk, tmp_path):
    version = desk.install()
    desk.registry.quarantines.put(held(version))
    assert release(desk, version, 1, approvers=1)
    again = Registry(tmp_path / "registry.db", lambda change: None, print)
    assert again.quarantines.probation(version.digest).stages == ("durations",)
    again.close()


async def test_back_into_quarantine_ends_the_probation_and_forgets_the_votes(desk):
    version = desk.install()
    quarantines = desk.registry.quarantines
    quarantines.put(held(version))
    assert release(desk, version, 1, approvers=1)
    quarantines.put(held(version, "again"))
    assert quarantines.probation(version.digest) is None
    assert quarantines.votes(version.digest) == ()
    assert not release(desk, version, 1)


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"why": " "}, "reason: expected the cause"), ({"stages": ()}, "stages: expected 1 to 100")],
)
async def test_a_release_needs_a_cause_and_stages(desk, fields, said):
    version = desk.install()
    desk.registry.quarantines.put(held(version))
    with pytest.raises(InvalidRequestError, match=said):
        release(desk, version, 1, **fields)


async def test_only_approved_stages_can_be_named(desk):
    version = desk.install(stages=("durations",))
    desk.registry.quarantines.put(held(version))
    with pytest.raises(InvalidRequestError, match=r"those approved \(durations\), got 'report'"):
        release(desk, version, 1, stages=("report",))


async def test_what_is_not_in_quarantine_cannot_be_released(desk):
    version = desk.install()
    with pytest.raises(ConflictError, match="expected one in quarantine"):
        release(desk, version, 1)


async def test_a_quarantine_takes_effect_when_the_ledger_cannot_be_written_and_a_release_does_not(tmp_path):
    full = []

    def record(change):
        if full:
            raise AuditUnavailableError("no space left on device")

    desk = Desk(tmp_path)
    version = desk.install()
    said = []
    registry = Registry(tmp_path / "registry.db", record, said.append)
    full.append(True)
    registry.quarantines.put(held(version))
    assert registry.quarantines.hold(version.digest) is not None
    assert "takes effect, but the ledger could not record it" in said[0]
    with pytest.raises(AuditUnavailableError):
        registry.quarantines.release(version, ("*",), by_uid=1, why="x", at_unix_ms=1, approvers=1, runs=0)
    assert registry.quarantines.hold(version.digest) is not None
    registry.close()
    await desk.ledger.close()


async def test_a_quarantined_version_is_denied_and_one_on_probation_runs_in_its_stages_alone(desk):
    version = desk.install()
    desk.registry.quarantines.put(held(version))
    denied = await desk.run(stage="durations")
    assert [str(reason.code) for reason in denied.reasons] == ["QUARANTINED"]
    assert release(desk, version, 1, approvers=1)
    elsewhere = await desk.run(stage="report")
    assert [(str(reason.code), reason.rule) for reason in elsewhere.reasons] == [
        ("STAGE_NOT_ALLOWED", "probation.stages")
    ]
    assert (await desk.run(stage="durations")).outcome == "ok"
