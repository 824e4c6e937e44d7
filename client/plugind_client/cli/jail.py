"""jail: what a plugin's jail consists of, step by step. Needs no privileges, and for a folder no daemon."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plugind_client.cli import adapters
from plugind_client.cli.problems import CommandError, Exit
from plugind_client.cli.screen import print_json, to_stream
from plugind_client.cli.settings import JsonFlag, Settings, SocketPath, examples, settled

if TYPE_CHECKING:
    from plugind.sandbox.jailspec import JailSpec


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog=examples(
            "plugindctl jail cost_rollup/", "plugindctl jail cost_breakdown@1.2.0", "plugindctl jail . --json"
        )
    )(jail)


def jail(
    context: typer.Context,
    plugin: Annotated[str, typer.Argument(metavar="PLUGIN[@V]|DIR", help="A registered plugin, or a plugin's folder.")],
    tier: Annotated[
        int | None,
        typer.Option(min=0, max=2, help="For a folder: which tier's jail; 2 without it.", show_default=False),
    ] = None,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
) -> None:
    """Print the steps of a plugin's jail, in their order.

    What is a folder, or has a slash, is taken as one; anything else is the name of a registered plugin.
    """
    settings = settled(context, as_json, socket)
    folder = Path(plugin)
    if folder.is_dir() or "/" in plugin:
        spec = adapters.jail_spec(adapters.build(folder), 2 if tier is None else adapters.as_tier(tier))
    elif tier is None:
        spec = _registered(settings, plugin)
    else:
        raise CommandError(Exit.USAGE, f"{plugin}: --tier is for folders; a registered plugin has its tier")
    if settings.as_json:
        print_json(dataclasses.asdict(spec))
    else:
        to_stream("\n".join(spec.describe()), sys.stdout)


def _registered(settings: Settings, plugin: str) -> JailSpec:
    name, _, wanted = plugin.partition("@")
    with settings.client() as client:
        found = client.get(name)
    version = found.version(wanted)
    if version is None:
        raise CommandError(Exit.DENIED, f"{found.name}: no version {wanted or 'at all'}", code="NOT_FOUND")
    return adapters.jail_spec_of_version(version)
