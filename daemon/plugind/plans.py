"""The front's part in files of a plan: before a run what it may read, after it what it wrote, all or nothing.

Source: SPEC.md, section "Files of a plan".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from plugind.model import Caller
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
