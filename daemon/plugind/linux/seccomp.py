"""Seccomp filters, built once with libseccomp and loaded as bytes by every instance.

An allow-list: what is not on it is handed to a supervisor (seccomp_notify.py) that names, counts and refuses it, also
what comes by a foreign architecture. Lists: seccomp_lists.py.
Sources: seccomp(2), seccomp_unotify(2), seccomp_rule_add(3), clone(2), ioctl_tty(2).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

import pyseccomp

from plugind.errors import ConfigError
from plugind.linux import seccomp_lists as lists
from plugind.model import Profile

_LOW_32_BITS = 0xFFFFFFFF
_ALL_64_BITS = 0xFFFFFFFFFFFFFFFF
_OTHER_LIMITS = tuple(resource for resource in range(16) if resource != lists.RLIMIT_CORE)
_ARCHITECTURES = (pyseccomp.Arch.X86_64, pyseccomp.Arch.AARCH64)


def build(profile: Profile, *, memfd: bool = True, network: bool = False) -> bytes:
    """The filter of a tier's instances: raw struct sock_filter, for the machine this runs on.

    `memfd`: whether memfds are kept from being executed by other means. Without, none can be made. `network`: of those
    that were granted some.
    Raises ConfigError for a `seccomp_extra` that cannot be, OSError.
    """
    _check_extra(profile)
    rules = _start(pyseccomp.NOTIFY)
    allowed = {*lists.ALLOWED, *profile.seccomp_extra}
    if profile.exec_allowed:
        allowed |= lists.EXECUTE
    _add(rules, pyseccomp.ALLOW, sorted(allowed))
    if memfd:
        no_huge_pages = pyseccomp.Arg(1, pyseccomp.MASKED_EQ, lists.MFD_HUGETLB, 0)
        rules.add_rule(pyseccomp.ALLOW, "memfd_create", no_huge_pages)
    if network:
        _network(rules)
    _by_argument(rules, (*lists.FCNTLS, *(lists.FCNTL_LOCKS if profile.file_locks else ())))
    _add(rules, pyseccomp.ERRNO(errno.ENOSYS), lists.NOT_THERE)
    return _export(rules)


def template_filter() -> bytes:
    """The filter of init and zygote. Instances' filters stack on it, so it allows what either of them needs.

    Nobody listens to it, and then the kernel answers ENOSYS. An errno of its own would win over an instance's
    notification, and hide from the supervisor what the instance tried: of equal actions the newest filter's counts.
    """
    rules = _start(pyseccomp.ALLOW)
    _add(rules, pyseccomp.NOTIFY, lists.NEVER)
    return _export(rules)


def notifier_filter() -> bytes:
    """The filter of the supervisor of notifications: what a Python loop over descriptors needs, and nothing else."""
    rules = _start(pyseccomp.ERRNO(errno.EPERM))
    _add(rules, pyseccomp.ALLOW, lists.NOTIFIER)
    return _export(rules)


def resolver_filter() -> bytes:
    """The filter of the process that asks name servers: sockets of the internet, files to read, and nothing else."""
    rules = _start(pyseccomp.ERRNO(errno.EPERM))
    _add(rules, pyseccomp.ALLOW, lists.RESOLVER)
    for family in (lists.AF_INET, lists.AF_INET6):
        rules.add_rule(pyseccomp.ALLOW, "socket", pyseccomp.Arg(0, pyseccomp.EQ, family))
    to_read = pyseccomp.Arg(2, pyseccomp.MASKED_EQ, lists.O_ACCMODE | lists.O_CREAT | lists.O_TRUNC, 0)
    rules.add_rule(pyseccomp.ALLOW, "openat", to_read)
    return _export(rules)


def _start(default: object) -> pyseccomp.SyscallFilter:
    rules = pyseccomp.SyscallFilter(default)
    # Every architecture but the native one is foreign, x32 too. The library's own default kills one thread only.
    rules.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.NOTIFY)
    rules.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, 2)
    return rules


def known(name: str) -> bool:
    """Whether this machine's architecture and libseccomp have a system call of that name."""
    return _known(pyseccomp.system_arch(), name)


def _known(architecture: int, name: str) -> bool:
    try:
        return bool(pyseccomp.resolve_syscall(architecture, name) >= 0)
    except (OSError, ValueError):
        return False


def _add(rules: pyseccomp.SyscallFilter, action: object, names: Iterable[str]) -> None:
    for name in names:
        if known(name):  # the lists hold both architectures' names, and newer ones than some libseccomp knows
            rules.add_rule(action, name)


def _check_extra(profile: Profile) -> None:
    # Any of these would be passed over in silence, or contradict another rule.
    for name in profile.seccomp_extra:
        if name in (*lists.DANGEROUS, *lists.NEVER, *lists.NOT_THERE, *lists.MEMFD, *lists.BY_ARGUMENT):
            raise ConfigError(f"tier {profile.tier}: seccomp_extra: {name} cannot be allowed as a whole")
        if not any(_known(architecture, name) for architecture in _ARCHITECTURES):
            raise ConfigError(f"tier {profile.tier}: seccomp_extra: expected names of system calls, got {name!r}")


def _network(rules: pyseccomp.SyscallFilter) -> None:
    def arguments(*values: int) -> list[pyseccomp.Arg]:
        # The kernel takes an int for each; SOCK_CLOEXEC and SOCK_NONBLOCK stand in the type beside it.
        masks = (_LOW_32_BITS, 0xF, _LOW_32_BITS)
        return [pyseccomp.Arg(place, pyseccomp.MASKED_EQ, masks[place], value) for place, value in enumerate(values)]

    _add(rules, pyseccomp.ALLOW, lists.NETWORK)
    for values in (*lists.NETWORK_SOCKETS, *lists.ROUTE_SOCKETS):
        rules.add_rule(pyseccomp.ALLOW, "socket", *arguments(*values))
    for level, option in lists.NETWORK_OPTIONS:
        of_both = ((1, level), (2, option))
        conditions = [pyseccomp.Arg(place, pyseccomp.MASKED_EQ, _LOW_32_BITS, value) for place, value in of_both]
        rules.add_rule(pyseccomp.ALLOW, "setsockopt", *conditions)


def _by_argument(rules: pyseccomp.SyscallFilter, fcntls: Iterable[int]) -> None:
    def allow(name: str, *conditions: tuple[int, int, int]) -> None:
        arguments = [pyseccomp.Arg(place, pyseccomp.MASKED_EQ, mask, value) for place, mask, value in conditions]
        rules.add_rule(pyseccomp.ALLOW, name, *arguments)

    # Conditions are (argument, mask, value). Where the kernel looks at 32 bits only, so do we: a comparison of all 64
    # could be dodged (CVE-2019-10063).
    allow("clone", (0, lists.CLONE_NAMESPACES, 0))
    allow("mmap", (3, lists.MAP_HUGETLB, 0))
    allow("shmget", (2, lists.SHM_HUGETLB, 0))
    allow("preadv2", (5, lists.RWF_NOWAIT, 0))
    for kind in lists.SOCKET_TYPES:
        allow("socketpair", (0, _LOW_32_BITS, lists.AF_UNIX), (1, 0xF, kind))
    for option in lists.SOCKET_OPTIONS:
        allow("setsockopt", (1, _LOW_32_BITS, lists.SOL_SOCKET), (2, _LOW_32_BITS, option))
    for name, place, values in (
        ("ioctl", 1, lists.IOCTLS),
        ("fcntl", 1, fcntls),
        ("prctl", 0, lists.PRCTLS),
        ("fadvise64", 3, lists.ADVICES),
        ("setrlimit", 0, _OTHER_LIMITS),
        ("prlimit64", 1, _OTHER_LIMITS),
    ):
        for value in values:
            allow(name, (place, _LOW_32_BITS, value))
    allow("prlimit64", (1, _LOW_32_BITS, lists.RLIMIT_CORE), (2, _ALL_64_BITS, 0))  # to ask for it
    for persona in (0, 0xFFFFFFFF):
        allow("personality", (0, _ALL_64_BITS, persona))


def _export(rules: pyseccomp.SyscallFilter) -> bytes:
    descriptor = os.memfd_create("filter", os.MFD_CLOEXEC)
    with open(descriptor, "w+b") as stream:
        rules.export_bpf(stream)
        stream.seek(0)
        return stream.read()
