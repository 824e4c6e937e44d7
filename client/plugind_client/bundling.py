"""The bundle of generated code: the bytes that `plugindctl build` makes of a folder with the same files.

The same source for the same stages is always the same bytes under the same version. Source: SPEC.md, "Bundle".
"""

from __future__ import annotations

import hashlib
import json
import keyword
import re
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from plugind_client.errors import InvalidRequest, InvalidSource
from plugind_client.source import Function, Source

NAME: Final = re.compile(r"(?!plug_[0-9]+$)[a-z][a-z0-9_]{1,62}")
STAGE: Final = re.compile(r"\*|[a-z][a-z0-9_]{0,62}")
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
MAX_SCHEMA_BYTES: Final = 256 * 1024
"""The daemon takes no larger one."""
UNSAID_LICENSE: Final = "LicenseRef-Unstated"
"""Nobody has said under what terms generated code may be passed on."""
FIRST_VERSION: Final = "0.0.0"
_SUMMARY_CHARS: Final = 200
_TITLE_CHARS: Final = 200
_BLOCK: Final = 512


@dataclass(frozen=True, slots=True)
class Made:
    """A bundle, and what it is called. `digest` is the sha256 of its bytes, hex."""

    name: str
    version: str
    data: bytes
    digest: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What the plugin of a source is to be."""

    source: Source
    name: str
    version: str = FIRST_VERSION
    stages: Sequence[str] = ("*",)
    cases: Mapping[str, Any] = field(default_factory=dict)
    """By name: what stands in cases/NAME.json."""


def make(source: Source, name: str, stages: Sequence[str] = ("*",)) -> Made:
    """The bundle of a source. Its version is 0.0.0+try.XXXXXXXX, out of the digest of all that is in it.

    Raises:
        InvalidRequest: a name or a stage that no plugin may have.
        InvalidSource: the schemas of its functions are larger than plugind takes.
    """
    first = _bundle(Plan(source, name, stages=stages))
    version = f"{FIRST_VERSION}+try.{hashlib.sha256(first).hexdigest()[:8]}"
    data = _bundle(Plan(source, name, version, stages))
    return Made(name, version, data, hashlib.sha256(data).hexdigest())


def files(plan: Plan) -> dict[str, bytes]:
    """Path → content of the plugin's folder.

    Raises:
        InvalidRequest, InvalidSource: as for `make`.
    """
    _check(plan)
    manifest = _manifest(plan)
    written = {
        "plugin.toml": _toml(manifest).encode(),
        f"{manifest['entrypoint']}.py": plan.source.text.encode(),
        "schemas/input.json": _json(input_schema(plan.source)),
        "schemas/output.json": _json({"$schema": DIALECT, "title": "The value, or the list of values"}),
        **{f"cases/{name}.json": _json(case) for name, case in plan.cases.items()},
    }
    if len(written["schemas/input.json"]) > MAX_SCHEMA_BYTES:
        length = len(written["schemas/input.json"])
        detail = f"{plan.name}: expected functions whose schema has at most {MAX_SCHEMA_BYTES} bytes, got {length}"
        raise InvalidSource("INVALID_SOURCE", detail=detail)
    return written


def input_schema(source: Source) -> dict[str, Any]:
    """JSON Schema of interface "functions": one call of one of the functions, or a list of calls."""
    calls = [{"$ref": f"#/$defs/{quote(name)}"} for name in source.functions]  # a URI is ASCII, a name need not be
    return {
        "$schema": DIALECT,
        "title": "One call, or a list of calls",
        "anyOf": [{"$ref": "#/$defs/*"}, {"type": "array", "items": {"$ref": "#/$defs/*"}}],
        "$defs": {
            "*": {"anyOf": calls} if len(calls) > 1 else calls[0],
            **{name: _call_schema(function) for name, function in source.functions.items()},
        },
    }


def _call_schema(function: Function) -> dict[str, Any]:
    return {
        "title": _title(function),
        "type": "object",
        "properties": {"function": {"const": function.name}, "arguments": function.arguments},
        "required": ["function", "arguments"] if function.arguments["required"] else ["function"],
        "additionalProperties": False,
    }


def _title(function: Function) -> str:
    try:
        text = f"{function.name}{function.signature}"
    except (ValueError, RecursionError):  # a default of more digits than Python writes
        text = function.name
    return text.encode("ascii", "backslashreplace").decode()[:_TITLE_CHARS]


def example(source: Source) -> dict[str, Any] | None:
    """A case without an output: the first function whose arguments can be made up, with ones in them."""
    made_up: dict[Any, Any] = {"number": 1.0, "integer": 1, "boolean": True, "string": "a", "array": [], "object": {}}
    for name, function in source.functions.items():
        schemas = [function.arguments["properties"][each] for each in function.arguments["required"]]
        kinds = [schema.get("type") if isinstance(schema, dict) else "number" for schema in schemas]
        if all(kind in made_up for kind in kinds):
            values = [made_up[kind] for kind in kinds]
            arguments = dict(zip(function.arguments["required"], values, strict=True))
            return {"input": {"function": name, "arguments": arguments}}
    return None


# --- the manifest ----------------------------------------------------------------------------------------------------


def _check(plan: Plan) -> None:
    if NAME.fullmatch(plan.name) is None:
        expected = "expected a name of 2 to 63 lower-case letters, digits and _, a letter first"
        raise InvalidRequest("INVALID_REQUEST", detail=f"{plan.name!r}: {expected}")
    for stage in plan.stages:
        if STAGE.fullmatch(stage) is None:
            raise InvalidRequest("INVALID_REQUEST", detail=f"{stage!r}: expected the name of a stage")


def _manifest(plan: Plan) -> dict[str, Any]:
    """With every default written out, as plugin.json has it."""
    return {
        "schema": 1,
        "name": plan.name,
        "version": plan.version,
        "summary": _summary(plan.source),
        "license": UNSAID_LICENSE,
        "origin": "synthesized",
        "runtime": "python",
        "requires_python": ">=3.11",
        "environment": "base",
        "interface": "functions",
        "entrypoint": module_name(plan.name),
        "stages": list(plan.stages),
        "deterministic": False,
        "capability": {},
        "limits": {},
        "schemas": {"input": "schemas/input.json", "output": "schemas/output.json"},
        "permissions": {},
    }


def module_name(name: str) -> str:
    """The module of a plugin: neither hides another one nor is hidden in the jail, and can be imported."""
    taken = name in sys.stdlib_module_names or name == "plugind" or keyword.iskeyword(name)
    return f"{name}_plugin" if taken else name


def _summary(source: Source) -> str:
    lines = (source.doc or "").strip().split("\n")
    names = f"Generated functions: {', '.join(source.functions)}"
    for text in (lines[0].strip()[:_SUMMARY_CHARS].strip(), names[:_SUMMARY_CHARS].strip()):
        if text and text.isprintable():
            return text
    return "Generated functions"


def _toml(manifest: Mapping[str, Any]) -> str:
    plain = {name: value for name, value in manifest.items() if not isinstance(value, dict)}
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in plain.items()]
    schemas = [f"{name} = {json.dumps(value)}" for name, value in manifest["schemas"].items()]
    return "\n".join([*lines, "", "[schemas]", *schemas, ""])


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()


# --- the tar ---------------------------------------------------------------------------------------------------------


def _bundle(plan: Plan) -> bytes:
    """plugin.json, then the files sorted by bytes, then two blocks of zeros."""
    members = sorted(files(plan).items())  # the paths are ASCII
    index = {
        "schema": 1,
        "manifest": _manifest(plan),
        "sequence": 0,
        "files": {path: hashlib.sha256(data).hexdigest() for path, data in members},
        "requires": [],
    }
    text = json.dumps(index, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    parts = [_member("plugin.json", text.encode()), *(_member(path, data) for path, data in members)]
    return b"".join([*parts, bytes(2 * _BLOCK)])


def _member(path: str, data: bytes) -> bytes:
    header = tarfile.TarInfo(path)  # its times and owners are zero
    header.mode, header.size = 0o644, len(data)
    return header.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict") + data + bytes(-len(data) % _BLOCK)
