"""The front's part in files of a plan: before a run what it may read, after it what it wrote, all or nothing.

Source: SPEC.md, section "Files of a plan".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from plugind.audit.records import PlanFile
from plugind.errors import PlanError
from plugind.model import Caller, Code, Reason
from plugind.planfiles import Entry

Task = Literal["read", "stage", "settle", "clean", "compare"]


class PlanFolders(Protocol):
    """What the front needs of plugind.sandbox.client.LauncherClient (and of the link to it) for files of plans."""

    async def plan_work(
        self,
        task: Task,
        plan_dir: str,
        caller: Caller,
        facts: Mapping[str, Any],
        entries: Sequence[Entry] = (),
    ) -> tuple[list[Entry], dict[str, Any]]:
        """Have a plan helper do it, as the caller (pid 0: as the one whom the launcher has known to write there).

        read: facts `read`, `write` (patterns), `read_files`, `read_bytes`. Gives each file that `read` means with
            content and mark, and of each other one that `write` means the mark (or `problem`: a run cannot write it).
            `all`: every file without patterns, except dot files; what nobody takes is told by `problem`.
        stage: facts `run`. Entries are what is to come: content (None with facts `delete`: the file goes), and what is
            expected there now: by `mark` (empty: no file), or by facts `expected_sha256` (empty: no file). Gives for
            each path what is there now, content and mark; content None where there is nothing. PlanError "conflict"
            where it is not what was expected; then nothing is staged. `most_bytes`: of what is there now, together.
        settle: facts `run`, `forward` (bool). Puts what is staged into its place, or gives it up; told again, it says
            the same again. Gives facts `state` ("committed", "undone", or "nothing": there is no staging) and `why`.
        clean: facts `run`. Removes the staging, whose state is decided. Gives facts `kept`: what is kept beside, texts.
        compare: entries are paths; gives what is there now, content (None: nothing) and mark. Facts `most_bytes`.

        Raises PlanError with one of planfiles.PLAN_CODES, LauncherGoneError, IsolationUnavailableError.
        """
        ...


@dataclass(frozen=True, slots=True)
class Opened:
    """What a run has of a plan's files. As it is made: nothing."""

    plan_dir: str = ""
    """Where what it writes goes; empty: back to its caller, who has sent the files."""
    packed: bytes | None = None
    """What it may read (planfiles.pack). None: it may read nothing."""
    files: tuple[PlanFile, ...] = ()
    """The same for the ledger."""
    marks: Mapping[str, str] = field(default_factory=dict)
    """By path, which file was there when the run began, and in which state: of all that it may read or write."""
    writes: tuple[str, ...] = ()
    """The patterns of what it may write."""
    write_files: int = 0
    write_bytes: int = 0
    """Zero: it has no output folder."""
    learns: bool = False
    """Nothing of it is kept: it is to show what it wants."""

    @property
    def of_one_run(self) -> bool:
        """Whether its instance has to be made for it: none that waits has what this one gets."""
        return self.packed is not None or self.write_files > 0


@dataclass(frozen=True, slots=True)
class _Told:
    code: Code
    rule: str
    expected: str
    remedy: str


_LATER: Final = "send it again later"
_TOLD: Final[Mapping[str, _Told]] = {
    "root": _Told(
        Code.PERMISSION_NOT_APPROVED,
        "plans.roots",
        "a plan's folder below one of the policy's plan roots",
        "add the folder above it to `roots` of [plans] in policy.toml, then: plugindctl policy reload",
    ),
    "caller": _Told(
        Code.CALLER_NOT_ALLOWED,
        "plans.caller",
        "the process that connected, which sees the same files as the daemon",
        "send the files with the request (Client.run(files=…)), as from a container",
    ),
    "denied": _Told(
        Code.CALLER_NOT_ALLOWED,
        "plans.denied",
        "a folder, and files in it, that the caller may open",
        "give the caller access to them, or run it as who has it",
    ),
    "open": _Told(Code.INPUT_INVALID, "plans.folder", "a plan's folder that is there", "--plan-dir DIR"),
    "file": _Told(
        Code.INPUT_INVALID,
        "plans.file",
        "regular files with one name, which stay as they are while they are read",
        "replace it by a copy, or move it out of the plan's folder; then send it again",
    ),
    "large": _Told(
        Code.INPUT_TOO_LARGE,
        "plans.large",
        "no more files, and no larger ones, than [files] of the tier's profile allows",
        "approve narrower patterns, or raise read_files or read_bytes in the tier's profile",
    ),
    "deadline": _Told(
        Code.ISOLATION_UNAVAILABLE, "plans.deadline", "a folder that answers", "look at its file system: stat DIR"
    ),
    "busy": _Told(Code.BUSY, "plans.busy", "fewer folders that do not answer", _LATER),
    "conflict": _Told(Code.BUSY, "plans.turn", "a plan that nobody else changes meanwhile", _LATER),
    "fault": _Told(
        Code.ISOLATION_UNAVAILABLE,
        "plans.fault",
        "a plan helper that works",
        "plugindctl doctor; then the daemon's log",
    ),
}
NO_FOLDER: Final = Reason(
    Code.INPUT_INVALID,
    "plans.folder",
    "the plan's folder, as its permissions for files need it",
    "none",
    "--plan-dir DIR",
)
NO_LEARNING: Final = Reason(
    Code.CALLER_NOT_ALLOWED,
    "plans.learn",
    "a development daemon, to learn what a plugin wants",
    "a production daemon",
    "plugindctl try DIR --plan-dir PLAN --learn",
)


def plan_reason(error: PlanError) -> Reason:
    """Why a run does not get the files of its plan."""
    told = _TOLD.get(error.code, _TOLD["fault"])
    return Reason(told.code, told.rule, told.expected, str(error), told.remedy)


def turn_reason(actual: str) -> Reason:
    """Somebody else has the plan."""
    return Reason(Code.BUSY, "plans.turn", "a plan that no other run writes to", actual, _LATER)
