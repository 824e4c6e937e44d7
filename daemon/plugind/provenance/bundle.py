"""NAME-VERSION.plugin.tar: made from a folder, and read back with nothing taken on trust.

The first member, plugin.json, carries the manifest with every default written out, the sequence number, the sha256 of
every other file and what is required; the others follow, sorted by bytes. The same folder always gives the same bytes,
whatever the umask, the times, the order on disk or the locale. Source: SPEC.md, section "Bundle".
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from plugind import jsontext
from plugind.errors import InvalidBundleError, InvalidJsonError
from plugind.model import Manifest
from plugind.provenance import contents, folder, grammar, pythoncode, ustar
from plugind.provenance import manifest as manifests
from plugind.provenance.contents import Case
from plugind.provenance.fields import Fields
from plugind.provenance.ustar import Member
from plugind.schema import Schema

INDEX: Final = "plugin.json"
MAX_BUNDLE_BYTES: Final = 32 * 1024 * 1024
MAX_FILES: Final = 1000
MAX_FILE_BYTES: Final = 16 * 1024 * 1024
MAX_INDEX_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that passed every check. `files` has no plugin.json; `digest` is the sha256 of the whole tar, hex."""

    manifest: Manifest
    files: Mapping[str, bytes]
    executable: frozenset[str]
    digest: str
    sequence: int
    size_bytes: int
    input_schema: Schema | None
    output_schema: Schema | None
    cases: tuple[Case, ...]


def bundle_name(manifest: Manifest) -> str:
    """The file name of a bundle."""
    return f"{manifest.name}-{manifest.version}.plugin.tar"


def build(source: Path, *, version_suffix: str = "") -> bytes:
    """The bundle of a plugin's folder. Raises InvalidBundleError with every problem found.

    `version_suffix`, such as "+try.ab12cd34", goes behind the version: `plugindctl try` tells edits apart by it.
    """
    members = folder.collect(source, max_files=MAX_FILES, max_file_bytes=MAX_FILE_BYTES)
    if manifests.FILE_NAME not in members:
        raise InvalidBundleError(f"{source}: expected {manifests.FILE_NAME} in a plugin's folder, got none")
    if version_suffix:
        toml = manifests.with_version_suffix(members[manifests.FILE_NAME].data, version_suffix)
        members[manifests.FILE_NAME] = Member(manifests.FILE_NAME, toml)
    return pack(members.values(), str(source))


def pack(members: Iterable[Member], where: str) -> bytes:
    """The bundle of files that are in memory, plugin.toml among them; `where` is what errors name. Raises as build."""
    members = list(members)
    files = {member.name: member.data for member in members}
    manifest = manifests.parse_manifest(files[manifests.FILE_NAME], present=files)
    executable = {member.name for member in members if member.executable}
    problems = [*_name_problems(files), *contents.inspect(manifest, files, executable).problems]
    problems += pythoncode.problems(manifest, files)
    if problems:
        raise InvalidBundleError(*problems)
    data = _encode(manifest, manifests.sequence_of(manifest.version), members)
    if len(data) > MAX_BUNDLE_BYTES:
        raise InvalidBundleError(f"{where}: expected a bundle of at most {MAX_BUNDLE_BYTES} bytes, got {len(data)}")
    return data


def read(data: bytes) -> Bundle:
    """Check a bundle in full. Raises InvalidBundleError naming the member that is wrong.

    1. the size; 2. every tar header, and nothing between or after; 3. names: relative, unique also when case is
    ignored, sorted; 4. plugin.json; 5. each file listed, there, and of its sha256; 6. plugin.toml says the same as
    plugin.json; 7. schemas, cases and entry point; 8. building it again gives the same bytes.
    """
    if len(data) > MAX_BUNDLE_BYTES:  # 1
        raise InvalidBundleError(f"bundle: expected at most {MAX_BUNDLE_BYTES} bytes, got {len(data)}")
    members = ustar.read(data, max_members=MAX_FILES + 1, max_member_bytes=MAX_FILE_BYTES)  # 2
    index, *rest = members
    files = {member.name: member.data for member in rest}
    _check_names(members, files)  # 3
    fields = _index(index.data)  # 4
    manifest = manifests.manifest_from_table(fields["manifest"], f"{INDEX}: manifest", present=files)
    _check_files(fields["files"], files)  # 5
    if manifests.parse_manifest(files[manifests.FILE_NAME], present=files) != manifest:  # 6
        raise InvalidBundleError(f"{INDEX}: manifest: expected what {manifests.FILE_NAME} says, got something else")
    executable = frozenset(member.name for member in rest if member.executable)
    found = contents.require(contents.inspect(manifest, files, executable))  # 7
    sequence = manifests.sequence_of(manifest.version)
    if _encode(manifest, sequence, rest) != data:  # 8
        raise InvalidBundleError(f"{INDEX}: expected the bytes that `plugindctl build` makes, got others")
    return Bundle(
        manifest=manifest,
        files=files,
        executable=executable,
        digest=hashlib.sha256(data).hexdigest(),
        sequence=sequence,
        size_bytes=len(data),
        input_schema=found.input_schema,
        output_schema=found.output_schema,
        cases=found.cases,
    )


def _encode(manifest: Manifest, sequence: int, members: Iterable[Member]) -> bytes:
    ordered = sorted(members, key=lambda member: member.name.encode())
    index = {
        "schema": 1,
        "manifest": manifests.manifest_to_table(manifest),
        "sequence": sequence,
        "files": {member.name: hashlib.sha256(member.data).hexdigest() for member in ordered},
        "requires": [],
    }
    text = json.dumps(index, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    return ustar.write([Member(INDEX, text.encode()), *ordered])


def _name_problems(names: Iterable[str]) -> list[str]:
    """Names that cannot stand in a bundle, alone or beside each other."""
    problems = []
    names = list(names)
    if any(name.casefold().startswith(f"{INDEX}/") for name in names):
        problems.append(f"{INDEX}: expected no folder of this name: `plugindctl build` makes a file of it")
    folded: dict[str, str] = {INDEX: INDEX}
    folders = {folder_name.casefold() for name in names for folder_name in _parents(name)}
    for name in names:
        if expected := grammar.bundle_path(name):
            problems.append(f"{name}: expected {expected}")
        if name.casefold() == INDEX:
            problems.append(f"{name}: expected no file of this name: `plugindctl build` makes it")
        elif other := folded.get(name.casefold()):
            problems.append(f"{name}: expected names that differ in more than case, got {other} as well")
        if name.casefold() in folders:
            problems.append(f"{name}: expected a file or a folder of this name, got both")
        folded[name.casefold()] = name
        try:
            ustar.split(name) if name.isascii() else None
        except InvalidBundleError as error:
            problems.append(str(error))
    return problems


def _parents(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _check_names(members: list[Member], files: Mapping[str, bytes]) -> None:
    if members[0].name != INDEX or members[0].executable:
        raise InvalidBundleError(f"{members[0].name}: expected {INDEX}, mode 0644, as the first member")
    names = [member.name for member in members[1:]]
    if len(files) != len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise InvalidBundleError(f"{double}: expected each name once, got it twice")
    if problems := _name_problems(names):
        raise InvalidBundleError(*problems)
    for before, after in itertools.pairwise(names):
        if before.encode() > after.encode():
            raise InvalidBundleError(f"{after}: expected members sorted by name, got it after {before}")


def _index(data: bytes) -> dict[str, Any]:
    try:
        table = jsontext.loads(data, max_bytes=MAX_INDEX_BYTES)
    except InvalidJsonError as error:
        raise InvalidBundleError(f"{INDEX}: {error}") from error
    if not isinstance(table, dict):
        raise InvalidBundleError(f"{INDEX}: expected an object, got something else")
    fields = Fields(table, INDEX, ("schema", "manifest", "sequence", "files", "requires"))
    fields.constant("schema", 1)
    fields.integer("sequence", 0, manifests.MAX_LIMIT)
    for name in ("manifest", "files"):
        if not isinstance(table.get(name), dict):
            fields.problem(name, "expected an object", "something else")
    if table.get("requires") != []:
        fields.problem("requires", "expected an empty list: this release vendors nothing", "something else")
    fields.finish()
    return dict(table)


def _check_files(listed: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    problems = [f"{name}: expected only files that {INDEX} lists, got this one" for name in files if name not in listed]
    problems += [
        f"{_shown(name)}: expected this file, which {INDEX} lists, got none" for name in listed if name not in files
    ]
    if manifests.FILE_NAME not in files:
        problems.append(f"{manifests.FILE_NAME}: expected in every bundle, got none")
    for name, data in files.items():
        actual = hashlib.sha256(data).hexdigest()
        if name in listed and listed[name] != actual:
            problems.append(f"{name}: sha256 expected {_shown(listed[name])}, got {actual}")
    if problems:
        raise InvalidBundleError(*problems)


def _shown(value: Any) -> str:
    return ascii(value)[1:-1][:64] if isinstance(value, str) else "no text"
