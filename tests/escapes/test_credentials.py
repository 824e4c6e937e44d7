"""Identities, capabilities, priorities and what a crash leaves: a plugin has nothing and can get nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.escapes.attack import OWN, attack
from tests.escapes.box import Box


@attack(
    19,
    "setuid and file capabilities: what it has, and what it can get",
    "all five sets empty, no_new_privs, securebits locked, refused",
)
def test_no_capability_is_there_and_none_can_be_had(box: Box) -> None:
    seen = box.run("processes.capabilities").value()
    assert set(seen["sets"].values()) == {0}
    assert (seen["no_new_privs"], set(seen["uid"]), set(seen["gid"])) == ("1", {1000}, {1000})
    ran = box.run("processes.gain")
    answers = ran.value()
    assert set(answers.values()) == {"EPERM"}, answers
    assert ran.tried.pop("prctl") == 3
    assert set(answers) - {"ambient", "securebits", "keepcaps"} == set(ran.tried) - {"prctl"}


@attack(
    19,
    "a setuid file of its own, file capabilities, the host's setuid programs",
    "nosuid everywhere, one uid, setxattr refused",
)
def test_setuid_files_give_nothing(box: Box) -> None:
    ran = box.run("programs.setuid_files")
    answers = ran.value()
    assert answers["mounts without nosuid"] == []
    assert answers["chown"] in ("EINVAL", "EPERM")
    assert (answers["setxattr"], ran.tried["setxattr"]) == ("EPERM", 1)
    if box.tier == 2:
        assert answers["privileged"] == []
    for program in answers["privileged"][:4]:
        ids = box.run("programs.ids_after_setuid", program=program).value()
        assert set(ids.get("Uid", "1000").split()) == {"1000"}, (program, ids)
        assert int(ids.get("CapEff", "0"), 16) == 0


@attack(
    33,
    "real-time priority, deadlines, negative nice, limits above the hard ones",
    "no capability, RLIMIT_RTPRIO and RLIMIT_NICE 0, refused",
)
def test_priorities_cannot_be_raised(box: Box) -> None:
    ran = box.run("processes.priorities")
    answers = ran.value()
    limits = {name: answers.pop(name) for name in list(answers) if name.startswith("limit")}
    assert set(limits.values()) <= {"EPERM", "ValueError"}, limits  # what Python says for EPERM
    assert answers.pop("affinity of others") == "ESRCH"
    assert set(answers.values()) <= {"EPERM", "EACCES"}, answers
    assert ran.tried == dict.fromkeys(
        ("sched_setscheduler", "sched_setattr", "sched_setparam", "ioprio_set", "prlimit64"), 1
    )


@attack(
    34,
    "a core dump to the host: by a crash, and by the crash of a program that it executed",
    "RLIMIT_CORE, not dumpable",
)
@pytest.mark.parametrize("executed", [False, True])
def test_a_crash_leaves_no_core(box: Box, executed: bool) -> None:
    places = [Path("/"), Path.cwd(), box.daemon.state]
    before = {path for place in places for path in place.glob("core*")}
    ran = box.run("programs.crash", executed=executed)
    seen = ran.value()
    assert seen["signal"] == (11 if not (executed and box.tier == 2) else 0)
    assert (seen["core"], seen["files"]) == (False, [])
    assert seen["raise"] in ("ValueError", "EPERM")
    assert (seen["dumpable"], seen["set dumpable"]) == (0, "EPERM")
    assert {path for place in places for path in place.glob("core*")} == before


@attack(
    34,
    "a core dump to a pipe helper of the host, which RLIMIT_CORE 0 does not stop",
    "RLIMIT_CORE 1, which nobody may change",
)
def test_the_core_limit_keeps_pipe_helpers_out(tier1: Box) -> None:
    """core(5): a limit of 1 is special; of 0 the kernel takes no notice when core_pattern is a pipe."""
    seen = tier1.run("programs.crash", executed=True).value()
    assert seen["limit"] == [1, 1]
    assert tier1.run("programs.lower_core_limit").value() == "ValueError"  # what Python says for EPERM


@attack(OWN, "execute programs by path, by descriptor, or as /proc/self/exe", "execve refused in Tier 2")
def test_no_program_runs_in_tier_2(tier2: Box) -> None:
    ran = tier2.run("programs.execute_everything")
    answers = ran.value()
    assert set(answers.values()) == {"EPERM"}
    assert ran.tried == {"execve": 4, "execveat": 4}
