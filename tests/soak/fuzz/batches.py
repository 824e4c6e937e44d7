"""Maps and sessions: what a caller sends, what a plugin's process gives for it, and frames in any pieces."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
from array import array

from google.protobuf.message import DecodeError

from plugind import batch
from plugind.api import batches as messages
from plugind.api.runs import map_request
from plugind.batch import Column, ColumnAnswer, ColumnCalls, InvalidBatchError, ItemError
from plugind.errors import InvalidRequestError
from plugind.payload import Contract
from plugind.sandbox.frames import Frames
from plugind.sandbox.inside import batches as jailed
from plugind.sandbox.inside.functions import Plugin
from plugind.sandbox.inside.runner import HEADER
from plugind.schema import Schema
from plugind_proto.v1 import runtime_pb2
from tests.soak.fuzz import examples
from tests.soak.fuzz.parsers import JSON_WORDS, MAX_BYTES, WORDY, contracts, told
from tests.soak.fuzz.target import SEPARATOR, Target, joined
from tests.support.plugins import CALLER

LIMIT_BYTES = 4096
MOST_ROWS = 200
"""More are not evaluated here: each would be a call."""
DOUBLES = array("d", [1.5, float("nan")]).tobytes()
CALL = b'{"function":"f","arguments":{"a":1}}'
GIVEN = (
    CALL,
    ColumnCalls("f", 2, {"a": Column("float64", DOUBLES)}),
    b"[" + CALL + b"," + CALL + b"]",
    ColumnCalls("g", 3, {"a": Column("values", b'[1,"x",null]'), "b": Column("constant", b"{}")}),
    b"refused",
)
REFUSED = 4
ERROR = {"kind": "E", "type": "ValueError", "message": "no"}


@functools.cache
def strict() -> Contract:
    """Outputs are numbers, and little ones."""
    return Contract("functions", None, Schema.parse(b'{"type": "number", "maximum": 10}', "s.json"))


def map_results(data: bytes) -> None:
    """Any text as the results of the same five items, of which the last was refused."""
    refused = {REFUSED: batch.check(contracts()[1], [b"refused"], MAX_BYTES, 2)[0]}
    for contract in (contracts()[1], strict()):
        try:
            answers = batch.decode(contract, GIVEN, refused, data)
        except InvalidBatchError as error:
            told(error)
            continue
        assert len(answers) == len(GIVEN)
        assert answers[REFUSED] == ItemError(refused=refused[REFUSED])
        for item, answer in zip(GIVEN, answers, strict=True):
            assert isinstance(answer, ItemError | ColumnAnswer if isinstance(item, ColumnCalls) else ItemError | bytes)
            if isinstance(answer, ColumnAnswer):
                rows = [row for row, _ in answer.errors]
                assert rows == sorted(set(rows))
                assert not rows or 0 <= rows[0] <= rows[-1] < item.rows
        assert len(b"".join(each.SerializeToString() for each in messages.results(answers))) < len(data) + WORDY


def map_items(data: bytes) -> None:
    """Any bytes as a caller's request, checked, and what is let through evaluated by the jail's own code."""
    try:
        request = runtime_pb2.MapRequest.FromString(data)
        asked = map_request(request, CALLER)
    except DecodeError:
        return
    except InvalidRequestError as error:
        told(error)
        return
    for contract in contracts():
        refused = batch.check(contract, asked.items, MAX_BYTES, 2)
        for reasons in refused.values():
            assert sum(len(reason.actual.encode()) + len(reason.expected.encode()) for reason in reasons) < WORDY
        rows = sum(item.rows for place, item in enumerate(asked.items) if _is_columns(item) and place not in refused)
        if rows <= MOST_ROWS and not batch.too_many(refused):
            text = jailed.answer(_Echo(contract.non_finite), batch.encode(asked.items, refused))
            answers = batch.decode(contract, asked.items, refused, text)
            assert all(isinstance(answers[place], ItemError) for place in refused)
            assert len(messages.results(answers)) == len(asked.items)


def _is_columns(item: batch.Item) -> bool:
    return isinstance(item, ColumnCalls)


class _Echo(Plugin):
    """Gives back what it gets, without a module that would have to be imported."""

    def __init__(self, non_finite: bool) -> None:
        self.non_finite = non_finite
        self.functions = {"f": lambda a=None, **b: a, "g": lambda **a: list(a.values())}
        self._run = lambda payload, _: payload
        self._context = None  # type: ignore[assignment]


def session_frames(data: bytes) -> None:
    """Parts that begin with `?` are asked, one byte 1 makes a frame with the nonce, all else is written as it is."""
    _loop().run_until_complete(_talk(data))


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


async def _talk(data: bytes) -> None:
    ended: list[None] = []
    frames = Frames(examples.NONCE, LIMIT_BYTES, lambda: ended.append(None))
    theirs, results = frames.open()
    os.set_blocking(results, False)
    asked = answer = None
    answered = 0
    try:
        for part in data.split(SEPARATOR):
            if part[:1] == b"?" and (answer is None or answer.done()):
                asked, answer = part[1:], frames.ask(part[1:])
            else:
                framed = part[:1] == b"\x01"
                content = (
                    HEADER.pack(examples.NONCE, part[1:2] or b"V", max(len(part) - 2, 0)) + part[2:] if framed else part
                )
                with contextlib.suppress(BlockingIOError):
                    os.write(results, content)
            for _ in range(3):
                await asyncio.sleep(0)
            if answer is not None and answer.done() and asked is not None:
                kind, body = answer.result()
                assert kind in (b"V", b"E", b"I")
                assert len(body) <= LIMIT_BYTES
                asked, answered = None, answered + 1
            assert len(ended) == bool(frames.problem or frames.overflown), "it is ended once, and for a reason"
            assert len(frames._received) <= HEADER.size + LIMIT_BYTES + len(data)
        assert answered <= data.count(b"?")
    finally:
        frames.close()
        os.close(results)
        os.close(theirs)


def result_texts() -> list[bytes]:
    """Results of those five items."""
    good = [
        {"json": 3},
        {"rows": 2, "values": {"float64": 16}, "errors": []},
        {"json": 5},
        {"rows": 3, "values": {"values": 8}, "errors": [[1, ERROR]]},
        {"refused": True},
    ]
    bad = [{"error": ERROR}, {"error": ERROR}, {"error": {**ERROR, "kind": "I"}}, {"error": ERROR}, {}]
    parts = b"2.5" + DOUBLES + b"[1,2]" + b"[1,2,99]"
    return [json.dumps({"items": heads}).encode() + b"\n" + text for heads, text in ((good, parts), (bad, b""))]


def requests() -> list[bytes]:
    """Maps of inputs and of columns."""
    columns = runtime_pb2.ColumnCalls(function="f", rows=2)
    columns.arguments["a"].float64 = DOUBLES
    columns.arguments["b"].values_json = b'[1,"x"]'
    columns.arguments["c"].constant_json = b"[NaN]"
    items = [runtime_pb2.MapItem(input_json=CALL), runtime_pb2.MapItem(columns=columns)]
    value = runtime_pb2.MapItem(input_json=json.dumps(examples.VALUE).encode())
    run = runtime_pb2.RunRequest(plugin="echo")
    return [runtime_pb2.MapRequest(run=run, items=each).SerializeToString() for each in (items, [value], items[1:])]


def talks() -> list[bytes]:
    """Sessions as they should be, and some that are not."""
    good = [b"?1", b"\x01V1", b"?2", b'\x01E{"type":"x"}', b"?3", b"\x01I" + b'"no"']
    whole = HEADER.pack(examples.NONCE, b"V", 3) + b"[1]"
    return [joined(*good), joined(b"?1", whole[:7], whole[7:26], whole[26:]), joined(b"?1", whole * 2), whole]


WORDS = tuple(f'"{word}"'.encode() for word in ("items", "json", "error", "rows", "values", "float64", "errors", "kind", "refused"))  # fmt: skip
BATCHES = (
    Target("map_results", map_results, result_texts, (*WORDS, b"\n", *JSON_WORDS), share=80),
    Target("map_items", map_items, requests, (CALL, b'"f"', *JSON_WORDS), share=20),
    Target("session_frames", session_frames, talks, (examples.NONCE, b"\x01V", b"?1", SEPARATOR), 8192, share=40),
)
