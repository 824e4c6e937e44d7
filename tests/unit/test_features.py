"""What a machine lacks is named, for the tiers that need it."""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from pathlib import Path

import pytest

from plugind.profiles import load_profiles
from plugind.sandbox import features
from plugind.sandbox.features import Check, Feature

PROFILES = load_profiles(Path(__file__).parents[2] / "profiles")
NEEDED = PROFILES[2].requires


def facts(**changed):
    """A machine that has everything, but for what is given."""
    return {name: changed.get(name) or Feature(name, True, "available") for name in (*NEEDED, "apparmor", "landlock")}


def test_nothing_is_missing_where_everything_is_there() -> None:
    assert [features.missing(profile, facts()) for profile in PROFILES.values()] == [[], [], []]


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("ok", [False, None])
def test_what_is_not_there_or_not_known_is_missing(name, ok) -> None:
    found = facts(**{name: Feature(name, ok, "no such luck")})
    assert features.missing(PROFILES[2], found) == [f"{name} (no such luck)"]


def test_debian_12_without_memfd_noexec(tmp_path) -> None:
    found = facts(memfd_noexec=features._memfd_noexec(tmp_path / "none"))
    assert features._kernel("6.1.0-30-amd64").ok
    assert features.missing(PROFILES[2], found) == []
    relaxed = replace(PROFILES[2], requires=tuple(name for name in NEEDED if name != "memfd_noexec"))
    assert features.missing(relaxed, found) == []
    (tmp_path / "memfd_noexec").write_text("0")
    assert features._memfd_noexec(tmp_path / "memfd_noexec").ok


@pytest.mark.parametrize(("content", "ok"), [("1\n", False), ("0\n", True), (None, True)])
def test_ubuntus_restriction_of_user_namespaces(tmp_path, content, ok) -> None:
    path = tmp_path / "restrict"
    if content is not None:
        path.write_text(content)
    feature = features._apparmor(path)
    assert feature.ok is ok
    assert "restrict" in feature.found
    assert "kernel.apparmor_restrict_unprivileged_userns=0" in feature.remedy


def test_what_no_tier_needs_is_never_missing() -> None:
    found = facts(landlock=Feature("landlock", False, "not there"), apparmor=Feature("apparmor", False, "on"))
    assert features.missing(PROFILES[1], found) == []


def test_an_unknown_requirement_is_missing() -> None:
    odd = replace(PROFILES[2], requires=("seccomp", "telepathy"))
    assert features.missing(odd, facts()) == ["telepathy (no such feature is known)"]


def test_checks_say_who_needs_what() -> None:
    profiles = {1: replace(PROFILES[1], requires=("root",)), 0: replace(PROFILES[0], requires=("root", "pidfd"))}
    found = {
        "root": Feature("root", False, "uid 5", "sudo"),
        "pidfd": Feature("pidfd", True, "yes"),
        "x": Feature("x", None, "?"),
    }
    assert features.checks(found, profiles) == [
        Check("root", False, "uid 5", (0, 1), "sudo"),
        Check("pidfd", True, "yes", (0,), ""),
        Check("x", None, "?", (), ""),
    ]


@pytest.mark.parametrize(
    ("release", "ok"),
    [
        ("6.1", True), ("6.1.0-30-amd64", True), ("6.18.5+", True), ("10.0-rc1", True), ("6.2+deb", True),
        ("6.0.19", False), ("5.15.0-100-generic", False), ("5.20", False), ("strange", False),
    ],
)  # fmt: skip
def test_kernel_releases(release, ok) -> None:
    feature = features._kernel(release)
    assert (feature.ok, feature.found) == (ok, release)


def test_what_is_tried_in_a_child() -> None:
    def refuse():
        raise PermissionError(1, "Operation not permitted")

    def blunder():
        raise ValueError("wrong")

    assert features._in_child(lambda: None) == ""
    assert features._in_child(refuse) == "Operation not permitted"
    assert features._in_child(blunder) == "ValueError('wrong')"
    assert features._in_child(lambda: os._exit(0)) == "it died"


def test_every_fact_of_this_machine() -> None:
    found = features.probe()
    assert set(NEEDED) <= set(found)
    assert all(feature.name == name and feature.found for name, feature in found.items())
    assert found["architecture"].found == platform.machine()
    assert found["root"].ok is (os.geteuid() == 0)
