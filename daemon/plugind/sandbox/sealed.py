"""Memory that is handed over and cannot change any more: sealed memfds.

Without an event loop, which the launcher does not have.

Sources: memfd_create(2), fcntl(2).
"""

from __future__ import annotations

import errno
import fcntl
import os

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


def read_all(descriptor: int) -> bytes:
    """What is in a memfd, from its beginning. Raises OSError."""
    size = os.fstat(descriptor).st_size
    content = os.pread(descriptor, size, 0)
    while len(content) < size and (chunk := os.pread(descriptor, size - len(content), len(content))):
        content += chunk  # the kernel gives at most 2 GiB at once
    return content


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of it. Raises OSError."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
