"""Messages with descriptors over SOCK_SEQPACKET, without ever blocking, and what a descriptor may be.

Not socket.send_fds and recv_fds: those of Python 3.11 forget their flags. Sources: unix(7), recvmsg(2).
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Sequence

from plugind.errors import InvalidRequestError
from plugind.sandbox import codec, codestore, protocol

INPUT_LIMIT_BYTES = 256 * 1024 * 1024
UCRED = struct.Struct("3i")
"""Pid, uid and gid of a peer. Source: unix(7), SCM_CREDENTIALS."""
_MOST_DESCRIPTORS = 16
# As numbers: to combine members of an IntFlag takes longer than the call that they are for.
_SENDING = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
_RECEIVING = int(socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT)
_CUT = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)


def send(sock: socket.socket, data: bytes, descriptors: Sequence[int] = ()) -> None:
    """One whole message. Raises OSError, BlockingIOError where the peer does not read."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    sock.sendmsg([data], rights, _SENDING)


def receive(sock: socket.socket, size_bytes: int, most: int = 0) -> tuple[bytes, list[int], bool]:
    """One message, its at most `most` descriptors, and whether some of either was cut off. No data: the peer is gone.

    Raises OSError: BlockingIOError where there is none, ConnectionResetError where the peer left ours unread.
    """
    room = socket.CMSG_SPACE(most * 4) if most else 0
    data, control, flags, _ = sock.recvmsg(size_bytes, room, _RECEIVING)
    descriptors = array.array("i")
    for level, kind, content in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    return data, list(descriptors), bool(flags & _CUT)


def receive_message(sock: socket.socket) -> tuple[protocol.Message, list[int]]:
    """One checked message with exactly the descriptors its kind has. Raises EOFError, InvalidRequestError, OSError."""
    data, descriptors, cut = receive(sock, protocol.MAX_MESSAGE_BYTES, _MOST_DESCRIPTORS)
    try:
        if not data:
            raise EOFError
        if cut:
            raise InvalidRequestError("message: too long or with too many descriptors")
        message = codec.decode(data)
        if len(descriptors) != message.descriptors:
            raise InvalidRequestError(f"expected {message.descriptors} descriptors, got {len(descriptors)}")
    except (EOFError, InvalidRequestError):
        close(descriptors)
        raise
    return message, descriptors


def close(descriptors: Sequence[int]) -> None:
    """Close them all."""
    for descriptor in descriptors:
        os.close(descriptor)


def check_descriptors(descriptors: Sequence[int], *, session: bool = False, files_bytes: int = -1) -> None:
    """Input a sealed memfd, the others write ends of pipes, the last of a session the read end of one.

    With `files_bytes` another sealed memfd follows, of at most that; -1: none does. Never a directory. Raises
    InvalidRequestError.
    """
    first, *pipes = descriptors
    if files_bytes >= 0:
        check_sealed(pipes.pop(), "files", files_bytes)
    check_sealed(first, "input")
    if session:
        _check_pipe(pipes.pop(), os.O_RDONLY, "read")
    for pipe in pipes:
        _check_pipe(pipe, os.O_WRONLY, "write")


def check_sealed(descriptor: int, name: str, limit_bytes: int = INPUT_LIMIT_BYTES) -> None:
    """A memfd that nobody can change any more, and not too large. Raises InvalidRequestError."""
    try:
        # First: of anything but a memfd even to ask for its size can be to wait for who serves it.
        sealed = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & codestore.SEALS == codestore.SEALS
    except OSError:
        sealed = False
    if not sealed or os.fstat(descriptor).st_size > limit_bytes:
        raise InvalidRequestError(f"{name}: expected a sealed memfd of at most {limit_bytes} bytes")


def _check_pipe(descriptor: int, access: int, end: str) -> None:
    # Of an O_PATH descriptor, which can do neither, the access mode is that of a read end: open(2).
    right = fcntl.fcntl(descriptor, fcntl.F_GETFL) & (os.O_ACCMODE | os.O_PATH) == access
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode) or not right:
        raise InvalidRequestError(f"descriptor: expected the {end} end of a pipe")


def is_below(pid: int, ancestor: int, generations: int = 3) -> bool:
    """Whether a process descends from another. Raises OSError. Source: proc_pid_stat(5)."""
    for _ in range(generations):
        pid = int(_text(f"/proc/{pid}/stat").rpartition(")")[2].split()[1])
        if pid == ancestor:
            return True
        if pid <= 1:
            break
    return False


def pid_of(pidfd: int) -> int:
    """The host's pid of a pidfd. Raises OSError for any other descriptor. Source: pidfd_open(2)."""
    for line in _text(f"/proc/self/fdinfo/{pidfd}").splitlines():
        name, _, value = line.partition(":")
        if name == "Pid" and int(value) > 0:
            return int(value)
    raise OSError(0, "expected a pidfd of a living process")


def _text(path: str) -> str:
    # Not Path.read_text: these lie in the way of each run. A short file of proc comes in one read.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 4096).decode(errors="replace")
    finally:
        os.close(descriptor)
