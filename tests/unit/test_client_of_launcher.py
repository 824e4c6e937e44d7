"""The front's end of the connection to the launcher, with files of a plan: what it sends, and what it believes."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from plugind import planfiles
from plugind.model import Limits, Outcome
from plugind.planfiles import OUTPUT_DIR, PLAN_DIR, Entry
from plugind.sandbox import channel, codec, protocol
from plugind.sandbox.client import LauncherClient
from plugind.sandbox.inside.runner import HEADER, read_input
from plugind.sandbox.running import InstanceRequest, InstanceResult
from plugind.sandbox.sealed import mapped, sealed_memfd
from tests.support.descriptors import opened

LIMITS = Limits(1000, 1000, 1 << 20, 1, 1000, 1000)
REQUEST = InstanceRequest("r1", "a" * 64, 1, LIMITS, "json", "plugin:run", b"1", {"stage": "", "plan_id": "p"}, 1000)
WRITES = replace(REQUEST, files=planfiles.pack([Entry("a", b"1")]), write_files=2, write_bytes=10)
ENDED = protocol.Ended("r1", "", 0, 1, 1, 1)


class Ends(NamedTuple):
    """Of the connection."""

    front: socket.socket
    launcher: socket.socket


@pytest.fixture
def ends() -> Iterator[Ends]:
    before = opened()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    yield Ends(ours, theirs)
    theirs.close()
    ours.close()
    assert opened() <= before, "a descriptor was left open"


async def started(launcher: socket.socket) -> tuple[protocol.Start, list[int]]:
    for _ in range(1000):
        try:
            message, descriptors = channel.receive_message(launcher)
        except BlockingIOError:
            await asyncio.sleep(0.001)
        else:
            assert isinstance(message, protocol.Start)
            return message, descriptors
    raise AssertionError("nothing came")


async def ran(
    ends: Ends, *wrote: bytes, request: InstanceRequest = WRITES, ended: Any = ENDED
) -> tuple[InstanceResult, Any]:
    """A run of which the launcher tells these, one after the other; and what it was asked for."""
    client = LauncherClient(ends.front)
    asyncio.get_running_loop().add_reader(client._sock, client._on_readable)
    running = asyncio.ensure_future(client.run(request))
    message, descriptors = await started(ends.launcher)
    nonce, call, _ = read_input(os.dup(descriptors[0]))
    files = b""
    if message.reads:
        with mapped(descriptors[-1]) as content:
            files = content[:]
    os.write(descriptors[1], HEADER.pack(nonce, b"V", 4) + b"true")
    channel.close(descriptors)
    for each in wrote:
        memfd = sealed_memfd("output", each)
        channel.send(ends.launcher, codec.encode(protocol.Wrote("r1")), [memfd])
        os.close(memfd)
    channel.send(ends.launcher, codec.encode(ended))
    result = await running
    await client.hang_up()
    return result, (message, call, files)


async def test_files_are_sent_last_and_the_plugin_is_told_where_they_are(ends) -> None:
    _, (message, call, files) = await ran(ends)
    assert (message.reads, message.write_files, message.write_bytes) == (1, 2, 10)
    assert (call["plan_dir"], call["output_dir"], call["plan_id"]) == (PLAN_DIR, OUTPUT_DIR, "p")
    assert files == WRITES.files


async def test_without_files_nothing_is_sent_and_the_places_are_empty(ends) -> None:
    result, (message, call, _) = await ran(ends, request=REQUEST)
    assert (message.reads, message.write_files, message.write_bytes) == (0, 0, 0)
    assert (call["plan_dir"], call["output_dir"]) == ("", "")
    assert (result.outcome, result.wrote) == (Outcome.OK, ())


async def test_what_was_written_is_in_the_result_and_the_outcome_is_the_same(ends) -> None:
    entries = [Entry("a", b"12345"), Entry("b", None, problem="symlink"), Entry("c", None, problem="too many")]
    result, _ = await ran(ends, planfiles.pack(entries))
    assert (result.outcome, result.output_json, list(result.wrote)) == (Outcome.OK, b"true", entries)


async def test_only_the_last_that_is_told_counts(ends) -> None:
    first, last = (planfiles.pack([Entry(name, b"1")]) for name in "ab")
    result, _ = await ran(ends, first, last)
    assert [entry.path for entry in result.wrote] == ["b"]


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        bytes(100),
        planfiles.pack([Entry("../a", b"1")]),
        planfiles.pack([Entry("a", b"x" * 11)]),
        planfiles.pack([Entry(name, b"") for name in "abcd"]),
        bytes(4 + planfiles.MAX_INDEX_BYTES + 11),
    ],
)
async def test_what_cannot_have_been_written_is_a_fault(ends, odd) -> None:
    result, _ = await ran(ends, odd)
    assert (result.outcome, result.output_json, result.wrote) == (Outcome.FAULT, None, ())
    assert result.detail.startswith("what it wrote: files: ")


async def test_a_fault_of_the_collector_says_so(ends) -> None:
    ended = replace(ENDED, cause="fault", detail="what it wrote cannot be collected: no memory")
    result, _ = await ran(ends, ended=ended)
    assert (result.outcome, result.detail) == (Outcome.FAULT, "what it wrote cannot be collected: no memory")


async def test_runs_beside_it_are_counted_when_it_began_and_when_it_ended(ends) -> None:
    client = LauncherClient(ends.front)
    asyncio.get_running_loop().add_reader(client._sock, client._on_readable)

    async def begun(name: str, mode: str = "run") -> asyncio.Future[InstanceResult]:
        running = asyncio.ensure_future(client.run(replace(REQUEST, run=name, mode=mode)))
        channel.close((await started(ends.launcher))[1])
        return running

    async def ended(running: asyncio.Future[InstanceResult], name: str) -> int:
        channel.send(ends.launcher, codec.encode(replace(ENDED, run=name)))
        return (await running).beside

    first, session, second = await begun("r1"), await begun("s", "session"), await begun("r2")
    assert await ended(first, "r1") == 1  # when it ended
    third, fourth = await begun("r3", "map"), await begun("r4")
    assert await ended(third, "r3") == 2
    assert await ended(second, "r2") == 1
    assert await ended(fourth, "r4") == 2  # when it began
    assert await ended(await begun("r5"), "r5") == 0
    channel.send(ends.launcher, codec.encode(replace(ENDED, run="s")))
    await session
    await client.hang_up()


async def test_what_is_told_of_nobody_is_closed(ends) -> None:
    client = LauncherClient(ends.front)
    memfd = sealed_memfd("output", b"")
    for message, descriptors in ((protocol.Wrote("nobody"), [memfd]), (protocol.Wrote("nobody"), [])):
        channel.send(ends.launcher, codec.encode(message), descriptors)
        client._on_readable()
    os.close(memfd)
    assert not client.gone.done()
    assert json.loads(codec.encode(protocol.Wrote("r1"))) == {"op": "wrote", "run": "r1"}
