"""Frames of a session over real pipes: one answer to one request, and what ends a session."""

from __future__ import annotations

import asyncio
import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.sandbox.frames import Frames
from plugind.sandbox.inside.runner import HEADER, REQUEST

NONCE = bytes(range(16))
LIMIT = 1000


class Instance:
    """The other side of the pipes."""

    def __init__(self) -> None:
        self.ended = 0
        self.frames = Frames(NONCE, LIMIT, self.end)
        self.requests, self.results = self.frames.open()

    def end(self) -> None:
        self.ended += 1

    def give(self, body: bytes, kind: bytes = b"V", nonce: bytes = NONCE, length: int | None = None) -> None:
        os.write(self.results, HEADER.pack(nonce, kind, len(body) if length is None else length) + body)

    def taken(self) -> bytes:
        head = os.read(self.requests, REQUEST.size)
        return os.read(self.requests, REQUEST.unpack(head)[0])

    def close(self) -> None:
        self.frames.close()
        for descriptor in (self.requests, self.results):
            with contextlib.suppress(OSError):  # a test has closed it
                os.close(descriptor)


@pytest.fixture
async def instance():
    made = Instance()
    yield made
    made.close()


async def turn():
    for _ in range(3):
        await asyncio.sleep(0.001)


async def test_one_answer_to_each_request(instance):
    for number in range(3):
        answer = instance.frames.ask(b"%d" % number)
        assert instance.taken() == b"%d" % number
        instance.give(b"answer %d" % number, b"E")
        assert await answer == (b"E", b"answer %d" % number)
    assert (instance.ended, instance.frames.problem) == (0, "")


async def test_requests_and_answers_that_are_longer_than_a_pipe(instance):
    instance.frames._limit_bytes = 10**6
    answer = instance.frames.ask(b"x" * 300_000)
    got = bytearray()
    os.set_blocking(instance.requests, False)
    while len(got) < 300_000 + REQUEST.size:
        await asyncio.sleep(0)
        with contextlib.suppress(BlockingIOError):
            got += os.read(instance.requests, 65536)
    assert got[REQUEST.size :] == b"x" * 300_000
    frame = HEADER.pack(NONCE, b"V", 300_000) + b"y" * 300_000
    os.set_blocking(instance.results, False)
    while frame:
        try:
            frame = frame[os.write(instance.results, frame) :]
        except BlockingIOError:
            await asyncio.sleep(0)
    assert await answer == (b"V", b"y" * 300_000)


async def test_an_answer_in_pieces(instance):
    answer = instance.frames.ask(b"1")
    for byte in HEADER.pack(NONCE, b"V", 3) + b"abc":
        assert not answer.done()
        os.write(instance.results, bytes([byte]))
        await turn()
    assert await answer == (b"V", b"abc")


@pytest.mark.parametrize(
    ("give", "problem"),
    [
        (lambda it: it.give(b"1", nonce=bytes(16)), "nonce"),
        (lambda it: it.give(b"1", kind=b"X"), "unknown kind"),
        (lambda it: (it.give(b"1"), it.give(b"2")), "more than one answer"),
        (lambda it: os.write(it.results, HEADER.pack(NONCE, b"V", 1) + b"1x"), "more than one answer"),
    ],
)
async def test_what_is_no_answer_ends_the_session(instance, give, problem):
    answer = instance.frames.ask(b"1")
    give(instance)
    await turn()
    assert instance.ended == 1
    assert problem in instance.frames.problem
    assert not answer.done()
    instance.give(b"late")
    await turn()
    assert (instance.ended, answer.done()) == (1, False)


async def test_an_answer_before_it_was_asked_for_ends_the_session(instance):
    instance.give(b"1")
    await turn()
    assert instance.ended == 1
    assert "nobody had asked for" in instance.frames.problem


async def test_a_second_answer_after_the_first_was_taken_ends_the_session(instance):
    answer = instance.frames.ask(b"1")
    instance.give(b"1")
    assert await answer == (b"V", b"1")
    instance.give(b"2")
    await turn()
    assert "nobody had asked for" in instance.frames.problem


async def test_too_long_an_answer_ends_the_session_before_it_is_read(instance):
    answer = instance.frames.ask(b"1")
    instance.give(b"", length=LIMIT + 1)
    await turn()
    assert (instance.frames.overflown, instance.ended, answer.done()) == (True, 1, False)


async def test_its_end_in_the_middle_of_a_request_is_known(instance):
    instance.frames.ask(b"1")
    os.close(instance.results)
    await turn()
    assert instance.frames.unanswered


async def test_its_end_between_requests_is_none(instance):
    answer = instance.frames.ask(b"1")
    instance.give(b"1")
    await answer
    os.close(instance.results)
    await turn()
    assert not instance.frames.unanswered


async def test_a_request_after_it_has_closed_its_results_has_no_answer(instance):
    """Such a one may well live on, and end with 0."""
    os.close(instance.results)
    await turn()
    assert not instance.frames.unanswered
    answer = instance.frames.ask(b"1")
    assert instance.frames.unanswered
    assert not answer.done()


async def test_an_answer_to_one_that_is_gone_is_nobody_s_fault(instance):
    """It was asked for, and its caller has left in the same moment: that ends it, and for no other reason."""
    answer = instance.frames.ask(b"1")
    answer.cancel()
    instance.give(b"1")
    instance.give(b"2")
    await turn()
    assert (instance.ended, instance.frames.problem) == (0, "")


async def test_hanging_up_is_the_end_of_the_requests(instance):
    instance.frames.hang_up()
    assert os.read(instance.requests, 10) == b""


async def test_an_instance_that_does_not_listen_holds_nobody_up(instance):
    os.close(instance.requests)
    answer = instance.frames.ask(b"1")
    await turn()
    assert not answer.done()


@given(st.lists(st.binary(max_size=60), max_size=6), st.booleans())
def test_arbitrary_bytes_are_an_answer_or_the_end(pieces, asked):
    async def feed():
        instance = Instance()
        try:
            answer = instance.frames.ask(b"1") if asked else None
            for piece in pieces:
                os.write(instance.results, piece)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            await turn()
            sent = b"".join(pieces)
            if answer is not None and answer.done():
                kind, body = answer.result()
                assert sent.startswith(HEADER.pack(NONCE, kind, len(body)) + body)
            assert instance.ended == bool(instance.frames.problem or instance.frames.overflown)
        finally:
            instance.close()

    asyncio.run(feed())
