"""new and build: what an author needs before any daemon."""

from __future__ import annotations

import shutil
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from plugind_client.cli import adapters, starter, starter_program
from plugind_client.cli.problems import CommandError, Exit
from plugind_client.cli.screen import note, print_json
from plugind_client.cli.settings import JsonFlag, SocketPath, examples, settled

PluginFolder = Annotated[Path, typer.Argument(metavar="DIR", help="A plugin's folder, with plugin.toml.")]


class Runtime(StrEnum):
    """What a plugin is."""

    PYTHON = "python"
    EXEC = "exec"


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(
        epilog=examples(
            "plugindctl new cost_rollup",
            "plugindctl new cost_rollup --dir plugins",
            "plugindctl new margins --from calculations.py",
            "plugindctl new word_count --runtime exec",
        )
    )(new)
    app.command(epilog=examples("plugindctl build cost_rollup", "plugindctl build cost_rollup -o /tmp/c.plugin.tar"))(
        build
    )


def new(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower-case letters, digits and _, such as cost_rollup.")],
    directory: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Where the folder NAME is made.", show_default=False)
    ] = Path(),
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Python source of functions, such as a language model wrote."),
    ] = None,
    runtime: Annotated[
        Runtime, typer.Option(help="exec: any program, JSON on its standard input and output; here a shell script.")
    ] = Runtime.PYTHON,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
) -> None:
    """Write a new plugin: manifest, schemas, a case, working code.

    With --from the code is FILE, which is read and not run: what can be called and with what comes from the signatures
    of its public functions.
    """
    settings = settled(context, as_json, socket)
    if not adapters.is_name(name):
        message = f"{name!r}: expected a name of 2 to 63 lower-case letters, digits and _, a letter first"
        raise CommandError(Exit.USAGE, message)
    program = runtime is Runtime.EXEC
    if program and source:
        raise CommandError(Exit.USAGE, "--from takes Python source, and --runtime exec is for other programs")
    folder = directory / name
    if program:
        files = starter_program.files(name)
    else:
        files = starter.files_from(name, source) if source else starter.files(name)
    _write(folder, files, executable=starter_program.program_of(name) if program else "")
    if settings.as_json:
        print_json({"folder": str(folder), "files": sorted(files)})
        return
    for path in files:
        note(f"wrote {folder / path}")
    note(f"try it with `plugindctl try {folder}{' --tier 1' if program else ''}`")


def _write(folder: Path, files: dict[str, str], executable: str) -> None:
    """All files or none. `executable`: which of them is to be that, if any."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except FileExistsError:
        raise CommandError(Exit.USAGE, f"{folder}: is there already, and nothing is overwritten") from None
    try:
        for path, text in files.items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        if executable:
            (folder / executable).chmod((folder / executable).stat().st_mode | 0o111)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def build(
    context: typer.Context,
    folder: PluginFolder,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Without it NAME-VERSION.plugin.tar, here."),
    ] = None,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
) -> None:
    """Check a plugin's folder and make its bundle.

    The same folder always gives the same bytes. The bundle's path goes to standard output, all else to standard error.
    """
    settings = settled(context, as_json, socket)
    built = adapters.build(folder)
    target = output or Path(built.file_name)
    target.write_bytes(built.data)
    if settings.as_json:
        print_json(
            {
                "file": str(target),
                "name": built.manifest.name,
                "version": built.manifest.version,
                "sha256": built.digest,
                "bytes": len(built.data),
            }
        )
        return
    print(target)
    note(f"{built.label}: {len(built.data)} bytes, sha256 {built.digest}")
