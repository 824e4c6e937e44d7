"""Which modules there are in a tree of packages, and their byte code. Nothing of it is imported."""

from __future__ import annotations

import importlib.machinery
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from plugind.environments import shelf
from plugind.errors import InvalidEnvironmentError

PLACE: Final = "/environment"
"""Where templates show the tree: what tracebacks say."""
_SOME_FAILED: Final = 1
_SUFFIXES: Final = (*importlib.machinery.SOURCE_SUFFIXES, *importlib.machinery.EXTENSION_SUFFIXES)
_TESTS: Final = frozenset({"test", "tests"})
_MAX_NAMESPACES: Final = 3
"""Folders in each other that are no packages themselves, as `google` is none around `google.protobuf`."""


def importable(tree: Path) -> tuple[str, ...]:
    """Every package and module at the top, by name, but for private ones and tests. Raises OSError."""
    return tuple(_importable(tree, (), _MAX_NAMESPACES))


def _importable(folder: Path, above: tuple[str, ...], namespaces: int) -> Iterator[str]:
    with os.scandir(folder) as entries:
        found = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    for file_name, is_folder in found:
        name = file_name if is_folder else _module_of(file_name)
        if name.startswith("_") or name in _TESTS or not shelf.is_module(name) or "." in name:
            continue
        inner = folder / file_name
        if not is_folder:
            if not above:  # within a folder that is no package it may be anything
                yield name
        elif _is_package(inner):
            yield ".".join((*above, name))
        elif namespaces:
            yield from _importable(inner, (*above, name), namespaces - 1)


def _module_of(file_name: str) -> str:
    stem = file_name.partition(".")[0]
    return stem if file_name.removeprefix(stem) in _SUFFIXES else ""


def _is_package(folder: Path) -> bool:
    return any((folder / f"__init__{suffix}").is_file() for suffix in _SUFFIXES)


def compile_all(tree: Path) -> None:
    """Compile every module. What is none of this Python's stays as it is: who imports it is told.

    Else each instance would compile anew what it imports later than the template. Without a check of the source: both
    are hashed with the tree, and nobody can write to either. What a wheel brought compiled is made anew too: it could
    be something else. Raises InvalidEnvironmentError. Source: PEP 552.
    """
    line = [sys.executable, "-I", "-m", "compileall", "-q", "-f", "--invalidation-mode", "unchecked-hash"]
    done = subprocess.run(
        [*line, "-s", str(tree), "-p", PLACE, str(tree)], capture_output=True, check=False, umask=0o022
    )
    if done.returncode not in (0, _SOME_FAILED):
        told = done.stderr.decode(errors="replace").strip()[-500:]
        raise InvalidEnvironmentError(f"expected compileall to end, got exit code {done.returncode}: {told}")


def check(tree: Path, wanted: Sequence[str]) -> tuple[str, ...]:
    """The modules to import that an operator chose, each once. Raises InvalidEnvironmentError, OSError."""
    for module in wanted:
        if not shelf.is_module(module):
            raise InvalidEnvironmentError(f"expected the name of a module such as numpy.random, got {module!r:.80}")
        if not _exists(tree, module):
            there = ", ".join(importable(tree)) or "none"
            raise InvalidEnvironmentError(
                f"expected modules of these packages, got {module}; those at the top: {there:.1000}"
            )
    return tuple(dict.fromkeys(wanted))


def _exists(tree: Path, module: str) -> bool:
    parts = module.split(".")
    place = tree.joinpath(*parts)
    files = [place.with_name(f"{place.name}{suffix}") for suffix in _SUFFIXES]
    return place.is_dir() or any(file.is_file() for file in files) or parts[0] in sys.stdlib_module_names
