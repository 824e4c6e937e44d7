"""A user's own keys for development: made on first use, readable by nobody else, never good for production."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from plugind_client.cli import adapters
from plugind_client.cli.files import write_new
from plugind_client.cli.problems import CommandError, Exit

if TYPE_CHECKING:
    from plugind.provenance.keys import PrivateKey


def development_key(role: str) -> PrivateKey:
    """The user's key for a role, `publisher` or `vetter`, from $XDG_CONFIG_HOME/plugind/dev-ROLE.pem.

    Raises:
        CommandError: the file is there and holds no key, others may read it, or it cannot be written.
    """
    path = _folder() / f"dev-{role}.pem"
    try:
        return _load(path)
    except FileNotFoundError:
        return _make(path)
    except (OSError, ValueError) as error:
        raise _broken(path, error) from None


def _folder() -> Path:
    """The XDG base directory specification: an empty or relative value counts as unset."""
    configured = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(configured) if configured.startswith("/") else Path.home() / ".config") / "plugind"


def _load(path: Path) -> PrivateKey:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise ValueError("others may read it: `chmod 600` it, or remove it so that a new one is made")
        return adapters.load_key(file.read())


def _make(path: Path) -> PrivateKey:
    """Of two commands at once both use the key that came first."""
    key, pem = adapters.generate_key()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            write_new(path, pem, 0o600)
        except FileExistsError:
            return _load(path)
    except (OSError, ValueError) as error:
        raise _broken(path, error) from None
    return key


def _broken(path: Path, error: Exception) -> CommandError:
    remedy = f"`rm {shlex.quote(str(path))}`: the next try makes a new one"
    return CommandError(Exit.USAGE, f"{path}: cannot use this development key: {error}", [remedy])
