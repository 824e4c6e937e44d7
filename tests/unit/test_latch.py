"""The offline kill: what root writes is obeyed at once, and what cannot be read kills everything."""

import pytest

from plugind.errors import ConfigError
from plugind.sandbox.latch import ALL, Kill, Latch, path_of, read, write

ONE, OTHER = "ab" * 32, "cd" * 32


def test_it_lies_beside_the_state_folder(tmp_path):
    assert path_of(tmp_path / "state") == tmp_path / "state.killed"


def test_what_is_written_is_read_and_nothing_is_no_file(tmp_path):
    path = tmp_path / "state.killed"
    assert read(path) == ()
    kills = (Kill(ALL, "fire", 1), Kill(ONE, "smoke \n \u202e", 2, "key:0f"), Kill("tier:1", "ash", 3))
    write(path, kills)
    assert read(path) == kills
    assert path.stat().st_mode & 0o777 == 0o644
    write(path, ())
    assert list(tmp_path.iterdir()) == []


def test_the_latch_follows_the_file(tmp_path):
    path = tmp_path / "state.killed"
    latch = Latch(path)
    assert not latch.look()
    assert latch.reason(ONE, 2) == ""
    write(path, (Kill(ONE, "smoke", 1),))
    assert latch.look()
    assert not latch.look()
    assert (latch.reason(ONE, 2), latch.reason(OTHER, 2)) == ("killed offline: smoke", "")
    write(path, (Kill(ALL, "fire", 2),))
    assert latch.look()
    assert "fire" in latch.reason(OTHER, 2)
    write(path, ())
    assert latch.look()
    assert latch.reason(ONE, 2) == latch.reason(OTHER, 2) == ""


def test_a_tier_is_killed_and_no_other(tmp_path):
    path = tmp_path / "state.killed"
    latch = Latch(path)
    write(path, (Kill("tier:1", "smoke", 1),))
    assert latch.look()
    assert [latch.reason(ONE, tier) for tier in (0, 1, 2)] == ["", "killed offline: smoke", ""]


@pytest.mark.parametrize(
    "target", ["tier:3", "tier:", "tier:1 ", "plan:p", "caller:0", f"sha256:{ONE}", "pkg:pypi/a", 1]
)
def test_what_the_launcher_does_not_know_kills_everything(tmp_path, target):
    path = tmp_path / "state.killed"
    write(path, (Kill(target, "smoke", 1),))
    with pytest.raises(ConfigError, match="expected all, tier:N or a sha256"):
        read(path)
    latch = Latch(path)
    latch.look()
    assert latch.reason(OTHER, 2)


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '[{"target": "echo", "reason": "", "at_unix_ms": 1}]', "[[[[", '{"a": 1}', "\xff"]
)
def test_what_cannot_be_read_kills_everything(tmp_path, text):
    path = tmp_path / "state.killed"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError):
        read(path)
    latch = Latch(path)
    assert latch.look()
    assert "cannot be read" in latch.reason(ONE, 2)


def test_a_folder_in_its_place_kills_everything(tmp_path):
    (tmp_path / "state.killed").mkdir()
    latch = Latch(tmp_path / "state.killed")
    latch.look()
    assert latch.reason(ONE, 2)
