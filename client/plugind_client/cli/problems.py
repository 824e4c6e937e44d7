"""Exit codes, and what a person reads when a command does not do what was asked."""

from __future__ import annotations

import enum
import errno
import os
import shlex
import socket as sockets
from collections.abc import Sequence
from pathlib import Path

from plugind_client.cli.screen import note, print_json
from plugind_client.errors import (
    Canceled,
    Conflict,
    Denied,
    Fault,
    InvalidRequest,
    NotAllowed,
    NotFound,
    PlugindError,
    Unavailable,
)
from plugind_client.records import Reason, RunResult


class Exit(enum.IntEnum):
    """Exit codes. Source: SPEC.md, "Commands"."""

    OK = 0
    PLUGIN_FAILED = 1
    USAGE = 2
    DENIED = 3
    STOPPED = 4
    UNREACHABLE = 5
    FAULT = 6
    CHECK_FAILED = 7


class CommandError(Exception):
    """A command cannot do what was asked. `lines` are further findings, one a line."""

    def __init__(self, exit_code: Exit, message: str, lines: Sequence[str] = (), *, code: str = "USAGE") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.lines = tuple(lines)
        self.code = code


OF_OUTCOME = {
    "ok": Exit.OK,
    "failed": Exit.PLUGIN_FAILED,
    "output_invalid": Exit.PLUGIN_FAILED,
    "timeout": Exit.STOPPED,
    "cpu_exceeded": Exit.STOPPED,
    "out_of_memory": Exit.STOPPED,
    "pids_exceeded": Exit.STOPPED,
    "output_limit": Exit.STOPPED,
    "violation": Exit.STOPPED,
    "killed": Exit.STOPPED,
    "canceled": Exit.STOPPED,
}
_MORE = "ask for more with {} below [limits] in plugin.toml, up to the tier's ceiling, and have that version approved"
REMEDY_OF_OUTCOME = {
    "timeout": f"let it do less, or {_MORE.format('wall_ms')}; --timeout-ms can only lower it",
    "cpu_exceeded": f"let it compute less, or {_MORE.format('cpu_ms')}",
    "out_of_memory": f"let it hold less at a time, or {_MORE.format('memory_bytes')}",
    "pids_exceeded": f"let it start fewer processes and threads, or {_MORE.format('pids')}",
    "output_limit": f"let it write less, or {_MORE.format('output_bytes')}; what it prints has a limit of its own",
    "output_invalid": "mend the plugin, or its output schema",
    "violation": "take the call out of the plugin: no approval allows it",
    "killed": "`plugindctl status` tells whether a kill is in force, and why",
    "fault": "run it again; if it stays so, look at `plugindctl status` and the daemon's own output",
    "unknown": "run it again; the daemon's own output tells why it ended",
}
"""What a person can do about a run that ended so; the other ways to end speak for themselves."""
OF_ERROR: tuple[tuple[type[PlugindError], Exit], ...] = (
    (Unavailable, Exit.UNREACHABLE),
    (Denied, Exit.DENIED),
    (NotFound, Exit.DENIED),
    (NotAllowed, Exit.DENIED),
    (Conflict, Exit.DENIED),
    (Canceled, Exit.STOPPED),
    (InvalidRequest, Exit.USAGE),
    (Fault, Exit.FAULT),
)


def exit_of(result: RunResult) -> Exit:
    """The exit code for the end of a run."""
    if result.decision != "allow":
        return Exit.DENIED
    return OF_OUTCOME.get(result.outcome, Exit.FAULT)


def explained(error: PlugindError, socket: str, *, as_admin: bool = False) -> CommandError:
    """An error of the client library in words for a person at a terminal."""
    exit_code = next((code for kind, code in OF_ERROR if isinstance(error, kind)), Exit.FAULT)
    if isinstance(error, InvalidRequest) and error.reasons:  # understood, looked at, and refused
        exit_code = Exit.DENIED
    if error.code == "UNAVAILABLE":
        return CommandError(
            exit_code, str(error), _why_unreachable(socket, error.detail, as_admin=as_admin), code=error.code
        )
    lines = [line for reason in error.reasons for line in told(reason)]
    if not lines:  # reasons bring their remedies along
        lines = [error.detail] if error.detail else []
        lines += _WHERE_ROLES_ARE if isinstance(error, NotAllowed) else ()
    return CommandError(exit_code, str(error), lines, code=error.code)


def told(reason: Reason) -> list[str]:
    """A reason in one or two lines; the remedy has its own, so that a command in it can be copied."""
    first = found_by(reason)
    return [first, f"  what to do: {reason.remedy}"] if reason.remedy else [first]


def found_by(reason: Reason) -> str:
    """A reason without its remedy, in one line."""
    wanted = f"expected {reason.expected}" if reason.expected else ""
    came = f"got {reason.actual}" if wanted and reason.actual else reason.actual
    rule = f" ({reason.rule})" if reason.rule else ""
    return ": ".join(filter(None, (f"{reason.code}{rule}", ", ".join(filter(None, (wanted, came))))))


_WHERE_ROLES_ARE = (
    "roles are given on the admin socket (--admin-socket, PLUGIND_ADMIN_SOCKET), by the groups of who asks",
    "a daemon that you started with --dev gives you all of them; `plugindctl try` needs such a one",
)
_FOR_MEMBERS = "the admin socket is for root and the members of plugind-operator, plugind-approver and plugind-admin"


def _why_unreachable(socket: str, detail: str, *, as_admin: bool) -> list[str]:
    """What is wrong with the socket, as connect(2) says it, and what to do."""
    start = f"start it: `sudo plugind serve --standalone --dev --socket {shlex.quote(socket)}`"
    name = "or name another daemon's socket with --socket or PLUGIND_SOCKET"
    only = "a --dev daemon serves only the user who started it; otherwise ask the operator for access"
    if as_admin:
        start = "start it: `sudo systemctl start plugind`"
        name = "or name another daemon's socket with --admin-socket or PLUGIND_ADMIN_SOCKET"
        only = _FOR_MEMBERS
    try:
        with sockets.socket(sockets.AF_UNIX) as probe:
            probe.settimeout(1)
            probe.connect(os.path.abspath(socket))  # noqa: PTH100 - as the client does
    except OSError as error:
        said = {
            errno.ENOENT: [f"{socket}: there is no such socket", start, name],
            errno.ECONNREFUSED: [f"{socket}: nobody listens there", start, name],
            errno.ENOTSOCK: [f"{socket}: this is no socket", name.removeprefix("or ")],
            errno.EACCES: [f"{socket}: permission denied for uid {os.getuid()}", only],
        }
        other = [f"{socket}: {error.strerror or error}", name.removeprefix("or ")]
        # The kernel refuses the connection to a file as it does to a socket that nobody has open.
        is_file = error.errno == errno.ECONNREFUSED and not Path(socket).is_socket()
        return said.get(errno.ENOTSOCK if is_file else error.errno or 0, other)
    other_end = "somebody listens there, and not as plugind does: look at the daemon's own output"
    return [f"{socket}: {detail}", *([_FOR_MEMBERS] if as_admin else []), other_end]


def tell(error: CommandError, *, as_json: bool) -> None:
    """Prints an error: for people on standard error, with --json as an object on standard output."""
    if as_json:
        print_json({"error": {"code": error.code, "message": str(error), "problems": list(error.lines)}})
        return
    note(f"plugindctl: {error}")
    for line in error.lines:
        note(f"  {line}")
