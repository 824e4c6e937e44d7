"""environment: build the packages that plugins may name, as root, and show which there are. Needs no daemon."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plugind_client.cli import adapters, statefolder, words
from plugind_client.cli.problems import CommandError, Exit
from plugind_client.cli.screen import note, print_json, progress, table
from plugind_client.cli.settings import JsonFlag, examples, settled

if TYPE_CHECKING:
    from plugind.environments.shelf import Environment, Shelf

_MB = 1_000_000
_SHORT = 12
_SHOWN_PACKAGES = 3


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(no_args_is_help=True, help="Build the packages that plugins may name, and list them.")
    group.command(
        epilog=examples(
            "plugindctl environment build science --lock requirements.lock",
            "plugindctl environment build science --lock requirements.lock --wheels wheels/",
            "plugindctl environment build science --lock requirements.lock --import numpy --import pandas",
        )
    )(build)
    group.command("list", epilog=examples("plugindctl environment list", "plugindctl environment list --json"))(show)
    app.add_typer(group, name="environment")


def build(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What plugins call it: [a-z][a-z0-9_-]*, not base.")],
    lock: Annotated[
        Path, typer.Option("--lock", metavar="FILE", help="Pinned packages with their hashes, as pip-compile writes.")
    ],
    wheels: Annotated[
        Path | None,
        typer.Option("--wheels", metavar="DIR", help="Take the wheels from here, and no index.", show_default=False),
    ] = None,
    imports: Annotated[
        list[str] | None,
        typer.Option(
            "--import",
            metavar="MODULE",
            help="Import this one ahead of runs; may be repeated. By default all at the top.",
            show_default=False,
        ),
    ] = None,
    state: statefolder.StateFolder = None,
    as_json: JsonFlag = False,
) -> None:
    """Build an environment from wheels, or build it anew; as root.

    No code of a package runs meanwhile. A daemon that runs uses it from the next run on; when the build fails, or is
    interrupted, what the name stood for before stays in force. Make the lock with `pip-compile --generate-hashes` or
    `uv pip compile --generate-hashes`, for the Python that runs the daemon.
    """
    settings = settled(context, as_json, None)
    folder = statefolder.checked(state, "environment build", "what plugins import may be written by root only")
    if not lock.is_file():
        hint = "make one: `pip-compile --generate-hashes -o requirements.lock requirements.in`, or with uv pip compile"
        raise CommandError(Exit.USAGE, f"{lock}: expected a lock, there is none", [hint])
    shelf = _shelf(folder)
    built = _built(name, lock, shelf, wheels, imports)
    if settings.as_json:
        print_json(_as_object(built))
        return
    note(f"{name}: built, {_size(built)}, sha256 {built.digest}")
    note(f"  packages: {', '.join(f'{each.name} {each.version}' for each in built.packages)}")
    note(f"  imported ahead: {', '.join(built.imports) or 'nothing'}")
    note(f'  plugins get it from now on that have environment = "{name}" in plugin.toml')


def _built(name: str, lock: Path, shelf: Shelf, wheels: Path | None, imports: list[str] | None) -> Environment:
    from plugind.environments import build as building
    from plugind.errors import ConflictError, InvalidEnvironmentError

    try:
        with progress() as tell:
            return building.build(name, lock, shelf, wheels=wheels, imports=imports or None, progress=tell)
    except InvalidEnvironmentError as error:
        raise CommandError(Exit.USAGE, str(error), error.lines, code="INVALID_ENVIRONMENT") from None
    except ConflictError as error:
        raise CommandError(Exit.DENIED, str(error), code="CONFLICT") from None


def show(context: typer.Context, state: statefolder.StateFolder = None, as_json: JsonFlag = False) -> None:
    """List the environments, and whether each can be used.

    Every file of each is read for it, and its sha256 compared.
    """
    settings = settled(context, as_json, None)
    shelf = _shelf(statefolder.named(state))
    from plugind.errors import InvalidEnvironmentError

    try:
        found, broken = shelf.all(), shelf.problems()
    except InvalidEnvironmentError as error:
        raise CommandError(Exit.DENIED, str(error), code="INVALID_ENVIRONMENT") from None
    with progress() as tell:
        problems = {each.name: _problem(shelf, each, tell) for each in found}
    if settings.as_json:
        print_json(
            {
                "folder": str(shelf.folder),
                "environments": [_as_object(each) | {"problem": problems[each.name]} for each in found],
                "broken": [{"name": name, "problem": problem} for name, problem in broken.items()],
            }
        )
        return
    if not found and not broken:
        note(f"{shelf.folder}: no environments; `plugindctl environment build NAME --lock FILE` makes one, as root")
        return
    rows = [_row(each, problems[each.name]) for each in found]
    rows += [(name, "", "", "", "", f"no: {problem}") for name, problem in broken.items()]
    table(("name", "sha256", "packages", "size", "built", "usable"), sorted(rows))


def _shelf(folder: Path) -> Shelf:
    with adapters.packages_of("cli"):
        from plugind.environments.shelf import Shelf, path_of
    return Shelf(path_of(folder))


def _problem(shelf: Shelf, environment: Environment, tell: Any) -> str:
    """Why it cannot be used; empty: it can."""
    from plugind.environments import tree
    from plugind.errors import InvalidEnvironmentError

    if environment.problem:
        return environment.problem
    tell(f"reading {environment.name}")
    try:
        digest = tree.digest_of(shelf.tree(environment.digest))
    except (InvalidEnvironmentError, OSError) as error:
        return f"{error}: build it again"
    if digest != environment.digest:
        return f"expected files with the sha256 {environment.digest}, got {digest}: build it again"
    return ""


def _as_object(environment: Environment) -> dict[str, Any]:
    return dataclasses.asdict(environment)


def _row(environment: Environment, problem: str) -> tuple[str, ...]:
    packages = [f"{each.name} {each.version}" for each in environment.packages]
    more = len(packages) - _SHOWN_PACKAGES
    shown = packages if more <= 0 else [*packages[:_SHOWN_PACKAGES], f"and {more} more"]
    return (
        environment.name,
        environment.digest[:_SHORT],
        ", ".join(shown),
        _size(environment),
        words.moment(environment.built_unix_ms),
        f"no: {problem}" if problem else "yes",
    )


def _size(environment: Environment) -> str:
    return f"{environment.files} files with {environment.size_bytes / _MB:.1f} MB"
