"""Who has had something staged in which plan's folder: so that it can be settled, or undone, when he is gone.

A file beside the state folder and not in it, as the latch is: what the front may write it could invent. One JSON object
a line: {"uid", "gid", "groups", "umask", "plan_dir", "at_unix_ms"}; of several for one user and folder the last counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from plugind.errors import PlanError
from plugind.sandbox.plans.identity import MOST_GROUPS, Identity

MOST: Final = 100_000
"""Lines. Of more, the oldest are forgotten of the user who has most: nobody can push another's out."""
KEPT: Final = 0.9
"""Of them, when some have to be forgotten."""
MAX_BYTES: Final = 256 * 1024 * 1024
"""Of the file. Names of folders are as long as a caller makes them; of more it is as of too many lines."""
_FIELDS: Final = {"uid": int, "gid": int, "groups": list, "umask": int, "plan_dir": str, "at_unix_ms": int}
_Mark = tuple[int, int, int, int]


def path_of(state: Path) -> Path:
    """Where the file of a state folder lies."""
    return state.with_name(f"{state.name}.plans")


class Known:
    """The file as the launcher has it, read when it is asked for the first time, and when somebody has changed it.

    A file that is not as it should be fails everything that needs it, and is never written over.
    """

    def __init__(self, path: Path, most: int = MOST, most_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._most = most
        self._most_bytes = most_bytes
        self._mark: _Mark | None = None
        self._lines = 0
        self._by_plan: dict[tuple[int, str], Identity] = {}
        """By uid and folder, the oldest first."""
        self._same: dict[Identity, Identity] = {}
        """They are few, and come again and again."""

    def identity(self, uid: int, plan_dir: str) -> Identity:
        """Whom this user was when he wrote there. Raises PlanError "caller" where he did not, "fault"."""
        self._look()
        found = self._by_plan.get((uid, plan_dir))
        if found is None:
            raise PlanError(
                "caller",
                f"uid {uid} has not written to {plan_dir:.300}, as far as {self._path} knows: nothing can be done there"
                " without its process",
            )
        return found

    def note(self, identity: Identity, plan_dir: str) -> None:
        """He is about to write there. Durable when this returns. Raises PlanError "fault"."""
        self._look()
        if self._by_plan.get((identity.uid, plan_dir)) == identity:
            return
        try:
            line = _encoded(identity, plan_dir)
            size = self._mark[2] if self._mark else 0
            if self._lines >= self._most or size + len(line) > self._most_bytes:
                self._forget()
            self._append(line)
        except OSError as error:
            said = f"{self._path}: cannot be written: {error.strerror}; nothing of the plan was changed"
            raise PlanError("fault", said) from error
        self._take(identity, plan_dir)

    def _take(self, identity: Identity, plan_dir: str) -> None:
        self._by_plan.pop((identity.uid, plan_dir), None)
        self._by_plan[identity.uid, plan_dir] = self._same.setdefault(identity, identity)
        self._lines += 1

    # -- reading

    def _look(self) -> None:
        try:
            try:
                mark = _mark_of(os.lstat(self._path))
            except FileNotFoundError:
                mark = None
            if mark is None or mark != self._mark:
                self._mark, self._lines = None, 0
                self._by_plan.clear()
                if mark is not None:
                    self._read()
        except (OSError, ValueError) as error:
            self._mark, self._lines = None, 0
            self._by_plan.clear()
            said = error.strerror if isinstance(error, OSError) else error
            raise PlanError(
                "fault",
                f"{self._path}: {said}: nobody's files of plans can be written or put back; mend it, or move it away:"
                " then what was written before cannot be put back without its caller",
            ) from error

    def _read(self) -> None:
        """Raises OSError, ValueError."""
        with self._open(os.O_RDWR) as descriptor, open(descriptor, "rb", closefd=False) as file:
            data = file.read(self._most_bytes + 1)
            if len(data) > self._most_bytes:
                raise ValueError(f"expected at most {self._most_bytes} bytes, got more")
            whole = data.rfind(b"\n") + 1
            for number, line in enumerate(data[:whole].splitlines(), start=1):
                try:
                    self._take(*_decoded(line))
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"line {number}: {error}") from error
            if whole < len(data):
                # The machine stopped while it was written: nothing was staged after it, and it is no line.
                os.ftruncate(descriptor, whole)
            self._mark = _mark_of(os.fstat(descriptor))

    @contextlib.contextmanager
    def _open(self, flags: int) -> Iterator[int]:
        descriptor = os.open(self._path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
                got = f"mode {status.st_mode:o} of uid {status.st_uid}"
                raise ValueError(f"expected a file of uid {os.geteuid()} that nobody else may write, got {got}")
            yield descriptor
        finally:
            os.close(descriptor)

    # -- writing

    def _append(self, line: bytes) -> None:
        # The loop waits for the disk here, once for each user and folder: as long as a line of the ledger takes.
        new = self._mark is None
        with self._open(os.O_WRONLY | os.O_APPEND | (os.O_CREAT | os.O_EXCL if new else 0)) as descriptor:
            size = os.fstat(descriptor).st_size
            try:
                if os.write(descriptor, line) != len(line):
                    raise OSError(0, "no space for a whole line")
                os.fdatasync(descriptor)
            except OSError:
                self._mark = None  # whatever is in it now is read again
                os.ftruncate(descriptor, size)
                raise
            self._mark = _mark_of(os.fstat(descriptor))
        if new:
            self._sync_folder()

    def _forget(self) -> None:
        """Write it anew with fewer lines: no one twice, and when that is not enough, without the oldest."""
        most = max(1, int(self._most * KEPT))
        counts = Counter(uid for uid, _ in self._by_plan)
        while (total := counts.total()) > most:
            uid, own = counts.most_common(1)[0]
            second = max((count for other, count in counts.items() if other != uid), default=0)
            surplus = min(total - most, max(1, own - second))
            for key in [key for key in self._by_plan if key[0] == uid][:surplus]:
                del self._by_plan[key]
            counts[uid] -= surplus
        self._forget_bytes()
        new = self._path.with_name(f"{self._path.name}.new")
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as stream:
            stream.writelines(_encoded(identity, plan_dir) for (_, plan_dir), identity in self._by_plan.items())
            stream.flush()
            os.fsync(descriptor)
            self._mark = None  # until the folder has it
        new.replace(self._path)
        self._sync_folder()
        self._mark, self._lines = _mark_of(os.lstat(self._path)), len(self._by_plan)

    def _forget_bytes(self) -> None:
        """The oldest of the user whose lines are longest together, until there is room again."""
        sizes = {key: len(_encoded(identity, key[1])) for key, identity in self._by_plan.items()}
        own: Counter[int] = Counter()
        for (uid, _), size in sizes.items():
            own[uid] += size
        while own.total() > int(self._most_bytes * KEPT):
            uid = own.most_common(1)[0][0]
            keys = [key for key in self._by_plan if key[0] == uid]
            for key in keys[: max(1, len(keys) // 8)]:
                own[uid] -= sizes[key]
                del self._by_plan[key]

    def _sync_folder(self) -> None:
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _mark_of(status: os.stat_result) -> _Mark:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _encoded(identity: Identity, plan_dir: str) -> bytes:
    fields = {
        "uid": identity.uid,
        "gid": identity.gid,
        "groups": identity.groups,
        "umask": identity.umask,
        "plan_dir": plan_dir,
        "at_unix_ms": time.time_ns() // 10**6,
    }
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def _decoded(line: bytes) -> tuple[Identity, str]:
    """Raises ValueError."""
    entry = json.loads(line)
    if not isinstance(entry, dict) or entry.keys() != _FIELDS.keys():
        raise ValueError(f"expected an object with {', '.join(_FIELDS)}")
    for name, kind in _FIELDS.items():
        if type(entry[name]) is not kind:
            raise ValueError(f"{name}: expected {kind.__name__}, got {entry[name]!r:.80}")
    groups = entry["groups"]
    ids = (entry["uid"], entry["gid"], *groups)
    if len(groups) > MOST_GROUPS or not all(type(each) is int and 0 <= each < 2**32 - 1 for each in ids):
        raise ValueError("expected ids of users and groups, got other numbers")
    if not 0 <= entry["umask"] <= 0o077:
        raise ValueError(f"umask: expected 0 to {0o077}, got {entry['umask']}")
    return Identity(entry["uid"], entry["gid"], tuple(groups), entry["umask"]), entry["plan_dir"]
