"""audit restore and impact: putting back what runs replaced in plans, and seeing what a version has touched."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Final

import typer

from plugind_client.cli import words
from plugind_client.cli.problems import CommandError, Exit
from plugind_client.cli.screen import note, one_line, print_json, show_lines, table
from plugind_client.cli.settings import AdminSocketPath, JsonFlag, SocketPath, examples, settled

if TYPE_CHECKING:
    from plugind_client.audit import Audit
    from plugind_client.undo import Impact, RestoredFile, RestoredRun

_COLOURS: Final = {"+": "green", "-": "red", "@": "cyan", "\\": "cyan"}
_DIGEST_CHARS: Final = 16
"""Of a digest, to tell files apart by; --json has all of it."""

PluginOption = Annotated[
    str,
    typer.Option(
        "--plugin", metavar="PLUGIN[@V]", help="Instead of log_N: all of its runs since WHEN.", show_default=False
    ),
]


def register(audit: typer.Typer) -> None:
    """Adds the commands."""
    audit.command(
        epilog=examples(
            "plugindctl audit restore log_4001 --dry-run",
            'plugindctl audit restore log_4001 --reason "the totals are wrong"',
            'plugindctl audit restore log_4001 --force --reason "the totals are wrong"',
            "plugindctl audit restore --plugin cost_breakdown@1.2.0 --since 2h --dry-run",
            'plugindctl audit restore --plugin cost_breakdown@1.2.0 --since 2h --reason "1.2.0 is broken"',
        )
    )(restore)
    audit.command(
        epilog=examples(
            "plugindctl audit impact cost_breakdown@1.2.0",
            "plugindctl audit impact cost_breakdown --since 2026-01-31T12:00 --json | jq -r '.plans[].plan_dir'",
        )
    )(impact)


def restore(
    context: typer.Context,
    log_id: Annotated[
        str, typer.Argument(metavar="log_N", help="A run, or what undid one, to be undone.", show_default=False)
    ] = "",
    plugin: PluginOption = "",
    since: words.Since = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Put it back although a file was changed since; that is kept beside it.")
    ] = False,
    reason: words.Reason = None,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """Put back what a run replaced in a plan, as a whole or not at all.

    A file that was changed since keeps its run from being undone: what differs is shown, and the exit code is 7. What
    undid a run is a record too, and can be undone.
    """
    settings = settled(context, as_json, socket, admin_socket)
    if bool(log_id) == bool(plugin):
        raise CommandError(Exit.USAGE, "expected log_N, or --plugin PLUGIN[@V] with --since WHEN")
    if bool(plugin) != bool(since):
        raise CommandError(
            Exit.USAGE, "expected --since WHEN with --plugin, and only there: it says how much is undone"
        )
    when, why = words.moment_ms(since) if since else 0, "" if dry_run else words.reason(reason)
    name, version = words.plugin_perhaps_version(plugin)
    with settings.admin_client() as client:
        audit: Audit = client.audit
        if log_id:
            runs = audit.restore(log_id, why, dry_run=dry_run, force=force)
        else:
            runs = audit.restore_all(name, version, since_unix_ms=when, reason=why, dry_run=dry_run, force=force)
    if settings.as_json:
        print_json({"ok": _exit_of(runs) is Exit.OK, "runs": [dataclasses.asdict(run) for run in runs]})
    else:
        _print_runs(runs, force=force)
    if code := _exit_of(runs):
        raise typer.Exit(code)


def _exit_of(runs: Iterable[RestoredRun]) -> Exit:
    """What is worst decides."""
    states = {run.state for run in runs}
    if "failed" in states:
        return Exit.FAULT
    return Exit.CHECK_FAILED if "conflict" in states else Exit.OK


def _print_runs(runs: tuple[RestoredRun, ...], *, force: bool) -> None:
    if not runs:
        note("there is nothing to undo")
        return
    headings = ("run", "plugin", "plan", "folder", "what", "record")
    rows = [
        (run.log_id, run.label, run.plan_id, run.plan_dir, run.state.replace("_", " "), run.audit_log) for run in runs
    ]
    table(headings, rows)
    if files := [(run, file) for run in runs for file in run.files]:
        print()
        table(("run", "file", "what"), [(run.log_id, file.path, _what(run, file)) for run, file in files])
    differences = [file.difference for _, file in files if file.difference]
    for difference in differences:
        print()
        show_lines(_coloured(difference))
    _tell(runs, force=force)


def _tell(runs: tuple[RestoredRun, ...], *, force: bool) -> None:
    """What a person may want to know next."""
    for run in runs:
        if run.detail:
            note(f"{run.log_id}: {run.detail}")
    done = [run for run in runs if run.state == "restored"]
    changed = [run for run in runs if run.state == "conflict" and not any(file.problem for file in run.files)]
    if changed and force:
        note("somebody wrote while it was put back: try it again")
    elif changed:
        note("--force puts back all the same, and keeps what is there now beside it")
    if len(done) == 1:
        note(f"`plugindctl audit restore {done[0].audit_log} --reason TEXT` undoes this again")


def _what(run: RestoredRun, file: RestoredFile) -> str:
    """What was, or would be, done with a file; or what keeps it from being done."""
    if run.state in ("restored", "would_restore"):
        would = "would be " if run.state == "would_restore" else ""
        comes = f"{would}put back" if file.restored_sha256 else f"{would}removed, as it was not there before"
        if file.found_sha256 == file.restored_sha256:
            comes = "is as it was before"
        return comes + (f"; what was there is kept as {file.kept_as}" if file.kept_as else "")
    if file.problem:
        return f"is a {file.problem} now"
    if file.unchanged:
        return "is as the run left it"
    if file.found_sha256 == file.restored_sha256:
        return "is as it was before the run"
    return "was changed since" if file.found_sha256 else "was removed since"


def _coloured(difference: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(difference.removesuffix("\n").split("\n")):
        # Its first two lines name both sides: they begin as a line that went or came does.
        yield line, "bold" if number < 2 else _COLOURS.get(line[:1], "")


def impact(
    context: typer.Context,
    plugin: Annotated[str, typer.Argument(metavar="PLUGIN[@V]", help="Name or id; without V all of its versions.")],
    since: words.Since = "",
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """Show what a plugin has read and written in plans, the newest first."""
    settings = settled(context, as_json, socket, admin_socket)
    name, version = words.plugin_perhaps_version(plugin)
    when = words.moment_ms(since) if since else 0
    with settings.admin_client() as client:
        found = client.audit.impact(name, version, since_unix_ms=when)
    if settings.as_json:
        print_json(dataclasses.asdict(found))
    else:
        _print_impact(found)


def _print_impact(found: Impact) -> None:
    if not found.plans:
        note("there are no such runs")
        return
    rows = [
        (plan.plan_id, plan.plan_dir, ", ".join(plan.versions), str(plan.runs), words.moment(plan.last_unix_ms))
        for plan in found.plans
    ]
    table(("plan", "folder", "versions", "runs", "last"), rows)
    files = [(plan, file) for plan in found.plans for file in plan.files]
    if files:
        print()
        table(
            ("plan", "file", "what", "run", "bytes", "sha256"),
            [
                (plan.plan_id, file.path, file.state, file.log_id, str(file.bytes), file.sha256[:_DIGEST_CHARS])
                for plan, file in files
            ],
        )
    for plan in found.plans:
        if plan.files_left_out:
            note(one_line(f"{plan.plan_id}: {plan.files_left_out} more files are not shown"))
    if found.plans_left_out:
        note(f"{found.plans_left_out} older plans are not shown; ask for those --since a later time")
