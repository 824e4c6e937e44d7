"""The environments that there are: files that root writes beside the state folder.

    STATE.environments/NAME.json       manifest and pointer in one, swapped by rename: what NAME is from now on
    STATE.environments/trees/DIGEST/   the files, sealed (plugind.environments.tree); templates have them mounted

Beside the folder and not in it: what the front may write it could exchange. The files are never edited in place.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import keyword
import os
import re
import stat
import sysconfig
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from plugind import jsontext, purl
from plugind.errors import InvalidEnvironmentError, InvalidJsonError

FORMAT: Final = 1
BASE: Final = "base"
"""The standard library alone: it is always there, and never on the shelf."""
NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
MAX_MANIFEST_BYTES: Final = 1024 * 1024
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_NUMBER: Final = 2**47
"""Of bytes, files and milliseconds: a moment before the year 7000, which can be shown."""
_SETTLED_NS: Final = 50_000_000
"""A folder's mtime goes on in ticks of up to 10 ms: two changes may share one. An older mtime is no later change's."""


@dataclass(frozen=True, slots=True)
class Package:
    """One of an environment's packages."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Environment:
    """What a name stands for. `digest` names the tree, `lock_digest` is the sha256 of the lock; both in hex."""

    name: str
    digest: str
    lock_digest: str
    abi: str
    """SOABI of the interpreter that it was built for."""
    imports: tuple[str, ...]
    """Modules that a template imports ahead."""
    packages: tuple[Package, ...]
    size_bytes: int
    files: int
    built_unix_ms: int

    @property
    def problem(self) -> str:
        """Why it cannot be used with this interpreter; empty: it can."""
        if self.abi == abi():
            return ""
        return f"expected to be built for {abi()}, got {self.abi}: build it again with the interpreter that is used now"


@functools.cache
def abi() -> str:
    """SOABI of this interpreter. Source: PEP 3149."""
    return str(sysconfig.get_config_var("SOABI"))


def path_of(state: Path) -> Path:
    """Where the environments of a state folder lie."""
    return state.with_name(f"{state.name}.environments")


def is_module(name: str) -> bool:
    """Whether it can stand after `import`."""
    parts = name.split(".")
    return len(name) <= 255 and all(
        part.isascii() and part.isidentifier() and not keyword.iskeyword(part) for part in parts
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was found in the folder."""

    by_name: Mapping[str, Environment] = field(default_factory=dict)
    by_digest: Mapping[str, Environment] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


class Shelf:
    """The environments in one folder, read again whenever one was swapped. A look costs one stat(2)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mark: tuple[int, int, int] | None = None
        self._seen = _Seen()
        self._purls: dict[str, frozenset[str]] = {}

    def get(self, name: str) -> Environment | None:
        """What a name stands for now; None: there is none. Raises InvalidEnvironmentError where its file is broken."""
        seen = self._look()
        if name in seen.problems:
            raise InvalidEnvironmentError(seen.problems[name])
        return seen.by_name.get(name)

    def in_force(self, name: str) -> str:
        """Digest of what a name stands for now; of the base none. Raises InvalidEnvironmentError: it is not usable."""
        if name == BASE:
            return ""
        found = self.get(name)
        if found is None:
            known = ", ".join(sorted(self._look().by_name)) or "none but base"
            raise InvalidEnvironmentError(f"no environment {name} was built; there is: {known}")
        if found.problem:
            raise InvalidEnvironmentError(found.problem)
        return found.digest

    def with_digest(self, digest: str) -> Environment | None:
        """The one whose tree this is, as long as it is current. Raises InvalidEnvironmentError for the folder."""
        return self._look().by_digest.get(digest)

    def purls(self, digest: str) -> frozenset[str]:
        """What package URLs name of the environment with this tree; also when its name stands for another by now.

        Of the base, and of one that was never seen here, none.
        """
        return self._purls.get(digest, frozenset())

    def all(self) -> list[Environment]:
        """All that are whole, by name. Raises InvalidEnvironmentError for the folder."""
        return list(self._look().by_name.values())

    def problems(self) -> dict[str, str]:
        """What is wrong with each of the others, by name. Raises InvalidEnvironmentError for the folder."""
        return dict(self._look().problems)

    def tree(self, digest: str) -> Path:
        """Where the files of a digest lie, or would."""
        return self.folder / "trees" / digest

    def put(self, environment: Environment) -> None:
        """Let its name stand for it from now on. Durable. Raises InvalidEnvironmentError, OSError."""
        data = _encoded(environment)
        if _parsed(data, environment.name) != environment:
            raise InvalidEnvironmentError(f"environment {environment.name!r}: expected one that can be read back")
        new = self.folder / f".{environment.name}.json.new"
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(descriptor, 0o644)  # whatever the umask was
            os.fsync(descriptor)
        new.replace(self.folder / f"{environment.name}.json")
        sync_folder(self.folder)

    def _look(self) -> _Seen:
        try:
            status = self.folder.lstat()
        except FileNotFoundError:
            self._mark = None
            return _Seen()
        except OSError as error:
            raise InvalidEnvironmentError(f"{self.folder}: cannot be read: {error.strerror}") from error
        if not stat.S_ISDIR(status.st_mode):
            raise InvalidEnvironmentError(f"{self.folder}: expected a folder, got something else")
        if not _is_roots(status):
            raise InvalidEnvironmentError(f"{self.folder}: {_not_roots(status)}")
        mark = (status.st_dev, status.st_ino, status.st_mtime_ns)
        if mark != self._mark:
            settled = time.time_ns() - status.st_mtime_ns > _SETTLED_NS
            self._mark = None
            self._seen = self._read()
            self._mark = mark if settled else None
        return self._seen

    def _read(self) -> _Seen:
        try:
            paths = sorted(self.folder.iterdir())
        except OSError as error:
            raise InvalidEnvironmentError(f"{self.folder}: cannot be read: {error.strerror}") from error
        by_name: dict[str, Environment] = {}
        problems: dict[str, str] = {}
        for path in paths:
            if path.suffix != ".json" or path.stem == BASE or not NAME.fullmatch(path.stem):
                continue
            try:
                by_name[path.stem] = _read_manifest(path)
            except FileNotFoundError:
                continue
            except InvalidEnvironmentError as error:
                problems[path.stem] = f"{path}: {error}; build this environment again"
            except OSError as error:
                problems[path.stem] = f"{path}: cannot be read: {error.strerror}"
        by_digest = {each.digest: each for each in by_name.values()}
        for each in by_name.values():
            self._purls[each.digest] = self.purls(each.digest) | _purls_of(each)
        return _Seen(by_name, by_digest, problems)


def _purls_of(environment: Environment) -> frozenset[str]:
    return frozenset().union(*(purl.of_package(each.name, each.version) for each in environment.packages))


def sync_folder(path: Path) -> None:
    """Make a rename in a folder durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_roots(status: os.stat_result) -> bool:
    return status.st_uid == 0 and not status.st_mode & 0o022


def _not_roots(status: os.stat_result) -> str:
    got = f"mode {stat.S_IMODE(status.st_mode):04o} of uid {status.st_uid}"
    return f"expected to be root's, and writable for root only, got {got}"


def _read_manifest(path: Path) -> Environment:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidEnvironmentError("expected a regular file, got something else")
        if not _is_roots(status):
            raise InvalidEnvironmentError(_not_roots(status))
        data = file.read(MAX_MANIFEST_BYTES + 1)
    return _parsed(data, path.stem)


def _encoded(environment: Environment) -> bytes:
    return json.dumps({"format": FORMAT, **dataclasses.asdict(environment)}, indent=1).encode() + b"\n"


_ENVIRONMENT_FIELDS: Final[Mapping[str, type]] = {
    "format": int,
    "name": str,
    "digest": str,
    "lock_digest": str,
    "abi": str,
    "imports": list,
    "packages": list,
    "size_bytes": int,
    "files": int,
    "built_unix_ms": int,
}
_PACKAGE_FIELDS: Final[Mapping[str, type]] = {"name": str, "version": str}


def _parsed(data: bytes, name: str) -> Environment:
    """The manifest of the environment with this name. Raises InvalidEnvironmentError."""
    try:
        fields: Any = jsontext.loads(data, max_bytes=MAX_MANIFEST_BYTES)
    except InvalidJsonError as error:
        raise InvalidEnvironmentError(f"expected JSON: {error}") from error
    _check_types("", fields, _ENVIRONMENT_FIELDS)
    for package in fields["packages"]:
        _check_types("packages: ", package, _PACKAGE_FIELDS)
    _check_values(fields, name)
    del fields["format"]
    packages = tuple(Package(**package) for package in fields["packages"])
    return Environment(**fields | {"imports": tuple(fields["imports"]), "packages": packages})


def _check_types(where: str, fields: Any, types: Mapping[str, type]) -> None:
    """Whether it is an object with exactly these fields, each of its type (a bool is no int)."""
    if not isinstance(fields, dict) or set(fields) != set(types):
        raise InvalidEnvironmentError(f"{where}expected the fields {', '.join(types)}, got other ones")
    for name, type_ in types.items():
        if type(fields[name]) is not type_:
            raise InvalidEnvironmentError(f"{where}{name}: expected {type_.__name__}, got {fields[name]!r:.80}")


def _check_values(fields: Mapping[str, Any], name: str) -> None:
    if fields["format"] != FORMAT:
        raise InvalidEnvironmentError(
            f"format: expected {FORMAT}, got {fields['format']!r:.80}: another plugind wrote it"
        )
    if fields["name"] != name or name == BASE or not NAME.fullmatch(name):
        wanted = f"{name}, which is not {BASE} and matches {NAME.pattern}"
        raise InvalidEnvironmentError(f"name: expected {wanted}, got {fields['name']!r:.80}")
    for key in ("digest", "lock_digest"):
        if not _DIGEST.fullmatch(fields[key]):
            raise InvalidEnvironmentError(f"{key}: expected a sha256 in hex, got {fields[key]!r:.80}")
    for key in ("size_bytes", "files", "built_unix_ms"):
        if not 0 <= fields[key] <= _MAX_NUMBER:
            raise InvalidEnvironmentError(f"{key}: expected 0 to {_MAX_NUMBER}, got {fields[key]!r:.80}")
    for module in fields["imports"]:
        if not isinstance(module, str) or not is_module(module):
            raise InvalidEnvironmentError(f"imports: expected names of modules, got {module!r:.80}")
