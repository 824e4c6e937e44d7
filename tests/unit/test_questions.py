"""What the resolver says is held to what was asked: whoever it is by now, nothing else comes through."""

from __future__ import annotations

import json
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind import addresses
from plugind.sandbox.forked import Forked
from plugind.sandbox.network import questions
from plugind.sandbox.network.questions import Answer, decode_answer, decode_request, encode_answer, encode_request
from plugind.sandbox.network.resolver import NEVER_NS, Resolver

ASKED = {"run": frozenset({"a.example", "b.example"})}
GOOD = {"token": "run", "addresses": {"a.example": ["8.8.8.8", "2606::1"]}, "failed": {"b.example": "no address"}}


def encoded(**changes):
    return json.dumps({**GOOD, **changes}).encode()


def both(*texts):
    return {"a.example": list(texts), "b.example": ["8.8.8.8"]}


def test_a_request_comes_out_as_it_went_in_each_name_once():
    data = encode_request("run", ["b.example", "a.example", "b.example"])
    assert decode_request(data) == ("run", ["b.example", "a.example"])


@pytest.mark.parametrize("token, names", [
    ("", ["a.example"]),
    ("r" * 129, ["a.example"]),
    ("run 1", ["a.example"]),
    ("run\n", ["a.example"]),
    ("run", []),
    ("run", [f"n{number}.example" for number in range(33)]),
    ("run", ["10.0.0.1"]),
    ("run", ["*.example"]),
    ("run", ["a.example."]),
    ("run", ["A.example"]),
    ("run", ["localhost"]),
    ("run", ["printer.local"]),
])  # fmt: skip
def test_what_nobody_could_answer_is_not_asked(token, names):
    with pytest.raises(ValueError):
        encode_request(token, names)


def test_the_largest_request_and_its_failure_fit_into_messages():
    names = [f"{number:02}{'n' * 60}.{'m' * 63}.{'o' * 63}.{'p' * 58}.{number:02}x" for number in range(32)]
    assert {len(name) for name in names} == {253}
    token = "t" * 128
    assert len(encode_request(token, names)) <= questions.MAX_MESSAGE_BYTES
    failed = dict.fromkeys(names, "w" * 160)
    data = encode_answer(Answer(token, {}, failed))
    assert len(data) <= questions.MAX_MESSAGE_BYTES
    assert decode_answer(data, {token: frozenset(names)}).failed == failed
    many = tuple(str(addresses.parse("2001:db8:1111:2222:3333:4444:5555:0") + number) for number in range(16))
    data = encode_answer(Answer(token, dict.fromkeys(names, many), {}))
    assert decode_answer(data, {token: frozenset(names)}).failed == dict.fromkeys(
        names, "more addresses than one run may have"
    )


def test_an_answer_comes_out_as_it_went_in():
    answer = Answer("run", {"a.example": ("8.8.8.8", "2606::1")}, {"b.example": "no address"})
    assert decode_answer(encode_answer(answer), ASKED) == answer == decode_answer(encoded(), ASKED)


def test_an_answer_to_what_nobody_asked_is_dropped():
    assert decode_answer(encoded(token="another"), ASKED) is None
    assert decode_answer(encoded(), {}) is None


@pytest.mark.parametrize("data", [
    b"", b"x", b"null", b"[]", b"{}", b"\xff\xfe", b"[" * 8000, b'{"token":' * 1500,
    encoded(more=1),
    encoded(token=1),
    encoded(token=None),
    encoded(token=["run"]),
    encoded(addresses=[]),
    encoded(failed=[]),
    encoded(failed={}),
    encoded(addresses={}, failed={"b.example": "no address"}),
    encoded(failed={"b.example": "no address", "c.example": "no address"}),
    encoded(failed={"b.example": "no address", "a.example": "no address"}),
    encoded(failed={"b.example": ""}),
    encoded(failed={"b.example": "w" * 161}),
    encoded(failed={"b.example": "a\nb"}),
    encoded(failed={"b.example": "\x1b[2J"}),
    encoded(failed={"b.example": 5}),
    encoded(failed={"b.example": ["no address"]}),
    encoded(addresses={"a.example": []}),
    encoded(addresses={"a.example": "8.8.8.8"}),
    encoded(addresses={"a.example": [134744072]}),
    encoded(addresses={"a.example": [True]}),
    encoded(addresses={"a.example": [None]}),
    encoded(addresses={"a.example": [["8.8.8.8"]]}),
    encoded(addresses={"a.example": ["8.8.8.8", "8.8.8.8"]}),
    encoded(addresses={"a.example": ["08.8.8.8"]}),
    encoded(addresses={"a.example": ["8.8.8.8 "]}),
    encoded(addresses={"a.example": ["8.8.8.8\n127.0.0.1 b.example"]}),
    encoded(addresses={"a.example": ["2606:0::1"]}),
    encoded(addresses={"a.example": ["2606::ABCD"]}),
    encoded(addresses={"a.example": ["fe80::1%eth0"]}),
    encoded(addresses={"a.example": ["0x7f000001"]}),
    encoded(addresses={"a.example": ["a.example"]}),
    encoded(addresses={"a.example": [f"8.8.8.{number}" for number in range(17)]}),
])  # fmt: skip
def test_nonsense_of_the_resolver_is_refused(data):
    with pytest.raises(ValueError):
        decode_answer(data, ASKED)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["8.8.8.8", "::1"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["token", "addresses", "failed", "a.example", "b.example", "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)
maps = st.dictionaries(
    st.sampled_from(["a.example", "b.example", "x"]), values | st.lists(st.sampled_from(["8.8.8.8", "::1"]))
)


def is_sound(data):
    """Nothing but ValueError is raised, and what comes out is what was asked for, in its form."""
    try:
        answer = decode_answer(data, ASKED)
    except ValueError:
        return
    if answer is None:
        return
    assert answer.addresses.keys() | answer.failed.keys() == ASKED[answer.token]
    assert not answer.addresses.keys() & answer.failed.keys()
    for texts in answer.addresses.values():
        assert 1 <= len(texts) <= 16
        assert [str(addresses.parse(text)) for text in texts] == list(texts)
    for words in answer.failed.values():
        assert words.isprintable()
        assert words.isascii()


@given(st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_an_answer_or_refused(data):
    is_sound(data)


@given(values | maps, values | maps)
def test_any_values_are_an_answer_or_refused(found, failed):
    is_sound(json.dumps({"token": "run", "addresses": found, "failed": failed}).encode())


# -- the launcher's end of the socket


class Group:
    def __init__(self):
        self.removed = False

    def remove(self):
        self.removed = True


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield Resolver(Forked(ours, 0, Group())), theirs


def test_nothing_said_is_nothing_and_an_answer_counts_once(ends):
    resolver, theirs = ends
    assert resolver.receive() is None
    resolver.ask("run", ["a.example", "b.example"])
    with pytest.raises(OSError, match="a new one"):
        resolver.ask("run", ["a.example"])
    with pytest.raises(OSError, match="expected 1 to 32, got 33"):
        resolver.ask("run_2", [f"n{number}.example" for number in range(33)])
    theirs.send(encoded())
    theirs.send(encoded())
    assert resolver.receive().token == "run"
    assert resolver.receive() is None
    assert resolver.due_ns() == NEVER_NS
    resolver.ask("run", ["a.example"])
    theirs.send(encoded())
    with pytest.raises(EOFError, match="each name that was asked for"):
        resolver.receive()


@pytest.mark.parametrize("data", [b"nonsense", b"x" * 20000, encoded(addresses=both("8.8.8.8"), failed=[])])
def test_who_talks_nonsense_counts_as_gone(ends, data):
    resolver, theirs = ends
    resolver.ask("run", ["a.example", "b.example"])
    theirs.send(data)
    with pytest.raises(EOFError, match="answer"):
        resolver.receive()


def test_who_is_gone_is_seen_to_be_gone(ends):
    resolver, theirs = ends
    theirs.close()
    with pytest.raises(OSError):
        resolver.ask("run", ["a.example"])
    assert resolver.due_ns() == NEVER_NS, "nothing was asked"
    with pytest.raises(EOFError):
        resolver.receive()


def test_who_does_not_read_is_not_waited_for(ends):
    resolver, _ = ends
    with pytest.raises(BlockingIOError):
        for number in range(10000):
            resolver.ask(f"run_{number}", ["a.example"])
    first = resolver.due_ns()
    assert first < NEVER_NS
    assert first == min(resolver._due_ns.values())
