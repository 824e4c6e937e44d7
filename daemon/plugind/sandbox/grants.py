"""What an instance gets of a plan's files: a file system with a copy of those that it may read, and one to write to.

Made by the launcher before they lie anywhere, and handed to the instance, which moves them into their places. Both
belong to the launcher's user namespace: what is the host's root's here no template can write, whatever it mounts.
The launcher does nothing else meanwhile. What it unpacks and copies is bounded by the tier's `[files] read_bytes`: for
512 files and the 32 MiB of Tier 1 as shipped that takes 40 ms of processor time, for the 64 MiB of Tier 0 80 ms.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from plugind.errors import InvalidRequestError
from plugind.linux import mounts
from plugind.planfiles import MAX_DEPTH, MAX_INDEX_BYTES, Entry, FileCeilings, file_and_folder, folders_of, unpack
from plugind.sandbox.sealed import mapped, write_all

PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def most_packed_bytes(ceilings: FileCeilings) -> int:
    """How long a set of files to read can be at most, packed (planfiles.pack)."""
    return 4 + MAX_INDEX_BYTES + ceilings.read_bytes


def plan_files(packed: int, ceilings: FileCeilings) -> int:
    """A read-only tmpfs with the files of this sealed memfd, by planfiles.pack: a descriptor as fsmount gives it.

    Raises InvalidRequestError for what is no set of files within the ceilings, or says of one that it was not taken;
    OSError.
    """
    with mapped(packed) as content:
        entries, _ = unpack(content, ceilings.read_files, ceilings.read_bytes)
    for entry in entries:
        if entry.content is None:
            raise InvalidRequestError(f"files: {entry.path}: expected a content, got none: {entry.problem!r:.80}")
    folders = _folders(entries)
    options = {
        # Of either 0 would be no limit.
        "size": str(max(1, sum(_pages(len(entry.content or b"")) for entry in entries)) * PAGE),
        "nr_inodes": str(1 + len(folders) + len(entries)),
        "mode": "0555",
    }
    mount = mounts.detached_tmpfs(options)
    try:
        _fill(mount, folders, entries)
        mounts.mount_setattr(mount, mounts.RDONLY)
    except BaseException:
        os.close(mount)
        raise
    return mount


def _pages(size_bytes: int) -> int:
    return -(-size_bytes // PAGE)


def _folders(entries: Sequence[Entry]) -> list[str]:
    """Every folder on the way to a file, those above first. Raises InvalidRequestError where one is a file as well."""
    if both := file_and_folder(entry.path for entry in entries):
        raise InvalidRequestError(f"files: {both}: expected a file or a folder, got both")
    return sorted(folders_of(entry.path for entry in entries))


def _fill(mount: int, folders: Sequence[str], entries: Iterable[Entry]) -> None:
    """Write it all. Nobody else has this file system yet: there is nothing on it that a path could lead through."""
    for folder in folders:
        os.mkdir(folder, 0o755, dir_fd=mount)
    for entry in entries:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(entry.path, flags, 0o444, dir_fd=mount)
        try:
            write_all(descriptor, entry.content or b"")
            os.fchmod(descriptor, 0o444)  # whatever the umask is
        finally:
            os.close(descriptor)
    for folder in folders:
        os.chmod(folder, 0o555, dir_fd=mount)  # noqa: S103 - everybody may look, nobody may write


@dataclass(slots=True)
class OutputFolder:
    """Where an instance writes. The launcher keeps a descriptor: it is there when no process of the instance is."""

    mount: int
    """As fsmount gives it."""
    files: int
    bytes: int

    @classmethod
    def make(cls, files: int, size_bytes: int, uid: int) -> Self:
        """One for an instance with this uid in the host. Raises OSError."""
        options = {
            # Every file begins a page of its own.
            "size": str(_pages(size_bytes) * PAGE + files * PAGE),
            # As many files, each below folders of its own, and one more: that there are too many is to be seen.
            "nr_inodes": str(1 + (files + 1) * MAX_DEPTH),
            "mode": "0700",
            "uid": str(uid),
            "gid": str(uid),
        }
        return cls(mounts.detached_tmpfs(options), files, size_bytes)

    def close(self) -> None:
        """With the instance's mount namespace the file system goes."""
        if self.mount >= 0:
            os.close(self.mount)
            self.mount = -1
