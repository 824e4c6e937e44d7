"""The state folder: made, marked and locked by root, used by the front.

    STATE              root's, writable for the front's group, sticky: what is root's in it the front cannot replace
    STATE/state.json   root's: which kind of daemon it belongs to, in which format
    STATE/lock         root's: held by the daemon that uses it
    STATE/registry.db  STATE/monitor.db  STATE/store/  STATE/ledger/  STATE/commits/  STATE/run/   the front's

Root follows no link in it all the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from plugind.api.listen import take_lock
from plugind.errors import ConfigError, StateError

Mode = Literal["dev", "production"]
FORMAT: Final = 1
_NEW_MARK: Final = "state.json.new"
_FOLDERS: Final = ("store", "ledger", "commits", "run")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class State:
    """A state folder that this daemon, and no other, uses."""

    path: Path
    lock_path: Path
    lock_descriptor: int

    @property
    def database(self) -> Path:
        """The registry."""
        return self.path / "registry.db"

    @property
    def monitor(self) -> Path:
        """What the monitor knows, and incidents."""
        return self.path / "monitor.db"

    @property
    def store(self) -> Path:
        """Bundles by digest."""
        return self.path / "store"

    @property
    def ledger(self) -> Path:
        """The ledger's segments."""
        return self.path / "ledger"

    @property
    def commits(self) -> Path:
        """Changes of plans that are under way (plugind.plans.notes)."""
        return self.path / "commits"

    @property
    def run(self) -> Path:
        """Grpc's own socket; nobody else may enter."""
        return self.path / "run"


def prepare(path: Path, mode: Mode, uid: int, gid: int) -> State:
    """Make or take over the folder for the front's uid. Raises ConfigError, StateError, AlreadyRunningError."""
    _make(path)
    try:
        descriptor = os.open(path, _DIRECTORY)
    except OSError as error:
        raise ConfigError(f"--state: {path} cannot be used: {error.strerror}") from error
    try:
        _check_mark(path, descriptor, mode, gid)
        lock = take_lock(path / "lock", f"state {path}")
        try:
            _mark(descriptor, mode, uid, gid)
        except OSError as error:
            os.close(lock)
            raise ConfigError(f"--state: {path} cannot be used: {error}") from error
    finally:
        os.close(descriptor)
    return State(path, path / "lock", lock)


def _make(path: Path) -> None:
    if path.is_symlink():
        raise ConfigError(f"--state: expected a folder, got a link: {path}")
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except FileNotFoundError:
        raise ConfigError(
            f"--state: expected the folder {path.parent} to exist; mkdir it, or choose another path"
        ) from None
    except OSError as error:
        raise ConfigError(f"--state: expected a folder, got {path}: {error.strerror}") from error


def _check_mark(path: Path, descriptor: int, mode: Mode, gid: int) -> None:
    """Nothing is changed in a folder that is neither empty nor a state."""
    try:
        mark = os.open("state.json", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=descriptor)
    except FileNotFoundError:
        if foreign := sorted(set(os.listdir(descriptor)) - {"lock", _NEW_MARK}):
            raise ConfigError(
                f"--state: expected an empty folder or a state of plugind, got {path} with {foreign[0]!r} in it"
            ) from None
        return
    except OSError as error:
        raise StateError(f"{path}/state.json: expected the mark of a state, got {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(mark).st_mode):
            raise StateError(f"{path}/state.json: expected the mark of a state, got no regular file")
        content = os.read(mark, 4096)
    finally:
        os.close(mark)
    try:
        fields = json.loads(content)
        found, written = fields["mode"], fields["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StateError(f"{path}/state.json: expected the mark of a state, got {content[:80]!r}") from error
    if written != FORMAT:
        raise StateError(f"{path}: expected state format {FORMAT}, got {written!r}; another version of plugind made it")
    if found != mode:
        raise StateError(f"{path}: expected the state of a {mode} daemon, got one of a {found} daemon")
    group = os.fstat(descriptor).st_gid
    if group != gid:
        raise StateError(
            f"{path}: expected a state of group {gid}, got {group}; another user runs plugind now, "
            "choose another --state"
        )


def _mark(directory: int, mode: Mode, uid: int, gid: int) -> None:
    # In this order a crash in between leaves something that the next start accepts and completes.
    os.fchown(directory, os.geteuid(), gid)
    os.fchmod(directory, stat.S_ISVTX | stat.S_IRWXU | stat.S_IRWXG)
    if "state.json" not in os.listdir(directory):
        _write_mark(directory, mode)
    for name in _FOLDERS:
        _own_folder(directory, name, uid, gid)


def _write_mark(directory: int, mode: Mode) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_NEW_MARK, dir_fd=directory)
    descriptor = os.open(_NEW_MARK, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        os.write(descriptor, json.dumps({"format": FORMAT, "mode": mode}).encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(_NEW_MARK, "state.json", src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)


def _own_folder(directory: int, name: str, uid: int, gid: int) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=directory)
    descriptor = os.open(name, _DIRECTORY, dir_fd=directory)
    try:
        os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, stat.S_IRWXU)
    finally:
        os.close(descriptor)
