"""The door: who calls is what the kernel says, bytes pass unchanged, and nobody else gets to grpc."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import time
import weakref

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from plugind.api.accept import Callers, Door
from plugind.api.roles import RunAdmission
from plugind.errors import NotAllowedError
from tests.support.descriptors import opened


class Echo:
    """A backend of bytes: keeps peers' names, echoes what it gets until their end, then says goodbye."""

    def __init__(self, path):
        self.path, self.peers = path, []

    async def __aenter__(self):
        self.server = await asyncio.start_unix_server(self.serve, self.path)
        return self

    async def __aexit__(self, *_):
        self.server.close()
        await self.server.wait_closed()

    async def serve(self, reader, writer):
        self.peers.append(writer.get_extra_info("peername"))
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write(b"goodbye")
        except OSError:
            pass  # the caller hung up
        finally:
            writer.close()


class Nobody:
    """Admits nobody."""

    def admit(self, caller, groups):
        raise NotAllowedError(f"uid {caller.uid} is not the owner")


@pytest.fixture
def listener(tmp_path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "public.sock"))
        sock.listen()
        yield sock


@pytest.fixture
async def door(listener, tmp_path):
    opened = []

    def make(admission=None, connections_per_uid=8):
        chosen = admission or RunAdmission()
        door = Door(listener, str(tmp_path / "backend.sock"), Callers(), chosen, connections_per_uid)
        door.open()
        opened.append(door)
        return door

    yield make
    for each in opened:
        await each.close()
        await each.hang_up()


async def connect(tmp_path):
    return await asyncio.open_unix_connection(str(tmp_path / "public.sock"))


async def test_bytes_pass_both_ways_and_half_close_too(tmp_path, door):
    sent = os.urandom(3_000_000)
    async with Echo(tmp_path / "backend.sock"):
        door()
        reader, writer = await connect(tmp_path)

        async def send():
            writer.write(sent)
            await writer.drain()
            writer.write_eof()

        _, received = await asyncio.gather(send(), reader.read())
        assert received == sent + b"goodbye"
        writer.close()


@pytest.mark.slow
async def test_a_reader_that_does_not_read_holds_the_writer_back(tmp_path, door):
    async with Echo(tmp_path / "backend.sock"):
        made = door()
        reader, writer = await connect(tmp_path)
        sent = 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                while sent < 200_000_000:
                    writer.write(b"x" * 65536)
                    await writer.drain()
                    sent += 65536
        assert sent < 20_000_000
        writer.transport.abort()
        await wait_until(lambda: not made._pairs)
        del reader


async def wait_until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_the_backend_sees_a_name_that_stands_for_the_caller(tmp_path, door):
    async with Echo(tmp_path / "backend.sock") as backend:
        made = door()
        before_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        reader, writer = await connect(tmp_path)
        writer.write(b"x")
        await reader.read(1)
        name = backend.peers[0].decode().removeprefix("\0")
        caller = made._callers.behind(f"unix-abstract:{name}")
        assert (caller.uid, caller.gid, caller.pid) == (os.getuid(), os.getgid(), os.getpid())
        assert before_ns < caller.since_ns < time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        writer.close()
        await wait_until(lambda: len(made._callers) == 0)
        with pytest.raises(NotAllowedError):
            made._callers.behind(f"unix-abstract:{name}")


@pytest.mark.parametrize("peer", ["", "unix:", "unix-abstract:plugind-00-0-0-1", "ipv4:127.0.0.1:1", "plugind"])
async def test_a_peer_that_did_not_come_through_the_door_is_nobody(door, peer):
    with pytest.raises(NotAllowedError):
        door()._callers.behind(peer)


async def test_who_is_not_admitted_is_closed_at_once(tmp_path, door, capsys):
    async with Echo(tmp_path / "backend.sock") as backend:
        door(admission=Nobody())
        reader, writer = await connect(tmp_path)
        assert await reader.read() == b""
        assert not backend.peers
        writer.close()
    assert "is not the owner" in capsys.readouterr().err


async def test_one_uid_has_so_many_connections_and_a_closed_one_makes_room(tmp_path, door, capsys):
    async with Echo(tmp_path / "backend.sock"):
        made = door(connections_per_uid=2)
        held = [await connect(tmp_path) for _ in range(2)]
        await wait_until(lambda: len(made._callers) == 2)
        reader, writer = await connect(tmp_path)
        assert await reader.read() == b""
        writer.close()
        assert "connections_per_uid" in capsys.readouterr().err
        held[0][1].close()
        await wait_until(lambda: len(made._callers) == 1)
        reader, writer = await connect(tmp_path)
        writer.write(b"x")
        assert await reader.read(1) == b"x"
        for _, each in [*held, (reader, writer)]:
            each.close()


async def test_a_backend_that_is_not_there_closes_the_connection_and_the_door_goes_on(tmp_path, door, capsys):
    made = door()
    reader, writer = await connect(tmp_path)
    assert await reader.read() == b""
    writer.close()
    assert "could not be passed on" in capsys.readouterr().err
    async with Echo(tmp_path / "backend.sock"):
        reader, writer = await connect(tmp_path)
        writer.write(b"x")
        assert await reader.read(1) == b"x"
        writer.close()
        await wait_until(lambda: not made._pairs)


async def test_no_descriptor_stays_open(tmp_path, door):
    async with Echo(tmp_path / "backend.sock"):
        made = door(connections_per_uid=100)
        before = opened()
        for end in ("close", "abort", "eof"):
            for _ in range(20):
                reader, writer = await connect(tmp_path)
                writer.write(b"x" * 1000)
                if end == "close":
                    writer.close()
                elif end == "abort":
                    writer.transport.abort()
                else:
                    writer.write_eof()
                    assert await reader.read() == b"x" * 1000 + b"goodbye"
                    writer.close()
        await wait_until(lambda: not made._pairs)
        assert made._open.total() == 0
        await asyncio.sleep(0.05)
        assert opened() <= before


@pytest.mark.parametrize("end", ["caller", "door"])
async def test_a_connection_that_is_over_is_no_garbage(tmp_path, door, end):
    """Nothing of ours in it leads back to itself, so that it is gone without a search for such rings."""
    async with Echo(tmp_path / "backend.sock"):
        made = door()
        reader, writer = await connect(tmp_path)
        writer.write(b"x")
        assert await reader.read(1) == b"x"
        (pair,) = made._pairs
        parts = [weakref.ref(part) for part in (pair, pair.public, pair.behind)]
        del pair
        gc.disable()
        try:
            if end == "caller":
                writer.close()
            else:
                await made.hang_up()
            await wait_until(lambda: not made._pairs)
            await asyncio.sleep(0.01)
            assert [part() for part in parts] == [None] * 3
        finally:
            gc.enable()
            writer.close()


async def test_grpc_tells_the_name(tmp_path, door):
    peers = []

    class Health(health_pb2_grpc.HealthServicer):
        async def Check(self, request, context):  # noqa: N802
            peers.append(context.peer())
            return health_pb2.HealthCheckResponse()

    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
    server.add_insecure_port(f"unix:{tmp_path}/backend.sock")
    await server.start()
    made = door()
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/public.sock") as channel:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert made._callers.behind(peers[0]).pid == os.getpid()
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/backend.sock") as channel:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        with pytest.raises(NotAllowedError):
            made._callers.behind(peers[1])
    await server.stop(0)
