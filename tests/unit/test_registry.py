"""The registry: the life of a version, holds, votes; every change recorded, or not made at all."""

from __future__ import annotations

import json
import sqlite3

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from plugind.errors import AuditUnavailableError, ConflictError, InvalidRequestError, NotFoundError, StateError
from plugind.model import Hold, Limits, Permission
from plugind.provenance import bundle
from plugind.registry.connection import RESERVE_BYTES
from plugind.registry.database import Act, Registry, Submission
from tests.support.plugins import approval, built

ACT = Act(5, 50, "because")


class Book:
    """What the audit was told."""

    def __init__(self):
        self.changes = []
        self.full = False
        self.warnings = []

    def changed(self, change):
        if self.full:
            raise AuditUnavailableError("disk full")
        self.changes.append(change)

    @property
    def actions(self):
        return [change.action for change in self.changes]


@pytest.fixture
def book():
    return Book()


@pytest.fixture
def registry(tmp_path, book):
    opened = Registry(tmp_path / "registry.db", book.changed, book.warnings.append)
    yield opened
    opened.close()


@pytest.fixture
def submit(tmp_path, registry):
    def hand_in(version="1.0.0", tier=2, attestations=b"", by_uid=1, **named):
        read = bundle.read(
            built(tmp_path / f"{version}-{len(named)}-{by_uid}-{tier}-{len(attestations)}", "echo", version, **named)
        )
        new = Submission(read.manifest, read.digest, read.sequence, tier, attestations, by_uid, 10)
        return registry.submit(new)

    return hand_in


def test_a_version_lives_from_submitted_to_retired(registry, submit, book):
    assert submit("1.0.0").state == "submitted"
    submit("1.1.0")
    assert registry.approve("echo", "1.0.0", approval()).state == "approved"
    assert registry.activate("echo", "1.0.0", ACT).state == "active"
    registry.approve("plug_1", "1.1.0", approval())
    assert registry.activate("plug_1", "1.1.0", ACT).state == "active"
    assert [each.state for each in registry.get("echo").versions] == ["retired", "active"]
    assert book.actions == ["submit", "submit", "approve", "activate", "approve", "retire", "activate"]
    assert [change.action for change in registry.history("echo")] == book.actions
    assert (
        [change.revision for change in registry.history("echo")]
        == list(range(1, 8))
        == list(range(1, registry.revision + 1))
    )


def test_the_same_bytes_again_change_nothing_and_other_bytes_are_refused(registry, submit, book):
    first = submit()
    assert registry.submit(Submission(first.manifest, first.digest, first.sequence, 2, b"", 9, 99)) == first
    with pytest.raises(ConflictError, match="other content needs another version"):
        registry.submit(Submission(first.manifest, "f" * 64, first.sequence, 2, b"", 9, 99))
    assert book.actions == ["submit"]


def test_newer_attestations_may_lower_the_tier_and_never_raise_it(registry, submit):
    first = submit()
    better = registry.submit(Submission(first.manifest, first.digest, first.sequence, 1, b"signed", 1, 11))
    assert (better.tier, better.attestations) == (1, b"signed")
    worse = registry.submit(Submission(first.manifest, first.digest, first.sequence, 2, b"other", 1, 12))
    assert (worse.tier, worse.attestations) == (1, b"signed")


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"reason": "  "}, InvalidRequestError, "reason"),
        ({"tier": 1}, ConflictError, "tier: expected 2 or higher"),
        ({"stages": ("report",)}, ConflictError, "stages"),
        ({"permissions": (Permission("network", "{}"),)}, ConflictError, "network"),
        ({"limits": Limits(wall_ms=5001)}, ConflictError, "limits.wall_ms: expected at most 5000"),
    ],
)
def test_nothing_beyond_what_is_declared_can_be_approved(registry, submit, book, wrong, error, said):
    submit(stages=("durations",), extra="[limits]\nwall_ms = 5000\n")
    given = {"stages": ("durations",)} | wrong
    with pytest.raises(error, match=said):
        registry.approve("echo", "1.0.0", approval(**given))
    assert book.actions == ["submit"]
    assert registry.version("echo", "1.0.0").approval is None


def test_two_approvers_have_to_be_two_and_to_say_the_same(registry, submit, book):
    submit()
    assert registry.approve("echo", "1.0.0", approval(by_uid=1), approvers=2).state == "submitted"
    assert registry.approve("echo", "1.0.0", approval(by_uid=1), approvers=2).state == "submitted"
    assert registry.approve("echo", "1.0.0", approval(by_uid=2, stages=()), approvers=2).state == "submitted"
    assert registry.approve("echo", "1.0.0", approval(by_uid=2), approvers=2).state == "approved"
    assert book.actions == ["submit", "vote", "vote", "vote", "approve"]


def test_a_rejected_version_loses_approval_votes_and_its_place(registry, submit):
    submit()
    registry.approve("echo", "1.0.0", approval())
    registry.activate("echo", "1.0.0", ACT)
    with pytest.raises(InvalidRequestError):
        registry.reject("echo", "1.0.0", Act(1, 1, ""))
    rejected = registry.reject("echo", "1.0.0", ACT)
    assert (rejected.state, rejected.approval) == ("submitted", None)
    with pytest.raises(ConflictError):
        registry.activate("echo", "1.0.0", ACT)


def test_activate_goes_forward_and_rollback_goes_back(registry, submit):
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        submit(version)
        registry.approve("echo", version, approval())
    registry.activate("echo", "1.0.0", ACT)
    with pytest.raises(ConflictError, match="was active before, got none"):
        registry.rollback("echo", "", ACT)
    registry.activate("echo", "2.0.0", ACT)
    with pytest.raises(ConflictError, match="SEQUENCE_ROLLBACK"):
        registry.activate("echo", "1.1.0", ACT)
    with pytest.raises(InvalidRequestError):
        registry.rollback("echo", "", Act(1, 1))
    assert registry.rollback("echo", "", ACT).manifest.version == "1.0.0"
    assert registry.rollback("echo", "1.1.0", ACT).manifest.version == "1.1.0"
    assert registry.rollback("echo", "", ACT).manifest.version == "1.0.0"
    assert registry.history("echo")[-1].why == "because"


def test_unknown_names_are_told_with_what_there_is(registry, submit):
    submit()
    for name in ("nothing", "plug_2", "plug_01", "plug_"):
        with pytest.raises(NotFoundError):
            registry.get(name)
    with pytest.raises(NotFoundError, match=r"expected one of 1\.0\.0, got 9\.9\.9"):
        registry.version("echo", "9.9.9")


def test_a_change_that_the_audit_cannot_have_is_not_made(registry, submit, book):
    submit()
    book.full = True
    with pytest.raises(AuditUnavailableError):
        registry.approve("echo", "1.0.0", approval())
    with pytest.raises(AuditUnavailableError):
        registry.holds.set(hold("suspended", "echo"))
    assert registry.version("echo", "1.0.0").approval is None
    assert registry.holds.all() == ()
    assert registry.revision == 1


# --- holds -------------------------------------------------------------------------------------------------------


def hold(kind="killed", target="echo", reason="it hurts", by_uid=3):
    return Hold(kind, target, reason, by_uid, 30)


@pytest.mark.parametrize("target", ["all", "echo", "echo@1.0.0", "digest"])
def test_a_hold_is_on_what_it_names_until_it_is_lifted(registry, submit, book, target):
    version = submit()
    other = submit("2.0.0")
    kept = registry.holds.target(version.digest if target == "digest" else target)
    registry.holds.set(hold(target=kept))
    assert [each.target for each in registry.holds.on(version.targets)] == [kept]
    assert bool(registry.holds.on(other.targets)) is (target in ("all", "echo"))
    lifted = registry.holds.lift("killed", kept, by_uid=4, at_unix_ms=40, why="it was somebody else")
    assert lifted.by_uid == 4
    assert registry.holds.on(version.targets) == ()
    assert book.actions[-2:] == ["kill", "kill_lift"]
    assert json.loads(book.changes[-1].detail) == {"target": kept}


def test_a_kill_is_kept_over_a_restart_and_a_second_one_changes_nothing(tmp_path, registry, submit, book):
    submit()
    first = registry.holds.set(hold())
    assert registry.holds.set(hold(reason="again", by_uid=8)) == first
    again = Registry(tmp_path / "registry.db", book.changed, book.warnings.append)
    assert again.holds.all() == (first,)
    again.close()


def test_a_kill_takes_effect_when_the_audit_is_full(registry, submit, book):
    version = submit()
    book.full = True
    registry.holds.set(hold())
    assert registry.holds.on(version.targets)
    assert "takes effect" in book.warnings[0]
    assert registry.history("echo")[-1].action == "kill"


OF_NO_PLUGIN = (f"key:{'ab' * 32}", "pkg:pypi/numpy@1.26.4", "plan:a@b", "caller:1000", "tier:2")


@pytest.mark.parametrize("target", OF_NO_PLUGIN)
def test_a_hold_on_no_plugin_is_in_the_history_with_its_target_and_under_no_name(registry, submit, book, target):
    version = submit()
    assert registry.holds.target(target) == target
    registry.holds.set(hold(target=target))
    assert registry.holds.on(version.targets) == ()
    assert [each.target for each in registry.holds.on({target})] == [target]
    change = book.changes[-1]
    assert (change.plugin, change.version, change.digest, json.loads(change.detail)) == ("", "", "", {"target": target})
    assert registry.history()[-1].action == "kill"
    assert "kill" not in [each.action for each in registry.history("echo")]
    registry.holds.lift("killed", target, by_uid=4, at_unix_ms=40, why="over")
    assert registry.holds.all() == ()


def test_an_announced_hold_is_in_force_before_it_is_durable_and_once_afterwards(registry, submit, book):
    version = submit()
    registry.holds.announce(hold())
    registry.holds.announce(hold(reason="again"))
    assert [each.reason for each in registry.holds.on(version.targets)] == ["it hurts"]
    assert "kill" not in book.actions
    registry.holds.set(hold())
    registry.holds.announce(hold())
    assert registry.holds.all() == (hold(),)
    with pytest.raises(InvalidRequestError):
        registry.holds.announce(hold(target="other", reason=""))


def test_an_announced_hold_that_cannot_be_made_durable_stays_until_it_is_lifted(registry, submit):
    version = submit()
    with sqlite3.connect(registry_path(registry), timeout=0) as other:
        other.execute("BEGIN IMMEDIATE")
        registry.holds.announce(hold())
        registry._database._writer.execute("PRAGMA busy_timeout = 0")
        with pytest.raises(StateError, match="locked"):
            registry.holds.set(hold())
        other.rollback()
    other.close()
    assert registry.holds.on(version.targets) == (hold(),)
    registry.holds.lift("killed", "echo", by_uid=1, at_unix_ms=2, why="over")
    assert registry.holds.on(version.targets) == ()


def registry_path(registry):
    return registry._database._path


def test_a_kill_has_room_that_was_set_aside_for_a_full_disk_and_nothing_else_has(tmp_path, registry, submit):
    """The file may not grow: SQLite says that the disk is full (SQLITE_FULL)."""
    submit()
    reserve = tmp_path / "registry.db-reserve"
    assert reserve.stat().st_blocks * 512 >= RESERVE_BYTES
    writer = registry._database._writer
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count = {pages}")
    long = "x" * 100_000
    with pytest.raises(StateError, match="full"):
        registry.holds.set(hold("suspended", reason=long))
    assert reserve.exists()
    with pytest.raises(StateError, match="full"):
        registry.holds.set(hold(reason=long))
    assert not reserve.exists(), "it was given back, which this limit does not see"


def test_holds_need_a_reason_and_a_target_that_is_there(registry, submit):
    submit()
    with pytest.raises(InvalidRequestError):
        registry.holds.set(hold(reason=" "))
    for unknown in ("nothing", "echo@9.9.9", "plug_2"):
        with pytest.raises(NotFoundError):
            registry.holds.target(unknown)
    for wrong in ("", "@1", "echo@", "tier:9", "caller:me"):
        with pytest.raises((InvalidRequestError, NotFoundError)):
            registry.holds.target(wrong)
    assert registry.holds.target("plug_1@1.0.0") == "echo@1.0.0"
    assert registry.holds.target("F" * 64 if False else "ab" * 32) == "sha256:" + "ab" * 32
    with pytest.raises(ConflictError, match=r"expected one that is killed \(nothing\)"):
        registry.holds.lift("killed", "echo", by_uid=1, at_unix_ms=1, why="x")


# --- the file ----------------------------------------------------------------------------------------------------


def test_what_is_no_registry_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "registry.db"
    path.write_bytes(b"not a database, and long enough to be looked at as one" * 100)
    with pytest.raises(StateError, match="expected a registry of plugind"):
        Registry(path, lambda change: None, print)
    assert path.read_bytes().startswith(b"not a database")
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    with pytest.raises(StateError, match="version 0"):
        Registry(path, lambda change: None, print)


class Lives(RuleBasedStateMachine):
    """Any order of acts: at most one version is active, only what is approved is, and no act is lost or told twice."""

    @initialize()
    def begin(self):
        import tempfile
        from pathlib import Path

        self.folder = tempfile.TemporaryDirectory()
        self.book = Book()
        self.registry = Registry(Path(self.folder.name) / "r.db", self.book.changed, print)
        for version in VERSIONS:
            read = bundle.read(built(Path(self.folder.name), "echo", version))
            self.registry.submit(Submission(read.manifest, read.digest, read.sequence, 2, b"", 1, 1))

    @rule(
        version=st.sampled_from(("1.0.0", "1.1.0", "2.0.0")),
        act=st.sampled_from(("approve", "reject", "activate", "rollback")),
    )
    def act(self, version, act):
        try:
            if act == "approve":
                self.registry.approve("echo", version, approval())
            else:
                getattr(self.registry, act)("echo", version, ACT)
        except ConflictError:
            pass

    @invariant()
    def holds(self):
        versions = self.registry.get("echo").versions
        active = [each for each in versions if each.state == "active"]
        assert len(active) <= 1
        assert all(each.approval is not None for each in active)
        assert all(each.approval is None for each in versions if each.state == "submitted")
        assert [each.action for each in self.registry.history("echo")] == self.book.actions

    def teardown(self):
        self.registry.close()
        self.folder.cleanup()


VERSIONS = ("1.0.0", "1.1.0", "2.0.0")
TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=15, stateful_step_count=12, deadline=None, database=None)
