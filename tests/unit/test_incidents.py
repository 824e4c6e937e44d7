"""Incidents: what opens them, what is kept of them, how they are closed, and what the ledger is told."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugind.errors import AuditUnavailableError, ConflictError, InvalidRequestError, NotFoundError
from plugind.governance import incidents as module
from plugind.governance.database import Database
from plugind.governance.incidents import NO_RECORD, NOTHING, About, Event, Incidents, about_target, number_of
from plugind.model import POLICY_UID, SEVERITIES, Hold
from tests.support.findings import anomaly, observation

ABOUT = About("plug_1", "demo", "1.0.0", "ab" * 32)


class Ledger:
    """Keeps what it is told, until it is full."""

    def __init__(self):
        self.records = []
        self.full = False

    def __call__(self, action, incident, by_uid, why):
        if self.full:
            raise AuditUnavailableError("the disk is full")
        self.records.append((action, incident.id, by_uid, why))
        return 100 + len(self.records)


class Desk:
    def __init__(self, folder):
        self.ledger, self.warnings = Ledger(), []
        self.database = Database(folder / "monitor.db")
        self.incidents = Incidents(self.database, self.ledger, self.warnings.append)


@pytest.fixture
def desk(tmp_path):
    made = Desk(tmp_path)
    yield made
    made.database.close()


def opened(desk, severity="medium", **fields):
    return desk.incidents.open("wrong sums", severity, by_uid=7, now=10, **({"about": ABOUT} | fields))


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_one_opened_by_hand_is_there_and_in_the_ledger(desk):
    made = opened(desk)
    assert (made.id, made.is_open, made.severity, made.cause, made.about) == (
        "incident_1",
        True,
        "medium",
        "hand",
        ABOUT,
    )
    assert desk.incidents.get("incident_1") == made
    assert desk.ledger.records == [("incident_open", "incident_1", 7, "wrong sums")]
    assert desk.incidents.events("incident_1") == (Event(10, "opened", "medium: wrong sums", 101, 7),)


def test_what_cannot_be_recorded_is_not_done(desk):
    kept = opened(desk)
    desk.ledger.full = True
    with pytest.raises(AuditUnavailableError):
        opened(desk)
    with pytest.raises(AuditUnavailableError):
        desk.incidents.close(kept.id, 7, "mended", 20)
    assert desk.incidents.list(closed=True) == [kept]
    assert len(desk.incidents.events(kept.id)) == 1


@pytest.mark.parametrize("fields", [{"title": " "}, {"severity": "awful"}, {"severity": ""}])
def test_one_without_a_title_or_severity_is_refused(desk, fields):
    given = {"title": "t", "severity": "low"} | fields
    with pytest.raises(InvalidRequestError):
        desk.incidents.open(given["title"], given["severity"], by_uid=1, now=1)
    assert desk.incidents.list(closed=True) == []


def test_closing_keeps_who_and_why_and_happens_once(desk):
    made = opened(desk)
    closed = desk.incidents.close(made.id, 8, "mended in 1.0.1", 30)
    assert (closed.is_open, closed.closed_by_uid, closed.closed_unix_ms, closed.closing) == (
        *(False, 8, 30),
        "mended in 1.0.1",
    )
    assert desk.ledger.records[-1] == ("incident_close", made.id, 8, "mended in 1.0.1")
    assert desk.incidents.events(made.id)[-1] == Event(30, "closed", "mended in 1.0.1", 102, 8)
    with pytest.raises(ConflictError, match="uid 8"):
        desk.incidents.close(made.id, 9, "again", 40)
    assert desk.incidents.list() == []
    assert desk.incidents.list(closed=True) == [closed]


def test_root_can_close_one(desk):
    assert not desk.incidents.close(opened(desk).id, 0, "done", 30).is_open


def test_closing_needs_a_reason(desk):
    with pytest.raises(InvalidRequestError):
        desk.incidents.close(opened(desk).id, 8, "  ", 30)
    assert desk.incidents.list()[0].is_open


@pytest.mark.parametrize(
    "text", ["", "1", "incident_", "incident_0", "incident_01", "incident_2", "incident_9" * 40, "x"]
)
def test_what_is_no_incident_is_not_found(desk, text):
    opened(desk)
    with pytest.raises(NotFoundError):
        desk.incidents.get(text)
    with pytest.raises(NotFoundError):
        desk.incidents.close(text, 1, "w", 1)
    with pytest.raises(NotFoundError):
        desk.incidents.note(text, Event(1, "seen", "t"))
    with pytest.raises(NotFoundError):
        desk.incidents.events(text)


@given(st.text(max_size=40))
def test_only_its_own_form_is_an_id(text):
    try:
        number = number_of(text)
    except NotFoundError:
        return
    assert text == f"incident_{number}"


def test_they_are_there_after_a_restart_and_numbers_are_never_used_again(desk, tmp_path):
    made = opened(desk)
    desk.incidents.close(made.id, 8, "done", 30)
    desk.database.close()
    again = Desk(tmp_path)
    assert again.incidents.get(made.id).closing == "done"
    assert opened(again).id == "incident_2"
    again.database.close()


def test_notes_raise_the_severity_and_never_lower_it(desk):
    made = opened(desk)
    assert desk.incidents.note(made.id, Event(20, "seen", "again", 5, 7, "plan-2"), "critical").severity == "critical"
    after = desk.incidents.note(made.id, Event(30, "seen", "once more", 6, 7, "plan-1"), "low")
    assert (after.severity, after.plans) == ("critical", ("plan-1", "plan-2"))


@given(st.lists(st.sampled_from(SEVERITIES), min_size=1))
def test_the_worst_is_kept(severities):
    assert SEVERITIES.index(module.worst(severities)) == max(map(SEVERITIES.index, severities))


# --- by the monitor --------------------------------------------------------------------------------------------------


def test_a_hard_trigger_opens_one_and_the_next_is_added(desk):
    first = desk.incidents.about_anomaly(anomaly(severity="high"), 50)
    assert (first.cause, first.severity, first.opened_by_uid) == ("dangerous_syscall", "high", POLICY_UID)
    assert first.about == About("plug_1", "demo", "1.0.0", "ab" * 32)
    assert desk.incidents.open_for("ab" * 32) == first
    second = desk.incidents.about_anomaly(
        anomaly(trigger="digest_mismatch", severity="critical", seen=observation(plan_id="plan-9", intent=9)), 60
    )
    assert (second.id, second.severity, second.plans) == (first.id, "critical", ("plan-1", "plan-9"))
    kinds = [(event.kind, event.log_index) for event in desk.incidents.events(first.id)]
    assert kinds.count(("anomaly", 4)) == kinds.count(("anomaly", 9)) == 1


def test_a_soft_or_only_observed_one_opens_nothing_but_is_added(desk):
    soft = anomaly(trigger="failures", hard=False, severity="low")
    observed = anomaly(observed=True, severity="critical")
    assert desk.incidents.about_anomaly(soft, 50) is None
    assert desk.incidents.about_anomaly(observed, 50) is None
    assert desk.incidents.list() == []
    there = desk.incidents.about_anomaly(anomaly(severity="medium"), 50)
    assert desk.incidents.about_anomaly(soft, 60).id == there.id
    after = desk.incidents.about_anomaly(observed, 60)
    assert (after.id, after.severity) == (there.id, "medium")
    assert "(only observed)" in desk.incidents.events(there.id)[-1].text + desk.incidents.events(there.id)[-2].text


def test_a_closed_one_takes_no_further_anomaly(desk):
    first = desk.incidents.about_anomaly(anomaly(), 50)
    desk.incidents.close(first.id, 1, "done", 60)
    assert desk.incidents.open_for("ab" * 32) is None
    assert desk.incidents.about_anomaly(anomaly(), 70).id == "incident_2"


def test_another_version_has_its_own(desk):
    desk.incidents.about_anomaly(anomaly(), 50)
    other = desk.incidents.about_anomaly(anomaly(seen=observation(digest="cd" * 32)), 60)
    assert other.id == "incident_2"


def test_what_has_no_digest_is_told_apart_by_cause_and_name(desk):
    unknown = anomaly(seen=observation(digest="", plugin="ghost", version=""))
    first = desk.incidents.about_anomaly(unknown, 50)
    assert desk.incidents.about_anomaly(unknown, 60).id == first.id
    opened(desk, about=NOTHING)
    assert desk.incidents.open_for("") is None
    other = desk.incidents.about_anomaly(dataclasses.replace(unknown, trigger="undeclared_connection"), 60)
    assert other.id not in {first.id, "incident_2"}


def test_a_full_ledger_keeps_none_from_existing_that_a_trigger_or_a_kill_opens(desk):
    desk.ledger.full = True
    made = desk.incidents.about_anomaly(anomaly(), 50)
    assert desk.incidents.get(made.id).is_open
    assert desk.incidents.events(made.id)[0].log_index in {NO_RECORD, 4}
    killed = desk.incidents.about_kill(Hold("killed", "all", "stop", 3, 60), 2, 60)
    assert desk.incidents.get(killed.id).is_open
    assert len(desk.warnings) == 2
    assert "could not record" in desk.warnings[0]


def test_events_and_plans_of_a_plugin_that_does_not_stop_are_bounded(desk):
    for number in range(module.MOST_EVENTS + 5):
        made = desk.incidents.about_anomaly(anomaly(seen=observation(plan_id=f"plan-{number}")), 50 + number)
    assert len(desk.incidents.events(made.id)) == module.MOST_EVENTS
    assert len(made.plans) == module.MOST_PLANS
    assert desk.incidents.about_anomaly(anomaly(severity="critical"), 9000).severity == "critical"
    desk.incidents.note(made.id, Event(9001, "seen", "by a person", by_uid=7))
    desk.incidents.close(made.id, 7, "done", 9002)
    assert [event.kind for event in desk.incidents.events(made.id)][-2:] == ["seen", "closed"]


# --- by a kill -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target,about",
    [
        ("all", NOTHING),
        ("sha256:" + "ab" * 32, About(digest="ab" * 32)),
        ("demo", About(plugin="demo")),
        ("demo@1.0.0", About(plugin="demo", version="1.0.0")),
        ("plan:roof: 1", About(target="plan:roof: 1")),
        ("pkg:pypi/words@1.0", About(target="pkg:pypi/words@1.0")),
    ],
)
def test_a_kill_opens_one_about_what_it_means_and_the_same_again_is_added(desk, target, about):
    assert about_target(target) == about
    made = desk.incidents.about_kill(Hold("killed", target, "wrong sums", 3, 60), 1, 61)
    assert (made.cause, made.severity, made.about, made.opened_by_uid) == ("kill", "high", about, 3)
    assert desk.incidents.events(made.id)[-1] == Event(61, "killed", f"{target}: wrong sums (1 run ended)", by_uid=3)
    again = desk.incidents.about_kill(Hold("killed", target, "wrong sums", 3, 60), 0, 70)
    assert again.id == made.id
    assert desk.incidents.events(made.id)[-1].text.endswith("(0 runs ended)")


def test_each_thing_that_is_killed_has_its_own(desk):
    targets = ["all", "plan:roof", "plan:roof: 1", "caller:1000", "tier:1", "tier:2", "key:ab", "pkg:pypi/words"]
    made = [desk.incidents.about_kill(Hold("killed", each, "stop", 3, 60), 1, 61) for each in targets]
    assert len({each.id for each in made}) == len(targets)
    assert [each.title.partition(": killed")[0] for each in made] == ["everything", *targets[1:]]
    desk.incidents.close(made[1].id, 7, "done", 62)
    again = [desk.incidents.about_kill(Hold("killed", each, "stop", 3, 60), 1, 63).id for each in targets]
    assert again == [made[0].id, "incident_9", *(each.id for each in made[2:])], "a closed one takes no further kill"


def test_incidents_of_before_are_still_there(desk, tmp_path):
    first = desk.incidents.about_kill(Hold("killed", "tier:2", "stop", 3, 60), 1, 61)
    desk.database.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "monitor.db")) as old:
        old.executescript("ALTER TABLE incidents DROP COLUMN target; PRAGMA user_version = 1;")
    made = Desk(tmp_path)
    assert made.incidents.get(first.id).about == NOTHING
    assert made.incidents.about_kill(Hold("killed", "tier:2", "stop", 3, 60), 1, 70).about == About(target="tier:2")
    made.database.close()


def test_a_kill_of_what_an_incident_is_about_is_added_to_it(desk):
    first = desk.incidents.about_anomaly(anomaly(severity="low"), 50)
    killed = desk.incidents.about_kill(Hold("killed", "demo@1.0.0", "now", 3, 60), 4, 61, ABOUT)
    assert (killed.id, killed.severity) == (first.id, "high")


# --- many of them ----------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["anomaly", "kill", "close"]), st.sampled_from(["aa", "bb"]), st.sampled_from(SEVERITIES)
        ),
        max_size=25,
    )
)
def test_at_most_one_is_open_for_a_digest_and_severity_only_rises(tmp_path_factory, acts):
    made = Desk(tmp_path_factory.mktemp("d"))
    worst = {}
    for number, (act, digest, severity) in enumerate(acts):
        about, there = About(digest=digest * 32), made.incidents.open_for(digest * 32)
        if act == "anomaly":
            found = made.incidents.about_anomaly(
                anomaly(severity=severity, seen=observation(digest=digest * 32)), number
            )
            worst[found.id] = module.worst((severity, worst.get(found.id, "low")))
        elif act == "kill":
            found = made.incidents.about_kill(Hold("killed", "x", "why", 1, 1), 0, number, about)
            worst[found.id] = module.worst(("high", worst.get(found.id, "low")))
        elif there:
            made.incidents.close(there.id, 1, "done", number)
        opened_now = [each.about.digest for each in made.incidents.list()]
        assert len(opened_now) == len(set(opened_now))
    assert {each.id: each.severity for each in made.incidents.list(closed=True)} == worst
    made.database.close()
