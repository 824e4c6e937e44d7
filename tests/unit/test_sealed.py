"""Sealing a memfd while the kernel, or somebody, still holds its pages."""

import errno
import os
import threading
from collections.abc import Iterator

import pytest

from plugind.sandbox import codestore
from plugind.sandbox.sealed import seal


@pytest.fixture
def pinned() -> Iterator[tuple[int, int]]:
    """A memfd whose only page a pipe holds a reference to, and the end of the pipe that lets it go."""
    memfd = os.memfd_create("pinned", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    reading, writing = os.pipe()
    try:
        os.write(memfd, bytes(4096))
        assert os.splice(memfd, writing, 4096, offset_src=0) == 4096
        yield memfd, reading
    finally:
        for each in (memfd, reading, writing):
            os.close(each)


def test_a_page_in_use_for_a_moment_is_waited_for(pinned: tuple[int, int]) -> None:
    """The kernel gives up after 155 ms with EBUSY: on a busy machine compaction alone can take longer."""
    memfd, reading = pinned
    letting_go = threading.Timer(0.25, os.read, (reading, 4096))
    letting_go.start()
    try:
        seal(memfd)
    finally:
        letting_go.join()
    assert codestore.read_sealed(memfd, 4096) == bytes(4096)


def test_a_page_that_stays_in_use_is_an_error(pinned: tuple[int, int]) -> None:
    memfd, _ = pinned
    with pytest.raises(OSError, match="busy") as error:
        seal(memfd)
    assert error.value.errno == errno.EBUSY
    with pytest.raises(codestore.InvalidBundleError):
        codestore.read_sealed(memfd, 4096)
