"""What a kill without a daemon means, as the launcher knows it: everything, a tier, or digests.

Plugins, keys and packages are looked up in the registry and the environments as they lie there. What cannot be read is
taken to be meant, where that ends more and not less.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from plugind_client.cli import adapters
from plugind_client.cli.problems import CommandError, Exit

if TYPE_CHECKING:
    from plugind.provenance.evidence import Trust

_OF_CALLS = ("plan", "caller")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A target as it is kept, and what it comes to for the launcher."""

    target: str
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Version:
    """A row of the registry."""

    plugin_id: str
    name: str
    version: str
    digest: str
    manifest: str
    attestations: bytes


def found(target: str, folder: Path, before: Collection[str]) -> Wanted:
    """What a target means; `before`: what may be meant, though nothing is found for it any more.

    Raises:
        CommandError: what only the daemon knows, or nothing that there is.
    """
    with adapters.packages_of("cli"):
        from plugind import targets
        from plugind.errors import InvalidRequestError
    try:
        kept = targets.canonical(target)
    except InvalidRequestError as error:
        raise CommandError(Exit.USAGE, str(error)) from None
    kind = target.partition(":")[0] if ":" in target else ""
    if kind in _OF_CALLS:
        message = (
            f"{target}: the launcher knows no plans and no callers, and the daemon is not asked; to end everything:"
            " sudo plugindctl kill all --offline --reason TEXT"
        )
        raise CommandError(Exit.USAGE, message)
    if kept == targets.ALL or kind == "tier":
        return Wanted(kept, (kept,))
    if kept.startswith("sha256:"):
        digest = kept.removeprefix("sha256:")
        return Wanted(digest, (digest,))
    kept, digests = _look_up(kind, kept or target, folder)
    if not digests and kept not in before:
        raise CommandError(Exit.DENIED, f"{target}: no such plugin or version in {folder}", code="NOT_FOUND")
    return Wanted(kept, digests)


def _look_up(kind: str, target: str, folder: Path) -> tuple[str, tuple[str, ...]]:
    versions, raw_keys = _read(folder / "registry.db")
    if kind == "key":
        return _signed(target, versions, _trust(raw_keys))
    if kind == "pkg":
        names = _environments_with(target, folder)
        return target, tuple(each.digest for each in versions if _environment(each.manifest) in names)
    name, _, version = target.partition("@")
    return target, tuple(
        each.digest for each in versions if name in (each.name, each.plugin_id) and version in ("", each.version)
    )


def _read(path: Path) -> tuple[list[_Version], list[bytes]]:
    """Every version, and the keys that a development daemon trusts."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as registry:
            rows = registry.execute(
                "SELECT 'plug_' || plugins.id, name, version, digest, manifest, attestations"
                " FROM versions JOIN plugins ON plugins.id = versions.plugin ORDER BY versions.id"
            ).fetchall()
            keys = registry.execute("SELECT raw FROM development_keys").fetchall()
    except sqlite3.Error as error:
        message = f"{path}: cannot be read ({error}); kill by sha256, a tier, or all"
        raise CommandError(Exit.DENIED, message) from None
    return [_Version(*row) for row in rows], [raw for (raw,) in keys]


def _environment(manifest: str) -> str:
    from plugind.registry import codec

    return codec.decode_manifest(manifest).environment


def _environments_with(purl: str, folder: Path) -> set[str]:
    """Names of the environments that have a package, and of those of which it cannot be said."""
    from plugind.environments.shelf import Shelf, path_of
    from plugind.errors import InvalidEnvironmentError

    shelf = Shelf(path_of(folder))
    try:
        there = {each.name for each in shelf.all() if purl in shelf.purls(each.digest)}
        return there | shelf.problems().keys()
    except InvalidEnvironmentError as error:
        raise CommandError(Exit.DENIED, f"{error}; kill by sha256, a tier, or all") from None


def _trust(raw_keys: list[bytes]) -> Trust:
    """Whose signatures can be checked: a signature of any other key is taken for that of the key that it names."""
    from plugind import config, trustfile
    from plugind.errors import ConfigError
    from plugind.provenance.evidence import RoleKeys, Trust, TrustedKey
    from plugind.provenance.keys import PublicKey

    known = [TrustedKey(PublicKey(raw)) for raw in raw_keys]
    with contextlib.suppress(ConfigError):
        root = trustfile.load_trust(config.DEFAULT_TRUST, 0)
        known += [*root.keys_of("publisher"), *root.keys_of("vetter")]
    return Trust({"publisher": RoleKeys(tuple(known), 1)})


def _signed(target: str, versions: list[_Version], trust: Trust) -> tuple[str, tuple[str, ...]]:
    """The whole of a key, and the digests that it has signed. Raises CommandError for the beginning of several."""
    from plugind.provenance import dsse, evidence

    by_key: dict[str, list[str]] = {}
    for each in versions:
        for keyid in evidence.signers(each.digest, dsse.parse_lines(each.attestations), trust):
            by_key.setdefault(f"key:{keyid}", []).append(each.digest)
    meant = sorted(each for each in by_key if each.startswith(target))
    if len(meant) > 1:
        raise CommandError(Exit.DENIED, f"{target}: expected one key, got {', '.join(meant)}; give all of it")
    key = meant[0] if meant else target
    return key, tuple(by_key.get(key, ()))
