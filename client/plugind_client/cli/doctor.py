"""doctor: what this machine has of what the jails need."""

from __future__ import annotations

import dataclasses

import typer

from plugind_client.cli import adapters
from plugind_client.cli.problems import Exit
from plugind_client.cli.screen import note, print_json, table
from plugind_client.cli.settings import JsonFlag, SocketPath, examples, settled


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(epilog=examples("plugindctl doctor", "plugindctl doctor --json | jq '.checks[] | select(.ok | not)'"))(
        doctor
    )


def doctor(context: typer.Context, as_json: JsonFlag = False, socket: SocketPath = None) -> None:
    """Check whether this machine has what the jails of each tier need.

    Needs no daemon. Exit code 7 when something is missing.
    """
    settings = settled(context, as_json, socket)
    checks = adapters.machine_checks()
    ok = all(check.ok for check in checks)
    if settings.as_json:
        print_json({"ok": ok, "checks": [dataclasses.asdict(check) for check in checks]})
    else:
        rows = [
            ("ok" if check.ok else "MISSING", check.name, check.found, ", ".join(map(str, check.tiers)), check.remedy)
            for check in checks
        ]
        table(("", "what", "found", "for tiers", "what to do"), rows)
        note("all that the jails need is there" if ok else "not all that the jails need is there")
    raise typer.Exit(Exit.OK if ok else Exit.CHECK_FAILED)
