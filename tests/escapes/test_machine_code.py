"""Machine code in a plugin's own memory: whatever way it takes into the kernel, the filter is asked first."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from tests.escapes.attack import OWN, attack
from tests.escapes.box import Box

X86_64 = platform.machine() == "x86_64"
GETPID_I386 = 20
MOUNT_I386 = 21


@pytest.fixture(autouse=True)
def _only_where_there_is_such_code() -> None:
    if not X86_64:
        pytest.skip(f"NOT TESTED: machine code for x86_64, and this is {platform.machine()}")


@attack(
    10,
    "int 0x80: a system call of i386 from 64-bit code, in the first thread, in another, in a child",
    "foreign architectures end the run",
)
@pytest.mark.parametrize("by", ["int80", "int80_from_a_thread", "int80_from_a_child"])
@pytest.mark.parametrize("number", [GETPID_I386, MOUNT_I386])
def test_int_0x80_ends_the_run_and_is_named(box: Box, by: str, number: int) -> None:
    ran = box.run(f"machine_code.{by}", number=number)
    name = {GETPID_I386: "getpid (i386)", MOUNT_I386: "mount (i386)"}[number]
    ran.assert_killed_for(name)
    assert ran.lines == ["try int80"]


@attack(10, "code in the 32-bit segment, entered by a far return, with int 0x80, sysenter or syscall", "the same")
@pytest.mark.parametrize("entry", ["int80", "sysenter", "syscall"])
def test_32_bit_code_makes_no_system_call(box: Box, entry: str) -> None:
    ran = box.run("machine_code.compat_segment", entry=entry)
    assert ran.lines == [f"try {entry} in 32 bits"], ran.why()
    if ran.outcome == "failed":  # a processor may not have this entry in 32 bits; it never got into the kernel's table
        assert "SIGILL" in ran.result.outcome_detail or "SIGSEGV" in ran.result.outcome_detail, ran.why()
        assert entry != "int80"
    else:
        ran.assert_killed_for("getpid (i386)")


@attack(9, "x32: the same calls with bit 30 of the number set", "x32 is a foreign architecture and ends the run")
@pytest.mark.parametrize("call", ["getpid", "mount", "read", "execve", "socket"])
def test_x32_numbers_end_the_run(box: Box, call: str) -> None:
    ran = box.run("machine_code.x32", call=call)
    ran.assert_killed_for(f"{call} (x32)")
    assert ran.lines == ["try x32"]


@attack(9, "numbers that only x32 has", "the same")
@pytest.mark.parametrize("number", [512, 520, 547])
def test_numbers_of_x32_alone_end_the_run(box: Box, number: int) -> None:
    ran = box.run("machine_code.x32_own_numbers", number=number)
    assert (ran.outcome, ran.lines) == ("violation", ["try x32"]), ran.why()
    assert [name.endswith("(x32)") for name in ran.tried] == [True]


@attack(
    OWN,
    "the syscall instruction in own memory instead of libc's, with bits above 32 in the number",
    "the filter sits in the kernel",
)
@pytest.mark.parametrize("high_bits", [0, 1, 0xFFFFFFFF])
def test_bare_instructions_are_filtered_too(box: Box, high_bits: int) -> None:
    calls = [[call, high_bits] for call in ("socket", "io_uring_setup", "perf_event_open", "chroot", "sethostname")]
    ran = box.run("machine_code.bare_instructions", calls=calls)
    assert set(ran.value().values()) <= {"EPERM", "ENOSYS"}, ran.why()
    assert ran.tried == {call: 1 for call, _ in calls}
    ran = box.run("machine_code.bare_instruction", call="unshare", high_bits=high_bits)
    ran.assert_killed_for("unshare")


@attack(OWN, "a dangerous call from within a signal handler", "seccomp ends the run")
def test_signal_handlers_are_filtered_too(box: Box) -> None:
    box.run("machine_code.by_signal_handler", call="pivot_root").assert_killed_for("pivot_root")


@attack(
    14,
    "a thread rewrites the arguments of a call while it waits for its answer",
    "nothing is decided on what a pointer points to, and no call is ever continued",
)
def test_racing_arguments_change_nothing(box: Box) -> None:
    # The racing thread burns CPU for as long as the answers take: a tier's default is too little on a busy machine.
    ran = box.run("machine_code.racing_arguments", rounds=500, limits={"wall_ms": 60_000, "cpu_ms": 30_000})
    answers = ran.value()
    assert answers.pop("left") == []
    assert answers == {call: ["EPERM"] for call in ("chroot", "mknodat", "setxattr", "connect")}
    assert ran.tried == dict.fromkeys(answers, 500)


@attack(OWN, "segments of its own: modify_ldt, set_thread_area", "refused")
def test_segments_cannot_be_made(box: Box) -> None:
    ran = box.run("machine_code.segments")
    assert set(ran.value().values()) <= {"EPERM", "ENOSYS"}
    assert ran.tried == {"modify_ldt": 1, "set_thread_area": 1, "get_thread_area": 1}


@attack(
    OWN,
    "privileged instructions: port output, hlt, cli, control registers, wrmsr, lgdt, swapgs",
    "the processor: SIGSEGV or SIGILL",
)
@pytest.mark.parametrize("name", ["out", "hlt", "cli", "mov cr3", "wrmsr", "lgdt", "swapgs"])
def test_privileged_instructions_fault(tier2: Box, name: str) -> None:
    assert tier2.run("machine_code.privileged_instructions", name=name).value() in (-11, -4)


@attack(OWN, "the vsyscall page", "the filter is asked there too; time() is allowed anyway")
def test_the_vsyscall_page_gives_nothing(tier2: Box) -> None:
    assert tier2.run("machine_code.vsyscall_page").value() in (7, -11)  # emulated, or not there


@attack(
    60,
    "native code in a memfd, or in a file on /tmp or /dev/shm, mapped executable or executed",
    "vm.memfd_noexec; noexec; Landlock",
)
def test_code_in_memfds_does_not_run(box: Box) -> None:
    host = Path("/proc/sys/vm/memfd_noexec")
    before = host.read_text() if host.exists() else None
    answers = box.run("programs.native_code").value()
    assert answers["anonymous"] == 42, "the attack itself works"
    if before is None:  # before Linux 6.3 no memfd can be kept from being executed, and none can be made
        assert (answers["memfd"], answers["memfd with MFD_EXEC"]) == ("ENOSYS", "ENOSYS")
    else:
        assert answers["memfd execve"] in ("EACCES", "EPERM")
        assert answers["memfd execveat"] in ("EACCES", "EPERM")
        assert answers["memfd with MFD_EXEC"] in ("EACCES", "EPERM")
        assert answers["memfd chmod"] in ("EACCES", "EPERM")
    assert answers["/dev/shm mmap"] in ("EACCES", "EPERM")
    assert answers["/dev/shm execve"] in ("EACCES", "EPERM")
    if box.tier == 2:
        assert answers["/tmp mmap"] in ("EACCES", "EPERM")
        assert answers["/tmp execve"] in ("EACCES", "EPERM")
    assert (host.read_text() if host.exists() else None) == before
