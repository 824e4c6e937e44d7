"""What runs a program, as far as it can be tried outside a jail: its pipes, and what it says of an end."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.sandbox.inside import program, runner

CALL = {"runtime": "exec", "entrypoint": "bin/tool", "output_bytes": "9", "stage": "", "plan_id": "", "mode": "run"}
MOST = 200_000


def test_only_pid_1_runs_programs_for_it_kills_all_others() -> None:
    kind, body = runner._outcome(lambda: runner._answer(runner._plugin(CALL), CALL, b"1"))
    assert (kind, json.loads(body)["type"]) == (b"E", "RuntimeError")
    assert "expected to be pid 1" in json.loads(body)["message"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, "ended with exit status 1"),
        (255, "ended with exit status 255"),
        (-signal.SIGSEGV, "died by SIGSEGV"),
        (-signal.SIGKILL, "died by SIGKILL"),
        (-40, "died by signal 40"),
    ],
)
def test_how_it_ended_is_said(code: int, words: str) -> None:
    assert program._how_it_ended(code) == f"the program {words}"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOEXEC, "Exec format error: neither a program of this machine's kind nor a script"),
        (errno.ENOENT, "No such file or directory: what it names as its interpreter"),
        (errno.EACCES, "Permission denied"),
    ],
)
def test_why_it_was_not_executed_is_said(number: int, words: str) -> None:
    told = program._why_not_executed("/plugin/tool", OSError(number, "", "/plugin/tool"))
    assert told.startswith(f"/plugin/tool cannot be executed: {words}")


def test_a_failure_looks_like_a_builtin_exception() -> None:
    told = runner.describe(program.ProgramFailed("why"))
    assert told == {"type": "ProgramFailed", "message": "why", "traceback": "ProgramFailed: why\n"}


def exchange(payload: bytes, answer, most_bytes: int = MOST):
    """Let a thread be the program: `answer(stdin, stdout)`, which closes both; the output, and whether it was full."""
    wake, waker = os.pipe2(os.O_CLOEXEC)
    with program._Pipes(payload, most_bytes) as pipes:
        ends = [os.dup(end) for end in pipes.theirs]
        pipes.hand_over()

        def run() -> None:
            answer(*ends)
            os.write(waker, b"x")

        thread = threading.Thread(target=run)
        thread.start()
        os.set_blocking(wake, False)
        over = False
        while not over and not pipes.full:
            pipes.serve(wake)
            try:
                over = bool(os.read(wake, 1))
            except BlockingIOError:
                continue
        pipes.drain()
        found = bytes(pipes.output), pipes.full
    thread.join()
    for end in (wake, waker):
        os.close(end)
    return found


def echo(stdin: int, stdout: int) -> None:
    while chunk := os.read(stdin, 1000):
        os.write(stdout, chunk)
    os.close(stdin)
    os.close(stdout)


@given(payload=st.binary(max_size=500), times=st.integers(0, 390))
def test_what_is_written_comes_through_whatever_it_is(payload: bytes, times: int) -> None:
    assert exchange(payload * times, echo) == (payload * times, False)


def test_who_does_not_read_its_input_hinders_nobody() -> None:
    def deaf(stdin: int, stdout: int) -> None:
        os.close(stdin)
        os.write(stdout, b"1")
        os.close(stdout)

    assert exchange(b"x" * MOST, deaf) == (b"1", False)


def test_who_closes_its_output_is_waited_for() -> None:
    heard = []

    def mute(stdin: int, stdout: int) -> None:
        os.close(stdout)
        with open(stdin, "rb") as stream:
            heard.append(len(stream.read()))

    assert exchange(b"x" * MOST, mute) == (b"", False)
    assert heard == [MOST]


@pytest.mark.parametrize("most", [1, 10, 65_536, 65_537])
def test_no_more_is_taken_than_there_may_be(most: int) -> None:
    def flood(stdin: int, stdout: int) -> None:
        os.close(stdin)
        try:
            while True:
                os.write(stdout, b"y" * 5000)
        except BrokenPipeError:
            os.close(stdout)

    assert exchange(b"", flood, most) == (b"y" * most, True)
