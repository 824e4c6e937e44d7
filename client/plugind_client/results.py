"""What executions of many inputs give: each input's output or error, and what is known of the whole.

Source: SPEC.md, "Client".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, overload

from plugind_client.errors import PlugindError
from plugind_client.records import Governance, PlanFile, RunResult, Usage, Violation

Value = TypeVar("Value")


def _given(value: Value | PlugindError) -> Value:
    """A value, or an error raised: without the traceback of the time before, when it was raised too."""
    if isinstance(value, PlugindError):
        raise value.with_traceback(None)
    return value


class Executed:
    """What is known of one execution as a whole: the fields of a RunResult that has no output of its own."""

    __slots__ = ()
    run: RunResult

    @property
    def governance(self) -> Governance:
        """The governance record."""
        return self.run.governance

    @property
    def usage(self) -> Usage:
        """What all of it used."""
        return self.run.usage

    @property
    def violations(self) -> tuple[Violation, ...]:
        """What the jail refused."""
        return self.run.violations

    @property
    def stdout(self) -> str:
        """Captured, cut at the tier's limit."""
        return self.run.stdout

    @property
    def stderr(self) -> str:
        """The same of standard error."""
        return self.run.stderr

    @property
    def outcome(self) -> str:
        """One of the outcomes of SPEC.md."""
        return self.run.outcome

    @property
    def files(self) -> tuple[PlanFile, ...]:
        """What it wrote into the plan, all of it."""
        return self.run.files

    @property
    def run_id(self) -> str:
        """The execution's id."""
        return self.run.run_id

    @property
    def version(self) -> str:
        """The version that ran."""
        return self.run.version

    @property
    def audit_log(self) -> str:
        """The id of the audit record, such as "log_4001"."""
        return self.run.audit_log


@dataclass(frozen=True, slots=True, eq=False)
class ColumnResult(Sequence[Any]):
    """What came of `Columns`: a value for each row. Indexing a row that failed raises its error."""

    values: Sequence[Any]
    """All of them, failed ones as NaN or None: an array of doubles where all are floats, else a list."""
    errors: dict[int, PlugindError]
    """The rows that failed, ascending: PluginFailed, OutputInvalid, or Denied with INPUT_INVALID."""

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, row: int) -> Any: ...
    @overload
    def __getitem__(self, row: slice) -> list[Any]: ...
    def __getitem__(self, row: int | slice) -> Any:
        if isinstance(row, slice):
            return [self[each] for each in range(*row.indices(len(self)))]
        return _given(self.errors.get(row + len(self) if row < 0 else row, self.values[row]))


@dataclass(frozen=True, slots=True, eq=False)
class MapResult(Executed, Sequence[Any]):
    """What came of each payload of `Client.map`: `result[i]` is the output, or raises that payload's error.

    The output of `Columns` is a ColumnResult, which has errors of its own.
    """

    run: RunResult
    """How the execution as a whole ended."""
    given: tuple[object, ...] = field(repr=False)
    """All outputs, with the errors of those that have none in their places."""

    def __len__(self) -> int:
        return len(self.given)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [_given(each) for each in self.given[index]]
        return _given(self.given[index])

    @property
    def errors(self) -> dict[int, PlugindError]:
        """The payloads that failed: PluginFailed, OutputInvalid, or Denied with INPUT_INVALID."""
        return {index: each for index, each in enumerate(self.given) if isinstance(each, PlugindError)}

    @property
    def outputs(self) -> list[Any]:
        """All outputs; where a payload failed, the first such error is raised."""
        return [_given(each) for each in self.given]


@dataclass(frozen=True, slots=True)
class SessionResult(Executed):
    """How a session ended."""

    run: RunResult
    """The execution; its output is None."""
    answered: int
    """Inputs that reached the plugin and were answered."""
    frames_sha256: str
    """Digest of all inputs and outputs in their order, as SPEC.md defines it; hex."""
    why: str
    """Why it ended well: closed, idle, changed or full. Empty: it did not."""
