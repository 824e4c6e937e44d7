"""What an author hears about the code before anybody runs it."""

from __future__ import annotations

import pytest

from plugind.provenance import manifest, pythoncode


def about(entrypoint="demo:run", interface="json"):
    return manifest.manifest_from_table(
        {
            "schema": 1,
            "name": "demo",
            "version": "1.2.3",
            "summary": "Doubles",
            "license": "MIT",
            "origin": "authored",
            "interface": interface,
            "entrypoint": entrypoint,
            "stages": ["*"],
        },
        "table",
    )


def problems(source, **options):
    return pythoncode.problems(about(**options), {"demo.py": source})


@pytest.mark.parametrize(
    "source",
    [
        b"def run(p, c): ...",
        b"async def run(p, c): ...",
        b"class run: ...",
        b"from other import run",
        b"from other import walk as run",
        b"from other import *",
        b"run = print",
        b"a, run = print, 1",
        b"run: object = print",
        b"try:\n    from fast import run\nexcept ImportError:\n    def run(p, c): ...",
        b"if True:\n    pass\nelse:\n    run = 1",
        b"with open('x'):\n    run = 1",
    ],
)
def test_an_entry_point_at_the_top_level_is_found(source):
    assert problems(source) == []


@pytest.mark.parametrize(
    "source", [b"", b"def walk(): ...", b"class A:\n    def run(self): ...", b"walk = run", b"import run_not"]
)
def test_an_entry_point_that_is_not_defined_is_told(source):
    assert problems(source) == ["demo.py: expected a function run (plugin.toml: entrypoint), got none at the top level"]


def test_of_the_functions_interface_no_function_is_expected():
    assert problems(b"", entrypoint="demo", interface="functions") == []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (b"x = 1\ndef run(:\n", "demo.py:2: invalid syntax"),
        (b"x = '", "demo.py:1: unterminated string"),
        (b"\xff = 1", "demo.py:"),
        (b"x = 1\0", "demo.py:1: "),
        (b"# coding: nonsense\n", "demo.py:1: "),
        (b"x = " + b"(" * 500 + b")" * 500, "demo.py:1: "),
        (b"x = " + b"-" * 200_000 + b"1", "demo.py:1: "),
    ],
    ids=["syntax", "string", "not UTF-8", "NUL", "coding", "parentheses", "depth"],
)
def test_what_does_not_parse_is_told_with_its_line(source, words):
    (found,) = problems(source)
    assert found.startswith(words)


def test_a_doubtful_escape_is_no_problem():
    assert problems(b"x = '\\d'\ndef run(p, c): ...") == []


def test_every_file_is_parsed_and_only_python_files_are():
    files = {"demo.py": b"def run(p, c): ...", "lib/other.py": b"if", "data.txt": b"if"}
    assert [found.partition(":")[0] for found in pythoncode.problems(about(), files)] == ["lib/other.py"]


def test_a_module_that_hides_one_of_the_standard_library_is_told():
    found = pythoncode.problems(about("json:run"), {"json.py": b"def run(p, c): ..."})
    assert found == ['plugin.toml: entrypoint: expected a module of your own, got "json" of the standard library']
