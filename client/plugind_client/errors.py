"""Typed errors of the client. `str(error)` is one fixed sentence per code; all detail is in attributes.

The sentences are fixed because PlanExe classifies errors by substrings: what a plugin or a daemon wrote must never
look like a condition of somebody else's service. Source: SPEC.md, "Client".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from plugind_client.records import Governance, PluginException, Reason, RunResult, Usage, Violation

DENIALS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "CALLER_NOT_ALLOWED": "The caller is not allowed to run this plugin.",
        "PLUGIN_NOT_FOUND": "plugind knows no such plugin or version.",
        "NOT_SIGNED": "The plugin is not signed.",
        "BAD_SIGNATURE": "A signature of the plugin is not valid.",
        "THRESHOLD_NOT_MET": "Too few valid signatures stand behind the plugin.",
        "DIGEST_MISMATCH": "The stored plugin differs from what was verified.",
        "UNLISTED_FILE": "The bundle holds a file that its manifest does not list.",
        "ATTESTATION_EXPIRED": "A signed statement about the plugin has expired.",
        "KEY_REVOKED": "A key that signed the plugin was revoked.",
        "BUNDLE_REVOKED": "The plugin was revoked.",
        "SEQUENCE_ROLLBACK": "A newer build of the plugin was already seen.",
        "TRUST_STALE": "The trust data of plugind is out of date.",
        "NOT_APPROVED": "The plugin is not approved.",
        "APPROVAL_EXPIRED": "The approval of the plugin has expired.",
        "PERMISSION_NOT_APPROVED": "The plugin declares a permission that is not approved.",
        "STAGE_NOT_ALLOWED": "The plugin is not approved for this stage.",
        "TIER_NOT_ALLOWED": "The policy does not allow a plugin of this tier here.",
        "SENSITIVITY_TOO_HIGH": "The plan is too sensitive for this plugin.",
        "LIMIT_ABOVE_CEILING": "A limit is above what the tier may have.",
        "QUARANTINED": "The plugin is in quarantine.",
        "KILLED": "The kill switch keeps the plugin from running.",
        "SUSPENDED": "The plugin is suspended.",
        "REVALIDATION_REQUIRED": "The plugin has to be validated again before it may run.",
        "INPUT_INVALID": "The input does not fit the input schema of the plugin.",
        "INPUT_TOO_LARGE": "The input is larger than the tier allows.",
        "AUDIT_UNAVAILABLE": "plugind runs nothing because it cannot write its audit ledger.",
        "ISOLATION_UNAVAILABLE": "plugind did not run the plugin because its jail could not be set up.",
        "BUSY": "Every place for plugins of this tier is taken.",
        "POLICY_ERROR": "The policy could not be evaluated, so the run was denied.",
    }
)
"""Sentence of each reason code: the plugin never ran."""

OUTCOMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "failed": "The plugin failed.",
        "timeout": "The plugin was stopped at its wall-clock limit.",
        "cpu_exceeded": "The plugin was stopped at its limit of CPU time.",
        "out_of_memory": "The plugin was stopped at its memory limit.",
        "pids_exceeded": "The plugin was stopped at its limit of processes.",
        "output_limit": "The plugin was stopped because it wrote more than it may.",
        "output_invalid": "The plugin gave a result that is not valid.",
        "violation": "The plugin was stopped because it did what its jail forbids.",
        "killed": "The run was stopped by the kill switch.",
        "canceled": "The run was canceled.",
        "fault": "The run ended by a fault of plugind.",
        "unknown": "How the run ended is not known.",
    }
)
"""Sentence of each outcome other than ok."""

CALLS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "UNAVAILABLE": "plugind cannot be reached.",
        "NO_ANSWER": "plugind did not answer within the time that it was given.",
        "INVALID_REQUEST": "plugind does not accept the request.",
        "INVALID_SOURCE": "The source code cannot be made into a plugin.",
        "PAYLOAD_NOT_JSON": "The payload cannot be written as JSON.",
        "REQUEST_TOO_LARGE": "The request is larger than plugind accepts.",
        "NOT_FOUND": "plugind knows nothing under that name.",
        "NOT_ALLOWED": "The role of the caller does not allow this.",
        "CONFLICT": "The request contradicts what plugind has stored.",
        "SESSION_OVER": "plugind has ended the session.",
        "UNSUPPORTED": "This plugind does not offer the call.",
        "BAD_ANSWER": "The answer of plugind cannot be understood.",
        "FAULT": "plugind has a fault.",
    }
)
"""Sentence of each way a call can fail apart from the run itself."""

UNKNOWN_CODE: Final = "plugind reported a condition that this client does not know."
RETRYABLE: Final = frozenset(
    {"UNAVAILABLE", "NO_ANSWER", "SESSION_OVER", "BUSY", "ISOLATION_UNAVAILABLE", "fault", "unknown"}
)
"""Codes where the same call may pass later although nobody does anything: a place becomes free, or what died is started
again. Everything else takes a person first: somebody who approves, signs, lifts a hold or frees the ledger's disk."""


def sentence(code: str) -> str:
    """The fixed sentence of a code."""
    return DENIALS.get(code) or OUTCOMES.get(code) or CALLS.get(code) or UNKNOWN_CODE


class PlugindError(Exception):
    """Base of all errors of this client. They survive pickling, so they may cross process borders."""

    def __init__(
        self,
        code: str,
        *,
        detail: str = "",
        reasons: tuple[Reason, ...] = (),
        result: RunResult | None = None,
    ) -> None:
        super().__init__(sentence(code))
        self.code = code
        """Reason code, outcome, or a key of CALLS."""
        self.retryable = {code, *(reason.code for reason in reasons)} <= RETRYABLE
        """Whether the same call may pass later although nobody does anything: all of its reasons pass by themselves."""
        self.detail = detail
        """What exactly happened, for people and logs; free text."""
        self.reasons = reasons
        """All reasons of a denial or refusal."""
        self.result = result
        """The whole answer, where there was one."""

    def __reduce__(self) -> tuple[object, ...]:
        """Keyword arguments need help to survive pickling (and copy). Notes and what else was set on it come along."""
        return _restored, (type(self), self.code), vars(self)

    @property
    def audit_log(self) -> str:
        """The id of the run's audit record; empty where no run was recorded."""
        return self.result.audit_log if self.result else ""

    @property
    def governance(self) -> Governance | None:
        """The governance record of the run, where there was one."""
        return self.result.governance if self.result else None

    @property
    def retry_after_ms(self) -> int:
        """When the same call may be worth making again, as the daemon estimates it, milliseconds. 0: not known."""
        return self.result.retry_after_ms if self.result else 0

    @property
    def usage(self) -> Usage | None:
        """What the run used, where there was one."""
        return self.result.usage if self.result else None

    @property
    def violations(self) -> tuple[Violation, ...]:
        """What the jail refused during the run."""
        return self.result.violations if self.result else ()

    @property
    def stdout(self) -> str:
        """Standard output of the plugin."""
        return self.result.stdout if self.result else ""

    @property
    def stderr(self) -> str:
        """Standard error of the plugin."""
        return self.result.stderr if self.result else ""


def _restored(kind: type[PlugindError], code: str) -> PlugindError:
    return kind(code)


class Denied(PlugindError):  # noqa: N818 - the names are the contract's (SPEC.md), here and below
    """The plugin never ran. `code` is the first of `reasons`, which are all that apply."""


class PluginFailed(PlugindError):  # noqa: N818
    """The plugin ran and failed: it raised, or it ended without a result."""

    exception: PluginException | None = None
    """What one input of many raised; `result` is then that of the whole."""

    @property
    def _raised(self) -> PluginException:
        return self.exception or (self.result and self.result.error) or PluginException("", self.detail, "")

    @property
    def type(self) -> str:
        """Class name of the exception, such as "ZeroDivisionError"; empty when it did not raise."""
        return self._raised.type

    @property
    def message(self) -> str:
        """Text of the exception, or how the plugin ended."""
        return self._raised.message

    @property
    def traceback(self) -> str:
        """Traceback of the plugin's own frames."""
        return self._raised.traceback


class LimitExceeded(PlugindError):  # noqa: N818
    """The plugin was stopped at a limit; `code` tells which, such as timeout or out_of_memory."""


class OutputInvalid(PlugindError):  # noqa: N818
    """The plugin's result was not exactly one valid frame, no strict JSON, or broke its output schema."""


class Violated(PlugindError):  # noqa: N818
    """The plugin did what the jail forbids and was stopped; see `violations`."""


class Killed(PlugindError):  # noqa: N818
    """The kill switch stopped the run."""


class Canceled(PlugindError):  # noqa: N818
    """The run was canceled."""


class SessionOver(PlugindError):  # noqa: N818
    """The daemon ended a session well, without being asked: nothing is wrong with plugin or input.

    `retryable` tells whether the input that met it never reached the plugin: then it can go to another session.
    """

    why: str = ""
    """idle, changed (policy or registry) or full; empty where it is not known."""
    results: Sequence[Any] = ()
    """Of `Session.call_many`: what came of the inputs that were answered before."""


class Fault(PlugindError):  # noqa: N818
    """plugind itself failed, or answered what cannot be understood."""


class Unavailable(PlugindError):  # noqa: N818
    """No daemon answers on the socket."""


class InvalidRequest(PlugindError):  # noqa: N818
    """The request cannot be understood: bad arguments, a payload that is no JSON, a bundle that is invalid."""


class InvalidSource(InvalidRequest):
    """Source code that cannot be made into a plugin: `detail` is where (line:column), what was expected, what came."""


class NotFound(PlugindError):  # noqa: N818
    """No such plugin, version or run."""


class NotAllowed(PlugindError):  # noqa: N818
    """The caller's role does not allow the call."""


class Conflict(PlugindError):  # noqa: N818
    """The request contradicts what is stored: other bytes under the same version, a state that does not fit."""


BY_OUTCOME: Final[Mapping[str, type[PlugindError]]] = MappingProxyType(
    {
        "failed": PluginFailed,
        "timeout": LimitExceeded,
        "cpu_exceeded": LimitExceeded,
        "out_of_memory": LimitExceeded,
        "pids_exceeded": LimitExceeded,
        "output_limit": LimitExceeded,
        "output_invalid": OutputInvalid,
        "violation": Violated,
        "killed": Killed,
        "canceled": Canceled,
        "fault": Fault,
        "unknown": Fault,
    }
)


def error_of(result: RunResult) -> PlugindError | None:
    """The error that says how a run ended, or None when it ended well."""
    if result.ok:
        return None
    if result.decision != "allow":
        return denied(result.reasons, result)
    kind = BY_OUTCOME.get(result.outcome, Fault)
    return kind(result.outcome, detail=result.outcome_detail, result=result)


def denied(reasons: tuple[Reason, ...], result: RunResult) -> Denied:
    """The error that tells reasons: of a run, or of one input to it."""
    code = reasons[0].code if reasons else "POLICY_ERROR"
    return Denied(code, detail="; ".join(_told(reason) for reason in reasons), reasons=reasons, result=result)


def _told(reason: Reason) -> str:
    """A reason in one line: code (rule): expected …, got …."""
    parts = [f"expected {reason.expected}" if reason.expected else "", f"got {reason.actual}" if reason.actual else ""]
    told = ", ".join(part for part in parts if part)
    return f"{reason.code} ({reason.rule})" + (f": {told}" if told else "")
