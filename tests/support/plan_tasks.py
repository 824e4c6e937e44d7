"""What plan helpers do in tests of who does it, and when: a few things that a file says who asks for, and no journal."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from plugind.errors import PlanError
from plugind.planfiles import Entry, pack, unpack


def perform(task: str, root: str, plan_dir: str, order: bytes) -> bytes:
    """As plugind.sandbox.plans.helper.Perform. The order's facts say what to do in place of the task: `do`."""
    entries, facts = unpack(order, 1000, 1 << 30)
    return DOES.get(facts.get("do", task), nothing)(Asked(root, plan_dir, entries, facts))


@dataclass
class Asked:
    root: str
    plan_dir: str
    entries: list[Entry]
    facts: dict[str, Any]


def nothing(asked: Asked) -> bytes:
    return pack([])


def read(asked: Asked) -> bytes:
    return pack(_files(asked.plan_dir))


def read_after_a_moment(asked: Asked) -> bytes:
    time.sleep(asked.facts["s"])
    return read(asked)


def stage(asked: Asked) -> bytes:
    for entry in asked.entries:
        Path(asked.plan_dir, entry.path).write_bytes(entry.content or b"")
    return pack([])


def who(asked: Asked) -> bytes:
    return pack([], _who(asked.root))


def conflict(asked: Asked) -> bytes:
    raise PlanError("conflict", f"{asked.plan_dir}: somebody else was here")


def fail(asked: Asked) -> bytes:
    raise RuntimeError("a mistake of ours")


def odd_code(asked: Asked) -> bytes:
    raise PlanError("odd", "no such code")


def long_words(asked: Asked) -> bytes:
    raise PlanError("file", "\U0001f600" * 5000)


def leave(asked: Asked) -> bytes:
    os._exit(3)


def die(asked: Asked) -> bytes:
    os.kill(os.getpid(), signal.SIGSEGV)
    return b""


def stop(asked: Asked) -> bytes:
    os.kill(os.getpid(), signal.SIGSTOP)
    return b""


def sleep(asked: Asked) -> bytes:
    time.sleep(60)
    return b""


def burn(asked: Asked) -> bytes:
    while True:
        pass


def eat(asked: Asked) -> bytes:
    return bytes(8 << 30)


DOES: Final = {
    each.__name__.replace("_", " "): each
    for each in (
        *(read, stage, who, conflict, fail, odd_code, long_words, leave, die, stop, sleep, burn, eat),
        read_after_a_moment,
    )
}


def _files(plan_dir: str) -> list[Entry]:
    try:
        names = sorted(os.listdir(plan_dir))
        return [Entry(name, Path(plan_dir, name).read_bytes()) for name in names]
    except PermissionError as error:
        raise PlanError("denied", f"{plan_dir}: {error.strerror}") from error
    except FileNotFoundError as error:
        raise PlanError("open", f"{plan_dir}: {error.strerror}") from error


def _who(root: str) -> dict[str, object]:
    status = Path("/proc/self/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    names = ("Name", "Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb", "NoNewPrivs")
    limits = {
        name: resource.getrlimit(getattr(resource, name))
        for name in ("RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_CORE")
    }
    opened = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            opened[name] = str(Path(f"/proc/self/fd/{name}").readlink())
        except FileNotFoundError:
            pass  # the one that lists them
    return {
        "root": root,
        "status": {name: fields[name].split() for name in names},
        "limits": json.loads(json.dumps(limits)),
        "open": opened,
        "cwd": str(Path.cwd()),
        "dumpable": _prctl(3),
        "dies_with_parent": _death_signal(),
        "ppid": os.getppid(),
        "oom_score_adj": Path("/proc/self/oom_score_adj").read_text().strip(),
    }


def _prctl(option: int) -> int:
    from plugind.linux import syscalls

    return syscalls.prctl(option)


def _death_signal() -> int:
    import ctypes

    number = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(number))
    return number.value
