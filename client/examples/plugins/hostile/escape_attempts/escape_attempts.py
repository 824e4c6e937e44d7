"""HOSTILE. Tries to get out of the jail.

Input {"attempt": NAME}. NAME is one of the system calls in raw_calls.py, one of the attempts in refusals.py, "refusals"
for all that are answered with an error one after another, or "none".

Expected: a dangerous system call ends the run at once: `violation`. Everything else is answered with an error: `ok`, and
nothing got. The output lists every attempt as {"what", "got", "detail"}.
"""

from __future__ import annotations

import errno
from typing import Any

import raw_calls
import refusals

SPECIAL = {
    "clone_new_user": raw_calls.clone_new_user,
    "x32": raw_calls.x32,
    "int80": raw_calls.int80,
}
# System calls that a library may make by accident, so that they are refused and nobody is killed for it.
REFUSED = (
    "chroot",
    "clone3",
    "clone_new_user",
    "io_uring_setup",
    "name_to_handle_at",
    "perf_event_open",
    "personality",
    "pidfd_getfd",
    "seccomp",
    "settimeofday",
    "syslog",
)

Attempt = dict[str, Any]


def run(payload: dict[str, Any], context: object) -> dict[str, list[Attempt]]:
    """The plugin's entrypoint."""
    name = payload["attempt"]
    if name == "none":
        return {"attempts": []}
    names = [*refusals.ATTEMPTS, *REFUSED] if name == "refusals" else [name]
    return {"attempts": [_refusal(each) if each in refusals.ATTEMPTS else _raw_call(each) for each in names]}


def _raw_call(name: str) -> Attempt:
    worked, detail = SPECIAL[name]() if name in SPECIAL else raw_calls.call(name)
    return {"what": name, "got": worked, "detail": detail}


def _refusal(name: str) -> Attempt:
    try:
        achieved = refusals.ATTEMPTS[name]()
    except OSError as error:
        detail = errno.errorcode.get(error.errno or 0, error.strerror or str(error))
        return {"what": name, "got": False, "detail": detail}
    return {"what": name, "got": bool(achieved), "detail": achieved or "no effect"}
