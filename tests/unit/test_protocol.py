"""The messages between front and launcher: what is sent is what arrives, and nothing else is understood."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.errors import InvalidRequestError
from plugind.model import Limits
from plugind.sandbox import codec, protocol, sampler

digests = st.text("0123456789abcdef", min_size=64, max_size=64)
runs = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
numbers = st.integers(0, 2**53 - 1)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200)
signed = st.integers(-1, 2**53 - 1)
uses = st.builds(protocol.InstanceUse, runs, signed, signed, signed, signed)
waiting = st.builds(protocol.ParkedUse, st.integers(0, 2), numbers, signed)
messages = st.one_of(
    st.builds(protocol.Load, digests),
    st.builds(protocol.Start, runs, digests, numbers, st.builds(Limits, *[numbers] * 6)),
    st.builds(protocol.Kill, runs, texts),
    st.builds(protocol.KillMany, st.lists(runs, max_size=5).map(tuple), texts),
    st.just(protocol.Stop()),
    st.just(protocol.Sample()),
    st.builds(
        protocol.Sampled,
        st.lists(uses, max_size=5).map(tuple),
        st.lists(waiting, max_size=3).map(tuple),
        st.builds(protocol.ProcessUse, numbers, signed, signed, signed),
        numbers,
    ),
    st.builds(protocol.Ready, texts, st.dictionaries(texts, texts, max_size=3)),
    st.builds(protocol.Loaded, digests, texts),
    st.builds(protocol.Placed, runs),
    st.builds(protocol.Started, runs),
    st.builds(protocol.PlanWork, runs, texts, texts, numbers, numbers, numbers, st.integers(0, 2**63 - 1)),
    st.builds(protocol.PlanDone, runs),
    st.builds(protocol.PlanFailed, runs, texts, texts),
    st.builds(protocol.Refused, runs, texts, texts),
    st.builds(protocol.Ended, runs, texts, st.integers(-64, 255), numbers, numbers, numbers),
)


@given(messages)
def test_round_trip(message: protocol.Message) -> None:
    assert codec.decode(codec.encode(message)) == message


def test_a_machine_that_has_run_for_long_is_understood() -> None:
    """2**53 nanoseconds are 104 days. Any other number of that size is none."""
    work = protocol.PlanWork("w", "read", "/srv/plans/p", 1, 2, 3, 2**63 - 1)
    assert codec.decode(codec.encode(work)) == work
    for change in ({"since_ns": 2**63}, {"caller_uid": 2**53}):
        with pytest.raises(InvalidRequestError, match="not a valid value"):
            codec.decode(json.dumps({**json.loads(codec.encode(work)), **change}).encode())


@given(st.binary(max_size=300))
def test_anything_else_is_refused_and_nothing_else_is_raised(data: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        codec.decode(data)


@given(messages, st.data())
def test_a_changed_field_is_refused_or_still_typed(message: protocol.Message, data: st.DataObject) -> None:
    fields = json.loads(codec.encode(message))
    name = data.draw(st.sampled_from(sorted(fields)))
    fields[name] = data.draw(st.one_of(st.none(), st.booleans(), st.floats(), st.lists(st.integers()), texts))
    try:
        decoded = codec.decode(json.dumps(fields).encode())
    except InvalidRequestError:
        return
    assert type(decoded) is type(message) or name == "op"


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 20000,
        b'{"op":"stop","extra":1}',
        b'{"op":"load"}',
        b'{"op":"load","digest":"' + b"A" * 64 + b'"}',
        b'{"op":"started","run":"../x"}',
        b'{"op":"kill","run":"a","cause":"' + b"x" * 5000 + b'"}',
        b'{"op":"kill","run":true,"cause":""}',
        b'{"op":"kill_many","runs":"a","cause":""}',
        b'{"op":"kill_many","runs":["a","../b"],"cause":""}',
        b'{"op":"kill_many","runs":[["a"]],"cause":""}',
        b'{"op":"kill_many","runs":[' + b",".join([b'"a"'] * (protocol.MOST_KILLED + 1)) + b'],"cause":""}',
        b'{"op":"exec"}',
        b'{"op":"sample","run":"r1"}',
        b'{"op":"sampled","instances":[],"parked":[],"launcher":{},"left_out":0}',
        b'{"op":"sampled","instances":[{"run":"../x","cpu_ms":0,"memory_bytes":0,"pids":0,"refused_calls":0}],"parked":[],"launcher":{"pid":1,"cpu_ms":0,"memory_bytes":0,"open_files":0},"left_out":0}',
        b" " * (protocol.MAX_MESSAGE_BYTES + 1),
    ],
)
def test_malformed_messages_by_example(data: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        codec.decode(data)


def test_a_full_sample_with_the_longest_names_and_numbers_fits() -> None:
    most = 2**53 - 1
    told = protocol.Sampled(
        tuple(protocol.InstanceUse(f"{number:x<64}", most, most, most, most) for number in range(sampler.MOST)),
        tuple(protocol.ParkedUse(tier, most, most) for tier in range(3)),
        protocol.ProcessUse(most, most, most, most),
        most,
    )
    assert codec.decode(codec.encode(told)) == told


def test_as_many_as_may_be_killed_with_one_message_fit_into_it() -> None:
    runs = tuple(f"{number:064}" for number in range(protocol.MOST_KILLED))
    message = protocol.KillMany(runs, "killed")
    assert codec.decode(codec.encode(message)) == message


def test_too_long_is_not_sent() -> None:
    with pytest.raises(InvalidRequestError, match="at most"):
        codec.encode(protocol.Ready("v1", {str(n): "x" * 1000 for n in range(20)}))
