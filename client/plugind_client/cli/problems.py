"""Exit codes, and what a person reads when a command does not do what was asked."""

from __future__ import annotations

import enum
import errno
import json
import os
import socket as sockets
import sys
from collections.abc import Sequence

from plugind_client.cli.screen import visible
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
from plugind_client.records import RunResult


class Exit(enum.IntEnum):
    """Exit codes. Source: DESIGN section 10."""

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


def explained(error: PlugindError, socket: str) -> CommandError:
    """An error of the client library in words for a person at a terminal."""
    exit_code = next((code for kind, code in OF_ERROR if isinstance(error, kind)), Exit.FAULT)
    if isinstance(error, InvalidRequest) and error.reasons:  # understood, looked at, and refused
        exit_code = Exit.DENIED
    if error.code == "UNAVAILABLE":
        return CommandError(exit_code, str(error), _why_unreachable(socket, error.detail), code=error.code)
    lines = [" ".join(filter(None, (reason.code, reason.actual, reason.remedy))) for reason in error.reasons]
    return CommandError(exit_code, str(error), lines or ([error.detail] if error.detail else []), code=error.code)


def _why_unreachable(socket: str, detail: str) -> list[str]:
    """What is wrong with the socket, as connect(2) says it, and what to do."""
    start = "start it: `systemctl start plugind`, or as root `plugind serve --standalone --dev --socket PATH`"
    try:
        with sockets.socket(sockets.AF_UNIX) as probe:
            probe.settimeout(1)
            probe.connect(socket)
    except OSError as error:
        said = {
            errno.ENOENT: [f"{socket}: there is no such socket", start],
            errno.ECONNREFUSED: [f"{socket}: nobody listens there", start],
            errno.EACCES: [
                f"{socket}: permission denied for uid {os.getuid()}",
                "a --dev daemon serves only the user who started it; otherwise ask the operator for access",
            ],
        }
        other = [f"{socket}: {error.strerror or error}", "name the daemon's socket with --socket or PLUGIND_SOCKET"]
        return said.get(error.errno or 0, other)
    return [f"{socket}: {detail}", "the daemon is there and cannot serve: `journalctl -u plugind` tells why"]


def tell(error: CommandError, *, as_json: bool) -> None:
    """Prints an error: for people on standard error, with --json as an object on standard output."""
    if as_json:
        told = {"error": {"code": error.code, "message": str(error), "problems": list(error.lines)}}
        print(json.dumps(told, ensure_ascii=False))
        return
    print(f"plugindctl: {visible(str(error))}", file=sys.stderr)
    for line in error.lines:
        print(f"  {visible(line)}", file=sys.stderr)
