"""Step 10 of a run's life: from what an instance left behind to what may be believed of it; and step 6 of a map's."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from plugind import batch, leaks
from plugind.answers import RunRequest
from plugind.model import Code, Limits, Outcome, Profile, Reason, Usage, Violation
from plugind.payload import Checked, Contract, output_problem
from plugind.sandbox.running import InstanceResult
from plugind.session import Conversation

_MOST_REASONS = 10
_LARGE_BYTES: Final = 1024 * 1024
_NOT_ITS_DOING: Final = frozenset({Outcome.KILLED, Outcome.CANCELED, Outcome.FAULT, Outcome.UNKNOWN})


def check_batch(contract: Contract, request: RunRequest, profile: Profile) -> Checked:
    """The items of a map: which are refused, or why all of it is."""
    if len(request.input) > profile.input_bytes:
        reason = Reason(
            Code.INPUT_TOO_LARGE,
            f"tier.{profile.tier}.input_bytes",
            expected=f"at most {profile.input_bytes} bytes",
            actual=f"{len(request.input)} bytes in {len(request.items)} items",
            remedy="send fewer items at a time",
        )
        return Checked((reason,))
    refused = batch.check(contract, request.items, profile.input_bytes, profile.tier)
    if len(refused) == len(request.items) or batch.too_many(refused):
        return Checked(tuple(reason for reasons in refused.values() for reason in reasons)[:_MOST_REASONS])
    return Checked(refused=refused)


@dataclass(frozen=True, slots=True)
class Given:
    """What a plugin was given, and may give out again."""

    input: bytes | bytearray
    files: bytes = b""
    """Of its plan, packed."""

    def leaked(self, text: bytes | bytearray) -> str:
        """The kind of a secret in there that is not in what was given; empty: none."""
        kind = leaks.found(text, self.input)
        if kind and self.files:  # put together only when there is something to look for: they may be large
            kind = leaks.found(text, b"%s\n%s" % (self.input, self.files))
        return kind


def run_result(
    contract: Contract, checked: Checked, result: InstanceResult, max_bytes: int, given: Given
) -> InstanceResult:
    """The result, or output_invalid for one that is not strict JSON or breaks the output schema."""
    result = without_secrets(result, given)
    if result.outcome is not Outcome.OK:
        return replace(result, output_json=None)
    problem = output_problem(contract, result.output_json or b"", max_bytes, checked.calls)
    if not problem:
        return result
    return replace(result, outcome=Outcome.OUTPUT_INVALID, detail=problem, output_json=None)


def is_large(result: InstanceResult) -> bool:
    """Whether to look at it takes so long that nobody else may wait for it."""
    return len(result.output_json or b"") + len(result.stdout) + len(result.stderr) > _LARGE_BYTES


def map_result(
    contract: Contract, items: Sequence[batch.Item], checked: Checked, result: InstanceResult, given: Given
) -> tuple[InstanceResult, tuple[batch.Answer, ...]]:
    """The result with what came of each item, or output_invalid for what are not the results of these items."""
    result = without_secrets(result, given)
    if result.outcome is not Outcome.OK:
        return replace(result, output_json=None), ()
    try:
        return result, tuple(batch.decode(contract, items, checked.refused, result.output_json or b""))
    except batch.InvalidBatchError as error:
        return replace(result, outcome=Outcome.OUTPUT_INVALID, detail=str(error), output_json=None), ()


def session_result(conversation: Conversation, result: InstanceResult, wall_ms: int) -> InstanceResult:
    """The result, with the limit of one input where it was that which was hit. Its answers were looked at before."""
    result = without_secrets(result, Given(conversation.transcript, conversation.files))
    if conversation.leaked:
        return leaked(result, conversation.leaked)
    if result.outcome is Outcome.TIMEOUT and conversation.timed_out:
        return replace(result, detail=f"wall clock: more than {wall_ms} ms for one input")
    return result


def without_secrets(result: InstanceResult, given: Given) -> InstanceResult:
    """The result; a violation without any of its texts where one of them carries a secret that was not in its input.

    Whatever its outcome: who raises after he has printed has given it out too.
    """
    error = result.error
    texts = [result.output_json or b"", result.stdout, result.stderr]
    if error is not None:
        texts.append(f"{error.type}\n{error.message}\n{error.traceback}".encode())
    kind = next(filter(None, map(given.leaked, texts)), "")
    return leaked(result, kind) if kind else result


def leaked(result: InstanceResult, kind: str) -> InstanceResult:
    """What is left of a result that carries a secret: nothing that the plugin has written."""
    ended_by_others = result.outcome in _NOT_ITS_DOING
    return replace(
        result,
        outcome=result.outcome if ended_by_others else Outcome.VIOLATION,
        detail=result.detail if ended_by_others else f"gave out a secret that was not in its input: {kind}; withheld",
        output_json=None,
        error=None,
        stdout=b"",
        stderr=b"",
        wrote=(),
        violations=(*result.violations, Violation("output", kind, 1, "withheld")),
    )


def within(limits: Limits, deadline: float | None) -> Limits:
    """The limits, with no more wall clock than the caller waits; 0 where it waits no more."""
    if deadline is None:
        return limits
    left_ms = math.ceil(max(0.0, deadline - time.monotonic()) * 1000)
    return replace(limits, wall_ms=min(limits.wall_ms, left_ms))


def at_deadline(result: InstanceResult) -> InstanceResult:
    """The result of an instance whose wall clock was cut to what its caller waits: using that up is no timeout."""
    if result.outcome is not Outcome.TIMEOUT:
        return result
    return replace(result, outcome=Outcome.CANCELED, detail="the caller's deadline passed while it ran")


def without_result(outcome: Outcome, detail: str) -> InstanceResult:
    """How a run ended of which there is nothing but that."""
    return InstanceResult(outcome, detail, None, None, b"", b"", Usage(), ())
