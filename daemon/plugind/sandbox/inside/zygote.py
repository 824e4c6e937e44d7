"""The zygote: a clean interpreter that clones one instance per Start message and reports how each ended.

It is root of its template's user namespace and nothing in the host's. It never draws a random number, so that no
two instances inherit the same state. Messages are JSON over SOCK_SEQPACKET on descriptor 3, from the launcher only.
"""

from __future__ import annotations

import array

# Imported ahead: what most plugins import is there already when an instance starts.
import bisect  # noqa: F401
import hashlib  # noqa: F401
import json
import os
import select
import socket
import sys
from typing import Any, NoReturn

from plugind.linux import constants as c
from plugind.linux import syscalls
from plugind.sandbox.inside import ahead, packages, runner, setup, warm

CONTROL = 3
MAX_MESSAGE_BYTES = 64 * 1024
DESCRIPTORS = ("control", "input", "result", "stdout", "stderr", "requests")
"""Of an instance, in the order in which they come; the last one only of a session's."""
GRANTED = ("plan", "output", "namespace")
"""After them, in this order, what it was granted: files to read and a folder to write to (mounts), a network (its
namespace)."""
_FLAGS = ("plan", "output", "network")
"""Fields of a start that say which of these come with it."""
AHEAD = (*DESCRIPTORS[:-1], "word")
"""The same of one that imports ahead."""
# A network namespace too, with nothing in it: what is seen of a shared one in /proc/self/net carries signals.
NAMESPACES = c.CLONE_NEWPID | c.CLONE_NEWNS | c.CLONE_NEWIPC | c.CLONE_NEWUTS | c.CLONE_NEWNET


def main() -> NoReturn:
    """Serve until the launcher closes the socket."""
    syscalls.set_name("plugind-zygote")
    launcher = socket.socket(fileno=CONTROL)
    launcher.set_inheritable(False)
    message, descriptors = receive(launcher)
    filters = [_read(descriptor) for descriptor in descriptors]
    failed = packages.bring_in(message["imports"]) if message["imports"] else {}
    warm.warm()
    launcher.send(json.dumps({"op": "ready", "failed": failed}).encode())
    os.dup2(0, 2)  # it was the daemon's log, for a zygote that cannot even start
    Zygote(launcher, *filters).serve()


def _read(descriptor: int) -> bytes:
    with open(descriptor, "rb") as program:
        program.seek(0)
        return program.read()


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """One message with its descriptors; an empty one means the launcher is gone."""
    room = socket.CMSG_SPACE((len(DESCRIPTORS) + len(GRANTED)) * 4)
    data, control, _flags, _ = sock.recvmsg(MAX_MESSAGE_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    if not data:
        sys.exit(0)
    descriptors = array.array("i")
    for level, kind, content in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    return json.loads(data), list(descriptors)


class Zygote:
    """The loop: Start messages in, exits out."""

    def __init__(self, launcher: socket.socket, seccomp: bytes, network: bytes) -> None:
        """`network`: the filter of those that were granted some."""
        self.launcher = launcher
        self.seccomp = seccomp
        self.network = network
        self.instances: dict[int, tuple[str, int]] = {}  # pidfd → run, pid
        self.poll = select.poll()
        self.poll.register(launcher, select.POLLIN)

    def serve(self) -> NoReturn:
        while True:
            for descriptor, _ in self.poll.poll():
                if descriptor == self.launcher.fileno():
                    self.start(*receive(self.launcher))
                else:
                    self.reap(descriptor)

    def start(self, message: dict[str, Any], descriptors: list[int]) -> None:
        run, network = message["run"], message["network"]
        try:
            # One that was granted network enters a namespace that is there already.
            pid = syscalls.clone(NAMESPACES & ~c.CLONE_NEWNET if network else NAMESPACES)
        except OSError as error:
            self.tell(op="failed", run=run, detail=str(error))
        else:
            if pid == 0:
                become_instance(message, descriptors, self.network if network else self.seccomp)
            pidfd = os.pidfd_open(pid)
            self.instances[pidfd] = (run, pid)
            self.poll.register(pidfd, select.POLLIN)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def reap(self, pidfd: int) -> None:
        run, pid = self.instances.pop(pidfd)
        self.poll.unregister(pidfd)
        os.close(pidfd)
        _, status, usage = os.wait4(pid, 0)
        cpu_ms = round((usage.ru_utime + usage.ru_stime) * 1000)
        self.tell(op="exited", run=run, exit_code=os.waitstatus_to_exitcode(status), cpu_ms=cpu_ms)

    def tell(self, **fields: object) -> None:
        self.launcher.send(json.dumps(fields).encode())


def become_instance(message: dict[str, Any], descriptors: list[int], seccomp: bytes) -> NoReturn:
    """In the clone: build the jail, say so, run the plugin. Never returns to the zygote's loop."""
    try:
        granted = [name for name, flag in zip(GRANTED, _FLAGS, strict=True) if message[flag]]
        own = len(descriptors) - len(granted)
        given = dict(zip(AHEAD if message.get("ahead") else DESCRIPTORS, descriptors[:own], strict=False))
        given.update(zip(granted, descriptors[own:], strict=True))
        context = setup.Context(**given, seccomp=seccomp)
        try:
            syscalls.set_name("plugind-plugin")
            # A pidfd of this instance: a name that no other process can come to bear.
            hand_over(context.control, b'{"op":"hello"}', os.pidfd_open(os.getpid()))
            setup.carry_out(context, message["steps"])
        except setup.StepError as error:
            step, detail = error.args
            failure = {"op": "failed", "step": step, "detail": detail[:1000]}
            os.write(context.control, json.dumps(failure).encode())
            os._exit(1)
        hand_over(context.control, b'{"op":"ready"}', context.listener)
        os.close(context.control)
        if context.word >= 0:
            ahead.serve(context.input, context.result, context.word)
        runner.run(context.input, context.result, context.requests)
    finally:
        os._exit(1)


def hand_over(control: int, message: bytes, descriptor: int) -> None:
    """A message to the launcher with a descriptor, which from then on only the launcher has."""
    stream = socket.socket(fileno=control)
    try:
        socket.send_fds(stream, [message], [descriptor])
    finally:
        stream.detach()
        os.close(descriptor)


if __name__ == "__main__":
    main()
