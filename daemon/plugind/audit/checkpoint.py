"""How far the ledger went and what its root was: the file `checkpoint`, written after every commit.

A checkpoint is a text as of C2SP's tlog-checkpoint: origin, size, root; then extension lines, which say what the tree
was where the newest segment begins, so that a start hashes that segment and no other. It is not signed yet: a
signature comes after the empty line that ends the text.

The file has two slots that are written in turn, so that a torn write leaves the checkpoint before it. A write is no
commit: it always comes after the records are durable, so it may be late and is never ahead.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from plugind.audit.files import check_same, sync_directory
from plugind.audit.merkle import EMPTY_ROOT, Frontier
from plugind.errors import StateError

NAME: Final = "checkpoint"
SLOT_BYTES: Final = 4096
SYNC_RECORDS: Final = 256
SYNC_S: Final = 1.0
"""A checkpoint is made durable after so many records, or after so long."""
_NEW: Final = "checkpoint.new"
_ORIGIN: Final = re.compile(r"plugind/[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Base:
    """What a start has to know of the records before the newest segment: the first `size`."""

    size: int = 0
    nodes: tuple[bytes, ...] = ()
    """Their frontier."""
    lowest_open: int = 0
    """Index of the first INTENT that was open then; `size` where none was."""
    payload_end: tuple[int, int] = (0, 0)
    """Number of the newest pack then, and its size."""

    def frontier(self) -> Frontier:
        """The tree over them. Raises ValueError."""
        return Frontier(self.size, self.nodes)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The first `size` records have this root."""

    origin: str
    size: int
    root: bytes
    base: Base = Base()

    def text(self) -> bytes:
        """As it is written, with the line that shows whether it is whole."""
        base = self.base
        pack, end = base.payload_end
        lines = [
            self.origin,
            str(self.size),
            _base64(self.root),
            f"base {base.size} {base.lowest_open} {pack} {end}",
            *(f"node {_base64(node)}" for node in base.nodes),
        ]
        body = "".join(f"{line}\n" for line in lines).encode()
        return body + b"check " + _check(body) + b"\n"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _check(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest()[:16].encode()


def parse(slot: bytes) -> Checkpoint | None:
    """The checkpoint in a slot, or None where there is no whole one."""
    text = slot.partition(b"\n\n")[0]
    body, _, check = text.rpartition(b"check ")
    if not body.endswith(b"\n") or check.rstrip(b"\n") != _check(body):
        return None
    try:
        origin, size, root, base, *nodes = body.decode().splitlines()
        base_size, lowest_open, pack, end = map(int, base.removeprefix("base ").split())
        known = tuple(base64.b64decode(node.removeprefix("node "), validate=True) for node in nodes)
        found = Checkpoint(
            origin,
            int(size),
            base64.b64decode(root, validate=True),
            Base(base_size, known, lowest_open, (pack, end)),
        )
        found.base.frontier()
    except ValueError:
        return None
    whole = _ORIGIN.fullmatch(origin) and len(found.root) == 32 and 0 <= lowest_open <= base_size <= found.size
    return found if whole else None


def read(directory: Path) -> Checkpoint | None:
    """The newest checkpoint; None where there never was one. Raises StateError when none is whole, OSError."""
    path = directory / NAME
    for _ in range(20):  # somebody may be writing: a slot is not read atomically
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        slots = [parse(data[start : start + SLOT_BYTES]) for start in (0, SLOT_BYTES)]
        if found := [slot for slot in slots if slot]:
            return max(found, key=lambda slot: slot.size)
        time.sleep(0.001)
    raise StateError(f"{path}: expected a whole checkpoint in one of its two slots, got none")


class CheckpointFile:
    """The open file. Used by one thread at a time; raises OSError."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        data = os.pread(self._descriptor, 2 * SLOT_BYTES, 0)
        first, second = (parse(data[start : start + SLOT_BYTES]) for start in (0, SLOT_BYTES))
        # The next one goes where the older one is.
        self._slot = 1 if first and (second is None or second.size <= first.size) else 0
        self._unsynced = 0
        self._synced_s = time.monotonic()

    @staticmethod
    def create(directory: Path) -> Checkpoint:
        """Begin a ledger: an origin of its own, and nothing in it. Durable when it returns."""
        new = Checkpoint(f"plugind/{secrets.token_hex(16)}", 0, EMPTY_ROOT)
        with contextlib.suppress(FileNotFoundError):
            (directory / _NEW).unlink()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(directory / _NEW, flags, 0o600)
        try:
            os.write(descriptor, _slot(new) * 2)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        (directory / _NEW).rename(directory / NAME)
        sync_directory(directory)
        return new

    def write(self, checkpoint: Checkpoint, records: int) -> None:
        """Put it in place; `records` came since the one before."""
        data = _slot(checkpoint)
        if os.pwrite(self._descriptor, data, self._slot * SLOT_BYTES) != len(data):
            raise OSError(0, f"expected {SLOT_BYTES} bytes to be written: {self._path}")
        self._slot = 1 - self._slot
        self._unsynced += records
        if self._unsynced >= SYNC_RECORDS or time.monotonic() - self._synced_s >= SYNC_S:
            self.sync()

    @property
    def late(self) -> bool:
        """Whether the newest one is not durable yet."""
        return self._unsynced > 0

    def sync(self) -> None:
        """Make the newest one durable."""
        check_same(self._path, self._descriptor)
        os.fdatasync(self._descriptor)
        self._unsynced = 0
        self._synced_s = time.monotonic()

    def close(self) -> None:
        """Close the file as it is."""
        os.close(self._descriptor)


def _slot(checkpoint: Checkpoint) -> bytes:
    # Newlines as padding keep the file a text, and the first of them is the empty line that ends the checkpoint.
    text = checkpoint.text()
    assert len(text) < SLOT_BYTES  # noqa: S101 - a node for each bit of a size: at most 64 lines of 50 bytes
    return text.ljust(SLOT_BYTES, b"\n")
