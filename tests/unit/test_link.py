"""The link to the launcher: without one nothing runs and everything else goes on; a lost one is made again."""

from __future__ import annotations

import asyncio
import socket

import pytest

from plugind.errors import IsolationUnavailableError, LauncherGoneError
from plugind.sandbox import codec, link, protocol
from plugind.sandbox.link import Link

READY = codec.encode(protocol.Ready("fake", {}))


class Launchers:
    """Gives out connections; the other ends are the test's."""

    def __init__(self):
        self.ours, self.refuse, self.asked = [], False, 0

    async def connect(self):
        self.asked += 1
        if self.refuse:
            raise ConnectionRefusedError(111, "nobody there", "launcher.sock")
        theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.send(READY)
        self.ours.append(ours)
        return theirs


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_lost_launcher_is_met_again_and_told():
    launchers, told = Launchers(), []
    made = Link(launchers.connect, told.append)
    await made.keep(2)
    assert (made.problem, made.ready.cgroup_driver) == ("", "fake")
    launchers.ours[0].close()
    await until(lambda: made.problem)
    with pytest.raises(IsolationUnavailableError, match="gone"):
        await made.load("ab" * 32, lambda: b"")
    await until(lambda: len(launchers.ours) == 2 and not made.problem)
    assert sum("is gone" in text for text in told) == 1
    await made.stop(end_launcher=False)
    launchers.ours[1].close()


async def test_without_a_launcher_the_start_goes_on_and_says_why():
    launchers, told = Launchers(), []
    launchers.refuse = True
    made = Link(launchers.connect, told.append)
    await made.keep(0.05)
    assert "nobody there" in made.problem
    with pytest.raises(IsolationUnavailableError):
        await made.load("ab" * 32, lambda: b"")
    with pytest.raises(LauncherGoneError):
        _ = made.gone
    made.kill("r", "killed")
    made.kill_all()
    assert made.is_gone("r")
    launchers.refuse = False
    await until(lambda: not made.problem)
    assert len(told) == 2, "the same trouble is told once"
    await made.stop(end_launcher=False)
    launchers.ours[0].close()


async def test_the_one_connection_of_a_standalone_daemon_is_used():
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.send(READY)
    made = Link(link.fixed(theirs), print)
    await made.open()
    ours.close()
    assert await asyncio.wait_for(made.gone, 5)
    await made.stop(end_launcher=False)


async def test_a_socket_that_is_not_there_names_the_unit(tmp_path):
    with pytest.raises(OSError, match="systemctl status plugind-launcher"):
        await link.at(tmp_path / "launcher.sock")()
