"""plugindctl: the command line of plugind. Source of commands, flags and exit codes: SPEC.md, "Commands"."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs a command and ends the process with its exit code."""
    try:
        from plugind_client.cli.app import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"typer", "rich"}:
            raise
        print(
            f"plugindctl: the package {error.name} is missing: install the command line with"
            " `pip install 'plugind[cli]'`",
            file=sys.stderr,
        )
        sys.exit(2)
    run()
