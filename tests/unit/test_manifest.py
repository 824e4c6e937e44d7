"""plugin.toml: each field that is wrong is named with what was expected and what came, all at once."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugind.errors import InvalidBundleError
from plugind.model import Limits, Manifest, Permission
from plugind.provenance import grammar
from plugind.provenance.manifest import (
    MAX_LIMIT,
    MAX_MANIFEST_BYTES,
    canonical_entry,
    manifest_from_table,
    manifest_to_table,
    parse_manifest,
    sequence_of,
    with_version_suffix,
)

TOML = """\
schema = 1
name = "cost_breakdown"
version = "1.2.0"
summary = "Rolls task costs up"
license = "MIT"
origin = "authored"
entrypoint = "cost_breakdown:run"
stages = ["durations", "report"]
"""
FULL = """\
schema = 1
name = "cost_breakdown"
version = "1.2.0"
summary = "Rolls task costs up"
license = "MIT"
origin = "adapted"
adapted_from = "plug_12@1.0.0"
runtime = "python"
requires_python = ">=3.11,<3.14"
environment = "base"
interface = "json"
entrypoint = "cost_breakdown:run"
stages = ["*"]
deterministic = true
[capability]
domains = ["finance"]
tasks = ["cost_rollup"]
[limits]
wall_ms = 5000
pids = 8
[schemas]
input = "in.json"
output = "out.json"
[[permissions.network]]
port = 443
protocol = "tcp"
host = "api.example.org"
[[permissions.file_read]]
path = "wbs_*.json"
[[permissions.file_read]]
path = "other.json"
[[permissions.external_api]]
api = "rates"
methods = ["GET"]
paths = ["/v1/rates"]
[[permissions.sensitive_data]]
class = "plan.prompts"
"""
BASE = {
    "schema": 1,
    "name": "demo",
    "version": "1.2.0",
    "summary": "Doubles",
    "license": "MIT",
    "origin": "authored",
    "entrypoint": "demo:run",
    "stages": ["*"],
}


def problems(**change):
    """What is wrong with a good table after this change; `...` takes a field away."""
    table = {name: value for name, value in (BASE | change).items() if value is not ...}
    with pytest.raises(InvalidBundleError) as caught:
        manifest_from_table(table, "p.toml")
    return list(caught.value.problems)


def test_the_smallest_manifest_gets_its_defaults():
    manifest = parse_manifest(TOML.encode())
    assert manifest == Manifest(
        name="cost_breakdown",
        version="1.2.0",
        summary="Rolls task costs up",
        license="MIT",
        origin="authored",
        runtime="python",
        requires_python=">=3.11",
        environment="base",
        interface="json",
        entrypoint="cost_breakdown:run",
        stages=("durations", "report"),
        deterministic=False,
        limits=Limits(),
        permissions=(),
        input_schema="schemas/input.json",
        output_schema="schemas/output.json",
    )


def test_every_field_is_read():
    manifest = parse_manifest(FULL.encode())
    assert manifest.adapted_from == "plug_12@1.0.0"
    assert manifest.limits == Limits(wall_ms=5000, pids=8)
    assert manifest.capability == {"domains": ("finance",), "tasks": ("cost_rollup",)}
    assert (manifest.input_schema, manifest.output_schema, manifest.deterministic) == ("in.json", "out.json", True)
    assert manifest.permissions == (
        Permission("file_read", '{"path": "wbs_*.json"}'),
        Permission("file_read", '{"path": "other.json"}'),
        Permission("network", '{"host": "api.example.org", "port": 443, "protocol": "tcp"}'),
        Permission("external_api", '{"api": "rates", "methods": ["GET"], "paths": ["/v1/rates"]}'),
        Permission("sensitive_data", '{"class": "plan.prompts"}'),
    )


MISSING = "got nothing: the field is missing"
FIELDS = [
    ("schema", 2, "expected 1, got 2"),
    ("schema", "1", 'expected 1, got "1"'),
    ("schema", True, "expected 1, got true"),
    ("name", "Demo", 'expected [a-z][a-z0-9_]{1,62} that does not look like an id, got "Demo"'),
    ("name", "plug_7", 'expected [a-z][a-z0-9_]{1,62} that does not look like an id, got "plug_7"'),
    ("version", "1.2", 'expected MAJOR.MINOR.PATCH, such as 1.2.0, got "1.2"'),
    ("version", 1.2, "expected MAJOR.MINOR.PATCH, such as 1.2.0, got 1.2"),
    ("summary", "a\x1b[2Jb", r'expected one line of 1 to 200 characters, got "a\u001b[2Jb"'),
    ("summary", 5, "expected a string, got 5"),
    ("license", "", 'expected an SPDX expression, such as "MIT", got ""'),
    ("origin", "found", 'expected "authored" or "synthesized" or "adapted", got "found"'),
    ("origin", ["authored"], 'expected "authored" or "synthesized" or "adapted", got ["authored"]'),
    ("adapted_from", "plug_1@1.0.0", 'expected only with origin = "adapted", got authored'),
    ("runtime", "wasm", 'expected "python" or "exec", got "wasm"'),
    ("requires_python", "3.11", 'expected version specifiers, such as ">=3.11" or ">=3.11,<3.14", got "3.11"'),
    ("environment", "Base", 'expected [a-z][a-z0-9_-]{0,62}, got "Base"'),
    ("interface", "xml", 'expected "json" or "functions", got "xml"'),
    ("entrypoint", "demo", 'expected "module:function", such as "cost_breakdown:run", got "demo"'),
    ("stages", [], 'expected a list of PlanExe stage names such as "durations", or "*" for all, got []'),
    ("stages", "*", 'expected a list of PlanExe stage names such as "durations", or "*" for all, got "*"'),
    ("stages", ["A"], 'expected a list of PlanExe stage names such as "durations", or "*" for all, got "A"'),
    ("stages", ["a", "a"], 'expected each one once, got ["a", "a"]'),
    ("stages", ["*", "a"], 'expected "*" alone or stage names, got ["*", "a"]'),
    ("deterministic", 1, "expected true or false, got 1"),
    ("limits", 5, "expected a table [limits], got 5"),
    ("permissions", [], "expected a table [permissions], got []"),
]


@pytest.mark.parametrize(("field", "value", "words"), FIELDS)
def test_a_wrong_field_is_named_with_what_was_expected_and_what_came(field, value, words):
    assert problems(**{field: value}) == [f"p.toml: {field}: {words}"]


@pytest.mark.parametrize("field", sorted(BASE))
def test_a_missing_field_is_named(field):
    (problem,) = problems(**{field: ...})
    assert problem.startswith(f"p.toml: {field}: expected ")
    assert problem.endswith(MISSING)


NESTED = [
    ({"limits": {"wall_ms": 0}}, f"limits.wall_ms: expected a whole number from 1 to {MAX_LIMIT}, got 0"),
    ({"limits": {"pids": 2.0}}, f"limits.pids: expected a whole number from 1 to {MAX_LIMIT}, got 2.0"),
    ({"limits": {"pids": True}}, f"limits.pids: expected a whole number from 1 to {MAX_LIMIT}, got true"),
    ({"limits": {"wall": 5}}, "limits.wall: unknown field; did you mean wall_ms?"),
    ({"schemas": {"inputs": "a.json"}}, "schemas.inputs: unknown field; did you mean input?"),
    ({"schemas": {"input": "../a.json"}}, 'schemas.input: expected a path without empty, . or .. parts, got "../a.json"'),
    ({"schemas": {"input": ""}}, 'schemas.input: expected a path of 1 to 255 characters, got ""'),
    ({"capability": {"domains": ["A B"]}}, 'capability.domains: expected a list of lower-case words such as cost_rollup, got "A B"'),
    ({"capability": {"xyz": []}}, "capability.xyz: unknown field; known are: domains, tasks"),
    ({"permissions": {"files": []}}, "permissions.files: unknown field; did you mean file_read?"),
    ({"permissions": {"file_read": {}}}, "permissions.file_read: expected tables [[permissions.file_read]], got {}"),
    ({"permissions": {"file_read": [{}]}}, f"permissions.file_read[0].path: expected a string, {MISSING}"),
    (
        {"permissions": {"file_read": [{"path": "a"}, {"path": "/b"}]}},
        'permissions.file_read[1].path: expected a pattern relative to the plan\'s folder, printable and without backslash, got "/b"',
    ),
    (
        {"permissions": {"file_read": [{"path": "a", "mode": "r"}]}},
        "permissions.file_read[0].mode: unknown field; known are: path",
    ),
    (
        {"permissions": {"file_read": [{"path": "a"}, {"path": "a"}]}},
        'permissions.file_read[1]: expected each permission once, got {"path": "a"}',
    ),
    (
        {"permissions": {"network": [{"host": "a.b", "port": 0, "protocol": "tcp"}]}},
        "permissions.network[0].port: expected a whole number from 1 to 65535, got 0",
    ),
    (
        {"permissions": {"network": [{"host": "*.b", "port": 1, "protocol": "tcp"}]}},
        'permissions.network[0].host: expected a host name in lower case or an address, such as "api.example.org", got "*.b"',
    ),
    (
        {"permissions": {"network": [{"host": "a.b", "port": 1, "protocol": "icmp"}]}},
        'permissions.network[0].protocol: expected "tcp" or "udp", got "icmp"',
    ),
    (
        {"permissions": {"sensitive_data": [{"class": "A"}]}},
        'permissions.sensitive_data[0].class: expected a class of data such as "plan.prompts", got "A"',
    ),
    ({"origin": "adapted"}, f'adapted_from: expected "plug_N@MAJOR.MINOR.PATCH", such as "plug_12@1.0.0", {MISSING}'),
    ({"runtime": "exec", "interface": "functions", "entrypoint": "x"}, 'interface: expected "json" for runtime "exec", got functions'),
    (
        {"runtime": "exec", "environment": "science", "entrypoint": "x"},
        'environment: expected "base": packages are for Python, got "science"',
    ),
    ({"runtime": "exec", "entrypoint": "../x"}, 'entrypoint: expected a path without empty, . or .. parts, got "../x"'),
    ({"interface": "functions"}, 'entrypoint: expected a module, such as "calculations", got "demo:run"'),
    ({"entrypont": "x"}, "entrypont: unknown field; did you mean entrypoint?"),
    ({"\x1b[2J": 1}, r'"\u001b[2J": unknown field; known are: ' + ", ".join(
        "schema name version summary license origin adapted_from runtime requires_python environment interface entrypoint "
        "stages deterministic capability limits schemas permissions".split()
    )),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), NESTED)
def test_a_wrong_field_in_a_table_is_named_with_its_place(change, words):
    assert problems(**change) == [f"p.toml: {words}"]


def test_all_problems_are_told_at_once():
    found = problems(name="X", version=..., stages=[], limits={"pids": -1}, colour="red")
    assert [problem.split(": ")[1] for problem in found] == ["colour", "name", "version", "stages", "limits.pids"]


def test_unknown_fields_are_told_up_to_ten_however_many_and_long_they_are():
    started = time.process_time()
    found = problems(**{f"{number}{'x' * 500}": 1 for number in range(20_000)})
    assert len(found) == 11
    assert found[-1] == "p.toml: : 19990 more unknown fields"
    assert max(map(len, found)) < 500
    assert time.process_time() - started < 1


def test_permissions_are_counted_before_they_are_compared():
    started = time.process_time()
    entries = [{"path": f"a{number}"} for number in range(20_000)]
    assert problems(permissions={"file_read": entries}) == ["p.toml: permissions: expected at most 100, got 20000"]
    assert time.process_time() - started < 1
    assert len(manifest_from_table(BASE | {"permissions": {"file_read": entries[:100]}}, "t").permissions) == 100


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        (b"name = ", "f: expected TOML: "),
        (b"name = 1\nname = 2", "f: expected TOML: "),
        (b"name = \xff", "f: expected UTF-8, got other bytes at offset 7"),
        (b"a = " + b"1" * 5000, "f: expected TOML: "),
        (b"a = " + b"[" * 5000 + b"]" * 5000, "f: nested too deeply"),
        (b"a." * 20_000 + b"a = 1", "f: expected at most 200 dots in a line, got 20000"),
        (b"[" + b"a." * 20_000 + b"a]", "f: expected at most 200 dots in a line, got 20000"),
        (b"#" * (MAX_MANIFEST_BYTES + 1), "f: expected at most 65536 bytes, got 65537"),
        (b"", "f: schema: expected 1"),
    ],
    ids=["no value", "twice", "not UTF-8", "digits", "depth", "dotted key", "dotted table", "size", "empty"],
)
def test_what_is_no_toml_is_refused_in_no_time(toml, words):
    started = time.process_time()
    with pytest.raises(InvalidBundleError) as caught:
        parse_manifest(toml, "f")
    assert str(caught.value).startswith(words)
    assert time.process_time() - started < 1


@given(st.binary(max_size=200) | st.text("a=[]{}.\"'\n1e_-:#x", max_size=200).map(str.encode))
def test_arbitrary_bytes_are_no_manifest(data):
    with pytest.raises(InvalidBundleError):
        parse_manifest(data)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
TOP = sorted(manifest_to_table(parse_manifest(FULL.encode())))


@given(st.dictionaries(st.sampled_from(TOP), ANYTHING, max_size=6))
def test_a_table_of_anything_is_refused_and_nothing_else_happens(change):
    try:
        manifest = manifest_from_table(BASE | change, "t")
    except InvalidBundleError as error:
        problems = error.problems
    else:
        problems = ()
        assert manifest_from_table(manifest_to_table(manifest), "t") == manifest
    assert all(problem.startswith("t: ") for problem in problems)


@pytest.mark.parametrize(
    ("present", "schemas", "expected"),
    [
        ([], None, ("", "")),
        (["schemas/input.json"], None, ("schemas/input.json", "")),
        (["schemas/input.json", "schemas/output.json"], {"input": ""}, ("", "schemas/output.json")),
        ([], {"output": "o.json"}, ("", "o.json")),
    ],
)
def test_of_the_functions_interface_a_schema_is_used_if_it_is_there(present, schemas, expected):
    table = BASE | {"interface": "functions", "entrypoint": "demo"} | ({"schemas": schemas} if schemas else {})
    manifest = manifest_from_table(table, "t", present=present)
    assert (manifest.input_schema, manifest.output_schema) == expected
    again = manifest_from_table(manifest_to_table(manifest), "t", present=["schemas/input.json", "schemas/output.json"])
    assert again == manifest


def matching(pattern):
    return st.from_regex(pattern, fullmatch=True)


PATHS = st.from_regex(r"[a-z]{1,5}(/[a-z]{1,5}){0,2}\.json", fullmatch=True)
LIMITS = st.builds(Limits, *[st.just(0) | st.integers(1, MAX_LIMIT)] * 6)
ENTRIES = st.one_of(
    st.tuples(st.sampled_from(["file_read", "file_write"]), st.fixed_dictionaries({"path": PATHS})),
    st.tuples(
        st.just("network"),
        st.fixed_dictionaries(
            {
                "host": st.sampled_from(["a.example", "::1", "10.0.0.1"]),
                "port": st.integers(1, 65535),
                "protocol": st.sampled_from(["tcp", "udp"]),
            }
        ),
    ),
    st.tuples(
        st.just("external_api"),
        st.fixed_dictionaries(
            {
                "api": matching(grammar.WORD),
                "methods": st.just(["GET", "PUT"]),
                "paths": st.lists(st.sampled_from(["/", "/v1/x", "/a"]), min_size=1, max_size=3, unique=True),
            }
        ),
    ),
    st.tuples(st.just("sensitive_data"), st.fixed_dictionaries({"class": matching(grammar.CLASS)})),
).map(lambda pair: Permission(pair[0], canonical_entry(pair[1])))
ORDER = list(grammar.PERMISSION_FIELDS)
WORDS = st.lists(matching(grammar.WORD), min_size=1, max_size=2, unique=True).map(tuple)


@st.composite
def manifests(draw):
    functions = draw(st.booleans())
    origin = draw(st.sampled_from(["authored", "synthesized", "adapted"]))
    found = draw(st.lists(ENTRIES, max_size=4, unique=True))
    stages = st.just(("*",)) | st.lists(
        st.from_regex(r"[a-z]{1,8}", fullmatch=True), min_size=1, max_size=3, unique=True
    )
    schema = st.just("") | PATHS if functions else PATHS
    return Manifest(
        name=draw(matching(grammar.NAME)),
        version=draw(matching(grammar.VERSION)),
        summary=draw(st.text(max_size=30).filter(lambda text: not grammar.one_line(text))),
        license=draw(matching(grammar.LICENSE)),
        origin=origin,
        runtime="python",
        requires_python=draw(st.sampled_from([">=3.11", ">=3.11,<3.14", "~=3.12"])),
        environment=draw(matching(grammar.ENVIRONMENT)),
        interface="functions" if functions else "json",
        entrypoint="a.b" if functions else "a.b:c",
        stages=tuple(draw(stages)),
        deterministic=draw(st.booleans()),
        limits=draw(LIMITS),
        permissions=tuple(sorted(found, key=lambda permission: ORDER.index(permission.kind))),
        input_schema=draw(schema),
        output_schema=draw(schema),
        adapted_from=draw(matching(grammar.ADAPTED_FROM)) if origin == "adapted" else "",
        capability=draw(st.dictionaries(st.sampled_from(["domains", "tasks"]), WORDS)),
    )


@pytest.mark.slow
@settings(max_examples=30)
@given(manifests())
def test_a_manifest_survives_its_table_and_the_table_survives_json(manifest):
    table = json.loads(json.dumps(manifest_to_table(manifest)))
    assert manifest_from_table(table, "t") == manifest
    assert manifest_to_table(manifest_from_table(table, "t")) == table


def test_a_version_suffix_is_put_behind_the_version():
    changed = with_version_suffix(TOML.encode(), "+try.ab12cd34")
    assert parse_manifest(changed).version == "1.2.0+try.ab12cd34"
    assert sequence_of("1.2.0+try.ab12cd34") == sequence_of("1.2.0")
    assert with_version_suffix(b"\tversion='1.0.0'", "+x") == b"\tversion='1.0.0+x'"
    with pytest.raises(InvalidBundleError, match="version: expected a line such as"):
        with_version_suffix(b'"version" = "1.0.0"', "+x")
