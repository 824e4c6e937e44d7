"""Runs a plugin that is a program (runtime "exec"): one process for each input, below this one, which is pid 1.

The program reads the input from its standard input, and what it writes to its standard output is the result: nothing
of it is parsed here. It has neither the nonce nor the result pipe, and no way to them: this process is not dumpable, so
in /proc it is root's, and what looks into other processes is refused. What a program leaves behind is killed before its
result counts.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
from collections.abc import Iterator
from typing import Self

from plugind.sandbox.inside.functions import Plugin

_CHUNK_BYTES = 64 * 1024
_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)
"""Python ignores them, and what is ignored stays so over exec."""


class ProgramFailed(Exception):  # noqa: N818 - its name is what a caller is told, beside builtin exceptions
    """A program did not end with 0, or could not be executed; the argument says which."""

    __module__ = "builtins"  # in a traceback it stands as they do


class Program(Plugin):
    """A plugin whose inputs and results are JSON text that only others parse."""

    non_finite = False

    def __init__(self, call: dict[str, str]) -> None:
        if os.getpid() != 1:
            raise RuntimeError("expected to be pid 1: it kills every other process that it can")
        self.functions = {}
        self._path = f"/plugin/{call['entrypoint']}"
        self._most_bytes = int(call["output_bytes"])
        of_run = ("stage", "plan_id", "plan_dir", "output_dir")
        self._environment = {**os.environ, **{f"PLUGIND_{name.upper()}": call.get(name, "") for name in of_run}}
        # A pid 1 does not hear what its own namespace sends it, but for what it has a handler for.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        self._wake, wake = _pipe()
        for descriptor in (self._wake, wake):
            os.set_blocking(descriptor, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

    def load(self, text: bytes) -> bytes:
        """The input, as it is."""
        return text

    def answer(self, payload: bytes) -> bytes:
        """What the program writes for one input, up to a byte more than there may be. Raises ProgramFailed."""
        with _Pipes(payload, self._most_bytes + 1) as pipes:
            pid = self._execute(pipes)
            status = self._supervise(pid, pipes)
            pipes.drain()
        if status and not pipes.full:
            raise ProgramFailed(_how_it_ended(os.waitstatus_to_exitcode(status)))
        return bytes(pipes.output)

    def encode(self, value: object) -> bytes:
        """The same: it is text already."""
        assert isinstance(value, bytes)  # noqa: S101 - of this class's answer()
        return value

    def _execute(self, pipes: _Pipes) -> int:
        actions = [(os.POSIX_SPAWN_DUP2, descriptor, target) for target, descriptor in enumerate(pipes.theirs)]
        try:
            # By path: a script's interpreter opens it once more, and a descriptor would have to be left open for that.
            return os.posix_spawn(
                self._path, [self._path], self._environment, file_actions=actions, setpgroup=0, setsigdef=_IGNORED
            )
        except OSError as error:
            raise ProgramFailed(_why_not_executed(self._path, error)) from None
        finally:
            pipes.hand_over()

    def _supervise(self, pid: int, pipes: _Pipes) -> int:
        """How it ended (waitpid(2)), with nothing of it left; 0 where it was ended because of its output."""
        ended: dict[int, int] = {}
        while pid not in ended and not pipes.full:
            pipes.serve(self._wake)
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, _CHUNK_BYTES)
            ended.update(_reap(os.WNOHANG))  # orphans too, which would count as processes
        # All but this one, and whatever is being forked: the kernel holds forks back meanwhile.
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        ended.update(_reap(0))
        return 0 if pipes.full else ended[pid]


class _Pipes:
    """Standard input and output of one process, from this side."""

    def __init__(self, payload: bytes, most_bytes: int) -> None:
        stdin, self._feed = _pipe()
        self._result, stdout = _pipe()
        self.theirs = [stdin, stdout]
        for descriptor in (self._feed, self._result):
            os.set_blocking(descriptor, False)
        self.output = bytearray()
        self._unsaid = memoryview(payload)
        self._most_bytes = most_bytes
        self._poll = select.poll()
        self._poll.register(self._feed, select.POLLOUT)
        self._poll.register(self._result, select.POLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.hand_over()
        for descriptor in (self._feed, self._result):
            if descriptor >= 0:
                os.close(descriptor)

    @property
    def full(self) -> bool:
        """Whether there is as much output as is taken."""
        return len(self.output) >= self._most_bytes

    def hand_over(self) -> None:
        """Close what is the other side's."""
        while self.theirs:
            os.close(self.theirs.pop())

    def serve(self, wake: int) -> None:
        """Wait for something to do, or for `wake`, and do it."""
        self._poll.register(wake, select.POLLIN)
        for descriptor, _ in self._poll.poll():
            if descriptor == self._feed:
                self._write()
            elif descriptor == self._result and not self._read():
                self._poll.unregister(self._result)  # it has closed its output, and may go on

    def drain(self) -> None:
        """Take what was written by processes that are gone."""
        with contextlib.suppress(BlockingIOError):
            while self._read() and not self.full:
                pass

    def _write(self) -> None:
        try:
            self._unsaid = self._unsaid[os.write(self._feed, self._unsaid[:_CHUNK_BYTES]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._unsaid = memoryview(b"")  # nobody wants to read the rest
        if not self._unsaid:
            self._poll.unregister(self._feed)
            os.close(self._feed)
            self._feed = -1

    def _read(self) -> bool:
        chunk = os.read(self._result, min(_CHUNK_BYTES, self._most_bytes - len(self.output)))
        self.output += chunk
        return bool(chunk)


def _pipe() -> tuple[int, int]:
    return os.pipe2(os.O_CLOEXEC)


def _reap(flags: int) -> Iterator[tuple[int, int]]:
    """Pid and status of children that have ended: with 0 of all there are."""
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, flags))[0]:
            yield found


def _how_it_ended(code: int) -> str:
    if code > 0:
        return f"the program ended with exit status {code}"
    try:
        return f"the program died by {signal.Signals(-code).name}"
    except ValueError:  # most real-time signals have no name
        return f"the program died by signal {-code}"


def _why_not_executed(path: str, error: OSError) -> str:
    hint = {
        errno.ENOEXEC: ": neither a program of this machine's kind nor a script that begins with #!",
        errno.ENOENT: ": what it names as its interpreter, behind #! or as its loader, is not in the jail",
    }.get(error.errno or 0, "")
    return f"{path} cannot be executed: {os.strerror(error.errno or 0)}{hint}"
