"""The typer application: every command, and the one place where errors become words and exit codes."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

from plugind_client.cli import (
    audit,
    authoring,
    catalogue,
    condition,
    doctor,
    drill,
    environment,
    gate,
    holding,
    incident,
    jail,
    metrics,
    policy,
    quarantine,
    running,
    signing,
    trying,
)
from plugind_client.cli.problems import CommandError, Exit, explained, tell
from plugind_client.cli.settings import AdminSocketPath, JsonFlag, Settings, SocketPath, examples, settled
from plugind_client.cli.top import command as top
from plugind_client.errors import PlugindError

EXIT_CODES = """\b
Exit codes:
  0  ok
  1  the plugin failed
  2  usage
  3  denied or refused
  4  stopped by a limit, a violation or a kill
  5  the daemon cannot be reached
  6  a fault of plugind itself
  7  a check did not hold"""


class Guarded(TyperGroup):
    """Every command runs in here."""

    def invoke(self, ctx: Any) -> Any:
        """Runs a command; what it raises is told and becomes its exit code."""
        settings: Settings = ctx.ensure_object(Settings)
        try:
            return super().invoke(ctx)
        except CommandError as error:
            told = error
        except PlugindError as error:
            told = explained(error, settings.asked or settings.client().socket, as_admin=settings.asked_as_admin)
        except KeyboardInterrupt:
            told = CommandError(Exit.STOPPED, "canceled", code="canceled")
        except BrokenPipeError:
            _swallow_output()
            raise typer.Exit(Exit.OK) from None
        except OSError as error:
            told = CommandError(Exit.USAGE, f"{error.filename}: {error.strerror}" if error.filename else str(error))
        except Exception as error:
            if type(error).__module__.startswith(("typer", "click")):
                raise
            traceback.print_exc()
            told = CommandError(Exit.FAULT, f"a fault of plugindctl: {error!r}", code="FAULT")
        tell(told, as_json=settings.as_json)
        raise typer.Exit(told.exit_code)


def _swallow_output() -> None:
    """Who read our output went away (`| head`): nothing is wrong, but the interpreter's last flush would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    name="plugindctl",
    cls=Guarded,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=EXIT_CODES
    + "\n\n"
    + examples(
        "plugindctl new cost_rollup",
        "plugindctl try cost_rollup",
        "plugindctl run cost_breakdown --stage durations --input wbs.json",
        "plugindctl doctor",
    ),
)


def _version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        print("plugindctl", importlib.metadata.version("plugind"))
        raise typer.Exit


@app.callback()
def main_options(
    context: typer.Context,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Make, try, approve and run plugins in plugind's jail, see what they did, and stop them."""
    settled(context, as_json, socket, admin_socket)


# In the order of the help: an author's way, running, what there is, decisions, and the machine.
for module in (
    *(authoring, signing, trying, running, gate, catalogue, holding, quarantine, incident, condition, metrics),
    *(policy, audit, doctor, jail, drill, environment, top),
):
    module.register(app)


def run() -> None:
    """Runs what the command line says; ends the process."""
    streams: tuple[TextIO, ...] = (sys.stdout, sys.stderr)
    for stream in streams:
        if hasattr(stream, "reconfigure"):  # whatever a plugin prints can be printed in any locale
            stream.reconfigure(errors="backslashreplace")
    _command()(prog_name="plugindctl")  # also when started as a module


@functools.cache
def _command() -> Any:
    """The commands as click has them. Taking all their signatures apart needs 35 ms: once in a process will do."""
    return typer.main.get_command(app)
