"""Environments of a few modules, put on a shelf without a lock and without pip."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from plugind.environments import tree
from plugind.environments.shelf import Environment, Package, Shelf, abi


def shelve(shelf: Shelf, files: Mapping[str, str], *, name: str = "own", imports: Sequence[str] = ()) -> Environment:
    """An environment with these files, by path. Imported ahead are `imports`, or else all modules at its top."""
    modules = tuple(imports) or tuple(sorted({Path(path).parts[0].removesuffix(".py") for path in files}))

    def fill(staging: Path) -> None:
        for path, text in files.items():
            (staging / path).parent.mkdir(parents=True, exist_ok=True)
            (staging / path).write_text(text)

    return shelve_tree(shelf, fill, name=name, imports=modules)


def shelve_installed(shelf: Shelf, projects: Sequence[str], *, name: str, imports: Sequence[str]) -> Environment:
    """An environment with projects as they are installed here, and all that they need. Nothing is downloaded."""
    needed = sorted(_closure(projects))

    def fill(staging: Path) -> None:
        for path, source in _files(needed):
            (staging / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, staging / path)

    return shelve_tree(shelf, fill, name=name, imports=imports)


def _closure(projects: Sequence[str]) -> set[str]:
    """These projects and what they require on this machine, without extras."""
    found: set[str] = set()
    left = [*projects]
    while left:
        project = canonicalize_name(left.pop())
        if project in found:
            continue
        found.add(project)
        wanted = map(Requirement, metadata.requires(project) or [])
        left += [each.name for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


def _files(projects: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Path in the tree and place of each installed file; without commands, tests and what Python compiled."""
    for project in projects:
        for file in metadata.files(project) or []:
            parts = file.parts
            if parts[0] != ".." and not {"tests", "__pycache__"} & {*parts}:
                yield file.as_posix(), Path(str(file.locate()))


def shelve_tree(shelf: Shelf, fill: Callable[[Path], None], *, name: str, imports: Sequence[str]) -> Environment:
    """An environment of what `fill` puts into a folder."""
    shelf.folder.mkdir(mode=0o755, exist_ok=True)
    staging = shelf.folder / "trees" / ".staging"
    fill(staging)
    tree.seal(staging)
    digest, size = tree.digest_of(staging), tree.size_of(staging)
    made = Environment(
        name=name,
        digest=digest,
        lock_digest="0" * 64,
        abi=abi(),
        imports=tuple(imports),
        packages=(Package(name, "1"),),
        size_bytes=size.size_bytes,
        files=size.files,
        built_unix_ms=time.time_ns() // 1_000_000,
    )
    if shelf.tree(digest).exists():
        shutil.rmtree(staging)
    else:
        staging.rename(shelf.tree(digest))
    shelf.put(made)
    return made
