"""What root makes ready before the front drops it."""

from __future__ import annotations

import os
from pathlib import Path

from plugind import app


def test_the_folder_of_the_environments_can_be_entered_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        made = app._environments(tmp_path / "state")
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    assert made == tmp_path / "state.environments"
    assert made.stat().st_mode & 0o777 == 0o755
    assert app._environments(tmp_path / "state") == made


def test_what_lies_in_its_place_is_left_as_it_is(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o700)
    (tmp_path / "state.environments").symlink_to(victim)
    app._environments(tmp_path / "state")
    assert victim.stat().st_mode & 0o777 == 0o700
