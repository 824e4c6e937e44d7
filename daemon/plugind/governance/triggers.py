"""Hard triggers: what one event alone is enough for. Pure: an observation in, anomalies out.

An import ahead counts as a run does: it is the plugin's code that acts. Codes that tell of a decision of people
(KEY_REVOKED, BUNDLE_REVOKED) are none: whoever revoked knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from plugind.governance.observations import Anomaly, Observation
from plugind.model import Outcome, Severity, Violation

_ATTACKS: Final = frozenset(
    """
    bpf delete_module finit_module fsconfig fsmount fsopen fspick init_module ioperm iopl kexec_file_load kexec_load
    mount mount_setattr move_mount open_by_handle_at open_tree open_tree_attr pivot_root process_vm_readv
    process_vm_writev ptrace reboot setns umount2 userfaultfd
    """.split()
)
"""Against the kernel, other processes or the walls of the jail. The other dangerous calls (keyctl, quotactl, unshare
and their like) are what a program asks for that was written for another place."""
_FOREIGN: Final = "("
"""In the name of a call that came by another architecture's entry: "mount (i386)". That is how filters are evaded."""
_HARMLESS_SOCKETS: Final = frozenset({"AF_UNIX", "AF_NETLINK", ""})
"""They lead nowhere outside, and libraries ask for them: syslog and nscd, getifaddrs(3). Empty: not told which."""
_PROBES: Final = {"AF_INET6": 1}
"""So many of a kind are no connection yet: urllib3 asks once, when it is imported, whether there is IPv6."""
_MISMATCHES: Final = ("DIGEST_MISMATCH", "UNLISTED_FILE")
_MOST_NAMED: Final = 5
_MOST_OF_A_PATH: Final = 150
"""Characters."""


def hard(seen: Observation) -> tuple[Anomaly, ...]:
    """All that this event alone is enough for, one of each trigger."""
    found = (trigger(seen) for trigger in _TRIGGERS)
    return tuple(anomaly for anomaly in found if anomaly is not None)


def _dangerous_syscall(seen: Observation) -> Anomaly | None:
    """Whatever the outcome: who is killed, or out of time, at the same moment has made it all the same."""
    calls = [each for each in seen.violations if each.ended_the_run]
    if not calls:
        return None
    severity: Severity = "critical" if any(_is_attack(each.name) for each in calls) else "high"
    return _anomaly(
        seen,
        "dangerous_syscall",
        severity,
        "no system call that no plugin may make",
        f"{_times(calls)}: {_names(calls)}",
        calls=_count(calls),
    )


def _is_attack(name: str) -> bool:
    return name in _ATTACKS or _FOREIGN in name or not name


def _too_many_refused_calls(seen: Observation) -> Anomaly | None:
    """A run that was ended as a violation, though for no call, secret or file: what remains is their number."""
    if seen.outcome is not Outcome.VIOLATION or any(_tells_why(each) for each in seen.violations):
        return None
    calls = [each for each in seen.violations if each.kind == "syscall"]
    return _anomaly(
        seen,
        "too_many_refused_calls",
        "high",
        "no more refused system calls than the tier allows",
        f"{_times(calls)}: {_names(calls)}" if calls else seen.detail or "a violation of which nothing more is known",
        calls=_count(calls),
    )


def _tells_why(each: Violation) -> bool:
    """Whether it alone makes a violation of a run."""
    return each.ended_the_run or each.kind in ("output", "file")


def _undeclared_connection(seen: Observation) -> Anomaly | None:
    peers = [each for each in seen.violations if each.kind == "network"]
    sockets = [] if seen.network or peers else [each for each in seen.violations if _leads_outside(each)]
    if not peers and not sockets:
        return None
    tried = [f"{_times(peers)} to {_names(peers)}"] if peers else []
    tried += (
        [f"{_times(sockets)} to make a socket of {', '.join(each.argument for each in sockets)}"] if sockets else []
    )
    return _anomaly(
        seen,
        "undeclared_connection",
        "high",
        "connections to approved peers only" if peers or seen.network else "no connection: it has no network",
        "; ".join(tried),
        connections=_count(peers),
        sockets=_count(sockets),
    )


def _leads_outside(each: Violation) -> bool:
    if each.kind != "syscall" or each.name != "socket" or each.argument in _HARMLESS_SOCKETS:
        return False
    return each.count > _PROBES.get(each.argument, 0)


def _digest_mismatch(seen: Observation) -> Anomaly | None:
    codes = [code for code in seen.codes if code in _MISMATCHES]
    if seen.outcome is not None or not codes:
        return None
    expected = "the bytes that were submitted, and no file that its manifest does not list"
    return _anomaly(seen, "digest_mismatch", "critical", expected, f"denied with {', '.join(codes)}", codes=len(codes))


def _secret_in_output(seen: Observation) -> Anomaly | None:
    secrets = [each for each in seen.violations if each.kind == "output"]
    if not secrets:
        return None
    expected = "nothing secret that was not in its input"
    return _anomaly(seen, "secret_in_output", "high", expected, f"withheld: {_names(secrets)}", secrets=_count(secrets))


def _undeclared_file(seen: Observation) -> Anomaly | None:
    """What it left in its output folder, where only approved files may be: another path, or a link."""
    files = [each for each in seen.violations if each.kind == "file"]
    if not files:
        return None
    named = [f"{each.name[:_MOST_OF_A_PATH] or 'others'} ({each.detail[:_MOST_OF_A_PATH]})" for each in files]
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    return _anomaly(
        seen,
        "undeclared_file",
        "high",
        "regular files that an approved pattern means",
        f"{_times(files)}: {', '.join(named[:_MOST_NAMED])}{more}",
        files=_count(files),
    )


_TRIGGERS: Final[tuple[Callable[[Observation], Anomaly | None], ...]] = (
    _dangerous_syscall,
    _too_many_refused_calls,
    _undeclared_connection,
    _undeclared_file,
    _digest_mismatch,
    _secret_in_output,
)


def _anomaly(
    seen: Observation, trigger: str, severity: Severity, expected: str, actual: str, **numbers: float
) -> Anomaly:
    shown = {name: float(value) for name, value in numbers.items()}
    return Anomaly(trigger, True, severity, expected, actual, shown, seen)


def _count(found: Iterable[Violation]) -> int:
    return sum(each.count for each in found)


def _times(found: Iterable[Violation]) -> str:
    count = _count(found)
    return "tried once" if count == 1 else f"tried {count} times"


def _names(found: list[Violation]) -> str:
    names = [each.name or "others" for each in found]
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
