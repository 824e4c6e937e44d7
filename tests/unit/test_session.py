"""A session without a jail: a real catalog and ledger, frames that give back what they get."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json

import pytest

from plugind.answers import RunRequest
from plugind.batch import ItemError
from plugind.errors import ConflictError
from plugind.model import Code, Hold, Outcome
from tests.support.desk import PROFILES, until
from tests.support.plugins import CALLER, OPERATOR, built

RAISED = json.dumps({"type": "ValueError", "message": "no", "traceback": "t"}).encode()


def opened(desk, idle_ms=0, **fields):
    asked = {"caller": CALLER, "plugin": "echo", "version": "", "input": b"", "mode": "session"}
    return desk.runner.open(RunRequest(**(asked | fields)), idle_ms)


def with_profile(desk, **changes):
    """Tier 2 with other limits."""
    desk.runner._profiles = desk.runner._deciding.profiles = {
        **PROFILES,
        2: dataclasses.replace(PROFILES[2], **changes),
    }


def transcript(*frames):
    return b"".join(b"%s %d\n%s\n" % (kind, len(text), text) for kind, text in frames)


async def test_a_session_is_one_execution_whose_digest_is_that_of_its_frames(desk):
    desk.install()
    session = opened(desk, stage="", plan_id="p")
    assert await session.opened()
    assert [record["event"] for record in desk.events()] == ["INTENT"]
    assert session.governance.audit_log == f"log_{desk.events()[0]['index']}"
    assert (session.version, session.run_id) == ("1.0.0", desk.runner.flights.visible(None)[0].run_id)
    assert [await session.ask(b"1"), await session.ask(b'"two"')] == [b"1", b'"two"']
    answer = await session.close()
    assert (answer.outcome, session.why, session.answered) == (Outcome.OK, "closed", 2)
    frames = transcript((b"<", b"1"), (b"V", b"1"), (b"<", b'"two"'), (b"V", b'"two"'))
    intent, outcome = desk.events()
    assert answer.frames_sha256 == outcome["output_sha256"] == hashlib.sha256(frames).hexdigest()
    assert (intent["mode"], outcome["mode"], outcome["outcome"]) == ("session", "session", "ok")
    assert (outcome["items"], outcome["items_failed"], outcome["plan_id"]) == (2, 0, "p")


async def test_what_fails_is_that_inputs_answer_and_the_session_goes_on(desk):
    desk.install(input_schema={"type": "integer"}, output_schema={"type": "integer"})
    desk.sandbox.frames.instead = [(b"E", RAISED), (b"I", b'"TypeError: no JSON"'), (b"V", b'"text"'), (b"V", b"{")]
    session = opened(desk)
    assert await session.opened()
    refused = await session.ask(b'"text"')
    assert refused.refused[0].code == Code.INPUT_INVALID
    raised, no_json, no_fit, broken, fine = [await session.ask(b"1") for _ in range(5)]
    assert (raised.raised.type, raised.raised.message) == ("ValueError", "no")
    assert "no JSON" in no_json.output_invalid
    assert "integer" in no_fit.output_invalid
    assert "line 1" in broken.output_invalid
    assert fine == b"1"
    answer = await session.close()
    assert (answer.outcome, session.answered) == (Outcome.OK, 5)
    assert desk.sandbox.frames.asked == [b"1"] * 5, "what is refused does not reach the plugin"
    assert (desk.events()[-1]["items"], desk.events()[-1]["items_failed"]) == (5, 4)


async def test_a_denied_session_never_opens(desk):
    session = opened(desk, plugin="nobody")
    assert not await session.opened()
    assert await session.ask(b"1") is None
    answer = await session.close()
    assert answer.reasons[0].code == Code.PLUGIN_NOT_FOUND
    assert session.why == ""
    assert [record["event"] for record in desk.events()] == ["DENIED"]


async def test_idle_it_ends_by_itself_and_says_so(desk):
    desk.install()
    session = opened(desk, idle_ms=20)
    assert await session.opened()
    ends = asyncio.get_running_loop().create_future()
    session.on_end = lambda: ends.set_result(None)
    assert await session.ask(b"1") == b"1"
    await asyncio.wait_for(ends, 5)
    assert session.over
    assert await session.ask(b"2") is None
    answer = await session.close()
    assert (answer.outcome, session.why, session.answered) == (Outcome.OK, "idle", 1)


async def test_no_caller_makes_it_wait_for_longer_than_the_tier_does(desk):
    desk.install()
    with_profile(desk, session_idle_ms=20)
    session = opened(desk, idle_ms=3_600_000)
    assert await session.opened()
    await asyncio.wait_for(session.life, 5)
    assert session.why == "idle"


async def test_it_ends_when_its_frames_are_as_many_as_the_tier_keeps(desk):
    desk.install()
    with_profile(desk, session_bytes=100)
    session = opened(desk)
    assert await session.opened()
    assert await session.ask(b"1" * 40) == b"1" * 40
    assert await session.ask(b"2" * 40) is None
    answer = await session.close()
    assert (answer.outcome, session.why, session.answered) == (Outcome.OK, "full", 1)


async def test_it_takes_no_input_that_the_launcher_would_cut_off(desk):
    desk.install()
    with_profile(desk, session_ms=1000)
    session = opened(desk)
    assert await session.opened()
    await asyncio.sleep(0.01)
    assert await session.ask(b"1") is None
    assert (await session.close()).outcome is Outcome.OK
    assert session.why == "full"


async def test_one_that_waits_ends_well_before_the_launcher_would_end_it(desk):
    desk.install()
    with_profile(desk, session_ms=1050)
    session = opened(desk)
    assert await session.opened()
    told = []
    session.on_end = lambda: told.append(session.why)
    answer = await asyncio.wait_for(asyncio.shield(session.life), 5)
    assert (answer.outcome, session.why, told) == (Outcome.OK, "full", ["full"])


@pytest.mark.parametrize("change", ["another version", "suspended", "policy", "stopping"])
async def test_what_changes_the_decision_ends_it(desk, change):
    desk.install()
    session = opened(desk)
    assert await session.opened()
    assert await session.ask(b"1") == b"1"
    if change == "another version":
        desk.install(version="2.0.0")
    elif change == "suspended":
        desk.catalog.holds.set(Hold("suspended", "echo", "test", 1, 1))
    elif change == "policy":
        desk.policy = dataclasses.replace(desk.policy)
    else:
        desk.runner._stopping = True
    assert await session.ask(b"2") is None
    assert (await session.close()).outcome is Outcome.OK
    assert session.why == "changed"
    assert desk.sandbox.frames.asked == [b"1"]


async def test_what_others_do_does_not_end_it(desk):
    desk.install()
    session = opened(desk)
    assert await session.opened()
    desk.install("other")
    assert await session.ask(b"1") == b"1"
    desk.catalog.submit(built(desk.folder / "more", "echo", "3.0.0"), b"", [], by_uid=1)
    assert await session.ask(b"2") == b"2"
    await session.close()
    assert session.why == "closed"


async def test_an_input_that_takes_too_long_ends_it_as_timeout_and_names_the_limit(desk):
    desk.install()
    desk.sandbox.frames.hangs = True
    session = opened(desk, timeout_ms=30)
    assert await session.opened()
    assert await session.ask(b"1") is None
    answer = await session.close()
    assert (answer.outcome, session.why) == (Outcome.TIMEOUT, "")
    assert answer.detail == "wall clock: more than 30 ms for one input"


async def test_a_kill_ends_it_in_the_middle_of_an_input(desk):
    desk.install()
    desk.sandbox.frames.hangs = True
    session = opened(desk)
    assert await session.opened()
    asking = asyncio.ensure_future(session.ask(b"1"))
    await until(lambda: desk.sandbox.frames.asked)
    await desk.kill()
    assert await asking is None
    assert (await session.close()).outcome is Outcome.KILLED
    assert desk.events()[-1]["outcome"] == "killed"


async def test_whoever_waits_is_told_that_it_ended_between_inputs(desk):
    desk.install()
    session = opened(desk)
    assert await session.opened()
    told = []
    session.on_end = lambda: told.append(session.over)
    await desk.kill()
    await session.life
    assert told == [True]


async def test_cancelling_the_caller_ends_the_instance(desk):
    desk.install()
    desk.sandbox.frames.hangs = True
    session = opened(desk, run_id="mine")
    assert await session.opened()
    asking = asyncio.ensure_future(session.ask(b"1"))
    await until(lambda: desk.sandbox.frames.asked)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    session.cancel()
    answer = await session.life
    assert answer.outcome is Outcome.CANCELED
    assert ("mine", "canceled") in desk.sandbox.kills


async def test_two_sessions_of_one_name_are_refused(desk):
    desk.install()
    session = opened(desk, run_id="same")
    assert await session.opened()
    with pytest.raises(ConflictError):
        opened(desk, run_id="same")
    await session.close()


async def test_who_leaves_a_session_that_is_over_ends_nobody_else_s_run_of_its_name(desk):
    """A stream that is never read lasts longer than its session, whose name is free again."""
    desk.install()
    session = opened(desk, run_id="same")
    assert await session.opened()
    await session.close()
    other = opened(desk, run_id="same", caller=OPERATOR)
    assert await other.opened()
    session.cancel()
    assert await other.ask(b"1") == b"1"
    assert (await other.close()).outcome is Outcome.OK


async def test_an_answer_that_is_an_error_is_no_output(desk):
    desk.install()
    desk.sandbox.frames.instead = [(b"E", b"[]"), (b"E", b"{broken")]
    session = opened(desk)
    assert await session.opened()
    for _ in range(2):
        answer = await session.ask(b"1")
        assert isinstance(answer, ItemError)
        assert "malformed" in answer.output_invalid
    await session.close()
