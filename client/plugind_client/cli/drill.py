"""drill: a harmless hostile plugin against the daemon, and how long it takes until it can do nothing more."""

from __future__ import annotations

import dataclasses

import typer

from plugind_client.cli import words
from plugind_client.cli.problems import CommandError, Exit
from plugind_client.cli.screen import note, print_json, table
from plugind_client.cli.settings import AdminSocketPath, JsonFlag, SocketPath, examples, settled
from plugind_client.findings import DrillStep

STEPS = ("submitted", "started", "detected", "contained", "quarantined", "denied", "cleaned")
"""All of them, in their order: what was not told was not reached."""
_USUAL_REASON = "a drill"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog=examples(
            'plugindctl drill --reason "the monthly one"',
            "plugindctl drill --json | jq '.steps[] | select(.step == \"quarantined\").after_us'",
        )
    )(drill)


def drill(
    context: typer.Context,
    reason: words.Reason = None,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """Attack the daemon harmlessly, and time how it is stopped.

    A plugin of the daemon's own, plugind_drill, is handed in, approved and active, makes one system call that no
    plugin may make and that changes nothing, and has to end, to be quarantined and to be denied. Needs the role admin.
    Exit code 7 when a step did not hold. The daemon cleans up also when this command is interrupted.
    """
    settings = settled(context, as_json, socket, admin_socket)
    told: list[DrillStep] = []
    with settings.admin_client() as client:
        for step in client.drill(_USUAL_REASON if reason is None else reason):
            told.append(step)
            if not settings.as_json:
                note(f"{step.step}: {'ok' if step.ok else 'FAILED'}")
    problems = _problems(told)
    if settings.as_json:
        print_json({"ok": not problems, "steps": [dataclasses.asdict(each) for each in told]})
        if problems:
            raise typer.Exit(Exit.CHECK_FAILED)
        return
    table(("step", "ok", "after", "told"), [_line(each) for each in told])
    if problems:
        raise CommandError(Exit.CHECK_FAILED, "the drill did not hold", problems, code="DRILL_FAILED")
    note("everything held, and nothing of the drill is left but its records")


def _problems(told: list[DrillStep]) -> list[str]:
    """Each step that did not hold, and those that were not reached."""
    failed = [f"{each.step}: {each.text}" for each in told if not each.ok]
    reached = {each.step for each in told}
    return failed + [f"{name}: not reached" for name in STEPS if name not in reached]


def _line(step: DrillStep) -> tuple[str, ...]:
    after = f"{step.after_us / 1000:.1f} ms" if step.after_us else "-"
    return step.step, "ok" if step.ok else "FAILED", after, step.text
