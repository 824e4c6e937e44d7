"""Names that are no plain functions, or stop being the ones that were written."""

from __future__ import annotations

from tests.escapes.generated.variant import ENDLESS, NO_JSON, Gives, Raises, Refused, family, variant

GONE = Raises(AttributeError, "no public function f is defined here")


def decorated(title, lines, decorator):
    """Refused as the parser writes it back: without the brackets around it."""
    shown = decorator[1:-1] if decorator.startswith("(") else decorator
    source = f"{lines}\n@{decorator}\ndef f():\n    return 1\n"
    return variant(title, source, Refused(f"expected f without a decorator, got @{shown}"))


DECORATORS = family(
    "decorator",
    [
        decorated("replaces the function", "def swap(g): return lambda: __import__('os').system('x')", "swap"),
        decorated("counts", "n = []\ndef count(g): n.append(g)\n", "count"),
        decorated("is a class", "class Box:\n    def __init__(self, g): self.g = g", "Box"),
        decorated("is a builtin that runs code", "", "exec"),
        decorated("is a lambda with an effect", "import os", "(lambda g: os._exit(0))"),
        decorated("is a call", "import functools", "functools.lru_cache(maxsize=None)"),
        decorated("hides behind a subscript", "table = [print]", "table[0]"),
        decorated("is property", "", "property"),
        decorated("hides the signature", "import functools\ndef w(g):\n    @functools.wraps(g)\n    def h(*a): return 1\n    return h", "w"),
        variant("is applied by hand", "def _swap(g): return 7\ndef f(): return 1\nf = _swap(f)\n", Refused("at least one public function")),
        variant("is applied to globals", "def swap(g): return lambda: 2\ndef f(): return 1\nglobals()['f'] = swap(f)\n", Gives(2)),
        variant("is on a class only", "def mark(c): raise ValueError('marked')\n@mark\nclass C: pass\ndef f(): return 1\n", Raises(ValueError, "marked")),
    ],
)  # fmt: skip

META = """
class Meta(type):
    {method}
class C(metaclass=Meta): pass
def f(): return {value}
"""


def meta(title, method, value, expected, **more):
    return variant(title, META.format(method=method, value=value), expected, **more)


METACLASSES = family(
    "metaclass",
    [
        meta("raises when a class is made", "def __new__(*a): raise OSError('made')", "1", Raises(OSError, "made")),
        meta("never ends", "def __init__(*a):\n        while True: pass", "1", ENDLESS),
        meta("prepares a namespace that lies", "def __prepare__(*a): return {'__module__': 'x', 'lie': 1}", "C.lie", Gives(1)),
        meta("is an instance of everything", "def __instancecheck__(c, x): return True", "isinstance(1, C)", Gives(True)),
        meta("answers for every attribute", "def __getattr__(c, n): return n", "C.anything", Gives("anything")),
        meta("has a name that is no text", "__name__ = 7", "C()", NO_JSON),
        meta("compares equal to everything", "def __eq__(*a): return True\n    def __hash__(c): return 0", "C == list", Gives(True)),
        meta("replaces its function as it is made", "def __init__(c, *a): globals()['f'] = 7", "1", Gives(1)),
        variant("takes the function away afterwards", "def f(): return 1\nclass Meta(type):\n    def __init__(*a): globals().pop('f')\nclass C(metaclass=Meta): pass\n", GONE),
        variant("__init_subclass__ has an effect", "class A:\n    def __init_subclass__(c): raise OSError('sub')\nclass B(A): pass\ndef f(): return 1\n", Raises(OSError, "sub")),
        variant("__set_name__ has an effect", "class D:\n    def __set_name__(s, c, n): c.f = 1; raise OSError(n)\nclass C: d = D()\ndef f(): return 1\n", Raises(RuntimeError, "Error calling __set_name__ on 'D' instance 'd' in 'C'")),
        variant("__class_getitem__ has an effect", "class A:\n    def __class_getitem__(c, x): raise OSError('item')\ndef f(x: A[int]): return 1\n", Raises(OSError, "item"), arguments={"x": 1}),
    ],
)  # fmt: skip

HOOKS = family(
    "module hook",
    [
        variant("__getattr__ answers for all", "def __getattr__(n): return lambda *a, **k: 7\ndef f(): return 1\n", Gives(1)),
        variant("__getattr__ instead of the function", "def __getattr__(n): return lambda: 7\ndef f(): return 1\ndel globals()['f']\n", GONE),
        variant("__dir__ lies", "def __dir__(): return ['f', 'g', 7, None]\ndef f(): return 1\n", Gives(1)),
        variant("__dir__ never ends", "def __dir__():\n    while True: pass\ndef f(): return 1\n", Gives(1)),
        variant("__all__ lies", "__all__ = ['g', 7, '__import__']\ndef f(): return 1\n", Gives(1)),
        variant("another class of module", "import sys, types\nclass M(types.ModuleType):\n    @property\n    def f(self): return 7\nsys.modules[__name__].__class__ = M\ndef f(): return 1\n", Gives(1)),
        variant("another class whose dictionary lies", "import sys, types\nclass M(types.ModuleType):\n    @property\n    def __dict__(self): return {}\nsys.modules[__name__].__class__ = M\ndef f(): return 1\n", GONE),
        variant("__path__ makes it a package", "__path__ = ['/proc/self']\ndef f(): return 1\n", Gives(1)),
        variant("__spec__ and __loader__ are gone", "del __spec__, __loader__, __file__\ndef f(): return 1\n", Gives(1)),
        variant("__annotations__ is a trap", "class T(dict):\n    def __setitem__(s, k, v): raise OSError(k)\n__annotations__ = T()\nx: int = 1\ndef f(): return 1\n", Raises(OSError, "x")),
    ],
)  # fmt: skip

NO_FUNCTIONS = family(
    "no function",
    [
        variant("a class", "class f:\n    def __new__(c): return 1\n", Refused("at least one public function")),
        variant("a class over a function", "def f(): return 1\nclass f: pass\n", Refused("at least one public function")),
        variant("an object that can be called", "class C:\n    def __call__(s): return 1\nf = C()\n", Refused("at least one public function")),
        variant("a bound method", "class C:\n    def m(s): return 1\nf = C().m\n", Refused("at least one public function")),
        variant("a partial", "import functools\nf = functools.partial(print)\n", Refused("at least one public function")),
        variant("a built-in function", "f = __import__\n", Refused("at least one public function")),
        variant("a private one", "def _f(): return 1\n", Refused("at least one public function")),
        variant("a dunder", "def __import__(*a): return 1\n", Refused("at least one public function")),
        variant("only where it is a program", "if __name__ == '__main__':\n    def f(): return 1\n", Refused("at least one public function")),
        variant("a coroutine", "async def f(): return 1\n", Refused("got the coroutine f")),
        variant("an asynchronous generator", "async def f():\n    while True: yield 1\n", Refused("got the coroutine f")),
        variant("a generator that never ends", "def f():\n    while True: yield 1\n", NO_JSON),
        variant("a generator that yields itself", "def f(): yield f()\n", NO_JSON),
        variant("a lambda", "f = lambda: (yield)\n", NO_JSON),
        variant("gives a coroutine", "async def _c(): return 1\ndef f(): return _c()\n", NO_JSON),
        variant("awaits one that never ends", "import asyncio\nasync def _c():\n    while True: await asyncio.sleep(0)\ndef f(): return asyncio.run(_c())\n", ENDLESS),
        variant("consumes a generator without end", "import itertools\ndef f(): return sum(1 for _ in itertools.count())\n", ENDLESS),
        variant("claims another module", "def f(): return 1\nf.__module__ = 'json'\n", GONE),
        variant("of another module claims this one", "import json\ng = json.dumps\ng.__module__ = __name__\ndef f(): return 1\nf = g\n", Refused("at least one public function")),
        variant("has other code", "def f(): return 1\ndef g(): return 2\nf.__code__ = g.__code__\n", Gives(2)),
        variant("has other defaults", "def f(x=1): return x\nf.__defaults__ = (2,)\n", Gives(2)),
        variant("has a __class__ that lies", "class C:\n    __class__ = type(lambda: 1)\n    __module__ = __name__\n    def __call__(s): return 3\ndef f(): return 1\nglobals()['f'] = C()\n", Gives(3)),
    ],
)  # fmt: skip

VARIANTS = [*DECORATORS, *METACLASSES, *HOOKS, *NO_FUNCTIONS]
