"""Plans' folders on a real kernel: a root for them, callers who are other users, and file systems that hang."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import struct
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plugind.linux import constants as c
from plugind.linux import syscalls
from plugind.planfiles import Entry, pack, unpack
from plugind.sandbox import channel, codec, protocol
from plugind.sandbox.sealed import sealed_memfd
from tests.support.bad_front import Front, taken_over
from tests.support.plan_tasks import perform

ANNA, BERT = 12345, 12346
"""Users, and groups, that this machine does not know."""
TIMEOUT_S = 30


@dataclass
class Place:
    """A plan root, and the policy that says so."""

    root: Path
    policy: Path

    def plan(self, name: str, owner: int = ANNA, mode: int = 0o700, **files: str) -> str:
        """A plan's folder with some files."""
        folder = self.root / name
        folder.mkdir()
        for each, text in files.items():
            (folder / each).write_text(text)
            os.chown(folder / each, owner, owner)
        os.chown(folder, owner, owner)
        folder.chmod(mode)
        return str(folder)


@contextlib.contextmanager
def place() -> Iterator[Place]:
    """One that everybody may enter."""
    folder = Path(tempfile.mkdtemp(prefix="plugind-plans-"))
    try:
        folder.chmod(0o755)
        root = folder / "plans"
        root.mkdir(mode=0o755)
        policy = folder / "policy.toml"
        policy.write_text(f'schema = 1\n[plans]\nroots = ["{root}"]\n')
        policy.chmod(0o644)
        yield Place(root, policy)
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def caller(
    uid: int = ANNA, groups: Sequence[int] = (), root: Path | None = None, saved: int | None = None, umask: int = 0o022
) -> Any:
    """The pid of a process of that user, which only waits; `root`: its root folder; `saved`: its saved uid."""
    ready, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.close_all_but({0, 1, 2, theirs})  # a front's socket, or a file system, would not end without it
            if root is not None:
                os.chroot(root)
                os.chdir("/")
            os.umask(umask)
            os.setgroups(groups)
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid if saved is None else saved)
            os.write(theirs, b"!")
            while True:
                signal.pause()
        finally:
            os._exit(1)
    os.close(theirs)
    try:
        assert os.read(ready, 1) == b"!"
        yield pid
    finally:
        os.close(ready)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass
class Answer:
    """What came of it, and after what time."""

    failed: str = ""
    detail: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    after_s: float = 0.0


class Plans:
    """Asks the launcher of a front."""

    def __init__(self, front: Front, at: Place) -> None:
        self.front = front
        self.at = at
        self._asked: dict[str, float] = {}
        self._answers: dict[str, Answer] = {}

    def ask(
        self,
        plan_dir: str,
        pid: int,
        task: str = "read",
        work: str = "w1",
        uid: int = ANNA,
        gid: int | None = None,
        since_ns: int | None = None,
        entries: Sequence[Entry] = (),
        descriptor: int | None = None,
        **facts: Any,
    ) -> None:
        """Any work, with any descriptor in the place of its order."""
        since_ns = now_ns() if since_ns is None else since_ns
        fields = {"op": "plan_work", "run": work, "task": task, "plan_dir": plan_dir, "since_ns": since_ns}
        fields |= {"caller_pid": pid, "caller_uid": uid, "caller_gid": uid if gid is None else gid}
        order = sealed_memfd("plan", pack(entries, facts)) if descriptor is None else descriptor
        self._asked[work] = time.monotonic()
        self.front.send(fields, [order])
        if descriptor is None:
            os.close(order)

    def answer(self, work: str = "w1") -> Answer:
        """To that work; other work's answers are kept, other messages are not."""
        while work not in self._answers:
            assert select.select([self.front.sock], [], [], TIMEOUT_S)[0], f"no answer: {self.front.log()}"
            self._hear()
        return self._answers.pop(work)

    def hear_what_is_there(self) -> None:
        """Keep the answers that have come."""
        while not self.front.silent():
            self._hear()

    def _hear(self) -> None:
        data, descriptors, _ = channel.receive(self.front.sock, protocol.MAX_MESSAGE_BYTES, 2)
        assert data, f"the launcher is gone: {self.front.log()}"
        match codec.decode(data):
            case protocol.PlanFailed(named, code, detail):
                self._answers[named] = Answer(code, detail, after_s=time.monotonic() - self._asked[named])
            case protocol.PlanDone(named):
                entries, facts = unpack(os.pread(descriptors[0], 1 << 28, 0), 1000, 1 << 28)
                files = {entry.path: entry.content or b"" for entry in entries}
                self._answers[named] = Answer(files=files, facts=facts, after_s=time.monotonic() - self._asked[named])
        channel.close(descriptors)

    def do(self, plan_dir: str, pid: int, task: str = "read", **chosen: Any) -> Answer:
        """Ask, and hear."""
        self.ask(plan_dir, pid, task, **chosen)
        return self.answer(chosen.get("work", "w1"))

    def helpers(self) -> list[int]:
        """Pids of plan helpers that the launcher has now, those that are dying with them."""
        children = Path(f"/proc/{self.front.pid}/task/{self.front.pid}/children").read_text().split()
        return [int(pid) for pid in children if _name(pid) == "plugind-plan"]

    def wait_for_helpers(self, count: int) -> list[int]:
        deadline = time.monotonic() + TIMEOUT_S
        while len(found := self.helpers()) != count:
            assert time.monotonic() < deadline, found
            time.sleep(0.005)
        return found


def _name(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:  # it has ended since
        return ""


@contextlib.contextmanager
def plans(**chosen: Any) -> Iterator[Plans]:
    """A launcher whose helpers do what plan_tasks says, and a root for plans. `chosen`: see LauncherConfig."""
    with place() as at, taken_over(policy=at.policy, **{"perform": perform, **chosen}) as front:
        yield Plans(front, at)


# -- file systems that hang


@contextlib.contextmanager
def own_mounts() -> Iterator[None]:
    """A mount namespace for this thread alone: what is mounted in it goes to a launcher, and is gone with it."""
    here = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    before = Path.cwd()
    try:
        syscalls.unshare(c.CLONE_NEWNS)
        for kind in (c.MS_PRIVATE, c.MS_SHARED):  # not to the host's; to those that are made from here
            syscalls.mount("", "/", None, c.MS_REC | kind)
        yield
    finally:
        syscalls.setns(here, c.CLONE_NEWNS)
        os.chdir(before)
        os.close(here)


@contextlib.contextmanager
def hung(folder: str | Path, *, takes: bool) -> Iterator[int]:
    """A FUSE file system there that answers nothing. With `takes` it has taken the question: then not even SIGKILL ends
    the waiting (request_wait_answer() of the kernel's fs/fuse/dev.c). Ends with its descriptor, whatever waits for it.
    """
    served = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        options = f"fd={served},rootmode=40000,user_id=0,group_id=0,allow_other"
        syscalls.mount("hung", str(folder), "fuse", c.MS_NOSUID | c.MS_NODEV, options)
        if takes:
            _answer_init(served)
        yield served
    finally:
        os.close(served)
        syscalls.umount2(str(folder), c.MNT_DETACH)


def take(served: int) -> int:
    """Take a question of the kernel's, and how many bytes it has; waits for one."""
    assert select.select([served], [], [], TIMEOUT_S)[0], "nobody asks"
    return len(os.read(served, 1 << 17))


def _answer_init(served: int) -> None:
    """Source: linux/fuse.h, struct fuse_in_header, fuse_out_header, fuse_init_out."""
    question = os.read(served, 1 << 17)
    _, opcode, unique = struct.unpack_from("=IIQ", question)
    assert opcode == 26
    flags, background, congestion, largest_write = 1 << 18, 16, 12, 4096  # FUSE_PARALLEL_DIROPS
    said = struct.pack("=IIIIHHI40x", 7, 31, 4096, flags, background, congestion, largest_write)
    os.write(served, struct.pack("=IiQ", 16 + len(said), 0, unique) + said)
