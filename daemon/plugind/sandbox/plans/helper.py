"""The plan helper: a fork of the launcher that becomes the caller, does one piece of work in a plan's folder, and ends.

It may hang, in whatever file system the folder is: nobody waits for it. It has what its caller has and less: no
capability, nothing of the launcher's open, no child, no program. No control group of its own: to move it into one can
take 20 ms. It stays in the launcher's, where it is bounded by its limits below, by its deadline, and by how many there
may be (works.py); where memory runs out it goes first.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from plugind.errors import PlanError
from plugind.linux import constants as c
from plugind.linux import syscalls
from plugind.planfiles import MAX_INDEX_BYTES
from plugind.sandbox import channel, codestore, nobody
from plugind.sandbox.plans import identity
from plugind.sandbox.plans.identity import Identity
from plugind.sandbox.sealed import sealed_memfd

GO: Final = b"go"
"""What it waits for: the launcher has it under control; and again, after SEEN, knows who he is that writes there."""
SEEN: Final = b'{"op":"seen"}'
"""Before a stage: the caller has our root folder."""
DONE: Final = b'{"op":"done"}'
MAX_ANSWER_BYTES: Final = channel.INPUT_LIMIT_BYTES + MAX_INDEX_BYTES
MESSAGE_BYTES: Final = 16 * 1024
CPU_S: Final = 5
"""More than its deadline: it is there for when the launcher is not."""
MEMORY_BYTES: Final = 1 << 30
"""Beyond what the launcher has: the order, what it reads, and the answer, some copies of each."""
OPEN_FILES: Final = 1024
_FIRST_TO_GO: Final = b"500"
"""oom_score_adj, where a process has 0 and the launcher's unit -900."""

Perform = Callable[[str, str, str, bytes], bytes]
"""What it does as the caller: (task, root, plan_dir, order) to the answer, both as planfiles.pack has it. PlanError."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of work. `process`: of the caller, by identity.open_process; -1: he may be gone."""

    task: str
    root: str
    plan_dir: str
    who: Identity
    process: int
    order: int
    """A sealed memfd."""


def become(sock: socket.socket, parent: int, piece: Piece, perform: Perform) -> NoReturn:
    """In the fork: be it. Answers with DONE and a sealed memfd, or says why not."""
    try:
        _let_go(sock, piece)
        if sock.recv(64) == GO:
            _work(sock, parent, piece, perform)
    except PlanError as error:
        _tell(sock, error.code, str(error))
    except BaseException as error:  # noqa: BLE001 - whatever it is, the launcher is to know
        _tell(sock, "fault", f"the plan helper failed: {type(error).__name__}: {error}")
    finally:
        os._exit(0)


def _work(sock: socket.socket, parent: int, piece: Piece, perform: Perform) -> None:
    set_limits()
    os.chdir("/")
    if piece.process >= 0:
        identity.check_root(piece.process)  # as root still, who may look; and here, because it may hang
        os.close(piece.process)
        if piece.task == "stage":
            channel.send(sock, SEEN)
            if sock.recv(64) != GO:
                return
    who = piece.who
    os.umask(who.umask)
    nobody.become(who.uid, who.gid, who.groups, parent, "plan")
    order = codestore.read_sealed(piece.order, MAX_ANSWER_BYTES)
    answer = perform(piece.task, piece.root, piece.plan_dir, order)
    if len(answer) > MAX_ANSWER_BYTES:
        raise PlanError("large", f"expected files of at most {MAX_ANSWER_BYTES} bytes, got {len(answer)}")
    channel.send(sock, DONE, [sealed_memfd("plan", answer)])


def _let_go(sock: socket.socket, piece: Piece) -> None:
    """Of all that is the launcher's."""
    gc.freeze()  # what was garbage before the fork would close descriptors by numbers that are ours by then
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    syscalls.set_name("plugind-plan")
    syscalls.prctl(c.PR_SET_PDEATHSIG, signal.SIGKILL)  # until it becomes the caller, and again from then on
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for descriptor in (0, 1, 2):  # not just closed: a file of the plan would get their numbers, and what is printed
        os.dup2(null, descriptor)
    held = {0, 1, 2, sock.fileno(), piece.order, piece.process}
    syscalls.close_all_but({descriptor for descriptor in held if descriptor >= 0})


def set_limits() -> None:
    """What it may use. Needs root, whose limits may be lower. Source: getrlimit(2), proc_pid_oom_score_adj(5)."""
    # Not open(): text files take most of a ms here, where each page that is touched is copied first.
    score = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    os.write(score, _FIRST_TO_GO)
    os.close(score)
    sizes = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    pages = int(os.read(sizes, 200).split()[0])
    os.close(sizes)
    for kind, most in (
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_FSIZE, MAX_ANSWER_BYTES),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_AS, pages * resource.getpagesize() + MEMORY_BYTES),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 1),  # and no program of the host for one either: core(5)
    ):
        hard = resource.getrlimit(kind)[1]
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (limit, limit))


def _tell(sock: socket.socket, code: str, detail: str) -> None:
    with contextlib.suppress(OSError):  # the launcher is gone
        channel.send(sock, json.dumps({"op": "failed", "code": code, "detail": detail[:1000]}).encode())
