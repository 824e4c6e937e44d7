"""What a runner is asked and what it answers, and the reasons that only a run can have. Values only."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Final

from plugind.batch import Answer, Item
from plugind.errors import AuditUnavailableError, InvalidEnvironmentError, IsolationUnavailableError
from plugind.model import Caller, Code, Mode, Outcome, PluginError, Reason, Usage, Violation
from plugind.planfiles import Entry, Written
from plugind.sandbox.protocol import ADDRESSES, KILLED, NAMES
from plugind.turns import Full

MOST_DENIALS: Final = 1024
TOO_MANY_STREAMS: Final = Reason(
    Code.BUSY,
    "api.sessions",
    "fewer sessions, and runs with files, at a time",
    "as many as one caller, or all together, may have",
    "close some, or send it again later",
)
_WHY_BUSY: Final = {
    "waited": "it was not its turn for as long as it could wait",
    "caller": "as many of its caller wait as may",
    "line": "as many wait as may",
}
STOPPING: Final = Reason(
    Code.BUSY, "daemon", "a running daemon", "it is stopping", "send it again when the daemon is up"
)


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a caller wants to run; every field was checked for its form. Empty and zero: not given."""

    caller: Caller
    plugin: str
    version: str
    input: bytes
    """JSON text; of a map its batch; of a session nothing, what there is comes later."""
    stage: str = ""
    plan_id: str = ""
    sensitivity: str = "internal"
    timeout_ms: int = 0
    run_id: str = ""
    mode: Mode = "run"
    items: tuple[Item, ...] = ()
    """Of a map."""
    trial: bool = False
    """Of generated code that starts in quarantine, by an operator and with input made up for it."""
    deadline: float | None = None
    """When the caller stops waiting for the answer, time.monotonic() seconds; None: never."""
    plan_dir: str = ""
    """The plan's folder."""
    files: tuple[Entry, ...] | None = None
    """The plan's files, which the caller has sent, with their contents; None: it has not."""
    learn: bool = False
    """Show what it wants of the plan; nothing of it is kept."""


@dataclass(frozen=True, slots=True)
class Governance:
    """The governance record. Empty and zero where a denial came before it was known."""

    plugin_id: str = ""
    tier: str = ""
    permissions: tuple[str, ...] = ()
    execution_limit_ms: int = 0
    audit_log: str = ""


@dataclass(frozen=True, slots=True)
class Opening:
    """What a plugin tried to open. `place`: plan, output, or elsewhere, where there is nothing for it."""

    path: str
    mode: str
    """read or write."""
    place: str
    found: bool


@dataclass(frozen=True, slots=True)
class RunAnswer:
    """A denial (reasons, no outcome) or how it ended (outcome, no reasons)."""

    run_id: str
    version: str
    governance: Governance
    reasons: tuple[Reason, ...] = ()
    outcome: Outcome | None = None
    detail: str = ""
    output_json: bytes = b""
    usage: Usage = field(default_factory=Usage)
    violations: tuple[Violation, ...] = ()
    stdout: bytes = b""
    stderr: bytes = b""
    error: PluginError | None = None
    items: tuple[Answer, ...] = ()
    """Of a map, one for each of its items."""
    frames_sha256: str = ""
    """Of a session."""
    files: tuple[Written, ...] = ()
    """What it wrote into its plan, or what is sent back."""
    sent: tuple[Entry, ...] = ()
    """What is sent back, with its contents."""
    opened: tuple[Opening, ...] = ()
    """Of a run that was to show what it wants."""
    retry_after_ms: int = 0
    """Of a denial for which there is no place: when it may be worth to ask again. 0: not known."""


class Denials:
    """The last denial of each caller, for `plugindctl why`; of the callers that were denied last."""

    def __init__(self) -> None:
        self._last: OrderedDict[int, tuple[RunRequest, RunAnswer, int]] = OrderedDict()

    def note(self, request: RunRequest, answer: RunAnswer) -> None:
        """It was denied just now."""
        request = replace(request, files=None)  # they are large, and nobody asks for them
        self._last[request.caller.uid] = (request, answer, time.time_ns() // 1_000_000)
        self._last.move_to_end(request.caller.uid)
        if len(self._last) > MOST_DENIALS:
            self._last.popitem(last=False)

    def last(self, caller: Caller) -> tuple[RunRequest, RunAnswer, int] | None:
        """Request, answer, and when (milliseconds since the epoch)."""
        return self._last.get(caller.uid)


def busy_reason(tier: int, full: Full) -> Reason:
    """No place became free in time, or too many wait for one."""
    return Reason(
        Code.BUSY,
        f"tier.{tier}.instances",
        expected=f"at most {full.capacity} instances at a time",
        actual=f"one more, and {_WHY_BUSY[full.why]} ({full.waiting} waiting)",
        remedy=f"send it again later, best in {full.retry_after_ms / 1000:g} s, or raise instances in"
        f" profiles/tier{tier}.toml",
    )


def audit_reason(error: AuditUnavailableError) -> Reason:
    """The ledger cannot be written."""
    return Reason(
        Code.AUDIT_UNAVAILABLE,
        "audit.intent",
        expected="a ledger that can be written",
        actual=str(error),
        remedy="free the disk or put the segment back, then restart plugind",
    )


def environment_reason(name: str, error: InvalidEnvironmentError) -> Reason:
    """The packages that a version needs are not there."""
    return Reason(
        Code.ISOLATION_UNAVAILABLE,
        "environment",
        expected=f"the environment {name}, built on this machine",
        actual=str(error),
        remedy=f"sudo plugindctl environment build {name} --lock requirements.lock",
    )


def isolation_reason(error: IsolationUnavailableError) -> Reason:
    """A step of the jail failed, or root has killed it offline."""
    if error.step == KILLED:
        return Reason(
            Code.KILLED,
            "launcher.latch",
            expected="a plugin that is not killed",
            actual=str(error),
            remedy="sudo plugindctl kill --lift TARGET --offline --reason TEXT",
        )
    if error.step == ADDRESSES:
        return Reason(
            Code.PERMISSION_NOT_APPROVED,
            "network.addresses",
            expected="public addresses; a private one only where its range is allowed and it was approved as such",
            actual=str(error),
            remedy="approve the address itself, with its port, beside the name; its range goes into `private` of the"
            " tier's profile ([network])",
        )
    if error.step == NAMES:
        return Reason(
            Code.ISOLATION_UNAVAILABLE,
            "network.names",
            expected="an address for each name that was approved",
            actual=str(error),
            remedy="ask the name server yourself: getent ahosts NAME; another one: `nameservers` in plugind.toml",
        )
    return Reason(
        Code.ISOLATION_UNAVAILABLE,
        f"jail.{error.step}",
        expected="every step of the jail works",
        actual=str(error),
        remedy="plugindctl doctor",
    )
