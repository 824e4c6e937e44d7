"""Generated code is read and never run: functions, signatures, schemas; and every text that is none gets one answer."""

import importlib.util
import inspect
import json
import pickle
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plugind.sandbox.inside.functions import public_functions
from plugind.schema import Schema
from plugind_client import InvalidRequest, InvalidSource
from plugind_client.bundling import input_schema
from plugind_client.source import MAX_BRACES, MAX_BYTES, MAX_FUNCTIONS, MAX_PARAMETERS, decoded, read

MODULES = sorted((Path(__file__).parents[1] / "data/napkin").glob("*/calculations.py"))


def refused(text, where="m.py"):
    with pytest.raises(InvalidSource) as raised:
        read(text, where)
    assert isinstance(raised.value, InvalidRequest)
    assert raised.value.detail.isprintable()
    assert pickle.loads(pickle.dumps(raised.value)).detail == raised.value.detail
    return raised.value.detail


def schema(text):
    return Schema.parse(json.dumps(input_schema(read(text))).encode(), "input.json")


def fits(text, name="f", **arguments):
    return schema(text).errors({"function": name, "arguments": arguments}, non_finite=True) == []


# --- what is found -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.parent.name)
def test_signatures_are_those_of_the_imported_module(path):
    spec = importlib.util.spec_from_file_location("calculations", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = read(path.read_text()).functions
    real = public_functions(module)
    assert list(found) == list(real)
    assert len(found) == 5
    for name, function in real.items():
        mine, theirs = found[name].signature, inspect.signature(function)
        assert list(mine.parameters) == list(theirs.parameters)
        for one, other in zip(mine.parameters.values(), theirs.parameters.values(), strict=True):
            assert (one.kind, one.default, one.annotation) == (other.kind, other.default, other.annotation.__name__)
        assert mine.return_annotation == theirs.return_annotation.__name__
        assert found[name].doc == inspect.getdoc(function)


NAMES = """
from math import sqrt
import statistics as stats
from os.path import *

def kept(x): return x
def _private(x): return x
class Thing:
    def method(self): pass
if True:
    def conditional(x): return x
try:
    import numpy
except ImportError:
    def fallback(x): return x
else:
    def otherwise(x): return x
doubled = lambda x: 2 * x
other_name = kept
typed: object = lambda y: y
def replaced(x): return x
replaced = 3
def hidden(x): return x
from math import sin as hidden
def gone(x): return x
del gone
def shadowed(x): return x
class shadowed: pass
not_a_function = 5
def marked(x): return x
marked.unit = "EUR"
del marked.unit
table = {}
table[marked] = marked.__doc__ = "text"
first, (*rest, unpacked) = 1, (2, 3)
def unpacked_over(x): return x
first, (*unpacked_over, second) = 1, (2, 3)
if __name__ == "__main__":
    def script(x): return x
"""


def test_what_the_module_defines_is_what_the_jail_would_offer():
    namespace = {"__name__": "m"}
    exec(compile(NAMES, "m", "exec"), namespace)
    module = type(inspect)("m")
    vars(module).update(namespace)
    found = set(read(NAMES).functions)
    assert found - {"fallback"} == set(public_functions(module)) - {"fallback", "otherwise"} | {"otherwise"}
    assert found == {"kept", "conditional", "fallback", "otherwise", "doubled", "other_name", "typed", "marked"}


def test_parameters_of_every_kind():
    text = "import math\ndef f(a, b: int = -3, *, c, d: 'float' = math.pi, e=float('inf'), **rest: str) -> dict[str, int]: ..."
    function = read(text).functions["f"]
    assert str(function.signature) == (
        "(a, b: 'int' = -3, *, c, d: \"'float'\" = math.pi, e=float('inf'), **rest: 'str') -> 'dict[str, int]'"
    )
    assert function.arguments["required"] == ["a", "c"]
    assert function.arguments["additionalProperties"] == {"type": "string"}


def test_nothing_is_run():
    read("raise SystemExit\nimport no_such_module\ndef f(x=print('x'), y: print('y') = 1): ...")


@pytest.mark.parametrize(
    "declared", ["utf-8", "UTF8", "utf_8", "utf-8-unix", "latin-1", "idna", "bz2_codec", "no-such"]
)
@pytest.mark.parametrize(
    "before", ["", "\n", "#!/usr/bin/python\n", "\r", " \f\t\r\n", "# x\r", "x = 1\n", "\n\n", "#coding utf-8\n"]
)
def test_declared_encoding_is_the_interpreters_and_never_looked_up(before, declared):
    text = f"{before}# vim: set fileencoding={declared} :\nA = 'é'\ndef f(): ..."
    known = set(sys.modules)
    try:
        taken = bool(read(text))
    except InvalidSource:
        assert "expected UTF-8, got a declaration of the encoding" in refused(text)
        taken = False
    assert set(sys.modules) == known
    namespace = {}
    try:
        exec(compile(text.encode(), "m", "exec"), namespace)
    except SyntaxError:
        namespace["A"] = "no such encoding"
    assert taken == (namespace["A"] == "é")


def test_text_of_a_file():
    assert decoded("\ufeffdef f(ä): ...".encode(), "m.py") == "def f(ä): ..."
    assert list(read("# -*- coding: utf-8 -*-\r\ndef f(ä): ...\r\n").functions["f"].signature.parameters) == ["ä"]
    with pytest.raises(InvalidSource) as raised:
        decoded(b"x = 1\ny = '\xff'", "m.py")
    assert raised.value.detail == "m.py:2:6: expected UTF-8, got byte 0xff"
    with pytest.raises(InvalidSource, match="cannot be made into a plugin"):
        decoded(b"#" * (MAX_BYTES + 1), "m.py")


# --- what is refused, and where ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text,said",
    [
        ("", "m.py:1:1: expected at least one public function at the top level, got no function"),
        ("def _f(): ...", "m.py:1:1: expected at least one public function at the top level, got no function"),
        ("x = 1\ndef f(x:\n    return x", "m.py:2:6: expected Python source, got '(' was never closed"),
        ("x = f'" + "{1}" * (MAX_BRACES + 1) + "'", f"m.py:1:1: expected at most {MAX_BRACES} braces, got {MAX_BRACES + 1}"),
        ("def f(): ...\n\0", "m.py:2:1: expected Python source, got a null byte"),
        ("x = '\ud800'", "m.py:1:6: expected Unicode text, got the lone surrogate '\\ud800'"),
        ("# coding: latin-1\ndef f(): ...", "m.py:1:1: expected UTF-8, got a declaration of the encoding latin-1"),
        ("# coding: nonsense\n", "m.py:1:1: expected UTF-8, got a declaration of the encoding nonsense"),
        ("#" * (MAX_BYTES + 1), f"m.py:1:1: expected at most {MAX_BYTES} bytes of Python source, got {MAX_BYTES + 1}"),
        ("def ok(x): ...\nasync def f(x): ...", "m.py:2:1: expected functions that return their value, got the coroutine f"),
        ("import functools\n@functools.cache\ndef f(x): ...", "m.py:2:2: expected f without a decorator, got @functools.cache"),
        ("def f(a, *b): ...", "m.py:1:11: expected parameters of f that can be given by name, as the interface does, got *b"),
        ("def f(ä, /): ...", "m.py:1:7: expected parameters of f that can be given by name, as the interface does, got the positional-only ä"),
        ("def f(ä, ä): ...", "m.py:1:10: expected each parameter of f once, under a name that can be bound, got ä"),
        ("def f(__debug__): ...", "m.py:1:7: expected each parameter of f once, under a name that can be bound, got __debug__"),
        ("\n".join(f"def f{i}(): ..." for i in range(MAX_FUNCTIONS + 1)), f"m.py:{MAX_FUNCTIONS + 1}:1: expected at most {MAX_FUNCTIONS} functions, got {MAX_FUNCTIONS + 1}"),
        ("def f(" + ",".join(f"p{i}" for i in range(MAX_PARAMETERS + 1)) + "): ...", f"m.py:1:{MAX_PARAMETERS * 4 - 3}: expected at most {MAX_PARAMETERS} parameters of f, got {MAX_PARAMETERS + 1}"),
    ],
)  # fmt: skip
def test_refusal_says_where_and_what(text, said):
    assert refused(text) == said


@pytest.mark.parametrize(
    "text",
    [
        "(" * 50_000,
        "-" * 100_000 + "1",
        "x = " + "[" * 5_000 + "]" * 5_000,
        "x" + ".a" * 60_000,
        "x = 1" + "+1" * 60_000,
        "".join(" " * depth + "if x:\n" for depth in range(120)),
        "if x: pass\n" + "elif x: pass\n" * 9_000,
        "x = f(" + "lambda: " * 10_000 + "1)",
        "x = " + "9" * 5_000,
        "x = " + "not " * 30_000 + "1",
    ],
    ids=lambda text: text[:12].encode("unicode_escape").decode(),
)
def test_hostile_text_has_one_answer(text):
    assert refused(text).startswith("m.py:")


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("latin-1")))
def test_any_text_is_a_module_or_is_refused(text):
    try:
        found = read(text, "m.py")
    except InvalidSource as error:
        said = error.detail
    else:
        said = f"m.py: {len(found.functions)} functions" if found.functions else ""
    assert said.startswith("m.py:")


# --- schemas -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "annotation,good,bad",
    [
        ("float", [1, 1.5, float("inf"), float("-inf"), float("nan")], ["1", None, True, [1]]),
        ("int", [1, -(2**70)], [1.5, "1", None]),
        ("bool", [True], [1, "yes"]),
        ("str", ["", "ü"], [1, None]),
        ("list", [[], [1, "a"]], [{}, "a"]),
        ("list[float]", [[], [1.5]], [["a"], 1]),
        ("dict", [{}, {"a": []}], [[], 1]),
        ("dict[str, int]", [{"a": 1}], [{"a": 1.5}]),
        ("float | None", [1.5, None], ["a"]),
        ("typing.Optional[list[str]]", [None, ["a"]], [[1], 1]),
        ("'Union[int, str]'", [1, "a"], [1.5, None]),
        ("Literal['low', 'high']", ["low"], ["mid", 1]),
        ("Literal[1] | Literal[True] | Literal[1]", [1, True], [0, False]),
        ("tuple[float, float]", [[1, 2]], [1]),
        ("Decimal", [1, "a", None, []], []),
        ("Literal['\\ud800']", ["a", 1], []),
        ("(", [1], []),
    ],
)
def test_annotation_decides_what_fits(annotation, good, bad):
    if annotation == "(":
        annotation = "'('"
    text = f"def f(x: {annotation}): ..."
    assert [value for value in good if not fits(text, x=value)] == []
    assert [value for value in bad if fits(text, x=value)] == []


def test_arguments_are_those_of_the_signature():
    text = "def f(a: float, b=2, *, c: float = None): ...\ndef g(**k: int): ..."
    assert fits(text, a=1)
    assert fits(text, a=1, b="anything", c=None)
    assert not fits(text)
    assert not fits(text, a=1, d=2)
    assert not fits(text, name="h", a=1)
    assert fits(text, name="g", whatever=1)
    assert not fits(text, name="g", whatever="a")
    assert (
        schema(text).errors([{"function": "g"}, {"function": "f", "arguments": {"a": float("nan")}}], non_finite=True)
        == []
    )


def test_what_does_not_fit_is_named():
    (said,) = schema("def f(a: float): ...\ndef g(b: float): ...").errors({"function": "f", "arguments": {"a": "x"}})
    assert "/arguments/a" in said


WIDE = "def f{i}(" + ", ".join(f"p{j}: dict[str, list[float | int | str | None]] = None" for j in range(6)) + "): ..."


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(WIDE.replace("{i}", str(i)) for i in range(80)),
        "def f(x: " + "list[" * 60 + "int" + "]" * 60 + "): ...",
        "def f(x: " + " | ".join(["int"] * 300) + "): ...",
        "def f(x: " + " | ".join(f"list[Literal[{i}]]" for i in range(100)) + "): ...",
        f"def f(x={'9' * 4000}, y=0x{'f' * 5000}): ...",
    ],
    ids=["wide", "deep", "same", "choices", "digits"],
)
def test_daemon_takes_the_schema_of_whatever_was_read(text):
    made = schema(text)
    assert max(made.evaluations) < 10_000


ANNOTATIONS = st.recursive(
    st.sampled_from(["int", "float", "str", "bool", "None", "X", "'list[int]'", "Literal['a', 1]"]),
    lambda inner: st.one_of(
        st.builds("{0}[{1}]".format, st.sampled_from(["list", "Optional", "List", "X"]), inner),
        st.builds("dict[str, {0}]".format, inner),
        st.builds("Union[{0}, {1}]".format, inner, inner),
    ),
    max_leaves=12,
)


@given(st.lists(st.lists(ANNOTATIONS, max_size=6), min_size=1, max_size=6))
@example([["Union[None, None]"]])
def test_daemon_takes_every_schema(functions):
    lines = [
        f"def f{i}({', '.join(f'p{j}: {text}' for j, text in enumerate(given))}): ..."
        for i, given in enumerate(functions)
    ]
    assert schema("\n".join(lines)).document["$defs"]["f0"]["type"] == "object"
