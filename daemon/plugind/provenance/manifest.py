"""plugin.toml: every field checked, every problem told at once. Source: SPEC.md, section "Bundle"."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Collection, Mapping
from typing import Any, Final, cast

from plugind.errors import InvalidBundleError
from plugind.model import Interface, Limits, Manifest, Permission
from plugind.provenance import grammar
from plugind.provenance.fields import Fields, shown

FILE_NAME: Final = "plugin.toml"
MAX_MANIFEST_BYTES: Final = 64 * 1024
DEFAULT_SCHEMAS: Final = {"input": "schemas/input.json", "output": "schemas/output.json"}
MAX_LIMIT: Final = 2**53 - 1
MAX_PERMISSIONS: Final = 100
MAX_DOTS_IN_LINE: Final = 200
"""The parser takes quadratic time for a dotted key, and a key does not go beyond its line."""

_TOP: Final = (
    *("schema", "name", "version", "summary", "license", "origin", "adapted_from"),
    *("runtime", "requires_python", "environment", "interface", "entrypoint"),
    *("stages", "deterministic", "capability", "limits", "schemas", "permissions"),
)


def parse_manifest(toml: bytes, where: str = FILE_NAME, *, present: Collection[str] = ()) -> Manifest:
    """Check plugin.toml. `where` names it in messages; `present` are the bundle's files.

    Of interface "functions", a schema that is not named is used if its file is present. Raises InvalidBundleError
    with every problem.
    """
    if len(toml) > MAX_MANIFEST_BYTES:
        raise InvalidBundleError(f"{where}: expected at most {MAX_MANIFEST_BYTES} bytes, got {len(toml)}")
    dots = max(line.count(b".") for line in toml.split(b"\n"))
    if dots > MAX_DOTS_IN_LINE:
        raise InvalidBundleError(f"{where}: expected at most {MAX_DOTS_IN_LINE} dots in a line, got {dots}")
    try:
        table = tomllib.loads(toml.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidBundleError(f"{where}: expected UTF-8, got other bytes at offset {error.start}") from error
    except ValueError as error:
        # Not only TOMLDecodeError: int() of a number with more than sys.get_int_max_str_digits() digits as well.
        raise InvalidBundleError(f"{where}: expected TOML: {error}") from error
    except RecursionError as error:
        raise InvalidBundleError(f"{where}: nested too deeply") from error
    return manifest_from_table(table, where, present=present)


def manifest_from_table(table: Mapping[str, Any], where: str, *, present: Collection[str] = ()) -> Manifest:
    """The same for a table that was parsed already, such as plugin.json's "manifest". Raises InvalidBundleError."""
    fields = Fields(table, where, _TOP)
    fields.constant("schema", 1)
    origin = fields.choice("origin", ("authored", "synthesized", "adapted"))
    interface = fields.choice("interface", ("json", "functions"), default="json")
    runtime = fields.choice("runtime", ("python", "exec"), default="python")
    manifest = Manifest(
        name=fields.match("name", grammar.NAME, "[a-z][a-z0-9_]{1,62} that does not look like an id"),
        version=fields.match("version", grammar.VERSION, "MAJOR.MINOR.PATCH, such as 1.2.0"),
        summary=fields.check("summary", grammar.one_line),
        license=fields.match("license", grammar.LICENSE, 'an SPDX expression, such as "MIT"'),
        origin=origin,
        runtime=runtime,
        requires_python=fields.check("requires_python", grammar.python_specifier, default=">=3.11"),
        environment=fields.match("environment", grammar.ENVIRONMENT, "[a-z][a-z0-9_-]{0,62}", default="base"),
        interface=cast("Interface", interface),
        entrypoint=_entrypoint(fields, runtime, interface),
        stages=_stages(fields),
        deterministic=fields.boolean("deterministic", default=False),
        limits=_limits(fields),
        permissions=_permissions(fields),
        input_schema=_schema_path(fields, "input", interface, present),
        output_schema=_schema_path(fields, "output", interface, present),
        adapted_from=_adapted_from(fields, origin),
        capability=_capability(fields),
    )
    fields.table("schemas").unknown_are(("input", "output"))
    fields.finish()
    return manifest


def manifest_to_table(manifest: Manifest) -> dict[str, Any]:
    """The manifest with every default written out: what plugin.json carries. Its parse is the same manifest."""
    table: dict[str, Any] = {
        "schema": 1,
        "name": manifest.name,
        "version": manifest.version,
        "summary": manifest.summary,
        "license": manifest.license,
        "origin": manifest.origin,
        "runtime": manifest.runtime,
        "requires_python": manifest.requires_python,
        "environment": manifest.environment,
        "interface": manifest.interface,
        "entrypoint": manifest.entrypoint,
        "stages": list(manifest.stages),
        "deterministic": manifest.deterministic,
        "capability": {key: list(words) for key, words in sorted(manifest.capability.items())},
        "limits": {name: value for name, value in manifest.limits.items() if value},
        "schemas": {"input": manifest.input_schema, "output": manifest.output_schema},
        "permissions": {},
    }
    for permission in manifest.permissions:
        table["permissions"].setdefault(permission.kind, []).append(json.loads(permission.entry))
    if manifest.adapted_from:
        table["adapted_from"] = manifest.adapted_from
    return table


def canonical_entry(entry: Mapping[str, Any]) -> str:
    """One permission's table as it is stored and compared: JSON with sorted keys."""
    return json.dumps(entry, sort_keys=True, ensure_ascii=False)


def accepts_python(requires_python: str, version: tuple[int, int, int]) -> bool:
    """Whether a checked `requires_python` holds for an interpreter. Source: PEP 440, version specifiers."""
    return grammar.python_matches(requires_python, version)


def with_version_suffix(toml: bytes, suffix: str) -> bytes:
    """plugin.toml with something behind its version. Raises InvalidBundleError: it has no line `version = "…"`."""
    line = re.compile(rb"""(?m)^([ \t]*version[ \t]*=[ \t]*(["'])[^"'\n]*)\2""")
    changed, count = line.subn(rb"\g<1>" + suffix.encode() + rb"\g<2>", toml, count=1)
    if count != 1:
        raise InvalidBundleError(f'{FILE_NAME}: version: expected a line such as version = "1.2.0", got none')
    return changed


def sequence_of(version: str) -> int:
    """The number that a later version's is always above: what a rollback is measured by."""
    major, minor, patch = (int(part) for part in version.partition("+")[0].split("."))
    return (major * 100_000 + minor) * 100_000 + patch


def _entrypoint(fields: Fields, runtime: str, interface: str) -> str:
    if runtime == "exec":
        if interface == "functions":
            fields.problem("interface", 'expected "json" for runtime "exec"', "functions")
        if (environment := fields.raw("environment")) not in (None, "base"):
            fields.problem("environment", 'expected "base": packages are for Python', shown(environment))
        return fields.check("entrypoint", grammar.bundle_path)
    if interface == "functions":
        return fields.match("entrypoint", grammar.MODULE, 'a module, such as "calculations"')
    return fields.match("entrypoint", grammar.MODULE_FUNCTION, '"module:function", such as "cost_breakdown:run"')


def _stages(fields: Fields) -> tuple[str, ...]:
    stages = fields.strings("stages", grammar.STAGE, 'PlanExe stage names such as "durations", or "*" for all')
    if "*" in stages and len(stages) > 1:
        fields.problem("stages", 'expected "*" alone or stage names', json.dumps(stages))
    return stages


def _limits(fields: Fields) -> Limits:
    table = fields.table("limits")
    names = [name for name, _ in Limits().items()]
    table.unknown_are(names)
    return Limits(**{name: table.integer(name, 1, MAX_LIMIT, default=0) for name in names})


def _schema_path(fields: Fields, which: str, interface: str, present: Collection[str]) -> str:
    table = fields.table("schemas")
    default = DEFAULT_SCHEMAS[which]
    if interface == "functions":
        if table.raw(which) == "":
            return ""
        default = default if default in present else ""
    return table.check(which, grammar.bundle_path, default=default)


def _adapted_from(fields: Fields, origin: str) -> str:
    if origin == "adapted":
        return fields.match("adapted_from", grammar.ADAPTED_FROM, '"plug_N@MAJOR.MINOR.PATCH", such as "plug_12@1.0.0"')
    if fields.raw("adapted_from") is not None:
        fields.problem("adapted_from", 'expected only with origin = "adapted"', origin)
    return ""


def _capability(fields: Fields) -> dict[str, tuple[str, ...]]:
    table = fields.table("capability")
    table.unknown_are(("domains", "tasks"))
    words = {
        key: table.strings(key, grammar.WORD, "lower-case words such as cost_rollup", may_be_empty=True)
        for key in ("domains", "tasks")
    }
    return {key: value for key, value in words.items() if value}


def _permissions(fields: Fields) -> tuple[Permission, ...]:
    table = fields.table("permissions")
    table.unknown_are(tuple(grammar.PERMISSION_FIELDS))
    found: list[Permission] = []
    entries = {kind: table.tables(kind) for kind in grammar.PERMISSION_FIELDS}
    if (count := sum(map(len, entries.values()))) > MAX_PERMISSIONS:
        fields.problem("permissions", f"expected at most {MAX_PERMISSIONS}", str(count))
        return ()
    for kind, checks in grammar.PERMISSION_FIELDS.items():
        for entry in entries[kind]:
            entry.unknown_are(tuple(checks))
            checked = {name: check(entry, name) for name, check in checks.items()}
            permission = Permission(kind, canonical_entry(checked))
            if permission in found:
                entry.problem("", "expected each permission once", permission.entry)
            found.append(permission)
    return tuple(found)
