"""Without its control the attack succeeds: mounts, namespaces, and whatever else takes a system call.

So each of the tests that show it failing can fail. Shown to succeed here: the attacks of rows 3, 6, 7, 8, 9, 10, 11,
12, 13, 18, 31, 35, 51 and some of our own; in test_controls_off_inside.py those of 2, 15, 16, 19, 34 and 60, in
test_controls_off_limits.py those of 21, 22, 23, 25, 27 and 32, in test_controls_off_others.py those of 5, 17, 36, 41,
45, 46, 47, 55 and 56.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pytest

from tests.escapes.controls_off import (
    NO_NAMESPACE,
    ROOT_INSIDE,
    Case,
    Try,
    answers,
    assert_goes,
    each_try,
    held,
    in_place,
    killed_for,
    number,
    off,
    reports,
)
from tests.support.weakened import everything_but

TIOCSTI = 0x5412


def _mount(row: str, what: str) -> Case:
    refused = answers("EPERM")
    return Case(
        row,
        f"mount {what}",
        "mounts.mount",
        (
            in_place(killed_for("mount")),
            held("Landlock and capabilities", killed_for("mount"), "seccomp", without=[*ROOT_INSIDE, "landlock"]),
            held("seccomp", refused, "Landlock and capabilities", allow=["mount"]),
            held("seccomp and Landlock", refused, "capabilities", allow=["mount"], without=["landlock"]),
            held("seccomp and capabilities", refused, "Landlock", allow=["mount"], without=ROOT_INSIDE),
            off(
                "seccomp, Landlock and capabilities",
                answers("0"),
                allow=["mount"],
                without=[*ROOT_INSIDE, "landlock"],
            ),
        ),
        {"what": what},
    )


def _one(row: str, call: str, arguments: list[Any], refused: Any, *rest: Try) -> Case:
    """A single call; without its place in the filter it is made, unless `rest` says what else there is."""
    tries = rest or (off("seccomp", number, allow=[call]),)
    return Case(row, call, "syscalls.one", (in_place(refused), *tries), {"call": call, "arguments": arguments})


CALLS = (
    _mount("3", "a control group"),
    _mount("6", "another proc"),
    _mount("31", "the unified control groups"),
    _one(
        "12",
        "fsopen",
        ["tmpfs", 0],
        killed_for("fsopen"),
        held("seccomp", answers("EPERM"), "capabilities", allow=["fsopen"]),
        held("capabilities", killed_for("fsopen"), "seccomp", without=ROOT_INSIDE),
        off("seccomp and capabilities", number, allow=["fsopen"], without=ROOT_INSIDE),
    ),
    _one("13", "io_uring_setup", [8, "\0" * 120], answers("ENOSYS")),
    _one("35", "userfaultfd", [1], killed_for("userfaultfd")),
    _one("35", "keyctl", [0, -3, 1], killed_for("keyctl")),
    _one("+", "personality", [0x400000], answers("EPERM")),
    _one("+", "modify_ldt", [1, "\0" * 16, 16], answers("EPERM")),
    _one(
        "18",
        "unshare",
        [0x10000000],
        killed_for("unshare"),
        held("seccomp", answers("ENOSPC"), "user.max_user_namespaces = 0", allow=["unshare"]),
        held("user.max_user_namespaces", killed_for("unshare"), "seccomp", without=NO_NAMESPACE),
        off("seccomp and user.max_user_namespaces", answers("0"), allow=["unshare"], without=NO_NAMESPACE),
    ),
    _one(
        "+",
        "sethostname",
        ["sent", 4],
        answers("EPERM"),
        held("seccomp", answers("EPERM"), "capabilities", allow=["sethostname"]),
        held("capabilities", answers("EPERM"), "seccomp", without=ROOT_INSIDE),
        off("seccomp and capabilities", answers("0"), allow=["sethostname"], without=ROOT_INSIDE),
    ),
    Case(
        "17",
        "a Unix socket",
        "syscalls.sockets",
        (
            in_place(reports(lambda got: {*got.values()} == {"EPERM"})),
            off("socket() is refused", reports(lambda got: got["1 1"].isdigit()), allow=["socket"]),
        ),
        {"families": [1]},
    ),
    Case(
        "55",
        "sockets of the internet and of netlink",
        "syscalls.sockets",
        (
            in_place(reports(lambda got: {*got.values()} == {"EPERM"})),
            off(
                "socket() is refused",
                reports(lambda got: got["2 1"].isdigit() and got["16 3"].isdigit()),
                allow=["socket"],
            ),
        ),
        {"families": [2, 16]},
    ),
    Case(
        "11",
        "clone3 makes a user namespace",
        "syscalls.clone3_flags",
        (
            in_place(reports(lambda got: {*got.values()} == {"ENOSYS", 8})),
            held(
                "ENOSYS for clone3",
                reports(lambda got: (got["user"], got["threads"]) == ("ENOSPC", 8)),
                "user.max_user_namespaces = 0",
                allow=["clone3"],
            ),
            held(
                "user.max_user_namespaces",
                reports(lambda got: {*got.values()} == {"ENOSYS", 8}),
                "ENOSYS for clone3",
                without=NO_NAMESPACE,
            ),
            off(
                "ENOSYS for clone3 and user.max_user_namespaces",
                reports(lambda got: got["user"] == "a child"),
                allow=["clone3"],
                without=NO_NAMESPACE,
            ),
        ),
    ),
    Case(
        "51",
        "a filter of its own",
        "syscalls.undo_filters",
        (
            in_place(reports(lambda got: got["seccomp filter"] == got["prctl"] == "EPERM")),
            off(
                "seccomp() is refused",
                reports(lambda got: (got["seccomp filter"], got["prctl"]) == ("0", "EPERM")),
                allow=["seccomp"],
            ),
            off(
                "PR_SET_SECCOMP is refused",
                reports(lambda got: (got["seccomp filter"], got["prctl"]) == ("EPERM", "0")),
                allow=["prctl"],
            ),
        ),
    ),
    Case(
        "50",
        "a second listener",
        "syscalls.undo_filters",
        (
            in_place(reports(lambda got: got["seccomp listener"] == "EPERM")),
            held(
                "seccomp() is refused",
                reports(lambda got: got["seccomp listener"] == "EBUSY"),
                "the kernel: the launcher has the one there can be",
                allow=["seccomp"],
            ),
        ),
    ),
    Case(
        "50",
        "answer its own notification",
        "descriptors.answer_own_notifications",
        (
            in_place(reports(lambda got: {*got.values()} == {"EPERM"})),
            held(
                "ioctl allow-list",
                reports(lambda got: {*got.values()} == {"ENOTTY", "EBADF"}),
                "no descriptor is a listener",
                allow=["ioctl"],
            ),
        ),
    ),
    Case(
        "7",
        "TIOCSTI reaches the kernel",
        "descriptors.ioctls",
        (
            in_place(reports(lambda got: got["TIOCSTI"] == ["EPERM"])),
            # ENOTTY is the kernel's own answer: it looked for a terminal, which none of the descriptors is.
            off("ioctl allow-list", reports(lambda got: _reached_the_kernel(got["TIOCSTI"])), allow=["ioctl"]),
        ),
    ),
    Case(
        "8",
        "TIOCSTI with bits above 32 reaches the kernel",
        "descriptors.ioctls",
        (
            in_place(reports(lambda got: got["TIOCSTI with high bits"] == ["EPERM"])),
            off(
                "comparison of 32 bits in an allow-list: instead a deny-list and a comparison of 64",
                reports(
                    lambda got: (
                        got["TIOCSTI"] == ["EPERM"]  # by itself it is stopped
                        and _reached_the_kernel(got["TIOCSTI with high bits"])
                    )
                ),
                instance_filter=lambda: everything_but("ioctl", 1, TIOCSTI),
            ),
        ),
    ),
)


def _reached_the_kernel(got: list[str]) -> bool:
    return "ENOTTY" in got and "EPERM" not in got


X86_64 = (
    Case(
        "10",
        "int 0x80",
        "machine_code.int80",
        (
            in_place(killed_for("getpid (i386)")),
            off("foreign architectures end the run", reports(lambda got: got == 1), foreign=True),
        ),
        {"number": 20},
    ),
    Case(
        "9",
        "x32",
        "machine_code.x32",
        (
            in_place(killed_for("getpid (x32)")),
            # A kernel without x32 says so itself; that it is asked is what the filter is for.
            off("x32 ends the run", reports(lambda got: got in ("1", "ENOSYS")), foreign=True),
        ),
        {"call": "getpid"},
    ),
)


@pytest.mark.parametrize(("case", "given"), each_try(CALLS))
async def test_calls(case: Case, given: Try) -> None:
    switch = Path("/proc/sys/kernel/io_uring_disabled")
    if case.title == "io_uring_setup" and switch.exists() and switch.read_text().strip() != "0":
        pytest.skip("NOT TESTED: this host has io_uring switched off for everybody")
    await assert_goes(case, given)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="NOT TESTED: machine code for x86_64")
@pytest.mark.parametrize(("case", "given"), each_try(X86_64))
async def test_foreign_calls(case: Case, given: Try) -> None:
    await assert_goes(case, given)
