"""Every specimen of the corpus through a real daemon: what is unsafe is blocked before a run or contained in it, and
ends in quarantine where it can be seen for what it is; nothing that is benign does."""

from __future__ import annotations

import json

import pytest

from plugind_client import Client
from plugind_client.records import RunResult
from tests.corpus.loader import CATEGORIES, Specimen, load_all
from tests.corpus.running import History, comes_to_be_quarantined, quarantined

pytestmark = pytest.mark.timeout(600)  # the first test waits for all specimens

SPECIMENS = load_all()
UNSAFE = [each for each in SPECIMENS if not each.benign]
BENIGN = [each for each in SPECIMENS if each.benign]
LOOT = "LOOT"
"""What an unsafe specimen prints where it gets what it is after."""
HARD_CODES = {"DIGEST_MISMATCH", "UNLISTED_FILE"}
ALLOWED_SOCKETS = {"AF_UNIX": 1000, "AF_NETLINK": 1000, "AF_INET6": 1}
"""Refused sockets that a run may have asked for: they lead nowhere outside, or ask whether there is IPv6 at all."""

each_unsafe = pytest.mark.parametrize("specimen", UNSAFE, ids=lambda each: each.id)
each_benign = pytest.mark.parametrize("specimen", BENIGN, ids=lambda each: each.id)


def shown(result: RunResult) -> str:
    return (
        f"{result.decision} {result.reasons} {result.outcome} ({result.outcome_detail}) output {result.output!r:.300}"
        f" error {result.error} violations {result.violations} stderr {result.stderr[-500:]!r}"
    )


def hard_evidence(history: History) -> set[str]:
    """What of all that is known of its runs is reason enough for quarantine, seen without the monitor's eyes."""
    found = {code for code in history.codes() if code in HARD_CODES}
    for result in history.results:
        if result.outcome == "violation":
            found.add("violation")
        for each in result.violations:
            if each.kind in ("network", "output"):  # a peer that was not approved; a secret that was withheld
                found.add(each.kind)
            if each.name == "socket" and each.count > ALLOWED_SOCKETS.get(each.detail.partition(":")[0], 0):
                found.add("socket")
    return found


def test_the_corpus_is_as_large_as_it_has_to_be_in_each_category() -> None:
    assert len(UNSAFE) >= 60
    assert len(BENIGN) >= 60
    counts = {name: sum(each.category == name for each in SPECIMENS) for names in CATEGORIES.values() for name in names}
    assert min(counts.values()) >= 8, counts


@each_unsafe
def test_what_is_unsafe_is_blocked_or_contained(specimen: Specimen, histories: dict[str, History]) -> None:
    history = histories[specimen.name]
    if specimen.expected == "blocked":
        assert all(result.decision == "deny" for result in history.results), history.results
        assert history.refused or history.results
        assert not specimen.codes or specimen.codes & history.codes(), (history.codes(), history.told())
        assert specimen.says in history.told()
        return
    assert history.refused is None, history.told()
    assert history.results
    for result in history.results:
        # One that was decided before the quarantine came is ended by it.
        ended = {"killed"} if specimen.quarantine is True else set()
        assert result.outcome in specimen.outcomes | ended, shown(result)
        assert LOOT not in result.stdout + result.stderr + json.dumps(result.output), shown(result)
    named = {each.name for result in history.results for each in result.violations}
    assert specimen.refused <= named, shown(history.results[-1])


@each_unsafe
def test_an_unsafe_one_that_does_its_work_beside_it_gives_its_result(
    specimen: Specimen, histories: dict[str, History]
) -> None:
    for run, result in enumerate(histories[specimen.name].results):
        if specimen.outputs and result.outcome == "ok":
            assert result.output == specimen.outputs[run % len(specimen.outputs)]


@each_unsafe
def test_what_is_unsafe_ends_in_quarantine_where_it_shows(
    specimen: Specimen, histories: dict[str, History], client: Client
) -> None:
    history = histories[specimen.name]
    if specimen.quarantine == "held":
        assert history.held_back or quarantined(client, history.digest), shown(history.results[-1])
    elif specimen.quarantine:
        assert comes_to_be_quarantined(client, history.digest), shown(history.results[-1])
        answer = client.execute(specimen.name, specimen.payload(0), stage=specimen.stage or None)
        assert "QUARANTINED" in {reason.code for reason in answer.reasons}
    else:
        assert not (history.digest and quarantined(client, history.digest))


@each_unsafe
def test_its_header_says_of_quarantine_what_its_runs_show(specimen: Specimen, histories: dict[str, History]) -> None:
    """Whoever marked it as seen at once has evidence for it; whoever did not has none."""
    evidence = hard_evidence(histories[specimen.name])
    if specimen.quarantine is not True:
        assert not evidence
    else:
        assert evidence


@each_benign
def test_what_is_benign_runs_as_it_does_anywhere(specimen: Specimen, histories: dict[str, History]) -> None:
    history = histories[specimen.name]
    assert history.refused is None, history.told()
    assert len(history.results) == specimen.runs
    failures = 0
    for run, result in enumerate(history.results):
        # One that was decided before the quarantine came is ended by it.
        ended = {"killed"} if specimen.quarantine is True else set()
        assert result.outcome in specimen.outcomes | ended, shown(result)
        if result.outcome != "ok":
            failures += 1
            continue
        if specimen.outputs:
            assert result.output == specimen.outputs[run % len(specimen.outputs)], shown(result)
        names = {"payload": specimen.payload(run), "output": result.output}
        assert not specimen.check or eval(specimen.check, names), shown(result)
    assert failures * 100 <= specimen.most_failures_percent * specimen.runs


@each_benign
def test_what_is_benign_does_nothing_that_counts_as_hostile(specimen: Specimen, histories: dict[str, History]) -> None:
    assert not hard_evidence(histories[specimen.name])


@each_benign
def test_what_is_benign_is_never_held(specimen: Specimen, histories: dict[str, History], client: Client) -> None:
    version = client.get(specimen.name).versions[0]
    assert version.digest == histories[specimen.name].digest
    assert version.holds == ()
