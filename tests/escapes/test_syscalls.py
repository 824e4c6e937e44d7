"""System calls that no plugin may make, and those that are refused: each fails, and the audit names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugind.linux import seccomp_lists as lists
from tests.escapes import plugin
from tests.escapes.attack import OWN, attack
from tests.escapes.box import Box

NUMBERS = plugin.numbers()
DANGEROUS = sorted(set(lists.DANGEROUS) & set(NUMBERS))
PERMITTED = {*lists.ALLOWED, *lists.EXECUTE, *lists.MEMFD, *lists.BY_ARGUMENT, *lists.NOT_THERE}
"""By this tier or another, whatever the arguments or for some."""
REFUSED = {name: number for name, number in NUMBERS.items() if name not in {*DANGEROUS, *PERMITTED}}
KINDS = 25
"""So many different calls does the audit tell apart at least."""

DANGEROUS_WITH_ARGUMENTS = {
    "mount": ["none", "/tmp", "tmpfs", 0, 0],
    "umount2": ["/proc", 2],
    "unshare": [0x10000000],
    "setns": [0, 0],
    "bpf": [0, 0, 0],
    "keyctl": [0, -3, 1],
    "add_key": ["user", "name", "x", 1, -3],
    "request_key": ["user", "name", 0, 0],
    "init_module": ["x", 1, ""],
    "finit_module": [0, "", 0],
    "kexec_load": [0, 0, 0, 0],
    "reboot": [0xFEE1DEAD, 672274793, 0, 0],
    "ptrace": [0, 0, 0, 0],
    "userfaultfd": [1],
}


@attack(
    12,
    "the new mount calls: fsopen, fsconfig, fsmount, fspick, open_tree, move_mount, mount_setattr",
    "seccomp ends the run",
)
@attack(35, "bpf, userfaultfd, keyctl, add_key, request_key, kexec, modules", "seccomp ends the run")
@attack(18, "unshare, setns", "seccomp ends the run")
@pytest.mark.parametrize("call", DANGEROUS)
def test_a_dangerous_call_ends_the_run_and_is_named(box: Box, call: str) -> None:
    ran = box.run("syscalls.one", call=call, arguments=DANGEROUS_WITH_ARGUMENTS.get(call, [0, 0, 0, 0, 0]))
    ran.assert_killed_for(call)
    assert ran.lines == [f"try {call}"]
    assert box.left() == []


@attack(OWN, "make a dangerous call in a thread or in a child, and go on in the first process", "the whole run ends")
@pytest.mark.parametrize("by", ["from_a_thread", "from_a_child"])
def test_whoever_makes_a_dangerous_call_ends_the_whole_run(box: Box, by: str) -> None:
    ran = box.run(f"syscalls.{by}", call="mount", arguments=["none", "/tmp", "tmpfs", 0, 0])
    ran.assert_killed_for("mount")
    assert not [line for line in ran.lines if "goes on" in line]
    assert box.left() == []


@attack(
    OWN,
    "hide a dangerous call behind so many others that the audit's list is full",
    "the call that ends a run has a place of its own",
)
def test_a_dangerous_call_is_named_behind_many_others(box: Box) -> None:
    hiding = dict(sorted(REFUSED.items())[:60])
    ran = box.run("syscalls.all_of", calls=hiding | {"mount": NUMBERS["mount"]})
    ran.assert_killed_for("mount")
    assert sum(ran.tried.values()) == len(hiding) + 1


@attack(
    35,
    "perf_event_open and every other system call that is not on the list, by its number",
    "allow-list: each is refused, counted and named",
)
@attack(13, "io_uring_setup, io_uring_enter, io_uring_register", "refused")
@attack(
    OWN,
    "name_to_handle_at, pidfd_getfd, process_madvise, kcmp, memfd_secret, fanotify, landlock's newest relatives, …",
    "refused",
)
@pytest.mark.parametrize("start", range(0, len(REFUSED), KINDS))
def test_everything_that_is_not_on_the_list_is_refused_and_named(box: Box, start: int) -> None:
    calls = dict(sorted(REFUSED.items())[start : start + KINDS])
    ran = box.run("syscalls.all_of", calls=calls)
    answers = ran.value()
    assert set(answers) == set(calls)
    assert {name: got for name, got in answers.items() if got not in ("EPERM", "ENOSYS")} == {}
    for name, number in calls.items():
        assert ran.tried.get(name, ran.tried.get(f"system call {number}")) == 1, (name, ran.tried)


def test_the_calls_of_the_table_are_among_them() -> None:
    for (
        name
    ) in "io_uring_setup perf_event_open socket connect bind pidfd_getfd kcmp name_to_handle_at memfd_secret".split():
        assert name in REFUSED, name


@attack(OWN, "numbers that no system call has, yet", "refused as if they were not there, and counted")
def test_numbers_without_a_call_are_refused(box: Box) -> None:
    numbers = {f"n{number}": number for number in (470, 471, 500, 511, 550, 999, 4096, 0x3FFFFFFF)}
    ran = box.run("syscalls.all_of", calls=numbers)
    assert set(ran.value().values()) == {"ENOSYS"}
    assert sum(ran.tried.values()) == len(numbers)
    assert "system call 999" in ran.tried


@attack(
    18,
    "clone with a flag for a new namespace, also with bits above 32 set",
    "the filter looks at clone's flags; user.max_*_namespaces = 0",
)
def test_clone_makes_no_namespace(box: Box) -> None:
    ran = box.run("syscalls.clone_flags")
    answers = ran.value()
    assert len(answers) == 16
    assert set(answers.values()) == {"EPERM"}
    assert ran.tried["clone"] == 16
    assert "0x10000000" in ran.said


@attack(11, "clone3, whose flags lie in memory where no filter can look", "clone3 is not there; threads still work")
def test_clone3_is_not_there_and_threads_work(box: Box) -> None:
    answers = box.run("syscalls.clone3_flags").value()
    assert answers.pop("threads") == 8
    assert len(answers) == 8
    assert set(answers.values()) == {"ENOSYS"}


@attack(51, "a filter of its own that hides calls from the listener: seccomp(), PR_SET_SECCOMP", "both refused")
@attack(50, "a listener of its own: SECCOMP_FILTER_FLAG_NEW_LISTENER", "refused")
def test_no_filter_can_be_put_on_top(box: Box) -> None:
    ran = box.run("syscalls.undo_filters")
    answers = ran.value()
    mode, filters = answers.pop("mode"), answers.pop("filters")
    assert (mode, int(filters) >= 2) == ("2", True)
    assert set(answers.values()) == {"EPERM"}
    assert ran.tried == {"seccomp": 4, "prctl": 1}
    assert "PR_SET_SECCOMP" in ran.said


@attack(
    OWN,
    "every other option of prctl: dumpable, keepcaps, ambient, securebits, PR_SET_MM, speculation, syscall dispatch",
    "allow-list of options",
)
def test_prctl_options_are_refused_and_named(box: Box) -> None:
    ran = box.run("syscalls.prctls")
    answers = ran.value()
    assert len(answers) > 120
    assert set(answers.values()) == {"EPERM"}
    assert sum(ran.tried.values()) == len(answers)
    assert "PR_SET_DUMPABLE" in ran.said


@attack(OWN, "personality: READ_IMPLIES_EXEC, ADDR_NO_RANDOMIZE, …", "only the default")
def test_personalities_are_refused(box: Box) -> None:
    ran = box.run("syscalls.personalities")
    assert set(ran.value().values()) == {"EPERM"}
    assert ran.tried["personality"] == 9


@attack(
    36,
    "leases, F_NOTIFY and locks of open descriptions, by fcntl, also with bits above 32 set",
    "allow-list of commands",
)
def test_fcntl_commands_are_refused_and_named(box: Box) -> None:
    ran = box.run("syscalls.fcntls")
    answers = ran.value()
    assert set(answers.values()) == {"EPERM"}, answers
    assert ran.tried["fcntl"] == len(answers) == 10
    assert "F_NOTIFY" in ran.said


@attack(55, "sockets of every family: inet, netlink, packet, AF_ALG, …", "socket() refused in every tier")
@attack(36, "AF_VSOCK between siblings", "socket() refused")
@attack(17, "AF_UNIX sockets", "socket() refused")
@pytest.mark.parametrize("first", [0, 24])
def test_no_family_has_a_socket(box: Box, first: int) -> None:
    ran = box.run("syscalls.sockets", families=list(range(first, first + 24)))
    answers = ran.value()
    assert len(answers) == 48
    assert set(answers.values()) == {"EPERM"}
    assert ran.tried == {"socket": 48}
    for family in ("AF_UNIX", "AF_INET", "AF_NETLINK") if first == 0 else ("AF_ALG", "AF_VSOCK"):
        assert family in ran.said


@attack(55, "pairs of other families, also with bits above 32 set", "socketpair() for AF_UNIX only")
def test_only_unix_sockets_come_in_pairs(box: Box) -> None:
    ran = box.run("syscalls.socket_pairs")
    answers = ran.value()
    assert answers.pop("allowed") == "0"
    assert set(answers.values()) == {"EPERM"}
    assert ran.tried["socketpair"] == len(answers)


@attack(
    OWN,
    "programs in the kernel by way of half of a pair: SO_ATTACH_FILTER, SO_ATTACH_BPF; more buffer than allowed",
    "an allow-list of options; the rest needs capabilities",
)
def test_sockets_take_no_programs(box: Box) -> None:
    answers = box.run("syscalls.in_kernel_programs").value()
    assert [name for name, got in answers.items() if got.startswith("done")] == []


@attack(OWN, "open_by_handle_at on the root of a file system (the Shocker)", "seccomp ends the run")
def test_file_handles_open_nothing(box: Box) -> None:
    box.run("syscalls.open_by_handle").assert_killed_for("open_by_handle_at")


@attack(OWN, "out of the jail by openat2 with every RESOLVE flag, .. and /proc/*/root", "pivot_root")
def test_openat2_does_not_lead_out(box: Box, canary: tuple[Path, str]) -> None:
    answers = box.run("syscalls.openat2_ways", path=str(canary[0])).value()
    assert len(answers) == 28
    assert set(answers.values()) <= {"ENOENT", "EXDEV", "ELOOP", "EACCES", "EAGAIN"}, answers


@attack(OWN, "undo Landlock with a ruleset that allows everything", "rulesets only take away")
def test_landlock_only_takes_away(box: Box, canary: tuple[Path, str]) -> None:
    answers = box.run("syscalls.landlock_undo", path=str(canary[0])).value()
    assert (answers["create"], answers["add"], answers["restrict"]) == ("ok", "0", "0")
    assert answers["open"] == "ENOENT"
    assert {answers["write"], answers["make"]} <= {"EACCES", "EROFS"}


@attack(
    OWN, "descriptors, memory and advice of its own child by pidfd_getfd, process_madvise, kcmp, move_pages", "refused"
)
def test_calls_across_processes_are_refused(box: Box) -> None:
    ran = box.run("syscalls.cross_process")
    answers = ran.value()
    assert set(answers.values()) == {"EPERM"}, answers
    assert ran.tried == dict.fromkeys(answers, 1)


@attack(16, "signal processes of the host by number, all at once, as a group, or queued", "own pid namespace")
def test_signals_reach_nobody(box: Box) -> None:
    answers = box.run("syscalls.signal_everybody").value()
    assert answers.pop("reached") == []
    assert set(answers.values()) <= {"ESRCH", "EPERM"}, answers
    assert box.daemon.process.poll() is None


@attack(OWN, "more refused calls than anybody needs, to keep the notifier busy", "refused_calls of the profile")
def test_a_flood_of_refused_calls_ends_the_run(tier2: Box) -> None:
    ran = tier2.run("syscalls.flood", call="socket", count=30_000, limits={"wall_ms": 20_000, "cpu_ms": 15_000})
    assert ran.outcome == "violation", ran.why()
    assert 10_000 <= ran.tried["socket"] <= 10_002
    assert tier2.run("syscalls.clone3_flags").value()["threads"] == 8, "the next run is not affected"


@attack(
    OWN,
    "flush the host's file system (sync), take memory out of service, move pages that others use",
    "refused; no capability",
)
def test_the_machine_cannot_be_disturbed(box: Box) -> None:
    ran = box.run("syscalls.disturb_the_machine")
    answers = ran.value()
    assert (answers.pop("sync"), ran.tried) == ("EPERM", {"sync": 1})
    assert set(answers.values()) <= {"EPERM", "EINVAL"}, answers  # EINVAL: this kernel is built without it


@attack(
    OWN, "flush the host's file system again and again by syncfs on a library that can only be read", "syncfs refused"
)
def test_the_file_system_of_the_host_cannot_be_flushed(box: Box) -> None:
    assert box.run("syscalls.flush_file_system").value() == "EPERM"
