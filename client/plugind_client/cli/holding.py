"""suspend, resume and kill: what must not run, from now on."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated

import typer

from plugind_client.cli import offline_kill, words
from plugind_client.cli.problems import CommandError, Exit
from plugind_client.cli.screen import note, print_json
from plugind_client.cli.settings import AdminSocketPath, JsonFlag, Settings, SocketPath, examples, settled
from plugind_client.records import Hold, KillReport

Target = Annotated[str, typer.Argument(metavar="TARGET", help="NAME, NAME@V, plug_N, plug_N@V or a sha256.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(epilog=examples("plugindctl suspend cost_rollup --reason maintenance"))(suspend)
    app.command(epilog=examples("plugindctl resume cost_rollup --reason done"))(resume)
    app.command(
        epilog=examples(
            'plugindctl kill cost_rollup --reason "wrong sums"',
            "plugindctl kill all --reason incident",
            "plugindctl kill --lift cost_rollup --reason mended",
            'plugindctl kill all --offline --reason "the daemon hangs"',
        )
    )(kill)


def suspend(
    context: typer.Context,
    target: Target,
    reason: words.Reason = None,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """Let something not start any more; what runs of it goes on."""
    settings = settled(context, as_json, socket, admin_socket)
    why = words.reason(reason)
    with settings.admin_client() as client:
        hold = client.suspend(target, why)
    _tell(settings, hold, f"{hold.target}: suspended, until {_command('resume', hold)}")


def resume(
    context: typer.Context,
    target: Target,
    reason: words.Reason = None,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """Lift a suspension."""
    settings = settled(context, as_json, socket, admin_socket)
    why = words.reason(reason)
    with settings.admin_client() as client:
        hold = client.resume(target, why)
    _tell(settings, hold, f"{hold.target}: not suspended any more")


def kill(
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="all, NAME, NAME@V, plug_N, plug_N@V or a sha256.")],
    reason: words.Reason = None,
    lift: Annotated[bool, typer.Option("--lift", help="Let it run again.")] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="As root, without the daemon: the launcher obeys by itself.")
    ] = False,
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="With --offline: the daemon's state folder; else PLUGIND_STATE.", show_default=False
        ),
    ] = None,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """End all that runs of something, and let it not start again.

    When this returns with exit code 0, the last process of it is gone. It holds over restarts, until it is lifted.
    """
    settings = settled(context, as_json, socket, admin_socket)
    why = words.reason(reason)
    if offline:
        _tell_offline(settings, target, offline_kill.change(target, why, state, lift=lift), lift=lift)
    elif lift:
        _lift(settings, target, why)
    else:
        _kill(settings, target, why)


def _kill(settings: Settings, target: str, reason: str) -> None:
    with settings.admin_client() as client:
        killed = client.kill(target, reason)
    if settings.as_json:
        print_json(dataclasses.asdict(killed))
    else:
        note(_said(killed))
        note(f"it stays killed until {_command('kill --lift', killed.hold)}")
    if killed.unconfirmed_runs:
        message = f"{_runs(killed.unconfirmed_runs)} may still have processes: look at the machine"
        if settings.as_json:  # its object has been printed, and says so
            raise typer.Exit(Exit.FAULT)
        raise CommandError(Exit.FAULT, message, code="UNCONFIRMED")


def _said(killed: KillReport) -> str:
    if not killed.ended_runs:
        return f"{killed.hold.target}: killed; nothing of it ran"
    return f"{killed.hold.target}: killed; {_runs(killed.ended_runs)} ended in {killed.took_us / 1000:.1f} ms"


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"


def _lift(settings: Settings, target: str, reason: str) -> None:
    with settings.admin_client() as client:
        hold = client.lift_kill(target, reason)
    _tell(settings, hold, f"{hold.target}: not killed any more")


def _tell_offline(settings: Settings, target: str, changed: offline_kill.Changed, *, lift: bool) -> None:
    if settings.as_json:
        print_json({"target": target, "lifted": lift, "latch": str(changed.latch), "in_force": list(changed.in_force)})
        return
    what = "not killed offline any more" if lift else "killed offline; what runs of it ends within a moment"
    note(f"{target}: {what} ({changed.latch})")
    if not lift:
        note(f"it stays so until `sudo plugindctl kill --lift {shlex.quote(target)} --offline --reason TEXT`")


def _command(command: str, hold: Hold) -> str:
    return f"`plugindctl {command} {shlex.quote(hold.target)} --reason TEXT`"


def _tell(settings: Settings, hold: Hold, said: str) -> None:
    if settings.as_json:
        print_json(dataclasses.asdict(hold))
    else:
        note(said)
