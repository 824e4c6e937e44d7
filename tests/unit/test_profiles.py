"""Every mistake in a profile is named: file, key, what was expected and what came."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from plugind.errors import ConfigError
from plugind.model import Limits, Monitoring
from plugind.profiles import builtin_digests, load_profile, load_profiles, profiles_dir

SHIPPED = Path(__file__).parents[2] / "profiles"
TEXT = (SHIPPED / "tier2.toml").read_text()
LIMITS = [name for name, _ in Limits().items()]
NUMBERS = "input_bytes stdio_bytes inodes shm_bytes open_files file_bytes cpu_percent instances".split()
KEYS = ["tier", "requires", "permissions", *NUMBERS, "exec_allowed", "seccomp_extra"]


def changed(folder, pattern, replacement, text=TEXT):
    result, count = re.subn(pattern, replacement, text, count=1, flags=re.MULTILINE)
    assert count == 1, pattern
    path = folder / "tier2.toml"
    path.write_text(result)
    return path


def refused(path, expected):
    with pytest.raises(ConfigError) as caught:
        load_profile(path, 2)
    assert str(caught.value).startswith(f"{path}: ")
    assert expected in str(caught.value)


def test_the_shipped_profiles() -> None:
    assert profiles_dir() == SHIPPED
    profiles = load_profiles(SHIPPED)
    assert sorted(profiles) == [0, 1, 2]
    assert all(profile.tier == tier for tier, profile in profiles.items())
    for name in LIMITS:  # the less trusted, the less
        ceilings = [dict(profile.ceilings.items())[name] for profile in profiles.values()]
        assert ceilings == sorted(ceilings, reverse=True), name
    assert not profiles[2].exec_allowed
    assert "network" not in profiles[2].permissions


def test_what_runs_may_have_of_a_plans_files(tmp_path) -> None:
    files = [profile.files for profile in load_profiles(SHIPPED).values()]
    for name in ("read_files", "read_bytes", "write_files", "write_bytes"):  # the less trusted, the less
        values = [getattr(each, name) for each in files]
        assert values == sorted(values, reverse=True), name
    assert files[1].write_files > 0 == files[2].write_files
    assert load_profile(changed(tmp_path, r"^read_files = \S+", "read_files = 3"), 2).files.read_files == 3


@pytest.mark.parametrize(
    ("pattern", "replacement", "expected"),
    [
        (r"(?s)\[files\].*?\n\n", "", "files: expected a table, as permissions has file_read, got 'none'"),
        (
            r'^permissions = \["file_read"\]',
            "permissions = []",
            "files: expected no such table, as permissions has no files",
        ),
        (r"^read_bytes = ", "write_files = ", "files.write_files: expected one of read_files, read_bytes"),
        (r"^read_files = \S+", "read_files = 0", "files.read_files: expected"),
        (r"^read_files = \S+", "read_files = true", "files.read_files: expected"),
    ],
)
def test_mistakes_about_files(tmp_path, pattern, replacement, expected) -> None:
    refused(changed(tmp_path, pattern, replacement), expected)


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_is_not_there(tmp_path, key) -> None:
    refused(changed(tmp_path, rf"^{key} = .*$", ""), f"{key}: expected a value, got 'nothing'")


@pytest.mark.parametrize("table", ["default_limits", "ceilings"])
@pytest.mark.parametrize("key", LIMITS)
def test_a_limit_that_is_not_there_or_wrong(tmp_path, table, key) -> None:
    where = rf"(?s)(\[{table}\].*?\n){key} = \S+"
    refused(changed(tmp_path, where, r"\1"), f"{table}.{key}: expected a value")
    for value in ("0", "-1", "true", "1.5", "'1'", "9007199254740992"):
        refused(
            changed(tmp_path, where, rf"\g<1>{key} = {value}"), f"{table}.{key}: expected a whole number above 0, got"
        )


@pytest.mark.parametrize("key", LIMITS)
def test_a_default_above_its_ceiling(tmp_path, key) -> None:
    path = changed(tmp_path, rf"(?s)(\[default_limits\].*?\n){key} = \S+", rf"\g<1>{key} = 9007199254740991")
    refused(path, f"default_limits.{key}: expected at most the ceiling")


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("value", ["0", "-1", "true", "1.5", '"1"', "[]"])
def test_a_number_that_is_none(tmp_path, key, value) -> None:
    refused(
        changed(tmp_path, rf"^{key} = \S+", f"{key} = {value}"), f"jail.{key}: expected a whole number above 0, got"
    )


@pytest.mark.parametrize(
    ("pattern", "replacement", "expected"),
    [
        (r"^tier = 2", "tier = 1", "tier: expected 2, got 1"),
        (r"^tier = 2", "tier = true", "tier: expected 2, got True"),
        (r"^tier = 2", "tier = 2.0", "tier: expected 2, got 2.0"),
        (r"^exec_allowed = \S+", "exec_allowed = 0", "jail.exec_allowed: expected true or false, got 0"),
        (
            r"^seccomp_extra = \S+",
            "seccomp_extra = 'chroot'",
            "jail.seccomp_extra: expected a list of texts, got 'chroot'",
        ),
        (r"^seccomp_extra = \S+", "seccomp_extra = [1]", "jail.seccomp_extra: expected a list of texts, got [1]"),
        (r"^requires = .*", "requires = 5", "requires: expected a list of texts, got 5"),
        (r"^permissions = .*", "permissions = ['fly']", "permissions: expected some of file_read, "),
        (r"^permissions = .*", "permissions = ['fly']", "got 'fly'"),
        (r"^instances = ", "instanses = ", "jail.instanses: expected one of "),
        (r"^instances = ", "instanses = ", "did you mean instances?"),
        (r"^tier = 2", "tier = 2\nteir = 2", "teir: expected one of tier, "),
        (r"^\[ceilings\]", "[cielings]", "did you mean ceilings?"),
        (r"^tier = 2", "tier = ", "expected TOML"),
        (r"^tier = 2", "tier = 2\ntier = 2", "expected TOML"),
    ],
)
def test_other_mistakes(tmp_path, pattern, replacement, expected) -> None:
    refused(changed(tmp_path, pattern, replacement), expected)


def test_a_table_that_is_none(tmp_path) -> None:
    head, _, _ = TEXT.partition("[default_limits]")
    path = tmp_path / "tier2.toml"
    path.write_text(head + "default_limits = 1\nceilings = 1\njail = 1\n")
    refused(path, "jail: expected a table, got 1")


def test_a_file_that_cannot_be_read(tmp_path) -> None:
    refused(tmp_path / "none.toml", "the profile of tier 2 cannot be read: No such file or directory")
    refused(tmp_path, "cannot be read: Is a directory")
    (tmp_path / "x.toml").write_bytes(b"\xff")
    refused(tmp_path / "x.toml", "expected TOML")


def test_one_wrong_file_spoils_all(tmp_path) -> None:
    shutil.copytree(SHIPPED, tmp_path / "profiles")
    (tmp_path / "profiles/tier1.toml").unlink()
    with pytest.raises(ConfigError, match=r"tier1.toml: the profile of tier 1"):
        load_profiles(tmp_path / "profiles")


def test_the_list_of_builtin_plugins(tmp_path) -> None:
    assert builtin_digests(tmp_path) == frozenset()
    one, two = "a" * 64, "0123456789abcdef" * 4
    (tmp_path / "builtin.list").write_text(f"# ours\n\n{one}\n  {two}   # with a word on it\n")
    assert builtin_digests(tmp_path) == {one, two}


@pytest.mark.parametrize(
    "line", ["a" * 63, "a" * 65, "A" * 64, "a" * 63 + "g", f"{'a' * 64} {'b' * 64}", "sha256:" + "a" * 64, "é"]
)
def test_a_line_that_is_no_digest(tmp_path, line) -> None:
    (tmp_path / "builtin.list").write_text(f"{'a' * 64}\n{line}\n")
    with pytest.raises(ConfigError, match=r"builtin.list: expected a sha256 in hex on each line, got"):
        builtin_digests(tmp_path)


def test_a_list_that_cannot_be_read(tmp_path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/builtin.list").mkdir()
    (tmp_path / "builtin.list").write_bytes(b"\xff\xfe")
    for folder in (tmp_path, tmp_path / "a"):
        with pytest.raises(ConfigError, match="cannot be read"):
            builtin_digests(folder)


MONITOR = (
    "mode required window failures_percent schema_failures warm_up deviations open_ms probes openings together".split()
)


def test_when_a_version_is_out_of_the_ordinary() -> None:
    profiles = load_profiles(SHIPPED)
    assert profiles[0].monitor == profiles[1].monitor == Monitoring()
    assert profiles[2].monitor == Monitoring(required=True), "generated code does not run unwatched"


def test_a_profile_that_does_not_say_has_what_the_model_has(tmp_path) -> None:
    path = tmp_path / "tier2.toml"
    path.write_text(TEXT.partition("[monitor]")[0])
    assert load_profile(path, 2).monitor == Monitoring()


@pytest.mark.parametrize("key", MONITOR)
def test_a_key_of_the_monitor_that_is_not_there(tmp_path, key) -> None:
    refused(changed(tmp_path, rf"^{key} = .*$", ""), f"monitor.{key}: expected a value, got 'nothing'")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("mode", '"watch"', 'monitor.mode: expected "enforce" or "observe", got \'watch\''),
        ("mode", "[]", "monitor.mode: expected"),
        ("required", "1", "monitor.required: expected true or false, got 1"),
        ("window", "1", "monitor.window: expected a whole number from 2 to 100, got 1"),
        ("window", "101", "from 2 to 100, got 101"),
        ("failures_percent", "0", "from 1 to 100, got 0"),
        ("failures_percent", "101", "from 1 to 100, got 101"),
        ("schema_failures", "true", "from 1 to 100, got True"),
        ("warm_up", "4", "from 5 to 100, got 4"),
        ("deviations", "0", "from 1 to 1000, got 0"),
        ("open_ms", "86400001", "from 1 to 86400000, got"),
        ("probes", "2.0", "from 1 to 20, got 2.0"),
        ("probes", "21", "from 1 to 20, got 21"),
        ("openings", "1", "from 2 to 20, got 1"),
        ("together", "1", "from 2 to 1000, got 1"),
    ],
)
def test_what_the_monitor_cannot_have(tmp_path, key, value, expected) -> None:
    refused(changed(tmp_path, rf"^{key} = \S+", f"{key} = {value}"), expected)
    refused(changed(tmp_path, r"^\[monitor\]", "[monitor]\nwarmup = 3"), "did you mean warm_up?")


def test_least_and_most_of_what_it_can(tmp_path) -> None:
    text = TEXT
    for key, value in {"mode": '"observe"', "window": 100, "warm_up": 5, "probes": 1, "open_ms": 1}.items():
        text = re.sub(rf"^{key} = \S+", f"{key} = {value}", text, flags=re.MULTILINE)
    found = load_profile(changed(tmp_path, "^tier = 2", "tier = 2", text), 2).monitor
    assert found == Monitoring(mode="observe", required=True, window=100, warm_up=5, probes=1, open_ms=1)
