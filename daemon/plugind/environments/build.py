"""Building an environment: lock → wheels → sealed tree → what its name stands for. Needs root.

    STATE.environments/lock                  held while one is built
    STATE.environments/trees/.building-XXX/  what is not complete yet

The old one stays in force until the last step, and its tree for one build longer: templates that run have it mounted.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from plugind.environments import lock, modules, pip, tree
from plugind.environments.shelf import BASE, NAME, Environment, Package, Shelf, abi, sync_folder
from plugind.errors import ConflictError, InvalidEnvironmentError
from plugind.purl import normalized


def build(
    name: str,
    lock_path: Path,
    shelf: Shelf,
    *,
    wheels: Path | None = None,
    imports: Sequence[str] | None = None,
    progress: Callable[[str], None] = lambda _step: None,
) -> Environment:
    """Build what a lock names, and let the name stand for it from now on; `imports`: by default all at the top.

    Whatever fails, what the name stood for before stays in force.

    Raises:
        InvalidEnvironmentError: a wrong name or lock, or wheels that cannot be had or not be taken.
        ConflictError: another one is being built.
        OSError: a full disk, not root.
    """
    if name == BASE or not NAME.fullmatch(name):
        raise InvalidEnvironmentError(f"environment: expected a name like {NAME.pattern}, not {BASE}, got {name!r:.80}")
    wanted = lock.read(lock_path)
    if wheels and not wheels.is_dir():
        raise InvalidEnvironmentError(f"{wheels}: expected a folder with wheels, got {_kind(wheels)}")
    with _building(shelf) as staging:
        new = staging / "tree"
        new.mkdir()
        count = len(wanted.requirements)
        progress(f"{count} package{'' if count == 1 else 's'} of {lock_path}")
        _install(wanted, staging, wheels.absolute() if wheels else None, progress)
        packages = _packages(new, wanted)
        chosen = modules.importable(new) if imports is None else modules.check(new, imports)
        progress("compiling")
        modules.compile_all(new)
        progress("sealing")
        tree.seal(new)
        digest, size = tree.digest_of(new), tree.size_of(new)
        _place(new, shelf, digest)
        _remove_unused(shelf, digest)
        now_unix_ms = time.time_ns() // 1_000_000
        built = Environment(
            name, digest, wanted.digest, abi(), chosen, packages, size.size_bytes, size.files, now_unix_ms
        )
        shelf.put(built)
    return built


def _kind(path: Path) -> str:
    return "something else" if path.exists() else "nothing"


@contextlib.contextmanager
def _building(shelf: Shelf) -> Iterator[Path]:
    """A folder for what is not complete, which is gone afterwards; one build at a time."""
    trees = shelf.folder / "trees"
    _make(shelf.folder)
    shelf.problems()  # raises where the folder is not root's
    _make(trees)
    descriptor = os.open(shelf.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(f"{shelf.folder}: another environment is being built; wait until it is done") from None
        for leftover in (*trees.glob(".*"), *shelf.folder.glob(".*.new")):
            _remove(leftover)
        staging = Path(tempfile.mkdtemp(prefix=".building-", dir=trees))
        try:
            yield staging
        finally:
            _remove(staging)
    finally:
        os.close(descriptor)


def _make(folder: Path) -> None:
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
        folder.chmod(0o755)  # whatever the umask was


def _install(wanted: lock.Lock, staging: Path, wheels: Path | None, progress: Callable[[str], None]) -> None:
    file, scratch, target = staging / "requirements.lock", staging / "scratch", staging / "tree"
    file.write_text(lock.render(wanted.requirements))
    scratch.mkdir()
    pip.install(file, target, scratch, wheels, progress)
    shutil.rmtree(target / "bin", ignore_errors=True)  # commands: nobody calls them


def _packages(new: Path, wanted: lock.Lock) -> tuple[Package, ...]:
    """What was installed, in the order of the lock. A marker may have left some of it out."""
    found = {
        normalized(each.metadata["Name"]): Package(each.metadata["Name"], each.version)
        for each in importlib.metadata.distributions(path=[str(new)])
    }
    names = [each.name for each in wanted.requirements]
    if unknown := sorted(set(found) - set(names)):
        raise InvalidEnvironmentError(f"expected the packages of the lock, got {unknown[0]} as well")
    if not found:
        raise InvalidEnvironmentError(
            "expected packages for this Python, got none: the lock's markers exclude them all"
        )
    return tuple(found[name] for name in names if name in found)


def _place(new: Path, shelf: Shelf, digest: str) -> None:
    """Move a tree to where it belongs. The same is there already: it stays, unless it was damaged."""
    place = shelf.tree(digest)
    if place.exists() or place.is_symlink():
        with contextlib.suppress(InvalidEnvironmentError):
            if tree.digest_of(place) == digest:
                return
        _remove(place)
    new.rename(place)
    sync_folder(place.parent)


def _remove_unused(shelf: Shelf, digest: str) -> None:
    """Remove the trees that no name stands for, nor will. Where a name's file is broken, nobody knows which."""
    if shelf.problems():
        return
    used = {digest, *(each.digest for each in shelf.all())}
    for path in (shelf.folder / "trees").iterdir():
        if path.name not in used and not path.name.startswith("."):
            _remove(path)


def _remove(path: Path) -> None:
    """Remove it with all that is in it; under another name first, so that half of it is never taken for the whole."""
    if not path.name.startswith("."):
        path = path.rename(path.with_name(f".removed-{path.name}"))
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
