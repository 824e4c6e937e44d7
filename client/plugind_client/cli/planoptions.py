"""--plan-dir and --send: a run with the files of a plan, which the daemon opens, or which go along and come back."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plugind_client.cli.problems import CommandError, Exit
from plugind_client.errors import NotFound
from plugind_client.planfiles import digest, folder, matches
from plugind_client.records import Permission, RunResult

if TYPE_CHECKING:
    from plugind_client.client import Client

PlanFolder = Annotated[
    Path | None,
    typer.Option(
        "--plan-dir",
        metavar="DIR",
        help="The plan's folder, for a plugin that may read or write files of it.",
        readable=False,  # who may not is told so by the daemon, with the reason
        show_default=False,
    ),
]
SendFlag = Annotated[
    bool,
    typer.Option(
        "--send",
        help="Send its files and put back what comes: where the daemon cannot open it, as from a container.",
    ),
]


def checked(plan_dir: Path | None, *, send: bool) -> None:
    """What can be said before anything is sent.

    Raises:
        CommandError: there is no such folder, or --send has none.
    """
    if plan_dir is None:
        if send:
            raise CommandError(Exit.USAGE, "--send: expected --plan-dir DIR, whose files are sent")
        return
    try:
        is_there = plan_dir.is_dir()
    except PermissionError:
        return  # what it is only the daemon can find out, which asks as the caller
    if not is_there:
        found = "something else" if os.path.lexists(plan_dir) else "no such folder"
        raise CommandError(Exit.USAGE, f"--plan-dir: expected the plan's folder, got {found}: {plan_dir}")


def execute(client: Client, plugin: str, plan_dir: Path | None, *, send: bool, **fields: Any) -> RunResult:
    """A run as `Client.execute`, with its plan.

    Raises:
        CommandError: the files cannot be sent, or put into the folder.
    """
    if plan_dir is None:
        return client.execute(plugin, **fields)
    if not send:
        return client.execute(plugin, plan_dir=plan_dir, **fields)
    granted = _granted(client, plugin, fields.get("version"))
    reads, writes = (list(_patterns(granted, kind)) for kind in ("file_read", "file_write"))
    where = folder(plan_dir) or ""
    from plugind_client.planfolder import PlanProblem, read

    try:
        files = read(where, reads)
        there = read(where, writes, only_good=True) | files
    except PlanProblem as problem:
        raise CommandError(Exit.USAGE, f"--plan-dir: {problem}") from None
    result = client.execute(plugin, files=files, **fields)
    return _put_back(where, result, there, writes)


def _granted(client: Client, plugin: str, version: str | None) -> tuple[Permission, ...]:
    """What was approved for the version, or else what it asks for: the daemon tells what is wrong with it."""
    name, _, wanted = plugin.partition("@")
    try:
        found = client.get(name).version(version or wanted)
    except NotFound:
        return ()
    if found is None:
        return ()
    return found.approval.permissions if found.approval else found.permissions


def _patterns(permissions: tuple[Permission, ...], kind: str) -> Iterator[str]:
    for each in permissions:
        path = json.loads(each.entry_json).get("path") if each.kind == kind else None
        if isinstance(path, str):
            yield path


def _put_back(where: str, result: RunResult, there: dict[str, bytes], writes: list[str]) -> RunResult:
    """The same result, which tells what was replaced here; the daemon knows only of what was sent to it."""
    from plugind_client.planfolder import PlanProblem, put

    contents = {each.path: each.content for each in result.files if each.content is not None}
    if not contents:
        return result
    went_well = f"the run went well ({result.audit_log}), and nothing was written into {where}"
    if stray := [path for path in contents if not matches(path, writes)]:
        message = f"{stray[0]}: expected what a pattern of file_write means; {went_well}"
        raise CommandError(Exit.FAULT, message, code="BAD_ANSWER")
    seen = {path: digest(there[path]) if path in there else "" for path in contents}
    try:
        replaced = put(where, contents, seen)
    except PlanProblem as problem:
        raise CommandError(Exit.DENIED, f"{problem}; {went_well}", code="CONFLICT") from None
    except OSError as error:
        raise CommandError(Exit.DENIED, f"{error}; {went_well}", code="CONFLICT") from None
    files = [
        dataclasses.replace(each, replaced_sha256=replaced[each.path][0], replaced_bytes=replaced[each.path][1])
        for each in result.files
    ]
    return dataclasses.replace(result, files=tuple(files))
