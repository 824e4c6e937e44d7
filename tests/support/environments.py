"""Environments of a few modules, put on a shelf without a lock and without pip."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from plugind.environments import tree
from plugind.environments.shelf import Environment, Package, Shelf, abi


def shelve(shelf: Shelf, files: Mapping[str, str], *, name: str = "own", imports: Sequence[str] = ()) -> Environment:
    """An environment with these files, by path. Imported ahead are `imports`, or else all modules at its top."""
    shelf.folder.mkdir(mode=0o755, exist_ok=True)
    staging = shelf.folder / "trees" / ".staging"
    for path, text in files.items():
        (staging / path).parent.mkdir(parents=True, exist_ok=True)
        (staging / path).write_text(text)
    tree.seal(staging)
    digest, size = tree.digest_of(staging), tree.size_of(staging)
    modules = tuple(imports) or tuple(sorted({Path(path).parts[0].removesuffix(".py") for path in files}))
    made = Environment(
        name=name,
        digest=digest,
        lock_digest="0" * 64,
        abi=abi(),
        imports=modules,
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
