"""Messages with descriptors: what comes through, what is refused, and that nothing stays open."""

from __future__ import annotations

import array
import os
import socket

import pytest

from plugind.errors import InvalidRequestError
from plugind.sandbox import channel, codec, protocol
from plugind.sandbox.sealed import sealed_memfd
from tests.support.descriptors import opened as descriptors_opened

DIGEST = "a" * 64


@pytest.fixture
def pair():
    before = descriptors_opened()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield ours, theirs
    ours.close()
    theirs.close()
    assert descriptors_opened() <= before, "a descriptor was left open"


def give(sock, data, descriptors):
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))])


def test_a_message_with_its_descriptor(pair) -> None:
    ours, theirs = pair
    memfd = sealed_memfd("x", b"content")
    channel.send(theirs, codec.encode(protocol.Load(DIGEST)), [memfd])
    os.close(memfd)
    message, descriptors = channel.receive_message(ours)
    assert message == protocol.Load(DIGEST)
    assert os.pread(descriptors[0], 100, 0) == b"content"
    assert not os.get_inheritable(descriptors[0])
    channel.close(descriptors)


@pytest.mark.parametrize("count", [0, 2, 16, 40])
def test_another_number_of_descriptors(pair, count) -> None:
    ours, theirs = pair
    memfd = sealed_memfd("x", b"")
    give(theirs, codec.encode(protocol.Load(DIGEST)), [memfd] * count)
    os.close(memfd)
    with pytest.raises(InvalidRequestError, match="descriptors"):
        channel.receive_message(ours)


@pytest.mark.parametrize(
    "data",
    [b"x", b"{}", b"\xff", b"[" * 9000, b'{"op":"stop"}' + b" " * protocol.MAX_MESSAGE_BYTES, b" " * 60_000],
    ids=len,
)
def test_malformed_and_oversized(pair, data) -> None:
    ours, theirs = pair
    memfd = sealed_memfd("x", b"")
    give(theirs, data, [memfd])
    os.close(memfd)
    with pytest.raises(InvalidRequestError):
        channel.receive_message(ours)


def test_the_end_and_an_empty_message_are_the_end(pair) -> None:
    ours, theirs = pair
    memfd = sealed_memfd("x", b"")
    give(theirs, b"", [memfd])
    os.close(memfd)
    theirs.close()
    for _ in range(2):
        with pytest.raises(EOFError):
            channel.receive_message(ours)


def test_nothing_waits(pair) -> None:
    ours, theirs = pair
    with pytest.raises(BlockingIOError):
        channel.receive_message(ours)
    with pytest.raises(BlockingIOError):
        for _ in range(10_000):
            channel.send(ours, b"x" * 1000)
    theirs.close()
    with pytest.raises(ConnectionError):
        channel.send(ours, b"x")


def test_a_peer_that_left_our_message_unread(pair) -> None:
    ours, theirs = pair
    channel.send(ours, b"x")
    theirs.close()
    with pytest.raises(ConnectionResetError):
        channel.receive(ours, 100)


def test_descriptors_that_were_not_asked_for_do_not_come_in(pair) -> None:
    ours, theirs = pair
    memfd = sealed_memfd("x", b"")
    give(theirs, b"x", [memfd, memfd])
    os.close(memfd)
    assert channel.receive(ours, 100) == (b"x", [], True)


def opened(kind, folder):
    """An input and three outputs, of which one is of this kind; all are to be closed."""
    reader, writer = os.pipe()
    memfd = sealed_memfd("x", b"input")
    good = [memfd, writer, os.dup(writer), os.dup(writer)]
    odd = {
        "good": lambda: (0, os.dup(memfd)),
        "folder as input": lambda: (0, os.open(folder, os.O_RDONLY)),
        "folder as output": lambda: (2, os.open(folder, os.O_RDONLY)),
        "file as input": lambda: (0, os.open(folder / "f", os.O_RDWR | os.O_CREAT)),
        "file as output": lambda: (3, os.open(folder / "f", os.O_WRONLY | os.O_CREAT)),
        "unsealed memfd": lambda: (0, os.memfd_create("x", os.MFD_ALLOW_SEALING)),
        "memfd that cannot be sealed": lambda: (0, os.memfd_create("x", 0)),
        "pipe as input": lambda: (0, os.dup(writer)),
        "memfd as output": lambda: (1, os.dup(memfd)),
        "read end": lambda: (1, os.dup(reader)),
        "both ends of a fifo": lambda: (1, os.open(f"/proc/self/fd/{writer}", os.O_RDWR)),
        "device": lambda: (3, os.open("/dev/null", os.O_WRONLY)),
        "path only": lambda: (1, os.open(f"/proc/self/fd/{writer}", os.O_PATH)),
        "socket": lambda: (2, socket.socket(socket.AF_UNIX).detach()),
    }[kind]
    place, descriptor = odd()
    given = [*good[:place], descriptor, *good[place + 1 :]]
    return given, {reader, *good, descriptor}


def test_the_descriptors_of_a_run(tmp_path) -> None:
    given, everything = opened("good", tmp_path)
    channel.check_descriptors(given)
    channel.close(sorted(everything))
    assert given


@pytest.mark.parametrize(
    "kind",
    [
        "folder as input", "folder as output", "file as input", "file as output", "unsealed memfd",
        "memfd that cannot be sealed", "pipe as input", "memfd as output", "read end", "both ends of a fifo", "device",
        "path only", "socket",
    ],
)  # fmt: skip
def test_other_descriptors_are_refused(tmp_path, kind) -> None:
    given, everything = opened(kind, tmp_path)
    with pytest.raises(InvalidRequestError, match=r"input|write end of a pipe"):
        channel.check_descriptors(given)
    channel.close(sorted(everything))


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY, os.O_PATH])
def test_what_is_no_read_end_is_no_pipe_of_requests(tmp_path, flags) -> None:
    """The access mode of an O_PATH descriptor looks like that of a read end."""
    given, everything = opened("good", tmp_path)
    reader, writer = os.pipe()
    channel.check_descriptors([*given, reader], session=True)
    other = os.open(f"/proc/self/fd/{reader}", flags)
    with pytest.raises(InvalidRequestError, match="read end of a pipe"):
        channel.check_descriptors([*given, other], session=True)
    channel.close([*sorted(everything), reader, writer, other])


def test_pid_of() -> None:
    pidfd = os.pidfd_open(os.getpid())
    null = os.open("/dev/null", os.O_RDONLY)
    assert channel.pid_of(pidfd) == os.getpid()
    with pytest.raises(OSError, match="expected a pidfd"):
        channel.pid_of(null)
    channel.close([pidfd, null])
