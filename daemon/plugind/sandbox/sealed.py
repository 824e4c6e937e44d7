"""Memory that is handed over and cannot change any more: sealed memfds.

Without an event loop, which the launcher does not have.

Sources: memfd_create(2), fcntl(2).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
from collections.abc import Iterator
from typing import cast

from plugind.sandbox import codestore


def sealed_memfd(name: str, content: bytes) -> int:
    """A memfd that nobody can change any more.

    Raises:
        OSError: no memory, or some page stays in use by the kernel.

    Source: memfd_create(2), fcntl(2).
    """
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        write_all(descriptor, content)
        seal(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def seal(descriptor: int) -> None:
    """Add the seals; a busy machine needs more than one try.

    The kernel refuses with EBUSY while anybody holds a reference to one of the pages, and that can be the kernel
    itself: compaction and per-CPU lists take some for a moment. It waits up to 155 ms by itself before it gives up.
    """
    for last in (False, False, False, True):
        try:
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, codestore.SEALS)
        except OSError as error:
            if last or error.errno != errno.EBUSY:
                raise
        else:
            return


@contextlib.contextmanager
def mapped(descriptor: int) -> Iterator[bytes]:
    """What is in a sealed memfd, for as long as it is looked at: no copy, and sliced it gives bytes. Raises OSError."""
    if not os.fstat(descriptor).st_size:
        yield b""
        return
    with mmap.mmap(descriptor, 0, mmap.MAP_PRIVATE | mmap.MAP_POPULATE, mmap.PROT_READ) as content:
        yield cast("bytes", content)


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of it. Raises OSError."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
