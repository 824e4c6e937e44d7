"""The filters, run by an interpreter of our own: what the kernel will say to each system call."""

from __future__ import annotations

import errno
import os
import platform
import socket
import struct
from dataclasses import replace
from pathlib import Path

import pyseccomp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.errors import ConfigError
from plugind.linux import seccomp
from plugind.linux import seccomp_lists as lists
from plugind.profiles import load_profiles

PROFILES = load_profiles(Path(__file__).parents[2] / "profiles")
FILTERS = {tier: seccomp.build(profile) for tier, profile in PROFILES.items()}
TEMPLATE = seccomp.template_filter()

ALLOW, NOTIFY = 0x7FFF0000, 0x7FC00000
ABSENT = 0x00050000 | errno.ENOSYS
X86_64, I386, AARCH64 = 0xC000003E, 0x40000003, 0xC00000B7
NATIVE = {"x86_64": X86_64, "aarch64": AARCH64}[platform.machine()]
X32_BIT = 0x40000000
TIOCSTI, TIOCLINUX, TCGETS = 0x5412, 0x541C, 0x5401


def evaluate(program: bytes, number: int, arguments: tuple[int, ...] = (), arch: int = NATIVE) -> int:  # noqa: C901 - one case for each instruction
    """Classic BPF over struct seccomp_data. Source: bpf(4) of BSD, seccomp(2), linux/bpf_common.h."""
    data = struct.pack("<iIQ6Q", number, arch, 0, *arguments, *[0] * (6 - len(arguments)))
    instructions = [struct.unpack_from("<HBBI", program, offset) for offset in range(0, len(program), 8)]
    accumulator = index = place = 0
    memory = [0] * 16
    for _ in range(4096):
        code, jump_true, jump_false, k = instructions[place]
        place += 1
        match code:
            case 0x20:  # ld [k]
                (accumulator,) = struct.unpack_from("<I", data, k)
            case 0x00:  # ld #k
                accumulator = k
            case 0x02:  # st M[k]
                memory[k] = accumulator
            case 0x60:  # ld M[k]
                accumulator = memory[k]
            case 0x07:  # tax
                index = accumulator
            case 0x87:  # txa
                accumulator = index
            case 0x54:  # and #k
                accumulator &= k
            case 0x05:  # ja
                place += k
            case 0x15 | 0x25 | 0x35 | 0x45:  # jeq, jgt, jge, jset
                holds = {
                    0x15: accumulator == k,
                    0x25: accumulator > k,
                    0x35: accumulator >= k,
                    0x45: bool(accumulator & k),
                }
                place += jump_true if holds[code] else jump_false
            case 0x06:  # ret #k
                return k
            case _:
                raise AssertionError(f"instruction {code:#x} is not known here")
    raise AssertionError("the filter does not end")


def number_of(name: str) -> int | None:
    try:
        number = pyseccomp.resolve_syscall(pyseccomp.system_arch(), name)
    except (OSError, ValueError):
        return None
    return number if number >= 0 else None


def here(names) -> list[str]:
    return sorted(name for name in names if number_of(name) is not None)


def asked(tier: int, name: str, *arguments: int) -> int:
    number = number_of(name)
    assert number is not None, name
    return evaluate(FILTERS[tier], number, arguments)


def test_the_lists_do_not_contradict_each_other() -> None:
    groups = [lists.ALLOWED, lists.EXECUTE, lists.MEMFD, lists.BY_ARGUMENT, set(lists.DANGEROUS), set(lists.NOT_THERE)]
    for place, group in enumerate(groups):
        for other in groups[place + 1 :]:
            assert not set(group) & set(other)
    allowed = lists.ALLOWED | lists.EXECUTE | lists.MEMFD | lists.BY_ARGUMENT
    assert not (lists.ALLOWED | lists.EXECUTE) & lists.ABSENT
    assert not allowed & {*lists.DANGEROUS, *lists.NEVER}
    for profile in PROFILES.values():
        assert not set(profile.seccomp_extra) & {*lists.DANGEROUS, *lists.NEVER, *lists.NOT_THERE}


@pytest.mark.parametrize("name", sorted({*lists.ALLOWED, *lists.EXECUTE, *lists.DANGEROUS, *lists.NEVER}))
def test_every_name_is_a_system_call_somewhere(name) -> None:
    known = [pyseccomp.resolve_syscall(arch, name) for arch in (pyseccomp.Arch.X86_64, pyseccomp.Arch.AARCH64)]
    newer_than_some_libseccomp = {"map_shadow_stack", "futex_wait", "futex_wake", "futex_requeue", "open_tree_attr"}
    assert (
        name in newer_than_some_libseccomp | {"fchmodat2", "cachestat", "quotactl_fd", "futex_waitv"} or max(known) >= 0
    )


@pytest.mark.parametrize("tier", PROFILES)
def test_what_every_system_call_gets(tier) -> None:
    expected = {}
    for names, action in (
        (lists.ALLOWED | set(PROFILES[tier].seccomp_extra), ALLOW),
        (lists.EXECUTE, ALLOW if PROFILES[tier].exec_allowed else NOTIFY),
        (lists.DANGEROUS, NOTIFY),
        (lists.NOT_THERE, ABSENT),
    ):
        expected.update({number_of(name): action for name in here(names)})
    by_argument = {number_of(name) for name in lists.BY_ARGUMENT | lists.MEMFD}
    for number in range(1200):
        if number not in by_argument:
            assert evaluate(FILTERS[tier], number) == expected.get(number, NOTIFY), number


def test_programs_are_for_the_tiers_that_may_have_them() -> None:
    assert [asked(tier, "execve") == ALLOW for tier in (0, 1, 2)] == [True, True, False]


@pytest.mark.parametrize("program", [*FILTERS.values(), TEMPLATE])
@pytest.mark.parametrize("name", ["read", "exit_group", "mount", "clone"])
def test_foreign_architectures_are_never_let_through(program, name) -> None:
    number = number_of(name)
    for arch in {X86_64, I386, AARCH64, 0x40000028, 0} - {NATIVE}:
        assert evaluate(program, number, arch=arch) == NOTIFY
    if NATIVE == X86_64:
        assert evaluate(program, number | X32_BIT) == NOTIFY


@pytest.mark.parametrize("tier", PROFILES)
@pytest.mark.parametrize("bit", [0x80, 0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000])
def test_no_clone_makes_a_namespace(tier, bit) -> None:
    assert asked(tier, "clone", bit | 17) == NOTIFY
    assert asked(tier, "clone", bit | 17 | 1 << 32) == NOTIFY


@pytest.mark.parametrize("tier", PROFILES)
def test_threads_and_forks_are_allowed(tier) -> None:
    assert asked(tier, "clone", 0x3D0F00) == ALLOW  # glibc's pthread_create
    assert asked(tier, "clone", 0x1200011) == ALLOW  # glibc's fork
    assert asked(tier, "clone", 0x4111) == ALLOW  # vfork
    assert asked(tier, "clone3") == ABSENT


@pytest.mark.parametrize("tier", PROFILES)
@given(request=st.integers(0, 2**64 - 1))
def test_ioctl_is_judged_by_the_32_bits_that_the_kernel_sees(tier, request) -> None:
    seen = request & 0xFFFFFFFF
    assert asked(tier, "ioctl", 0, request) == (ALLOW if seen in lists.IOCTLS else NOTIFY)


def test_the_resolvers_filter_allows_sockets_of_the_internet_and_files_to_read_and_its_list() -> None:
    program = seccomp.resolver_filter()
    refused = 0x00050000 | errno.EPERM
    allowed = {number_of(name) for name in here(lists.RESOLVER)}
    by_argument = {number_of("socket"), number_of("openat")}
    for number in set(range(1200)) - by_argument:
        assert evaluate(program, number) == (ALLOW if number in allowed else refused), number
    refusable = (
        "open openat2 execve execveat clone fork kill ptrace bind listen accept4 mount unlink getdents64".split()
    )
    assert not allowed & {number_of(name) for name in refusable}
    for family in range(50):
        expected = ALLOW if family in (socket.AF_INET, socket.AF_INET6) else refused
        assert evaluate(program, number_of("socket"), (family, 2, 0)) == expected, family
    for flags in (0, os.O_CLOEXEC, os.O_DIRECTORY, os.O_NOFOLLOW):
        assert evaluate(program, number_of("openat"), (0, 0, os.O_RDONLY | flags)) == ALLOW
        for more in (os.O_WRONLY, os.O_RDWR, 3, os.O_CREAT, os.O_TRUNC):
            assert evaluate(program, number_of("openat"), (0, 0, more | flags)) == refused


@pytest.mark.parametrize("tier", PROFILES)
@pytest.mark.parametrize("high", [0, 1 << 32, 0xFFFFFFFF << 32])
def test_ioctls_by_example(tier, high) -> None:
    assert asked(tier, "ioctl", 0, TIOCSTI | high) == NOTIFY
    assert asked(tier, "ioctl", 0, TIOCLINUX | high) == NOTIFY
    assert asked(tier, "ioctl", 0, TCGETS | high) == ALLOW


@pytest.mark.parametrize("tier", PROFILES)
def test_sockets(tier) -> None:
    for family in range(64):
        assert asked(tier, "socket", family, 1, 0) == NOTIFY
        for kind in range(16):
            for flags in (0, 0x80000, 0x800):
                allowed = family == 1 and kind in (1, 5)  # SOCK_STREAM, SOCK_SEQPACKET
                assert asked(tier, "socketpair", family, kind | flags, 0) == (ALLOW if allowed else NOTIFY)
    for option in range(80):
        allowed = option in lists.SOCKET_OPTIONS
        assert asked(tier, "setsockopt", 3, 1, option) == (ALLOW if allowed else NOTIFY)
        assert asked(tier, "setsockopt", 3, 6, option) == NOTIFY
    for name in ("connect", "bind", "listen", "accept4"):
        assert asked(tier, name) == NOTIFY


@pytest.mark.parametrize("tier", PROFILES)
def test_prctl_and_personality(tier) -> None:
    for option in range(100):
        assert asked(tier, "prctl", option) == (ALLOW if option in lists.PRCTLS else NOTIFY)
    for persona in (1, 8, 0x0040000, 0x0400000):  # ADDR_NO_RANDOMIZE and READ_IMPLIES_EXEC among them
        assert asked(tier, "personality", persona) == NOTIFY
    assert asked(tier, "personality", 0xFFFFFFFF) == ALLOW  # a question only


def test_the_templates_filter_notifies_of_what_nobody_needs_and_allows_all_else() -> None:
    never = {number_of(name) for name in here(lists.NEVER)}
    for number in range(1200):
        assert evaluate(TEMPLATE, number) == (NOTIFY if number in never else ALLOW), number


@pytest.mark.parametrize("name", ["mount", "clone3", "ioctl", "syslog", "memfd_create", "no_such_call", ""])
def test_extra_calls_that_cannot_be_allowed_are_named(name) -> None:
    with pytest.raises(ConfigError, match=f"tier 2: seccomp_extra: .*{name}"):
        seccomp.build(replace(PROFILES[2], seccomp_extra=("chroot", name)))


def test_an_extra_call_is_allowed() -> None:
    program = seccomp.build(replace(PROFILES[2], seccomp_extra=("chroot",)))
    assert evaluate(program, number_of("chroot")) == ALLOW
    assert evaluate(FILTERS[2], number_of("chroot")) == NOTIFY


@pytest.mark.parametrize("tier", PROFILES)
@given(command=st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 2048)))
def test_fcntl_locks_are_for_the_tiers_that_may_have_them(tier, command) -> None:
    allowed = {*lists.FCNTLS, *(lists.FCNTL_LOCKS if PROFILES[tier].file_locks else ())}
    assert asked(tier, "fcntl", 0, command) == (ALLOW if command & 0xFFFFFFFF in allowed else NOTIFY)


def test_no_tier_may_signal_by_shared_files() -> None:
    assert [PROFILES[tier].file_locks for tier in (0, 1, 2)] == [True, True, False]
    for name in ("flock", "inotify_add_watch", "inotify_init1", "cachestat"):
        assert {asked(tier, name) for tier in PROFILES if number_of(name) is not None} <= {NOTIFY}


def test_without_noexec_there_are_no_memfds() -> None:
    number = number_of("memfd_create")
    assert [evaluate(seccomp.build(PROFILES[2], memfd=memfd), number) for memfd in (True, False)] == [ALLOW, NOTIFY]


def test_the_notifiers_own_filter_allows_its_list_and_nothing_else() -> None:
    allowed = {number_of(name) for name in here(lists.NOTIFIER)}
    program = seccomp.notifier_filter()
    for number in range(1200):
        assert evaluate(program, number) == (ALLOW if number in allowed else 0x00050000 | errno.EPERM), number
    assert not allowed & {number_of(name) for name in ("open", "openat", "execve", "socket", "clone", "kill", "ptrace")}


@pytest.mark.parametrize("tier", PROFILES)
@pytest.mark.parametrize("high", [0, 1 << 32, 0xFFFFFFFF << 32])
def test_the_core_limit_can_be_asked_for_and_not_changed(tier, high) -> None:
    for resource in range(16):
        may = ALLOW if resource != 4 else NOTIFY
        assert asked(tier, "setrlimit", resource | high, 0x1000) == may
        assert asked(tier, "prlimit64", 0, resource | high, 0x1000, 0) == may
        assert asked(tier, "prlimit64", 0, resource | high, 0, 0x1000) == ALLOW


@pytest.mark.parametrize("tier", PROFILES)
def test_huge_pages_and_looks_into_the_page_cache(tier) -> None:
    assert asked(tier, "mmap", 0, 4096, 7, 0x22) == ALLOW
    assert asked(tier, "mmap", 0, 4096, 7, 0x40022) == NOTIFY
    assert asked(tier, "shmget", 0, 4096, 0o1600) == ALLOW
    assert asked(tier, "shmget", 0, 4096, 0o5600) == NOTIFY
    assert [asked(tier, "memfd_create", 0, flags) for flags in (0, 1, 3, 4, 7)] == [ALLOW, ALLOW, ALLOW, NOTIFY, NOTIFY]
    assert [asked(tier, "fadvise64", 3, 0, 0, advice) for advice in range(6)] == [ALLOW] * 4 + [NOTIFY, ALLOW]
    assert [asked(tier, "preadv2", 3, 0, 0, 0, 0, flags) for flags in (0, 1, 8, 9)] == [ALLOW, ALLOW, NOTIFY, NOTIFY]
    assert asked(tier, "syncfs") == NOTIFY


NETWORKED = seccomp.build(PROFILES[1], network=True)
AF_INET, AF_INET6, AF_NETLINK, STREAM, DGRAM, RAW = 2, 10, 16, 1, 2, 3
CLOEXEC_NONBLOCK = 0o2004000
OF_NETWORKS = {"accept", "accept4", "bind", "connect", "listen"}


def test_with_a_network_five_more_calls_are_allowed_whatever_their_arguments() -> None:
    changed = {number for number in range(1200) if evaluate(NETWORKED, number) != evaluate(FILTERS[1], number)}
    # With arguments of zero. Only of options of the level IPPROTO_IP, 0, may one differ, and 0 is none.
    assert changed == {number_of(name) for name in OF_NETWORKS}
    assert {evaluate(NETWORKED, number) for number in changed} == {ALLOW}


@given(
    family=st.one_of(st.sampled_from([AF_INET, AF_INET6, AF_NETLINK]), st.integers(0, 64), st.integers(0, 2**64 - 1)),
    kind=st.one_of(st.integers(0, 15), st.integers(0, 2**32 - 1)),
    protocol=st.one_of(st.sampled_from([0, 6, 17, 132, 136, 262]), st.integers(0, 2**32 - 1)),
)
def test_sockets_of_a_network(family, kind, protocol) -> None:
    number = number_of("socket")
    shape = (family & 0xFFFFFFFF, kind & 0xF, protocol)
    inet = shape[0] in (AF_INET, AF_INET6) and shape[1:] in ((STREAM, 0), (STREAM, 6), (DGRAM, 0), (DGRAM, 17))
    allowed = inet or shape in ((AF_NETLINK, DGRAM, 0), (AF_NETLINK, RAW, 0))
    assert evaluate(NETWORKED, number, (family, kind, protocol)) == (ALLOW if allowed else NOTIFY)
    assert evaluate(FILTERS[1], number, (family, kind, protocol)) == NOTIFY


def test_what_others_have_broken_out_by_stays_refused_with_a_network() -> None:
    number, option = number_of("socket"), number_of("setsockopt")
    for family, kind, protocol in ((1, STREAM, 0), (17, RAW, 0), (AF_INET, RAW, 255), (40, STREAM, 0), (38, 5, 0)):
        assert evaluate(NETWORKED, number, (family, kind | CLOEXEC_NONBLOCK, protocol)) == NOTIFY
    assert evaluate(NETWORKED, number, (AF_INET, STREAM | CLOEXEC_NONBLOCK, 0)) == ALLOW
    for level, name in ((1, 26), (1, 50), (1, 36), (6, 31), (6, 13), (0, 64), (41, 64), (0, 35)):
        # SO_ATTACH_FILTER, SO_ATTACH_BPF, SO_MARK, TCP_ULP, TCP_CONGESTION, tables of filters, multicast
        assert evaluate(NETWORKED, option, (3, level, name)) == NOTIFY, (level, name)
    assert evaluate(NETWORKED, option, (3, 6, 1)) == ALLOW, "TCP_NODELAY"
