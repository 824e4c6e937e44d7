"""The AppArmor profile of the launcher, and how it is installed, loaded and taken away: with a parser that only keeps
what it was told, for an AppArmor there is none in this kernel."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from plugind.sandbox import facts

PACKAGING = Path(__file__).parents[2] / "packaging"
PROFILE = PACKAGING / "apparmor" / "plugind-launcher"
LOAD = PACKAGING / "apparmor" / "load.sh"
PARSER = """#!/bin/sh
echo "$@" >> {calls}
case "$*" in *{fails}*) echo "syntax error at line 1"; exit 1 ;; esac
"""


@pytest.fixture
def load(tmp_path):
    """load.sh on a machine: (exit code, what it said, what apparmor_parser was called with)."""
    top, tools, calls = tmp_path / "top", tmp_path / "tools", tmp_path / "calls"
    top.mkdir()
    tools.mkdir()
    for tool in ("sh", "cat", "dirname", "install", "rm", "sed"):
        (tools / tool).symlink_to(shutil.which(tool))

    def run(*arguments, restricted=None, enabled="Y", parser=True, fails="nothing"):
        for name, text in (
            ("proc/sys/kernel/apparmor_restrict_unprivileged_userns", restricted),
            ("sys/module/apparmor/parameters/enabled", enabled),
        ):
            if text is not None:
                (top / name).parent.mkdir(parents=True, exist_ok=True)
                (top / name).write_text(text + "\n")
        calls.write_text("")
        program = tools / "apparmor_parser"
        if parser:
            program.write_text(PARSER.format(calls=calls, fails=fails))
            program.chmod(0o755)
        else:
            program.unlink(missing_ok=True)
        # Not the system's folders, in which there may be a real one.
        script = LOAD.read_text().replace('export PATH="$PATH:/usr/sbin:/sbin"\n', "")
        assert script != LOAD.read_text()
        copy = tmp_path / "load.sh"
        copy.write_text(script)
        shutil.copy(PROFILE, tmp_path)
        done = subprocess.run(
            [tools / "sh", copy, "--top", top, *arguments],
            env={"PATH": str(tools)}, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        told = calls.read_text().replace(str(tmp_path / "plugind-launcher"), "SOURCE").replace(str(top), "")
        return done.returncode, (done.stdout + done.stderr).replace(str(top), ""), told.splitlines()

    run.installed = top / "etc/apparmor.d/plugind-launcher"
    return run


CHECKED = "--skip-kernel-load --skip-cache SOURCE"
INSTALLED = "/etc/apparmor.d/plugind-launcher"


@pytest.mark.parametrize("restricted", [None, "0", "1"])
def test_where_apparmor_knows_user_namespaces_the_profile_is_installed_and_loaded(load, restricted):
    code, _, calls = load(restricted=restricted)
    assert (code, calls) == (0, [CHECKED, f"--replace --write-cache {INSTALLED}"])
    assert load.installed.read_bytes() == PROFILE.read_bytes()
    assert load.installed.stat().st_mode & 0o777 == 0o644
    assert load(restricted=restricted)[0] == 0  # again, for an update


@pytest.mark.parametrize("enabled", ["N", None])
def test_where_apparmor_is_off_it_is_installed_for_the_day_it_is_on(load, enabled):
    code, said, calls = load(enabled=enabled)
    assert (code, calls) == (0, [CHECKED])
    assert load.installed.exists()
    assert "AppArmor is off" in said


@pytest.mark.parametrize(("options", "calls"), [({"parser": False}, []), ({"fails": "skip-kernel-load"}, [CHECKED])])
def test_where_it_cannot_be_had_and_is_not_needed_nothing_is_done(load, options, calls):
    assert (load(**options)[0], load(**options)[2]) == (0, calls)
    assert not load.installed.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"parser": False}, "apparmor_parser is missing: apt-get install apparmor"),
        ({"fails": "skip-kernel-load"}, "the profile is refused: syntax error at line 1"),
    ],
)
def test_where_it_is_needed_and_cannot_be_had_that_is_an_error(load, options, said):
    code, told, _ = load(restricted="1", **options)
    assert code == 2
    assert said in told
    assert not load.installed.exists()


def test_a_profile_that_the_kernel_refuses_is_an_error(load):
    assert load(restricted="1", fails="replace")[0] == 1


def test_it_is_taken_out_of_the_kernel_and_away(load):
    load()
    code, _, calls = load("--remove")
    assert (code, calls) == (0, [f"--remove {INSTALLED}"])
    assert not load.installed.exists()
    assert load("--remove") == (0, "", [])


@pytest.mark.parametrize("options", [{"fails": "remove"}, {"parser": False}, {"enabled": "N"}])
def test_its_file_goes_even_where_it_was_not_loaded(load, options):
    load()
    assert load("--remove", **options)[0] == 0
    assert not load.installed.exists()


@pytest.mark.parametrize("arguments", [["--help"], ["--nonsense"]])
def test_it_says_how_it_is_used(load, arguments):
    code, said, _ = load(*arguments)
    assert code == (0 if arguments == ["--help"] else 2)
    assert "load.sh --remove" in said


def test_everybody_calls_the_profile_by_the_same_name():
    text = PROFILE.read_text()
    assert re.findall(r"(?m)^profile (\S+) flags=\(unconfined\) \{$", text) == [facts.PROFILE]
    assert re.findall(r"(?m)^  userns,$", text) == ["  userns,"]
    unit = (PACKAGING / "plugind-launcher.service").read_text()
    assert re.findall(r"(?m)^AppArmorProfile=(.*)$", unit) == [f"-{facts.PROFILE}"]
    assert (facts.PROFILE, LOAD.parent / facts.PROFILE) == (PROFILE.name, PROFILE)


def test_nothing_keeps_the_launcher_from_the_folders_of_plans():
    """Its plan helpers open them where their callers have them, in its own mount namespace: it has the host's mounts."""
    unit = (PACKAGING / "plugind-launcher.service").read_text()
    keys = {line.partition("=")[0] for line in unit.splitlines() if not line.startswith("#")}
    hiding = (
        "Protect",
        "Private",
        "ReadOnly",
        "ReadWrite",
        "Inaccessible",
        "Bind",
        "Root",
        "Temporary",
        "NoExec",
        "Mount",
    )
    assert not [key for key in keys if key.startswith(hiding)]
    assert keys.isdisjoint(
        {"CapabilityBoundingSet", "User", "SystemCallFilter", "NoNewPrivileges", "RestrictNamespaces"}
    )
    assert "flags=(unconfined)" in PROFILE.read_text()
