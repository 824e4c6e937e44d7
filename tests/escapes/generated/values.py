"""What a function can return that is no JSON, only looks like it, or is larger than anybody wants."""

from __future__ import annotations

import json
import math

from tests.escapes.generated.variant import (
    ENDLESS,
    NO_JSON,
    SHORT_MS,
    Denied,
    Ends,
    Gives,
    Raises,
    Refused,
    Unsent,
    calling,
    family,
    returning,
    variant,
)


def subclass(title, base, methods, made, expected, **more):
    return returning(title, made, expected, before=f"class C({base}):\n    {methods}", **more)


ODD = family(
    "odd value",
    [
        returning("an object", "object()", NO_JSON),
        returning("a set", "{1, 2}", NO_JSON),
        returning("bytes", "b'x'", NO_JSON),
        returning("a complex number", "1j", NO_JSON),
        returning("a decimal", "decimal.Decimal('1.5')", NO_JSON, before="import decimal"),
        returning("a date", "datetime.date(2020, 1, 1)", NO_JSON, before="import datetime"),
        returning("a function", "f", NO_JSON),
        returning("a module", "sys", NO_JSON, before="import sys"),
        returning("a type", "int", NO_JSON),
        returning("an exception", "ValueError('x')", NO_JSON),
        returning("an open file", "open('/dev/null')", NO_JSON),
        returning("an ellipsis", "...", NO_JSON),
        returning("NotImplemented", "NotImplemented", NO_JSON),
        returning("a range", "range(3)", NO_JSON),
        returning("an iterator without end", "itertools.count()", NO_JSON, before="import itertools"),
        returning("a tuple", "(1, (2,))", Gives([1, [2]])),
        returning("a named tuple", "collections.namedtuple('P', 'x y')(1, 2)", Gives([1, 2]), before="import collections"),
        returning("nothing", "None", Gives(None)),
        returning("not a number", "float('nan')", Gives(math.nan)),
        returning("minus infinity", "-float('inf')", Gives(-math.inf)),
        returning("a key that is no number", "{float('nan'): 1}", Gives({"NaN": 1})),
        returning("keys that become the same", "{1: 1, '1': 2}", Ends(("output_invalid",), "duplicate key")),
        returning("a key that is none", "{None: 1, True: 2}", Gives({"null": 1, "true": 2})),
        returning("a key that is a tuple", "{(1, 2): 1}", NO_JSON),
        returning("half a surrogate pair", "'\\ud800'", Ends(("output_invalid",), "surrogate")),
        returning("half a surrogate pair as a key", "{'\\udfff': 1}", Ends(("output_invalid",), "surrogate")),
        returning("every control character", "''.join(map(chr, range(32))) + '\\x7f\\x9b31m\\u2028\\u202e'", Gives("".join(map(chr, range(32))) + "\x7f\x9b31m\u2028\u202e")),
        returning("a text that looks like a denial", "{'decision': 'deny', 'error': {'type': 'Fault'}}", Gives({"decision": "deny", "error": {"type": "Fault"}})),
        returning("a text longer than allowed", "'x' * (5 << 20)", Ends(("output_limit",))),
        returning("a list longer than allowed", "[0] * (3 << 20)", Ends(("output_limit",))),
    ],
)  # fmt: skip

NESTED = family(
    "self-reference and nesting",
    [
        calling("a list in itself", "x = []\nx.append(x)\nreturn x", NO_JSON),
        calling("a dict in itself", "x = {}\nx['x'] = x\nreturn x", NO_JSON),
        calling("100,000 levels of lists", "x = []\nfor _ in range(100_000): x = [x]\nreturn x", NO_JSON),
        calling("100,000 levels of dicts", "x = {}\nfor _ in range(100_000): x = {'x': x}\nreturn x", NO_JSON),
        calling("one level more than allowed", "x = 1\nfor _ in range(65): x = [x]\nreturn x", Ends(("output_invalid",), "64 levels")),
        calling("small, but doubled forty times", "x = []\nfor _ in range(40): x = [x, x]\nreturn x", Ends(("out_of_memory", *ENDLESS.outcomes)), timeout_ms=SHORT_MS),
        calling("levels that recursion may follow", "import sys\nsys.setrecursionlimit(10**7)\nx = []\nfor _ in range(200_000): x = [x]\nreturn x", Ends(("failed", "output_invalid", "out_of_memory"))),
    ],
)  # fmt: skip

SUBCLASSES = family(
    "subclass",
    [
        subclass("int whose __repr__ lies", "int", "def __repr__(s): return '666'\n    __str__ = __repr__", "C(7)", Gives(7)),
        subclass("int whose __index__ raises", "int", "def __index__(s): raise OSError('index')", "C(7)", Gives(7)),
        subclass("int whose __repr__ ends the program", "int", "def __repr__(s): raise SystemExit(0)", "[C(7)]", Gives([7])),
        subclass("float whose __repr__ lies", "float", "def __repr__(s): return 'os.system'", "C(0.5)", Gives(0.5)),
        subclass("float that compares as it likes", "float", "def __eq__(s, o): return True\n    __ne__ = __eq__\n    __hash__ = float.__hash__", "C('inf')", Gives(math.inf)),
        subclass("str whose methods lie", "str", "def encode(s, *a): return b'other'\n    def __str__(s): return 'other'", "C('x')", Gives("x")),
        subclass("str as a key", "str", "def __eq__(s, o): return False\n    __hash__ = str.__hash__", "{C('x'): 1, 'x': 2}", Ends(("output_invalid",), "duplicate key")),
        subclass("dict whose items lie", "dict", "def items(s): return [('a', 'lie')]", "C(a=1)", Gives({"a": "lie"})),
        subclass("dict whose items never end", "dict", "def items(s):\n        while True: yield 'a', 1", "C(a=1)", Ends(("out_of_memory", *ENDLESS.outcomes)), timeout_ms=SHORT_MS),
        subclass("dict whose items raise", "dict", "def items(s): raise OSError('items')", "C(a=1)", NO_JSON),
        subclass("dict whose items are no pairs", "dict", "def items(s): return [7]", "C(a=1)", NO_JSON),
        subclass("dict whose items interrupt", "dict", "def items(s): raise KeyboardInterrupt", "C(a=1)", NO_JSON),
        subclass("list whose iterator lies", "list", "def __iter__(s): return iter([9, 9])\n    def __len__(s): return 0", "C([1])", Gives([9, 9])),
        subclass("list that grows while it is read", "list", "pass", "C([{'a': 1}])", Gives([{"a": 1}])),
        subclass("tuple that is endless", "tuple", "def __iter__(s):\n        while True: yield 1", "C([1])", Ends(("out_of_memory", *ENDLESS.outcomes)), timeout_ms=SHORT_MS),
        returning("an enumeration of integers", "E.A", Gives(1), before="import enum\nclass E(enum.IntEnum):\n    A = 1\n    def __repr__(s): return 'evil'"),
        returning("a default dict that makes up values", "D(list, a=1)", Gives({"a": 1}), before="import collections\nclass D(collections.defaultdict): pass"),
        returning("a mapping that is no dict", "types.MappingProxyType({'a': 1})", NO_JSON, before="import types"),
        returning("an object that claims to be a list", "C()", NO_JSON, before="class C:\n    __class__ = list\n    def __iter__(s): return iter([1])"),
    ],
)  # fmt: skip

INTEGERS = family(
    "huge integer",
    [
        returning("10 ** 5000", "10 ** 5000", NO_JSON),
        returning("1 << 10 ** 7", "1 << 10 ** 7", NO_JSON),
        returning("4300 digits", "10 ** 4299", Gives(10**4299)),
        returning("4301 digits", "10 ** 4300", NO_JSON),
        returning("as a key", "{10 ** 5000: 1}", NO_JSON),
        returning("as a key of few digits", "{2 ** 70: 1}", Gives({str(2**70): 1})),
        returning("beyond 2 ** 53", "[2 ** 53 + 1, -(2 ** 64)]", Gives([2**53 + 1, -(2**64)])),
        returning("negative", "-(10 ** 5000)", NO_JSON),
        returning("as text by hand", "'%x' % (1 << 4000)", Gives(f"{1 << 4000:x}")),
        returning("a factorial", "math.factorial(10 ** 9)", ENDLESS, before="import math"),
        returning("a shift of 10 ** 18", "1 << 10 ** 18", Raises(MemoryError, "")),
        returning("a list as long", "[0] * 10 ** 18", Raises(MemoryError, "")),
        returning("a range as long", "len(range(10 ** 30))", Raises(OverflowError, "Python int too large to convert to C ssize_t")),
        variant("as a default", f"def f(x=0x{'f' * 5000}):\n    return x % 10\n", Gives(int("f" * 5000, 16) % 10)),
        variant("as a default that is an expression", "def f(x=10 ** 5000):\n    return x % 7\n", Gives(10**5000 % 7)),
        variant("as a default written out", f"def f(x={'9' * 5000}):\n    return x\n", Refused("4300 digits")),
        variant("as an annotation", f"def f(x: 0x{'f' * 5000} = 1):\n    return x\n", Gives(1)),
        variant("in a Literal", "from typing import Literal\ndef f(x: Literal[36893488147419103232] = 1):\n    return x\n", Gives(5), arguments={"x": 5}),
        variant("as an argument", "def f(x): return x\n", Unsent("InvalidRequest", "4300"), arguments={"x": 10**5000}),
        variant("as an argument of 4300 digits", "def f(x): return x + 1\n", Gives(10**4299 + 1), arguments={"x": 10**4299}),
        variant("as an argument for float", "def f(x: float): return x * 1.0\n", Raises(OverflowError, "int too large to convert to float"), arguments={"x": 10**400}),
    ],
)  # fmt: skip

ARGUMENTS = family(
    "argument",
    [
        variant("one that JSON cannot say", "def f(x): return 1 \n", Unsent("InvalidRequest", "set"), arguments={"x": {1}}),
        variant("one that is too deep", "def f(x): return 1  # deep\n", Denied("INPUT_INVALID"), arguments={"x": json.loads("[" * 70 + "]" * 70)}),
        variant("of the wrong type", "def f(x: int): return x\n", Denied("INPUT_INVALID"), arguments={"x": "1"}),
        variant("one too many", "def f(): return 1  # one too many\n", Unsent("TypeError", "f() got an unexpected keyword argument 'x'"), arguments={"x": 1}),
        variant("one that is lacking", "def f(x): return 1  # lacking\n", Unsent("TypeError", "f() missing 1 required positional argument: 'x'")),
        variant("changed by the function", "def f(x):\n    x.append(2)\n    return x\n", Gives([1, 2]), arguments={"x": [1]}),
        variant("half a surrogate pair", "def f(x): return x  # half\n", Unsent("InvalidRequest", "surrogates"), arguments={"x": "\ud800"}),
    ],
)  # fmt: skip

VARIANTS = [*ODD, *NESTED, *SUBCLASSES, *INTEGERS, *ARGUMENTS]
