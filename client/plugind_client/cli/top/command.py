"""top: the command."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from plugind_client.cli.problems import CommandError, Exit
from plugind_client.cli.settings import AdminSocketPath, JsonFlag, Settings, SocketPath, examples, settled


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog=examples(
            "plugindctl top", "plugindctl top --interval 5", "plugindctl top --once --json | jq .rates.runs"
        )
    )(top)


def top(
    context: typer.Context,
    interval: Annotated[
        float, typer.Option(metavar="S", min=0.2, max=3600, help="Seconds from one look to the next.")
    ] = 1.0,
    once: Annotated[
        bool, typer.Option("--once", help="Print one frame as tables, or with --json, and end. For scripts.")
    ] = False,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """Watch what runs, waits and is held, and stop it with a key.

    ? shows the keys. Needs the role operator for what others run and for stopping it; with less it shows what it may.
    --once looks twice, an interval apart, so that there are speeds.
    """
    settings = settled(context, as_json, socket, admin_socket)
    if once:
        _print_once(settings, interval)
        return
    if settings.as_json:
        raise CommandError(Exit.USAGE, "--json: expected --once with it")
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):  # it draws on the last one
        raise CommandError(Exit.USAGE, "expected a terminal, got none; for scripts: plugindctl top --once")
    # Textual needs a quarter of a second to load: only who looks waits for it.
    from plugind_client.cli.top.app import TopApp
    from plugind_client.cli.top.source import Source

    TopApp(Source(settings.admin_client()), interval).run()


def _print_once(settings: Settings, interval_s: float) -> None:
    from plugind_client.cli.top import once
    from plugind_client.cli.top.source import Source

    with settings.admin_client() as client:
        source = Source(client)
        before = source.look()
        if before.error is not None:
            raise before.error
        time.sleep(interval_s)
        now = source.look()
    if now.error is not None:
        raise now.error
    once.show(before, now, as_json=settings.as_json)
