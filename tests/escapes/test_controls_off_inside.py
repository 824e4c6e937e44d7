"""Without its control the attack succeeds: /proc, capabilities, descriptors, cores and native code.

Rows shown to succeed: 2, 15, 16, 19, 34, 60, and programs in Tier 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.escapes.controls_off import (
    NO_NAMESPACE,
    ROOT_INSIDE,
    Case,
    Try,
    Went,
    answers,
    assert_goes,
    each_try,
    held,
    in_place,
    killed_for,
    off,
    reports,
)

CORE = {"rlimits": {"limits": {"CORE": 4 << 20}}}
EXECUTABLE = {"scratch": {"noexec": False}}


def _sees(name: str) -> Any:
    return reports(lambda got: got[name].startswith("done"))


def _init_in(went: Went) -> bool:
    """The command line of the template's init. The daemon's own is nowhere below it."""
    assert went.outcome == "ok", went
    daemon = repr(Path("/proc/self/cmdline").read_text())[1:40]  # here the test's own
    assert not any(daemon in text for name, text in went.value["files"].items() if name.endswith("cmdline"))
    return "plugind-init" in went.value["files"].get("1 cmdline", "")


WITHOUT_PROC = [*NO_NAMESPACE, "descriptors", "proc"]
"""The later steps need a descriptor that `proc` leaves; each case shows that they alone make no difference."""
INSIDE = (
    Case(
        "16",
        "command lines of the daemon's processes in /proc",
        "processes.environment",
        (
            in_place(lambda went: not _init_in(went)),
            held("later steps", lambda went: not _init_in(went), "its own proc", without=WITHOUT_PROC[:-1]),
            off("proc of its own with subset=pid", _init_in, without=WITHOUT_PROC),
        ),
    ),
    Case(
        "16",
        "settings and secrets of the kernel in /proc",
        "mounts.look_at_the_host",
        (
            in_place(reports(lambda got: got["/proc/kallsyms"] == got["/proc/keys"] == "ENOENT")),
            off("proc of its own with subset=pid", _sees("/proc/keys"), without=WITHOUT_PROC),
        ),
    ),
    Case(
        "15",
        "find other processes in /proc",
        "siblings.hunt_canary",
        (
            in_place(reports(lambda got: got["seen"] == [])),
            held("later steps", reports(lambda got: got["seen"] == []), "its own proc", without=WITHOUT_PROC[:-1]),
            # Seen, but out of reach: the pid namespace still is its own.
            off(
                "proc of its own with subset=pid",
                reports(lambda got: got["seen"] != [] and got["signalled"] == got["opened"] == []),
                without=WITHOUT_PROC,
            ),
        ),
        {"first": 1, "last": 300},
    ),
    Case(
        "15",
        "process_vm_readv of pid 1",
        "siblings.read_other_process",
        (
            in_place(killed_for("process_vm_readv")),
            off("seccomp", answers("4096"), allow=["process_vm_readv"]),
        ),
        {"call": "process_vm_readv", "pid": 1},
    ),
    Case(
        "15",
        "process_vm_readv of a pid that is a sibling's outside",
        "siblings.read_other_process",
        (
            in_place(killed_for("process_vm_readv")),
            held("seccomp", answers("ESRCH"), "the pid namespace", allow=["process_vm_readv"]),
        ),
        {"call": "process_vm_readv", "pid": 3},
    ),
    Case(
        "19",
        "capabilities",
        "processes.capabilities",
        (
            in_place(reports(lambda got: {*got["sets"].values()} == {0})),
            off(
                "the step that drops them",
                reports(lambda got: got["sets"]["CapEff"] and got["sets"]["CapBnd"]),
                without=["capabilities"],
            ),
        ),
    ),
    Case(
        "19",
        "setuid(0)",
        "processes.gain",
        (
            in_place(reports(lambda got: {*got.values()} == {"EPERM"})),
            held(
                "seccomp",
                reports(lambda got: (got["setuid"], got["capset"]) == ("EINVAL", "EPERM")),
                "one uid in its namespace, no capability",
                no_filter=True,
            ),
            held(
                "seccomp and capabilities",
                reports(lambda got: (got["setuid"], got["capset"]) == ("EINVAL", "0")),
                "one uid in its namespace",
                no_filter=True,
                without=["capabilities"],
            ),
            held("its uid", reports(lambda got: {*got.values()} == {"EPERM"}), "seccomp", without=ROOT_INSIDE),
            off(
                "seccomp, capabilities and its uid",
                reports(lambda got: got["setuid"] == got["setresgid"] == "0"),
                no_filter=True,
                without=ROOT_INSIDE,
            ),
        ),
    ),
    Case(
        "33",
        "real-time priority and negative nice",
        "processes.priorities",
        (
            in_place(reports(lambda got: (got["fifo"], got["nice"]) == ("EPERM", "EACCES"))),
            held(
                "seccomp",
                reports(lambda got: (got["fifo"], got["setattr"], got["nice"]) == ("EPERM", "EPERM", "EACCES")),
                "no capability, RLIMIT_RTPRIO and RLIMIT_NICE",
                no_filter=True,
            ),
        ),
    ),
    Case(
        "2",
        "leaked descriptors and working directory",
        "descriptors.inherited",
        (
            in_place(reports(lambda got: {*got["descriptors"]} == {*"0123"} and got["cwd"] == "/tmp")),
            # The zygote's line to the launcher is among them.
            off(
                "the step that closes them",
                reports(
                    lambda got: (
                        {*got["descriptors"]} > {*"0123"}
                        and got["links"]["3"].startswith("socket:")
                        and got["cwd"] == "/"
                    )
                ),
                without=["descriptors"],
            ),
        ),
    ),
)
CORES = (
    Case(
        "34",
        "a core dump",
        "programs.crash",
        (
            in_place(reports(lambda got: (got["core"], got["files"]) == (False, []))),
            held("RLIMIT_CORE", reports(lambda got: not got["core"]), "not dumpable", changed=CORE, cores=True),
            held("not dumpable", reports(lambda got: not got["core"]), "RLIMIT_CORE", without=["no_new_privileges"]),
            off(
                "RLIMIT_CORE and not dumpable",
                reports(lambda got: got["core"] and got["files"]),
                without=["no_new_privileges"],
                changed=CORE,
                cores=True,
            ),
        ),
        {"executed": False},
    ),
)


def _ran(name: str) -> Any:
    return reports(lambda got: got.get(name) == "ran")


def _denied(name: str) -> Any:
    return reports(lambda got: got.get(name) == "EACCES")


NATIVE = (
    Case(
        "60",
        "native code in a memfd",
        "programs.native_code",
        (
            in_place(_denied("memfd execve")),
            held(
                "vm.memfd_noexec",
                reports(lambda got: got.get("memfd") == "ENOSYS"),
                "then none can be made",
                memfd_noexec=False,
            ),
            held("memfds refused", _denied("memfd execve"), "vm.memfd_noexec", allow=["memfd_create"]),
            off("vm.memfd_noexec", _ran("memfd execve"), memfd_noexec=False, allow=["memfd_create"]),
        ),
        tier=1,
    ),
    Case(
        "60",
        "native code on /dev/shm",
        "programs.native_code",
        (
            in_place(_denied("/dev/shm execve")),
            held("noexec", _denied("/dev/shm execve"), "Landlock", changed=EXECUTABLE),
            held("Landlock", _denied("/dev/shm execve"), "noexec", without=["landlock"]),
            off("noexec and Landlock", _ran("/dev/shm execve"), changed=EXECUTABLE, without=["landlock"]),
        ),
        tier=1,
    ),
    Case(
        "+",
        "execute the interpreter in Tier 2",
        "programs.execute_everything",
        (
            in_place(reports(lambda got: {*got.values()} == {"EPERM"})),
            held("Landlock", reports(lambda got: {*got.values()} == {"EPERM"}), "seccomp", without=["landlock"]),
            held(
                "seccomp",
                reports(lambda got: {*got.values()} == {"EACCES", "ENOENT"}),
                "Landlock",
                allow=["execve", "execveat"],
            ),
            # The plugin is gone: another program took its process, and left no result.
            off(
                "seccomp and Landlock",
                lambda went: went.outcome != "ok" and went.lines[-1] == "try execve own executable",
                allow=["execve", "execveat"],
                without=["landlock"],
            ),
        ),
    ),
)


@pytest.mark.parametrize(("case", "given"), each_try(INSIDE))
async def test_what_is_inside(case: Case, given: Try) -> None:
    await assert_goes(case, given)


@pytest.mark.parametrize(("case", "given"), each_try(CORES))
async def test_cores(case: Case, given: Try) -> None:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if "/" in pattern or pattern.startswith("|"):
        pytest.skip(f"NOT TESTED: cores of this host go to {pattern}, and none may be left there")
    await assert_goes(case, given)


@pytest.mark.parametrize(("case", "given"), each_try(NATIVE))
async def test_native_code(case: Case, given: Try) -> None:
    if not Path("/proc/sys/vm/memfd_noexec").exists():
        pytest.skip("NOT TESTED: this kernel has no vm.memfd_noexec, and there memfds are refused altogether")
    await assert_goes(case, given)
