"""Whether the files of a bundle are what its manifest says: schemas, cases, entry point."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from plugind import jsontext
from plugind.errors import InvalidBundleError, InvalidJsonError, InvalidSchemaError
from plugind.jsontext import JsonValue
from plugind.model import Manifest
from plugind.provenance import grammar
from plugind.provenance.fields import Fields, shown
from plugind.schema import Schema

MAX_CASE_BYTES = 8 * 1024 * 1024
_CASE = re.compile(r"cases/([^/]+)\.json")


@dataclass(frozen=True, slots=True)
class Case:
    """cases/NAME.json: an input with the output it must give, for tests and certification."""

    name: str
    input: JsonValue
    has_output: bool
    output: JsonValue
    stage: str


@dataclass(frozen=True, slots=True)
class Contents:
    """What the files hold, and every problem with them."""

    input_schema: Schema | None
    output_schema: Schema | None
    cases: tuple[Case, ...]
    problems: tuple[str, ...]


def inspect(manifest: Manifest, files: Mapping[str, bytes], executable: Collection[str]) -> Contents:
    """Parse schemas and cases, and look for the entry point. Raises nothing: problems are in the result."""
    problems = _not_yet(files)
    schemas = [_schema(manifest, files, which, problems) for which in ("input", "output")]
    problems += _entrypoint(manifest, files, executable)
    cases = []
    for path in sorted(files):
        if match := _CASE.fullmatch(path):
            case = _case(manifest, path, match[1], files[path], problems)
            if case:
                cases.append(case)
                problems.extend(_misfits(path, manifest, case, *schemas))
    return Contents(schemas[0], schemas[1], tuple(cases), tuple(problems))


def module_file(manifest: Manifest, files: Mapping[str, bytes]) -> str:
    """The file of the entry point's module; empty when there is none."""
    if manifest.runtime != "python":
        return ""
    path = manifest.entrypoint.partition(":")[0].replace(".", "/")
    return next((name for name in (f"{path}.py", f"{path}/__init__.py") if name in files), "")


def _entrypoint(manifest: Manifest, files: Mapping[str, bytes], executable: Collection[str]) -> Iterator[str]:
    place = manifest.entrypoint
    if manifest.runtime == "python":
        if not module_file(manifest, files):
            wanted = place.partition(":")[0].replace(".", "/")
            yield f"plugin.toml: entrypoint: expected a file {wanted}.py or {wanted}/__init__.py, got none"
    elif place not in files:
        yield f"plugin.toml: entrypoint: expected a file {place}, which is the program, got none"
    elif place not in executable:
        yield f"{place}: expected an executable file (plugin.toml: entrypoint), got one that is not: chmod +x {place}"


def _not_yet(files: Mapping[str, bytes]) -> list[str]:
    problems = []
    if "requirements.lock" in files:
        problems.append(
            "requirements.lock: expected none: this release has the standard library only, and vendors nothing"
        )
    return problems


def _schema(manifest: Manifest, files: Mapping[str, bytes], which: str, problems: list[str]) -> Schema | None:
    path = manifest.input_schema if which == "input" else manifest.output_schema
    if not path:
        return None
    if path not in files:
        problems.append(f"{path}: expected the schema of the {which} (plugin.toml: schemas.{which}), got no such file")
        return None
    try:
        return Schema.parse(files[path], path)
    except InvalidSchemaError as error:
        problems.append(str(error))
        return None


def _case(manifest: Manifest, path: str, name: str, data: bytes, problems: list[str]) -> Case | None:
    try:
        table = jsontext.loads(data, max_bytes=MAX_CASE_BYTES, non_finite=manifest.interface == "functions")
    except InvalidJsonError as error:
        problems.append(f"{path}: {error}")
        return None
    if not isinstance(table, dict):
        problems.append(f'{path}: expected an object {{"input": …, "output": …, "stage": …}}, got {shown(table)}')
        return None
    fields = Fields(table, path, ("input", "output", "stage"), problems=problems)
    if "input" not in table:
        fields.problem("input", "expected the plugin's input", "nothing: the field is missing")
        return None
    stage = fields.match("stage", grammar.STAGE, "a stage's name", default="*")
    if stage not in ("", "*", *manifest.stages) and manifest.stages != ("*",):
        fields.problem("stage", f"expected one of the manifest's stages ({', '.join(manifest.stages)})", stage)
    return Case(name, table["input"], "output" in table, table.get("output"), "" if stage == "*" else stage)


def _misfits(
    path: str, manifest: Manifest, case: Case, input_schema: Schema | None, output_schema: Schema | None
) -> list[str]:
    non_finite = manifest.interface == "functions"
    problems = []
    if input_schema:
        found = input_schema.errors(case.input, limit=3, non_finite=non_finite)
        problems += [f"{path}: input: {error} [{input_schema.where}]" for error in found]
    if output_schema and case.has_output:
        found = output_schema.errors(case.output, limit=3, non_finite=non_finite)
        problems += [f"{path}: output: {error} [{output_schema.where}]" for error in found]
    return problems


def require(contents: Contents) -> Contents:
    """Raise InvalidBundleError with all problems, if there are any."""
    if contents.problems:
        raise InvalidBundleError(*contents.problems)
    return contents
