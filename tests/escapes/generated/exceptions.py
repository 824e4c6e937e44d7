"""Exceptions that do not want to be told, or look like others. Builtin ones are raised here again, no other is."""

from __future__ import annotations

from tests.escapes.generated.variant import ENDLESS, Fails, Raises, calling, family, variant

INDESCRIBABLE = Fails("Indescribable", "cannot be described")
"""The runner could not tell more of it."""
NO_TEXT = "<no text: __str__ raised>"


def own(title, body, expected, bases="Exception", raised="E('x')", **more):
    """A class of its own, E."""
    return variant(title, f"class E({bases}):\n    {body}\n\ndef f():\n    raise {raised}\n", expected, **more)


EVIL = family(
    "exception",
    [
        own("of its own", "pass", Fails("E", "x")),
        own("__str__ raises", "def __str__(s): raise OSError", Fails("E", NO_TEXT)),
        own("__str__ ends the program", "def __str__(s): raise SystemExit(0)", Fails("E", NO_TEXT)),
        own("__str__ interrupts", "def __str__(s): raise KeyboardInterrupt", Fails("E", NO_TEXT)),
        own("__str__ never ends", "def __str__(s):\n        while True: pass", ENDLESS),
        own("__str__ gives no text", "def __str__(s): return 7", Fails("E", NO_TEXT)),
        own("__str__ raises itself", "def __str__(s): raise s", Fails("E", NO_TEXT)),
        own("__str__ gives another text each time", "n = 0\n    def __str__(s):\n        E.n += 1\n        return 'x' * E.n", Fails("E", "x")),
        own("__repr__ raises", "def __repr__(s): raise OSError", Fails("E", "x")),
        own("__class__ lies", "__class__ = ValueError", Fails("E", "x")),
        own("__reduce__ runs code", "def __reduce__(s): return (exec, ('raise OSError',))", Fails("E", "x")),
        own("__getattribute__ raises", "def __getattribute__(s, n): raise OSError(n)", INDESCRIBABLE),
        own("__traceback__ is a trap", "@property\n    def __traceback__(s): raise OSError('trap')", INDESCRIBABLE),
        own("__notes__ is a trap", "@property\n    def __notes__(s): raise OSError('trap')", INDESCRIBABLE),
        own("__cause__ is itself", "def __init__(s, *a): s.__cause__ = s", Fails("E", "x")),
        own("__context__ runs in a circle", "def __init__(s, *a):\n        o = OSError()\n        o.__context__ = s\n        s.__context__ = o", Fails("E", "x")),
        own("a name of a megabyte", "pass\nE.__name__ = 'E' * (1 << 20)", Fails("E" * 256, "x")),
        own("a name with a line break", "pass\nE.__name__ = 'E\\n\\x1b[31m'", Fails("E\n\x1b[31m", "x")),
        own("a name with half a surrogate pair", "pass\nE.__name__ = 'E\\ud800'", Fails("UnicodeEncodeError", "surrogates not allowed")),
        own("a module with a line break", "__module__ = 'a\\nb'", Fails("E", "x")),
        own("a message of ten megabytes", "pass", Fails("E", "x"), raised="E('x' * (10 << 20))"),
        own("a message that is a trigger", "pass", Fails("E", "connection timed out: rate limit, try again"), raised="E('connection timed out: rate limit, try again')"),
        own("a message with half a surrogate pair", "pass", Fails("E", "?"), raised="E('\\ud800')"),
        own("a message with terminal escapes", "pass", Fails("E", "\x1b[2J\r\n\x07"), raised="E('\\x1b[2J\\r\\n\\x07')"),
        own("no exception at all", "pass", Raises(TypeError, "exceptions must derive from BaseException"), bases="object", raised="E()"),
        own("a class whose instance is another", "def __new__(c, *a): return OSError('other')", Raises(OSError, "other"), raised="E"),
        own("above Exception", "pass", Fails("E", "x"), bases="BaseException"),
        own("a metaclass with another name", "pass", Fails("7", "x"), bases="Exception, metaclass=type('M', (type,), {'__name__': 7})"),
    ],
)  # fmt: skip


def named(name, message="", bases="Exception"):
    """A class of its own under a name that is known here."""
    return f"class {name}({bases}): pass\n\ndef f():\n    raise {name}({message!r})\n"


IMITATED = family(
    "exception under a known name",
    [
        variant("ValueError", named("ValueError", "not the real one"), Raises(ValueError, "not the real one")),
        variant("KeyError", named("KeyError", "free text"), Fails("KeyError", "free text")),
        variant("KeyError with a literal", named("KeyError", "'key'"), Raises(KeyError, "'key'")),
        variant("KeyError with an expression", named("KeyError", "__import__('os').system('x')"), Fails("KeyError", "__import__('os').system('x')")),
        variant("KeyError with a dubious literal", named("KeyError", r"'\d'"), Fails("KeyError", r"'\d'")),
        variant("KeyError with deep brackets", named("KeyError", "(" * 4000), Fails("KeyError", "(" * 4000)),
        variant("KeyError with minus signs", named("KeyError", "-" * 4000 + "1"), Fails("KeyError", "-" * 4000 + "1")),
        variant("SystemExit", named("SystemExit", "0"), Fails("SystemExit", "0")),
        variant("KeyboardInterrupt", named("KeyboardInterrupt"), Fails("KeyboardInterrupt", "")),
        variant("GeneratorExit", named("GeneratorExit", "g", "BaseException"), Fails("GeneratorExit", "g")),
        variant("BaseException", named("BaseException", "b"), Fails("BaseException", "b")),
        variant("ExceptionGroup", named("ExceptionGroup", "g"), Fails("ExceptionGroup", "g")),
        variant("UnicodeDecodeError", named("UnicodeDecodeError", "u"), Fails("UnicodeDecodeError", "u")),
        variant("exec", named("exec", "1"), Fails("exec", "1")),
        variant("PlugindError", named("PlugindError", "p"), Fails("PlugindError", "p")),
        variant("Unavailable", named("Unavailable", "connect"), Fails("Unavailable", "connect")),
        variant("RpcError", named("RpcError", "StatusCode.UNAVAILABLE"), Fails("RpcError", "StatusCode.UNAVAILABLE")),
        variant("TimeoutError", named("TimeoutError", "timed out", "OSError"), Raises(TimeoutError, "timed out")),
        variant("StopIteration", named("StopIteration", "s"), Raises(StopIteration, "s")),
        variant("IOError", named("IOError", "alias"), Raises(OSError, "alias")),
        variant("Warning", named("UserWarning", "w"), Raises(UserWarning, "w")),
    ],
)  # fmt: skip

GROUPS = family(
    "exception group",
    [
        calling("of errors", "raise ExceptionGroup('g', [ValueError('a'), OSError('b')])", Fails("ExceptionGroup", "g (2 sub-exceptions)")),
        calling("with an exit in it", "raise BaseExceptionGroup('g', [SystemExit(0), KeyboardInterrupt()])", Fails("BaseExceptionGroup", "g (2 sub-exceptions)")),
        calling("of a thousand levels", "e = ValueError()\nfor _ in range(1000): e = ExceptionGroup('g', [e])\nraise e", Fails("ExceptionGroup", "g (1 sub-exception)")),
        calling("of twenty thousand", "raise ExceptionGroup('g', [ValueError(str(i)) for i in range(20_000)])", Fails("ExceptionGroup", "g (20000 sub-exceptions)")),
        calling("a real SystemExit", "raise SystemExit({'a': [1]})", Fails("SystemExit", "{'a': [1]}")),
        calling("a real KeyboardInterrupt", "raise KeyboardInterrupt", Fails("KeyboardInterrupt", "")),
        calling("a chain of 20,000 causes", "e = None\nfor i in range(20_000):\n    n = ValueError(str(i))\n    n.__cause__ = e\n    e = n\nraise e", Raises(ValueError, "19999")),
        calling("a traceback of 900 levels", "def down(n): return down(n - 1) if n else 1 / 0\ndown(900)", Raises(ZeroDivisionError, "division by zero")),
        calling("arguments that never print", "class A:\n    def __repr__(s):\n        while True: pass\nraise ValueError(A(), A())", ENDLESS),
        calling("a syntax error whose fields lie", "e = SyntaxError('s', ('/etc/passwd', 1, 10**9, 'x'))\ne.offset = -5\ne.text = 7\nraise e", INDESCRIBABLE),
        calling("a syntax error on a file of the host", "raise SyntaxError('s', ('/etc/shadow', 1, 1, None))", Raises(SyntaxError, "s (shadow, line 1)")),
    ],
)  # fmt: skip

VARIANTS = [*EVIL, *IMITATED, *GROUPS]
