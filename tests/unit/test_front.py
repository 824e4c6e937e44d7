"""Which folders stand between the front and what it needs."""

from __future__ import annotations

import os
from pathlib import Path

from plugind.sandbox.front import barriers


def test_the_outermost_closed_folder_is_the_barrier(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    closed = tmp_path / "closed"
    needed = closed / "also-closed" / "state"
    needed.mkdir(parents=True)
    (closed / "also-closed").chmod(0o700)
    closed.chmod(0o700)
    other = os.getuid() + 1
    found = barriers([needed, needed / "missing"], other)
    outermost = next(iter(found))
    assert closed.is_relative_to(outermost)
    assert found[outermost] == [needed]
    assert barriers([needed], os.getuid()) == {}


def test_a_folder_in_a_shown_folder_needs_nothing_more(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "a" / "b").mkdir(parents=True)
    closed.chmod(0o700)
    (shown,) = barriers([closed / "a" / "b", closed / "a"], os.getuid() + 1).values()
    assert shown == [closed / "a"]
