"""The client's bundle of generated code is, byte for byte, what plugindctl build makes of the same folder."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.provenance import bundle, manifest
from plugind.schema import Schema
from plugind_client import InvalidRequest, InvalidSource
from plugind_client.bundling import Plan, example, files, input_schema, make
from plugind_client.source import read

NAPKIN = sorted((Path(__file__).parents[1] / "data/napkin").glob("*/calculations.py"))
SIMPLE = '"""Sums."""\ndef add(a: float, b: float = 0.0) -> float:\n    """One and another."""\n    return a + b\n'
SOURCES = [
    *(path.read_text() for path in NAPKIN),
    SIMPLE,
    "def f(x='\\ud800', ä=1): ...\n",
    "def a(): ...\r\ndef b(): ...",
]


def folder_of(plan, target):
    for path, data in files(plan).items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_bytes(data)
    return target


@pytest.mark.parametrize("text", SOURCES, ids=range(len(SOURCES)))
@pytest.mark.parametrize("name,stages", [("napkin", ("*",)), ("json", ("premortem", "self_audit")), ("async", ("*",))])
def test_bytes_are_those_of_plugindctl_build(tmp_path, text, name, stages):
    source = read(text)
    made = make(source, name, stages)
    assert bundle.build(folder_of(Plan(source, name, made.version, stages), tmp_path)) == made.data
    found = bundle.read(made.data)
    assert (found.digest, found.manifest.name, found.manifest.version) == (made.digest, made.name, made.version)
    assert (found.manifest.origin, found.manifest.interface) == ("synthesized", "functions")
    assert (found.manifest.stages, found.manifest.permissions) == (stages, ())
    assert list(found.files.values()).count(text.encode()) == 1
    assert found.input_schema.document == input_schema(source)


def test_same_source_is_the_same_version_and_a_changed_one_is_another():
    made = make(read(SIMPLE), "sums")
    assert made == make(read(SIMPLE), "sums")
    others = [make(read(SIMPLE + "\n"), "sums"), make(read(SIMPLE), "sums", ("report",)), make(read(SIMPLE), "other")]
    assert len({made.version, *(other.version for other in others)}) == 4
    assert all(manifest.sequence_of(each.version) == 0 for each in (made, *others))  # none is before another


@pytest.mark.parametrize("name", ["a", "Sums", "plug_1", "su-ms", "", "../sums", "sums\n", "x" * 64])
def test_name_that_no_plugin_may_have(name):
    with pytest.raises(InvalidRequest) as raised:
        make(read(SIMPLE), name)
    assert "expected a name of 2 to 63" in raised.value.detail


def test_stage_that_cannot_be():
    with pytest.raises(InvalidRequest, match="does not accept") as raised:
        make(read(SIMPLE), "sums", ("Report",))
    assert raised.value.detail == "'Report': expected the name of a stage"


@pytest.mark.parametrize("name", ["f", "größe", "\u0441apacity", "\U00020000"])
def test_daemon_takes_functions_with_names_of_any_script(name):
    source = read(f"def {name}(x: int): ...\ndef other(): ...")
    made = Schema.parse(json.dumps(input_schema(source)).encode(), "input.json")
    assert made.errors({"function": name, "arguments": {"x": 1}}) == []
    assert made.errors({"function": name, "arguments": {"x": "1"}})


@pytest.mark.parametrize(
    "name,module",
    [("sums", "sums"), ("json", "json_plugin"), ("lambda", "lambda_plugin"), ("plugind", "plugind_plugin")],
)
def test_module_is_the_one_that_is_imported_in_the_jail(name, module):
    assert bundle.read(make(read(SIMPLE), name).data).manifest.entrypoint == module


def test_functions_whose_schema_is_too_long():
    wide = ", ".join(f"p{number}: list[list[float | int | str]]" for number in range(20))
    source = read("\n".join(f"def f{number}({wide}): ..." for number in range(120)))
    with pytest.raises(InvalidSource) as raised:
        make(source, "wide")
    assert "expected functions whose schema has at most 262144 bytes" in raised.value.detail


@given(st.text(min_size=1, max_size=300))
def test_any_docstring_gives_a_summary_that_is_taken(doc):
    try:
        source = read(f"{doc!r}\ndef f(): ...")
    except InvalidSource:
        return
    found = bundle.read(make(source, "documented").data)
    assert found.manifest.summary.isprintable()


def test_case_with_an_input_that_fits():
    assert example(read(SIMPLE)) == {"input": {"function": "add", "arguments": {"a": 1.0}}}
    assert example(read("def f(x: Literal['a']): ...\ndef g(y: str, z: list): ...")) == {
        "input": {"function": "g", "arguments": {"y": "a", "z": []}}
    }
    assert example(read("def f(x: Literal['a']): ...")) is None


def test_case_is_part_of_the_folder(tmp_path):
    source = read(SIMPLE)
    plan = Plan(source, "sums", "0.1.0", cases={"first": example(source)})
    found = bundle.read(bundle.build(folder_of(plan, tmp_path)))
    assert [(case.name, case.input) for case in found.cases] == [("first", example(source)["input"])]
    assert json.loads((tmp_path / "cases/first.json").read_text()) == example(source)
