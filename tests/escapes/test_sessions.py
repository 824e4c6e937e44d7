"""A session: one answer to each input is believed, whatever else the plugin's process does with the pipes it has."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from plugind_client import PlugindError
from tests.escapes.attack import OWN, attack
from tests.escapes.box import Box
from tests.escapes.talk import Input, talk

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _unharmed(box: Box):
    """Afterwards nothing of it is left. That the next run is well the next test says."""
    yield
    assert box.left() == []
    assert box.client.runs() == []


def test_a_proper_session(box: Box) -> None:
    talked = talk(box, ("say", {"value": 1}), "count", "count", ("say", {"value": None}))
    assert (talked.answers, talked.outcome, talked.session.why) == ([1, 1, 2, None], "ok", "closed")


AHEAD: dict[str, tuple[list[Input], str]] = {
    "before its own answer": (["forge_before"], "answer"),
    "a thousand at once": ([("forge_before", {"frames": 1000})], "more than one answer"),
    "after its answer, between inputs": ([("later", {"what": "answer"}), 0.4, "say"], "nobody had asked"),
    "a thousand between inputs": ([("later", {"what": "answers"}), 0.4, "say"], "nobody had asked"),
    "bytes between inputs": ([("later", {"what": "bytes", "size": 100}), 0.4, "say"], "nobody had asked"),
    "half a header between inputs": ([("later", {"what": "bytes"}), 0.4, "say"], "nonce"),
    "a flood between inputs": ([("later", {"what": "flood"}), 0.4, "say"], "nobody had asked"),
    "a flood while one is asked": ([("later", {"what": "flood", "after": 0.1}), "hang"], "nonce"),
    "a nonce of its own": ([("later", {"what": "bytes", "size": 100, "after": 0.1}), "hang"], "nonce"),
}


@attack(
    OWN,
    "in a session answer ahead, twice, or when nobody asks: with the nonce out of memory, by a thread, as a flood",
    "one frame for each input, and none else: the session ends as output_invalid",
)
@pytest.mark.parametrize("how", AHEAD)
def test_answers_that_nobody_asked_for_end_it(box: Box, how: str) -> None:
    inputs, words = AHEAD[how]
    talked = talk(box, *inputs)
    assert talked.outcome == "output_invalid", talked.why()
    assert words in talked.ran.result.outcome_detail
    assert set(map(str, [each for each in talked.answers if not isinstance(each, PlugindError)])) <= {"real", "forged"}


@attack(
    OWN,
    "take the runner's place and answer all inputs",
    "it is the plugin's own answer then, and nobody else's: its process has no other input",
)
def test_its_own_loop_is_no_more_than_itself(box: Box) -> None:
    talked = talk(box, "forge_instead_and_serve", ("say", {"value": 1}), ("say", {"value": "x" * 100_000}))
    assert (talked.answers, talked.outcome, talked.session.why) == (["mine"] * 3, "ok", "closed")


@attack(OWN, "an answer of 2^63 bytes, or of 60 MB that comes bit by bit", "the length is looked at before the body")
@pytest.mark.parametrize(
    "how", [("header", {"length": 2**63}), ("header", {"length": 60 * MIB, "body": "[1"}), ("stream", {"mib": 60})]
)
def test_too_long_an_answer_ends_it(box: Box, how: Input) -> None:
    talked = talk(box, "count", how, "count")
    assert talked.outcome == "output_limit", talked.why()
    assert talked.answers[0] == 1
    assert len(talked.answers) == 2


ENDS: dict[str, tuple[list[Input], str, str]] = {
    "an answer that is cut off": ([("header", {"length": 10, "body": "12"})], "timeout", "for one input"),
    "exit with 0 in the middle": (["count", ("leave", {"status": 0})], "output_invalid", "without an answer"),
    "exit with 3 in the middle": (["count", ("leave", {"status": 3})], "failed", "exit status 3"),
    "exit with 0 between inputs": ([("later", {"what": "exit"}), 0.4, "count"], "output_invalid", "before its session"),
    "exit with 3 between inputs": ([("later", {"what": "exit", "status": 3}), 0.4, "count"], "failed", "status 3"),
    "close the results": (["count", ("close", {"descriptor": 3})], "failed", "exit status 1"),
    "close the requests": (["count", ("close", {"descriptor": 4}), 0.2, "count"], "failed", "exit status 1"),
    "close the results between inputs, and exit with 0 in the next": (
        [("later", {"what": "close results"}), 0.3, ("leave", {"status": 0})],
        "output_invalid",
        "without an answer",
    ),
    "results elsewhere": ([("later", {"what": "results elsewhere"}), 0.3, "count"], "timeout", "for one input"),
    "close standard output": (["count", ("close", {"descriptor": 1}), "count"], "ok", ""),
    "hang in one input": (["count", "hang", "count"], "timeout", "more than 700 ms for one input"),
    "go on when it is over": (["outlive_the_end"], "timeout", "after its session was over"),
}


@attack(
    OWN,
    "end in the middle of a session or between inputs, close or swap the pipes of requests and results, cut an answer"
    " off, never answer, go on when it is over",
    "an input without an answer is none: output_invalid, failed or timeout, and never ok",
)
@pytest.mark.parametrize("how", ENDS)
def test_every_way_out_has_its_outcome(box: Box, how: str) -> None:
    inputs, outcome, words = ENDS[how]
    talked = talk(box, *inputs, limits={"wall_ms": 700})
    assert talked.outcome == outcome, talked.why()
    assert words in talked.ran.result.outcome_detail
    asked = sum(not isinstance(each, float) for each in inputs)
    assert talked.session.answered < asked or outcome in ("ok", "timeout"), talked.why()


@attack(OWN, "open the daemon's ends of the pipes of a session by way of /proc", "pipes of another uid, mode 0600")
def test_the_other_ends_stay_the_daemon_s(box: Box) -> None:
    talked = talk(box, "other_ends", "spare_descriptors")
    answers, spare = talked.answers
    assert set(answers.values()) <= {"EACCES", "EPERM", "EBADF", "ENOENT"}, answers
    assert spare["open"] == [0, 1, 2, 3, 4]
    assert talked.outcome == "ok", talked.why()


# --- what is used from input to input --------------------------------------------------------------------------------


@attack(OWN, "grow from input to input: memory, threads, CPU time, standard output", "the limits are the session's")
@pytest.mark.parametrize(
    ("how", "limits", "outcome"),
    [
        (("count", {"mib": 16}), {"memory_bytes": 96 * MIB}, "out_of_memory"),
        ("thread", {"pids": 8}, "pids_exceeded"),
        (("spin", {"seconds": 0.3}), {"cpu_ms": 100, "wall_ms": 60_000}, "cpu_exceeded"),
        (("write", {"descriptor": 1, "kib": 512}), {}, "output_limit"),
        (("write", {"descriptor": 2, "kib": 512}), {}, "output_limit"),
    ],
)
def test_what_one_input_may_not_many_may_not_together(
    box: Box, how: Input, limits: dict[str, int], outcome: str
) -> None:
    talked = talk(box, *[how] * 60, limits=limits)
    assert talked.outcome == outcome, talked.why()
    assert 1 <= talked.session.answered < 60
    assert not any(isinstance(each, PlugindError) for each in talked.answers[:-1])


@attack(OWN, "a dangerous call in the third input", "the whole session ends as a violation, and it is named")
def test_a_dangerous_call_ends_the_session(box: Box) -> None:
    talked = talk(box, "count", "count", "dangerous", "count")
    talked.ran.assert_killed_for("mount")
    assert (talked.answers[:2], talked.session.answered) == ([1, 2], 2)


@attack(
    OWN,
    "leave something behind for the next session: files, shared memory, environment, globals",
    "each session is an instance of its own, with a uid and mounts of its own",
)
def test_nothing_is_left_for_the_next_session(box: Box) -> None:
    assert talk(box, "leave_traces").answers == [["/tmp/trace", "/dev/shm/trace", "TRACE", "kept"]]
    assert talk(box, "traces").answers == [[]]
    name = box._attacks({})
    with box.client.session(name) as one, box.client.session(name) as two:
        assert one.call({"attack": "sessions.leave_traces"})
        assert two.call({"attack": "sessions.traces"}) == []
        pids = box.instances()
        assert len(pids) == 2
        assert len({Path(f"/proc/{pid}/status").read_text().split("Uid:")[1].split()[0] for pid in pids}) == 2


@attack(OWN, "disturb another session by flooding one's own pipes", "pipes of each one's own, read in turns")
def test_one_that_misbehaves_does_not_disturb_another(box: Box) -> None:
    """While one session floods its pipes, another gets each of its answers."""
    with box.client.session(box._attacks({})) as quiet:
        loud = threading.Thread(
            target=lambda: [talk(box, ("later", {"what": "flood", "after": 0.0}), 0.2, "hang") for _ in range(3)]
        )
        loud.start()
        for number in range(1, 101):
            assert quiet.call({"attack": "sessions.count"}) == number
        loud.join()
