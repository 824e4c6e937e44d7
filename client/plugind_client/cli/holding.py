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

OTHERS = "key:ID, pkg:pypi/NAME[@V], plan:ID, caller:UID or tier:N"
Target = Annotated[str, typer.Argument(metavar="TARGET", help=f"NAME, NAME@V, plug_N, plug_N@V, a sha256, {OTHERS}.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(epilog=examples("plugindctl suspend cost_rollup --reason maintenance"))(suspend)
    app.command(epilog=examples("plugindctl resume cost_rollup --reason done"))(resume)
    app.command(
        epilog=examples(
            'plugindctl kill cost_rollup --reason "wrong sums"',
            "plugindctl kill all --reason incident",
            'plugindctl kill key:0f3a9c21 --reason "the key was stolen"',
            "plugindctl kill pkg:pypi/urllib3@2.0.0 --reason CVE-2023-43804",
            "plugindctl kill 'plan:rooftop garden' --reason \"it asks for the wrong thing\"",
            "plugindctl kill tier:2 --reason incident",
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
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help=f"all, NAME, NAME@V, plug_N, plug_N@V, a sha256, {OTHERS}.")
    ],
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
        _tell_offline(settings, offline_kill.change(target, why, state, lift=lift), lift=lift)
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


def _tell_offline(settings: Settings, changed: offline_kill.Changed, *, lift: bool) -> None:
    target = changed.target
    if settings.as_json:
        found, in_force = list(changed.found), list(changed.in_force)
        said = {"target": target, "lifted": lift, "latch": str(changed.latch), "found": found, "in_force": in_force}
        print_json(said)
        return
    what = "not killed offline any more" if lift else "killed offline; what runs of it ends within a moment"
    note(f"{target}: {what} ({changed.latch})")
    if changed.found != (target,):
        note(f"that is: {', '.join(changed.found)}")
    if not lift:
        note(f"it stays so until `sudo plugindctl kill --lift {shlex.quote(target)} --offline --reason TEXT`")


def _command(command: str, hold: Hold) -> str:
    return f"`plugindctl {command} {shlex.quote(hold.target)} --reason TEXT`"


def _tell(settings: Settings, hold: Hold, said: str) -> None:
    if settings.as_json:
        print_json(dataclasses.asdict(hold))
    else:
        note(said)
