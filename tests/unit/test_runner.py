"""How the plugin is called inside, and what becomes of what it returns or raises."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import textwrap

import pytest

from plugind.model import Limits, Outcome
from plugind.sandbox.inside import functions, runner
from plugind.sandbox.outcome import judge
from plugind.sandbox.protocol import Ended
from plugind.sandbox.sealed import sealed_memfd

NONCE = bytes(range(16))


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Write a module and call it: kind and parsed body of the frame."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    names = iter(f"made_up_{number}" for number in range(99))

    def called(code, payload, *, interface="json", function=":run", entrypoint="", **more):
        name = next(names)
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(code))
        monkeypatch.delitem(sys.modules, name, raising=False)
        chosen = entrypoint or name + (function if interface == "json" else "")
        told = {"interface": interface, "entrypoint": chosen, "stage": "durations", "plan_id": "plan-1", "mode": "run"}
        told |= more
        kind, body = runner._outcome(lambda: runner._answer(runner.Plugin(told), told, json.dumps(payload).encode()))
        return kind, json.loads(body)

    return called


def test_a_value_comes_back_and_the_context_goes_in(call) -> None:
    code = "def run(payload, context): return [payload, context.stage, context.plan_id, context.scratch_dir]"
    assert call(code, {"a": 1}) == (b"V", [{"a": 1}, "durations", "plan-1", "/tmp"])


def test_where_files_of_a_plan_are_is_in_the_context_and_empty_without(call) -> None:
    code = "def run(payload, context): return [context.plan_dir, context.output_dir]"
    assert call(code, 1) == (b"V", ["", ""])
    assert call(code, 1, plan_dir="/r", output_dir="/w") == (b"V", ["/r", "/w"])


@pytest.mark.parametrize(
    ("code", "type_", "message"),
    [
        ("def run(p, c): 1 / 0", "ZeroDivisionError", "division by zero"),
        ("def run(p, c): raise SystemExit(3)", "SystemExit", "3"),
        ("def run(p, c): raise KeyboardInterrupt", "KeyboardInterrupt", ""),
        ("raise ImportError('at import')", "ImportError", "at import"),
        ("def run(:", "SyntaxError", "invalid syntax"),
        ("run = 5", "TypeError", "the entrypoint's function run is not in module"),
        ("", "TypeError", "the entrypoint's function run is not in module"),
        ("def run(p): pass", "TypeError", "positional"),
        (
            "def run(p, c):\n    class Odd(Exception):\n        def __str__(self): raise ValueError\n    raise Odd",
            "Odd",
            "<no text: __str__ raised>",
        ),
        ("def run(p, c): return run(p, c)", "RecursionError", "maximum recursion"),
    ],
)
def test_whatever_it_raises_is_told(call, code, type_, message) -> None:
    kind, told = call(code, None)
    assert (kind, told["type"]) == (b"E", type_)
    assert message in told["message"]
    assert type_ in told["traceback"]


def test_a_module_that_is_not_there(call) -> None:
    kind, told = call("", None, entrypoint="no_such_module_anywhere:run")
    assert (kind, told["type"]) == (b"E", "ModuleNotFoundError")


@pytest.mark.parametrize("value", ["{1, 2}", "object()", "float('nan')", "float('inf')", "{(1, 2): 3}", "b'x'"])
def test_what_is_no_json_is_told(call, value) -> None:
    kind, told = call(f"def run(p, c): return {value}", None)
    assert kind == b"I"
    assert "Error: " in told


def test_what_contains_itself_is_no_json(call) -> None:
    kind, told = call("def run(p, c):\n    a = []\n    a.append(a)\n    return a", None)
    assert (kind, told.partition(":")[0]) == (b"I", "ValueError")


FUNCTIONS = """
    import math
    from math import sqrt
    from textwrap import dedent
    def add(a, b=1): return a + b
    def fail(): return {}["x"]
    def nan(): return float("nan")
    def _hidden(): return 1
    class Thing: pass
    constant = 5
    shortcut = lambda x: x * 2
"""


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        ({"function": "add", "arguments": {"a": 2, "b": 3}}, 5),
        ({"function": "add", "arguments": {"a": 2}}, 3),
        ({"function": "shortcut", "arguments": {"x": 4}}, 8),
        ([], []),
        ([{"function": "add", "arguments": {"a": n}} for n in range(3)], [1, 2, 3]),
        (
            [{"function": "fail"}, {"function": "add", "arguments": {"a": 1}}],
            [{"error": {"type": "KeyError", "message": "'x'"}}, 2],
        ),
    ],
)
def test_functions(call, payload, value) -> None:
    assert call(FUNCTIONS, payload, interface="functions") == (b"V", value)


def test_non_finite_numbers_are_allowed_with_functions_only(call) -> None:
    kind, value = call(FUNCTIONS, {"function": "nan"}, interface="functions")
    assert kind == b"V"
    assert math.isnan(value)


@pytest.mark.parametrize("name", ["_hidden", "sqrt", "dedent", "Thing", "constant", "math", "__init__", "missing"])
def test_only_its_own_public_functions_can_be_called(call, name) -> None:
    kind, told = call(FUNCTIONS, {"function": name}, interface="functions")
    assert (kind, told["type"]) == (b"E", "AttributeError")
    assert told["message"] == f"no public function {name} is defined here; there is: add, fail, nan, shortcut"


@pytest.mark.parametrize(
    "item",
    [
        5,
        None,
        {},
        [],
        {"function": ["add"]},
        {"function": "add", "arguments": 5},
        {"function": "add", "arguments": {"c": 1}},
    ],
)
def test_an_item_that_is_no_call_is_that_items_error(call, item) -> None:
    kind, value = call(FUNCTIONS, [item, {"function": "add", "arguments": {"a": 1}}], interface="functions")
    assert kind == b"V"
    assert set(value[0]) == {"error"}
    assert value[1] == 2


EVIL = """
class Evil(Exception):
    def __str__(self): raise SystemExit(3)

class Worse(Exception):
    @property
    def __traceback__(self): raise KeyboardInterrupt

class Odd(dict):
    def items(self): raise SystemExit(4)

def run(payload, context):
    if payload == "odd":
        return Odd(a=1)
    raise {"evil": Evil, "worse": Worse}[payload]
"""


@pytest.mark.parametrize(
    ("payload", "kind", "told"),
    [
        ("evil", b"E", "<no text: __str__ raised>"),
        ("worse", b"E", "cannot be described"),
        ("odd", b"I", "SystemExit: 4"),
    ],
)
def test_what_cannot_even_be_told_is_told_as_that(call, payload, kind, told) -> None:
    got, body = call(EVIL, payload)
    assert got == kind
    assert told in (body["message"] if kind == b"E" else body)


def test_a_long_story_is_cut() -> None:
    told = functions.describe(type("N" * 999, (Exception,), {})("x" * 99_999))
    assert {key: len(text) for key, text in told.items()} == {"type": 256, "message": 4096, "traceback": 16384}


def test_the_traceback_shows_the_plugins_own_frames_only() -> None:
    code = compile("def run():\n    raise ValueError('x')", "/plugin/mine.py", "exec")
    names = {}
    exec(code, names)
    with pytest.raises(ValueError, match="x") as caught:
        names["run"]()
    told = functions.describe(caught.value)
    assert '/plugin/mine.py", line 2, in run' in told["traceback"]
    assert __file__ not in told["traceback"]


RUN = "import sys; sys.path.insert(0, sys.argv[3]); from plugind.sandbox.inside import runner; runner.run(int(sys.argv[1]), int(sys.argv[2]))"


@pytest.mark.parametrize(
    ("code", "outcome", "output", "stdout"),
    [
        ("def run(p, c):\n    print('héllo \\udc80'); return p * 2", Outcome.OK, b"42", "héllo \\udc80\n".encode()),
        ("def run(p, c): return 'x' * 200_000", Outcome.OK, b'"' + b"x" * 200_000 + b'"', b""),
        ("import sys\ndef run(p, c):\n    sys.stdout.close(); return 1", Outcome.OK, b"1", b""),
        ("import sys\ndef run(p, c):\n    sys.stdout = None; return 1", Outcome.OK, b"1", b""),
        ("def run(p, c): raise ValueError('\\udc80')", Outcome.FAILED, None, b""),
        ("import os\ndef run(p, c): os._exit(7)", Outcome.FAILED, None, b""),
        ("def run(p, c): return {1}", Outcome.OUTPUT_INVALID, None, b""),
    ],
)
def test_a_whole_run_from_the_memfd_to_the_verdict(tmp_path, code, outcome, output, stdout) -> None:
    (tmp_path / "plugin.py").write_text(code)
    head = json.dumps(
        {"interface": "json", "entrypoint": "plugin:run", "stage": "", "plan_id": "", "mode": "run"}
    ).encode()
    memfd = sealed_memfd("input", NONCE + len(head).to_bytes(4, "big") + head + b"21")
    reader, writer = os.pipe()
    command = [sys.executable, "-c", RUN, str(memfd), str(writer), str(tmp_path)]
    with subprocess.Popen(command, pass_fds=(memfd, writer), stdout=subprocess.PIPE) as process:
        os.close(writer)
        os.close(memfd)
        with open(reader, "rb") as stream:  # noqa: PTH123 - a descriptor
            result = stream.read()
        assert process.stdout is not None
        shown = process.stdout.read()
    verdict = judge(Ended("r", "", process.returncode, 1, 1, 1), result, NONCE, Limits())
    assert (verdict.outcome, verdict.output_json, shown) == (outcome, output, stdout)
    if verdict.error is not None:
        verdict.error.message.encode()  # half a surrogate pair would not go over the wire


_WARM = """
import os, sys
from plugind.sandbox.inside import runner, warm
before = [os.readlink(f"/proc/self/fd/{descriptor}") for descriptor in (0, 1, 2)]
modules, path, streams = set(sys.modules), list(sys.path), (sys.stdin, sys.stdout, sys.stderr)
warm.warm()
assert [os.readlink(f"/proc/self/fd/{descriptor}") for descriptor in (0, 1, 2)] == before
assert (set(sys.modules), sys.path, (sys.stdin, sys.stdout, sys.stderr)) == (modules, path, streams)
if os.fork() == 0:
    runner.fresh_streams()
    print("of", "one", sys.stdout.seekable(), sys.stdout is sys.__stdout__, sys.stdout not in streams)
    print("and its other", file=sys.stderr)
    runner.flush()
    os._exit(0)
os.wait()
runner.fresh_streams()
print("of the next")
runner.flush()
os._exit(0)
"""


def test_warming_up_leaves_nothing_behind_but_streams_for_each_that_is_forked() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WARM], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "of one False True True\nof the next\n"), done.stderr
    assert done.stderr == "and its other\n"
