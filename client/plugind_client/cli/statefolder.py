"""Which daemon's state folder a command of root's is about that needs no daemon."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from plugind_client.cli import adapters
from plugind_client.cli.problems import CommandError, Exit

StateFolder = Annotated[
    Path | None,
    typer.Option("--state", metavar="DIR", help="The daemon's state folder; else PLUGIND_STATE.", show_default=False),
]


def named(state: Path | None) -> Path:
    """The folder of --state, else of PLUGIND_STATE, else the default; absolute, and maybe not there."""
    with adapters.packages_of("cli"):
        from plugind import config
    return (state or Path(os.environ.get("PLUGIND_STATE") or config.DEFAULT_STATE)).absolute()


def checked(state: Path | None, command: str, why: str) -> Path:
    """The same, for root only.

    Raises:
        CommandError: not root, or there is no state folder.
    """
    if os.geteuid() != 0:
        raise CommandError(Exit.DENIED, f"{command}: needs root: {why}")
    folder = named(state)
    if not (folder / "state.json").is_file():
        message = f"{folder}: expected the state folder of a daemon; name it with --state or PLUGIND_STATE"
        raise CommandError(Exit.USAGE, message)
    return folder
