"""The jail as a value."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from plugind import planfiles
from plugind.model import Limits, Profile
from plugind.sandbox import jailspec
from plugind.sandbox.inside import setup

LIMITS = Limits(5000, 2000, 1 << 28, 32, 1 << 20, 1 << 24)
GROUND = jailspec.Ground(6, ("/usr/lib",))
PROFILE = Profile(
    tier=2, default_limits=LIMITS, ceilings=LIMITS, input_bytes=1 << 23, stdio_bytes=1 << 20, inodes=100,
    shm_bytes=1 << 20, open_files=64, file_bytes=1 << 24, cpu_percent=100, instances=4, exec_allowed=False,
)  # fmt: skip


def test_every_step_has_a_function_inside_and_says_why() -> None:
    spec = jailspec.with_network(jailspec.build(PROFILE, LIMITS, "a" * 64, 7, GROUND), "::1 localhost\n")
    spec = jailspec.with_files(spec, reads=True, write_files=1, write_bytes=1)
    assert {step.name for step in spec.steps} == set(setup._STEPS)
    assert all(step.why for step in spec.steps)
    assert json.loads(json.dumps(spec.wire())) == spec.wire()


def test_order_that_the_kernel_needs() -> None:
    names = [step.name for step in jailspec.build(PROFILE, LIMITS, "a" * 64, 7, GROUND).steps]
    for earlier, later in [
        ("proc", "identity"),
        ("identity", "user_namespace"),
        ("user_namespace", "capabilities"),
        ("capabilities", "no_new_privileges"),
        ("no_new_privileges", "seccomp"),
    ]:
        assert names.index(earlier) < names.index(later)
    assert names[-1] == "seccomp"


def test_a_network_is_entered_first_and_its_names_are_there_before_proc_is_covered() -> None:
    without = jailspec.build(PROFILE, LIMITS, "a" * 64, 7, GROUND)
    spec = jailspec.with_network(without, "192.0.2.1 a.example\n")
    names = [step.name for step in spec.steps]
    assert names[:2] == ["session", "network"], "while it still is root of its template"
    assert names.index("scratch") < names.index("hosts") < names.index("identity")
    arguments = {step.name: step.arguments for step in spec.steps}
    assert arguments["hosts"] == {"text": "192.0.2.1 a.example\n"}
    assert arguments["landlock"] == {**{s.name: s.arguments for s in without.steps}["landlock"], "network": True}
    assert [name for name in names if name not in ("network", "hosts")] == [step.name for step in without.steps]


@pytest.mark.parametrize("reads,files,wanted", [
    (True, 0, ["plan_files"]), (False, 3, ["output_folder"]), (True, 3, ["plan_files", "output_folder"]), (False, 0, []),
])  # fmt: skip
def test_files_are_moved_in_while_it_is_root_of_its_template(reads: bool, files: int, wanted: list[str]) -> None:
    without = jailspec.build(PROFILE, LIMITS, "a" * 64, 7, GROUND)
    spec = jailspec.with_files(without, reads=reads, write_files=files, write_bytes=1 << 20)
    names = [step.name for step in spec.steps]
    assert names[names.index("proc") - len(wanted) : names.index("proc")] == wanted, "after /tmp, and before identity"
    assert [name for name in names if name not in wanted] == [step.name for step in without.steps]
    paths = {step.name: step.arguments["path"] for step in spec.steps if step.name in wanted}
    assert paths.items() <= {"plan_files": planfiles.PLAN_DIR, "output_folder": planfiles.OUTPUT_DIR}.items()
    rules = {step.name: step.arguments for step in spec.steps}["landlock"]["rules"]
    assert str(Path(planfiles.PLAN_DIR).parent) in rules["read"]
    assert str(Path(planfiles.OUTPUT_DIR).parent) in rules["write"]


def test_limits_and_uid_reach_their_steps() -> None:
    spec = jailspec.build(PROFILE, replace(LIMITS, scratch_bytes=4096), "a" * 64, 7, GROUND)
    described = "\n".join(spec.describe())
    assert "size_bytes=4096" in described
    assert "outside=7" in described
    assert "wall clock 5000 ms" in described


@pytest.mark.parametrize("field", [name for name, _ in LIMITS.items()])
@pytest.mark.parametrize("change", [0, -1, 2**40])
def test_above_ceiling(field: str, change: int) -> None:
    asked = replace(LIMITS, **{field: change})
    assert [name for name, _, _ in jailspec.above_ceiling(asked, PROFILE)] == [field]
    assert jailspec.above_ceiling(LIMITS, PROFILE) == []


def test_zero_means_the_profiles_default() -> None:
    assert jailspec.effective_limits(Limits(wall_ms=1), PROFILE) == replace(LIMITS, wall_ms=1)
