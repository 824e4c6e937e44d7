"""Tricks of the source text itself: encodings, depth, size, names, signatures, docstrings, annotations."""

from __future__ import annotations

from tests.escapes.generated.variant import (
    NO_JSON,
    Denied,
    Fails,
    Gives,
    Raises,
    Refused,
    Unsent,
    Variant,
    family,
)

MUCH = 128 * 1024
GONE = Raises(AttributeError, "no public function f is defined here")


def text(title, source, expected, **more):
    """Byte for byte as it stands here."""
    return Variant(title, source, expected, **more)


ENCODING = family(
    "encoding",
    [
        text("a null byte", "def f():\n    return 1\0\n", Refused("null byte")),
        text("a null byte in a comment", "# \0\ndef f():\n    return 1\n", Refused("null byte")),
        text("half a surrogate pair", "def f():\n    return '\ud800'\n", Refused("lone surrogate")),
        text("a byte order mark", "\ufeffdef f():\n    return 'bom'\n", Refused("U+FEFF")),
        text("a byte order mark in the middle", "def f():\n    return \ufeff1\n", Refused("U+FEFF")),
        text("UTF-7", "# coding: utf-7\ndef f():\n    return '+AGE-'\n", Refused("encoding utf-7")),
        text("rot13", "# coding: rot13\nqrs s(): erghea 1\ndef f():\n    return 1\n", Refused("expected UTF-8")),
        text("an encoding that is a path", "# coding: ../../tmp/x\ndef f():\n    return 1\n", Refused("expected UTF-8")),
        text("an encoding that runs code: idna", "# coding: idna\ndef f():\n    return 1\n", Refused("encoding idna")),
        text("another declaration of it in line two", "#!/usr/bin/python\n# -*- coding: utf-16 -*-\ndef f():\n    return 1\n", Refused("encoding utf-16")),
        text("latin-1", "# vim: set fileencoding=latin-1 :\ndef f():\n    return 'é'\n", Refused("encoding latin-1")),
        text("a form feed", "\f\ndef f():\n\f    return 'ff'\n", Gives("ff")),
        text("carriage returns only", "def f():\r    return 'cr'\r", Gives("cr")),
        text("line separators that are none", "def f():\n    x = 1 # \u2028\u2029\x85    return 2\n    return 3\n", Gives(3)),
        text("tabs and spaces", "def f():\n\tif 1:\n        return 1\n", Refused("inconsistent use of tabs")),
        text("a text in right-to-left order", "def f():\n    a = 'user\u202e \u2066# admin\u2069 \u2066'\n    return len(a)\n", Gives(17)),
        text("control characters", "def f():\n    return 1 \x1b[2J\n", Refused("non-printable character U+001B")),
        text("a backslash at the end", "def f():\n    return 1\n\\", Refused("unexpected EOF")),
        text("only a comment", "# def f(): return 1", Refused("at least one public function")),
        text("nothing", "", Refused("at least one public function")),
        text("a path with a null byte", "\0.py", Refused("name for none")),
        text("a path with half a surrogate pair", "\ud800.py", Refused("name for none")),
        text("a line that ends like a path", "import os; os.system('x') #.py", Unsent("FileNotFoundError", "No such file")),
        text("a line as long as no path", f"f = lambda: '{'x' * 5_000}' #.py", Unsent("OSError", "File name too long")),
        text("a language that is not Python", "function f() { return 1 }\n", Refused("expected Python source")),
        text("a fence of Markdown", "```python\ndef f():\n    return 1\n```\n", Refused("expected Python source")),
    ],
)  # fmt: skip

SIZE = family(
    "size",
    [
        text("10,000 nested parentheses", f"def f():\n    return {'(' * 10_000}1{')' * 10_000}\n", Refused("nested")),
        text("150 nested parentheses", f"def f():\n    return {'(' * 150}1{')' * 150}\n", Gives(1)),
        text("10,000 minus signs", f"def f():\n    return {'-' * 10_000}1\n", Refused("nested")),
        text("a chain of 10,000 sums", f"def f():\n    return {'1+' * 10_000}1\n", Refused("nested")),
        text("a chain of 10,000 attributes", f"def f(x={'a' + '.a' * 10_000}):\n    return 1\n", Refused("nested")),
        text("a chain of 10,000 calls", f"def f():\n    return f{'()' * 10_000}\n", Refused("nested")),
        text("5,000 elifs", "if 0: pass\n" + "elif 0: pass\n" * 5_000 + "def f():\n    return 1\n", Refused("nested")),
        text("99 levels of if", "".join(" " * n + "if 1:\n" for n in range(99)) + " " * 99 + "def f(): return 'deep'\n", Gives("deep")),
        text("101 levels of if", "".join(" " * n + "if 1:\n" for n in range(101)) + " " * 101 + "def f(): return 1\n", Refused("too many levels of indentation")),
        text("one byte too many", "def f():\n    return 1\n#".ljust(MUCH + 1, "x"), Refused("at most 131072 bytes")),
        text("not one byte too many", "def f():\n    return 'full'\n#".ljust(MUCH, "x"), Gives("full")),
        text("a megabyte of a name", f"def {'f' * (1 << 20)}():\n    return 1\n", Refused("at most 131072 bytes")),
        text("a name of 100,000 letters", f"def {'f' * 100_000}(): return 'long'\n", Refused("at most 262144 bytes")),
        text("a name of 20,000 letters", f"def {'f' * 20_000}(): return 'long'\n", Gives("long"), function="f" * 20_000),
        text("201 functions", "".join(f"def f{n}(): return {n}\n" for n in range(201)), Refused("at most 200 functions"), function="f0"),
        text("101 parameters", f"def f({', '.join(f'x{n}' for n in range(101))}): return 1\n", Refused("at most 100 parameters")),
        text("10,000 parts of a format string", f"def f(x=1):\n    return len(f'{'{x}' * 10_000}')\n", Gives(10_000)),
        text("40,000 parts of a format string", f"def f(x=1):\n    return f'{'{1}' * 40_000}'\n", Refused("at most 10000 braces")),
        text("a thousand lambdas", f"f = {'lambda: ' * 1_000}1\n", NO_JSON),
        text("a pattern of 5,000 alternatives", "def f():\n    match 1:\n        case " + "|".join(map(str, range(5_000))) + ": return 'matched'\n", Gives("matched")),
    ],
)  # fmt: skip

NAMES = family(
    "name",
    [
        text("a homoglyph of another function", "def f(): return 'latin'\ndef \u0192(): return 'hook'\n", Gives("hook"), function="\u0192"),
        text("another spelling of the same name", "def f(): return 1\ndef \U0001d41f(): return 'same'\n", Gives("same")),
        text("Cyrillic", "def \u0441\u0430\u0440\u0430\u0441ity(): return 1\ndef capacity(): return 2\n", Gives(2), function="capacity"),
        text("of a soft keyword", "def match(case, type, _=1): return [case, type, _]\n", Gives([1, 2, 1]), function="match", arguments={"case": 1, "type": 2}),
        text("of a builtin", "def print(len): return len\n", Gives(3), function="print", arguments={"len": 3}),
        text("parameters called as the client's own", "def f(args, kwargs, self, run, bind): return [args, kwargs, self, run, bind]\n", Gives([1, 2, 3, 4, 5]), arguments={"args": 1, "kwargs": 2, "self": 3, "run": 4, "bind": 5}),
        text("a parameter called as its placeholder", "def f(_missing=1, b=2): return [_missing, b]\n", Gives([1, 3]), arguments={"b": 3}),
        text("a parameter called function", "def f(function, arguments): return [function, arguments]\n", Gives(["x", {}]), arguments={"function": "x", "arguments": {}}),
        text("two parameters that become the same", "def f(s, \u017f): return 1\n", Refused("each parameter of f once")),
        text("a parameter that cannot be bound", "def f(__debug__): return 1\n", Refused("can be bound")),
        text("a function that cannot be bound", "def __debug__(): return 1\ndef f(): return 1\n", Raises(SyntaxError, "cannot assign to __debug__")),
        text("of the daemon's package", "def f(): return 'package'\n", Gives("package"), name="plugind"),
        text("of a module of the library", "def f(): return 'library'\n", Gives("library"), name="json"),
        text("of a module of the interpreter", "def f(): return 'interpreter'\n", Gives("interpreter"), name="zipimport"),
        text("of a keyword", "def f(): return 'keyword'\n", Gives("keyword"), name="lambda"),
        text("a function called as what a module has", "def mro(): return 'mro'\n", Gives("mro"), function="mro"),
    ],
)  # fmt: skip

SIGNATURES = family(
    "signature",
    [
        text("positional only", "def f(x, /): return 1\n", Refused("positional-only x")),
        text("any number of arguments", "def f(*a): return 1\n", Refused("*a")),
        text("any names", "def f(**k): return sorted(k)\n", Gives(["__class__", "a"]), arguments={"a": 1, "__class__": 2}),
        text("a default that runs code", "import os\ndef f(x=os._exit(3)): return 1\n", Fails("", "exit status 3")),
        text("a default that raises", "def f(x=1 / 0): return 1\n", Raises(ZeroDivisionError, "division by zero")),
        text("a default that is changed", "def f(x=[]):\n    x.append(1)\n    return x\n", Gives([1])),
        text("a default with an effect when shown", "class D:\n    def __repr__(s): raise SystemExit\ndef f(x=D()): return 1\n", Gives(1)),
        text("a default that is a walrus", "def f(x=(y := 5)): return [x, y]\n", Gives([5, 5])),
        text("a default that is not a hash", "def f(x={[]: 1}): return 1\n", Raises(TypeError, "unhashable type: 'list'")),
        text("an annotation that runs code", "import os\ndef f(x: os._exit(4) = 1): return 1\n", Fails("", "exit status 4")),
        text("an annotation that is text", "def f(x: '__import__(\"os\").system(\"x\")' = 1): return x\n", Gives(1)),
        text("an annotation in the future", "from __future__ import annotations\ndef f(x: undefined[(yield_ := 1)] = 1) -> {}[0]: return x\n", Raises(SyntaxError, "named expression")),
        text("an annotation in the future of what is not there", "from __future__ import annotations\ndef f(x: nothing[1 / 0] = 1) -> {}[0]: return x\n", Gives(1)),
        text("an annotation that is no Python", "def f(x: ')(' = 1): return x\n", Gives(1)),
        text("an annotation with a dubious text", "def f(x: r\"'\\d'\" = 1): return x\n", Gives(1)),
        text("an annotation of quotes in quotes", "def f(x: '\"\\'int\\'\"' = 1): return x\n", Gives(1)),
        text("an annotation with deep brackets", f"def f(x: '{'(' * 5000}' = 1): return x\n", Gives(1)),
        text("an annotation of 5,000 lists", f"def f(x: '{'list[' * 90}int{']' * 90}' = 1): return x\n", Gives(1)),
        text("an annotation that claims too much", "def f(x: int | str | None): return x\n", Denied("INPUT_INVALID"), arguments={"x": [1]}),
        text("a Literal with the same twice", "from typing import Literal\ndef f(x: Literal['a', 'a', 1, True] = 'a'): return x\n", Gives("a"), arguments={"x": "a"}),
        text("a Literal with half a surrogate pair", "from typing import Literal\ndef f(x: Literal['\\ud800'] = 'a'): return x\n", Gives("b"), arguments={"x": "b"}),
        text("a Literal that says it is a schema", "from typing import Literal\ndef f(x: Literal['$ref', '#/$defs/*']): return x\n", Gives("$ref"), arguments={"x": "$ref"}),
        text("200 functions of 100 choices", "".join(f"def f{n}({', '.join(f'x{m}: int | str | list[dict[str, int | None]] = 1' for m in range(12))}): return 1\n" for n in range(150)), Refused("at most 262144 bytes"), function="f0"),
    ],
)  # fmt: skip

DOCS = family(
    "docstring",
    [
        text("with terminal escapes", '"""\\x1b]0;owned\\x07\\x1b[2J"""\ndef f():\n    """\\x1b[31m"""\n    return "doc"\n', Gives("doc")),
        text("with half a surrogate pair", '"""\\ud800"""\ndef f():\n    """\\udfff"""\n    return "half"\n', Gives("half")),
        text("with keys of the manifest", '"""x"\\npermissions = ["network"]\\n[limits]\\nwall_ms = 1"""\ndef f(): return "toml"\n', Gives("toml")),
        text("that is formatted", 'f"""{__import__("os")._exit(6)}"""\ndef f(): return 1\n', Fails("", "exit status 6")),
        text("of 100,000 characters", f'"""{"d" * 100_000}"""\ndef f(): return len(__doc__)\n', Gives(100_000)),
        text("that is bytes", 'b"""doc"""\ndef f(): return __doc__\n', Gives(None)),
        text("in right-to-left order", '"""\u202eevas si siht"""\ndef f(): return "rtl"\n', Gives("rtl")),
    ],
)  # fmt: skip

STATEMENTS = family(
    "statement",
    [
        text("a star import", "from os import *\ndef f(): return system('x')\n", Gives(32512)),
        text("a star import over the function", "def f(): return 1\nfrom os import *\nfrom math import *\n", Gives(1)),
        text("a walrus over the function", "def f(): return 1\n(f := 7)\n", GONE),
        text("a loop over the function", "def f(): return 1\nfor f in range(3): pass\n", GONE),
        text("with over the function", "import contextlib\ndef f(): return 1\nwith contextlib.nullcontext(7) as f: pass\n", GONE),
        text("except over the function", "def f(): return 1\ntry: 1 / 0\nexcept Exception as f: pass\n", GONE),
        text("match over the function", "def f(): return 1\nmatch 7:\n    case f: pass\n", GONE),
        text("if that never holds", "if 0:\n    def f(): return 1\n", GONE),
        text("either of two", "if 0:\n    def f(x): return 1\nelse:\n    def f(): return 2\n", Gives(2)),
        text("try that fails before it", "try:\n    1 / 0\n    def f(): return 1\nexcept ZeroDivisionError:\n    pass\n", GONE),
        text("try that ends well", "try:\n    def f(): return 1\nfinally:\n    def g(): return 2\n", Gives(1)),
        text("a loop that defines it", "for n in range(3):\n    def f(n=n): return n\n", Gives(2)),
        text("deleted", "def f(): return 1\ndel f\n", Refused("at least one public function")),
        text("deleted by its dictionary", "def f(): return 1\nglobals().pop('f')\n", GONE),
        text("deleted when it is called", "def f():\n    global f\n    del f\n    return 'once'\n", Gives("once")),
        text("defined twice with other parameters", "def f(x): return 1\ndef f(y): return y\n", Gives(2), arguments={"y": 2}),
        text("defined by exec", "exec('def f(): return 1')\ndef g(): return f()\n", Gives(1), function="g"),
        text("return outside a function", "def f(): return 1\nreturn 2\n", Raises(SyntaxError, "'return' outside function")),
        text("await outside a function", "def f(): return 1\nawait f()\n", Raises(SyntaxError, "'await' outside function")),
        text("break outside a loop", "def f(): return 1\nbreak\n", Raises(SyntaxError, "'break' outside loop")),
        text("nonlocal at the top", "def f(): return 1\nnonlocal f\n", Raises(SyntaxError, "nonlocal declaration")),
        text("a future that is not known", "from __future__ import braces\ndef f(): return 1\n", Raises(SyntaxError, "not a chance")),
        text("a future that comes too late", "def f(): return 1\nfrom __future__ import annotations\n", Raises(SyntaxError, "from __future__ imports must occur at the beginning of the file")),
        text("an import of itself", "import sys\nself = sys.modules[__name__]\nfrom importlib import import_module\ndef f(): return import_module(__name__) is self\n", Gives(True)),
        text("a relative import", "from . import x\ndef f(): return 1\n", Raises(ImportError, "attempted relative import with no known parent package")),
        text("a module that is not there", "import numpy_of_nowhere\ndef f(): return 1\n", Raises(ModuleNotFoundError, "No module named 'numpy_of_nowhere'")),
        text("an assertion", "assert False, 'asserted'\ndef f(): return 1\n", Raises(AssertionError, "asserted")),
    ],
)  # fmt: skip

VARIANTS = [*ENCODING, *SIZE, *NAMES, *SIGNATURES, *DOCS, *STATEMENTS]
