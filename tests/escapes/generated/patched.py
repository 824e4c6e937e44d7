"""Builtins, library and runner changed under the runner's hands; and results that the runner never made."""

from __future__ import annotations

from textwrap import dedent

from tests.escapes.generated.variant import (
    ENDLESS,
    NO_FRAME,
    SHORT_MS,
    Ends,
    Fails,
    Gives,
    Raises,
    calling,
    family,
    importing,
)

HARMLESS = Gives("imported")


def builtin(name, value, expected, **more):
    return importing(f"{name} = {value}", f"import builtins\nbuiltins.{name} = {value}", expected, **more)


BUILTINS = family(
    "builtin",
    [
        builtin("len", "lambda x: 7", Ends(("output_invalid",))),
        builtin("print", "None", HARMLESS),
        builtin("isinstance", "lambda *a: True", Fails("", "exit status 1")),
        builtin("getattr", "lambda *a: 7", HARMLESS),
        builtin("str", "int", HARMLESS),
        builtin("dict", "None", HARMLESS),
        builtin("vars", "lambda *a: {}", Raises(AttributeError, "no public function f is defined here")),
        builtin("type", "lambda *a: 7", HARMLESS),
        builtin("open", "None", HARMLESS),
        builtin("memoryview", "bytes", HARMLESS),
        builtin("sorted", "None", HARMLESS),
        builtin("setattr", "None", HARMLESS),
        builtin("BaseException", "OSError", HARMLESS),
        builtin("__import__", "None", HARMLESS),
        builtin("__build_class__", "None", HARMLESS),
        importing("all of them are gone", "import builtins\nvars(builtins).clear()", Ends(("failed",))),
        importing("__builtins__ is something else", "__builtins__ = {}", HARMLESS),
        importing("a builtin exception is another class", "import builtins\nclass ZeroDivisionError(Exception): pass\nbuiltins.ValueError = ZeroDivisionError\nraise builtins.ValueError('swapped')", Raises(ZeroDivisionError, "swapped")),
    ],
)  # fmt: skip

LIBRARY = family(
    "library",
    [
        importing("json.dumps gives another value", "import json\njson.dumps = lambda *a, **k: '\"other\"'", Gives("other")),
        importing("json.dumps gives no text", "import json\njson.dumps = lambda *a, **k: 7", Fails("", "exit status 1")),
        importing("json.dumps never ends", "import json\ndef _dumps(*a, **k):\n    while True: pass\njson.dumps = _dumps", ENDLESS),
        importing("json.dumps makes no JSON", "import json\njson.dumps = lambda *a, **k: '{'", Ends(("output_invalid",))),
        importing("json.loads is gone", "import json\ndel json.loads", Raises(AttributeError, "module 'json' has no attribute 'loads'")),
        importing("the encoder is another class", "import json.encoder\njson.encoder.JSONEncoder.encode = lambda *a: '[1]'", Gives([1])),
        importing("the encoder writes what it likes", "import json.encoder\njson.encoder.JSONEncoder.default = lambda s, o: 'made'", HARMLESS),
        importing("sys.stdout is a number", "import sys\nsys.stdout = 7", HARMLESS),
        importing("sys.stdout never ends", "import sys\nclass Out:\n    def flush(s):\n        while True: pass\nsys.stdout = Out()", ENDLESS),
        importing("sys.stdout ends the program", "import sys\nclass Out:\n    def flush(s): raise SystemExit(0)\nsys.stdout = Out()", Fails("", "exit status 1")),
        importing("sys.stderr is closed", "import sys\nsys.stderr.close()", HARMLESS),
        importing("descriptors are closed", "import os\nos.closerange(0, 64)", Fails("", "exit status 1")),
        importing("the result is closed", "import os\nos.close(3)", Fails("", "exit status 1")),
        importing("the result goes to standard output", "import os\nos.dup2(1, 3)", NO_FRAME, timeout_ms=SHORT_MS),
        importing("os.write writes nothing", "import os\nos.write = lambda d, b: len(b)", NO_FRAME, timeout_ms=SHORT_MS),
        importing("os.write never gets on", "import os\nos.write = lambda d, b: 0", ENDLESS),
        importing("os.write writes backwards", "import os\nw = os.write\nos.write = lambda d, b: w(d, bytes(b)[::-1])", Ends(("output_invalid",))),
        importing("os.write writes twice", "import os\nw = os.write\nos.write = lambda d, b: (w(d, b), w(d, b))[0]", Ends(("output_invalid",))),
        importing("os._exit says that it failed", "import os\ne = os._exit\nos._exit = lambda n: e(9)", Fails("", "exit status 9")),
        importing("os._exit does not end it", "import os\nos._exit = lambda n: None", Fails("", "exit status 1")),
        importing("traceback never ends", "import traceback\ndef _walk(*a):\n    while True: pass\ntraceback.extract_tb = _walk\nraise OSError", ENDLESS),
        importing("inspect calls everything a function", "import inspect\ninspect.isfunction = lambda x: True", Raises(AttributeError, "'str' object has no attribute '__module__'")),
        importing("importlib gives another module", "import importlib, sys\nclass M: f = 1\nimportlib.import_module = lambda n: M", HARMLESS),
        importing("struct packs something else", "import struct\nstruct.Struct.pack = None", Raises(TypeError, "cannot set 'pack' attribute of immutable type '_struct.Struct'" )),
    ],
)  # fmt: skip

FIND = """
    import os, struct, sys, time
    frame = sys._getframe()
    while "nonce" not in frame.f_locals:
        frame = frame.f_back
    nonce = frame.f_locals["nonce"]
    def write(body, kind=b"V", length=None, mark=nonce):
        os.write(3, mark + kind + struct.pack(">Q", len(body) if length is None else length) + body)
"""


def forging(title, body, expected, **more):
    return calling(title, f"{dedent(FIND).strip()}\n{body}", expected, **more)


FRAMES = family(
    "forged frame",
    [
        forging("in the place of its own: it may say what it likes", "write(b'\"forged\"')\nos._exit(0)", Gives("forged")),
        forging("before its own", "write(b'\"forged\"')\nreturn 1", Ends(("output_invalid",), "exactly one")),
        forging("two of them", "write(b'1'); write(b'2')\nos._exit(0)", Ends(("output_invalid",), "exactly one")),
        forging("and it hangs", "write(b'1')\nwhile True: time.sleep(9)", ENDLESS),
        forging("and it fails", "write(b'1')\nos._exit(5)", Fails("", "exit status 5")),
        forging("and it dies", "import ctypes\nwrite(b'1')\nctypes.string_at(0)", Fails("", "died by SIGSEGV")),
        forging("by a child", "if not os.fork():\n    write(b'1')\n    os._exit(0)\nos.wait()\nreturn 2", Ends(("output_invalid",), "exactly one")),
        forging("by a thread", "import threading\nt = threading.Thread(target=write, args=(b'1',))\nt.start(); t.join()\nreturn 2", Ends(("output_invalid",), "exactly one")),
        forging("a guessed nonce", "write(b'1', mark=bytes(16))\nos._exit(0)", Ends(("output_invalid",), "nonce")),
        forging("another kind", "write(b'1', kind=b'Z')\nos._exit(0)", Ends(("output_invalid",), "unknown kind")),
        forging("a length beyond its end", "write(b'1', length=1 << 63)\nos._exit(0)", Ends(("output_invalid",), "exactly one")),
        forging("no bytes", "write(b'')\nos._exit(0)", Ends(("output_invalid",))),
        forging("cut off", "os.write(3, nonce)\nos._exit(0)", Ends(("output_invalid",), "cut off")),
        forging("not UTF-8", "write(b'\"\\xff\"')\nos._exit(0)", Ends(("output_invalid",), "UTF-8")),
        forging("the same key twice", "write(b'{\"a\":1,\"a\":2}')\nos._exit(0)", Ends(("output_invalid",), "duplicate key")),
        forging("levels without end", "write(b'[' * 30000)\nos._exit(0)", Ends(("output_invalid",), "levels")),
        forging("a float that does not fit", "write(b'1e999')\nos._exit(0)", Ends(("output_invalid",), "64-bit")),
        forging("an integer of 5000 digits", "write(b'1' * 5000)\nos._exit(0)", Ends(("output_invalid",), "4300")),
        forging("an exception that was never raised", "write(b'{\"type\":\"KeyboardInterrupt\",\"message\":\"timeout\",\"traceback\":\"\"}', kind=b'E')\nos._exit(0)", Fails("KeyboardInterrupt", "timeout")),
        forging("an exception with a type that is none", "write(b'{\"type\":\"__import__\",\"message\":\"os\",\"traceback\":\"\"}', kind=b'E')\nos._exit(0)", Fails("__import__", "os")),
        forging("an exception with a type of numbers", "write(b'{\"type\":1,\"message\":[],\"traceback\":{}}', kind=b'E')\nos._exit(0)", Ends(("output_invalid",), "malformed")),
        forging("the nonce as its result", "return nonce.hex() == 'x'", Gives(False)),
    ],
)  # fmt: skip

RUN = """
    import sys
    frame = sys._getframe()
    while "nonce" not in frame.f_locals:
        frame = frame.f_back
    runner = frame.f_globals
"""


def in_runner(title, body, expected, **more):
    """`runner` is the dictionary of the runner's module."""
    return calling(title, f"{dedent(RUN).strip()}\n{body}", expected, **more)


INTERNALS = family(
    "runner",
    [
        in_runner("its globals are gone", "runner.clear()\nreturn 1", Fails("", "exit status 1")),
        in_runner("its header is none", "runner['HEADER'] = None\nreturn 1", Fails("", "exit status 1")),
        in_runner("its last step is another", "import os\nrunner['flush'] = lambda: os._exit(0)\nreturn 1", NO_FRAME),
        in_runner("its last step never ends", "import time\nrunner['flush'] = lambda: time.sleep(99)\nreturn 1", ENDLESS),
        in_runner("its code is another", "run = runner['run']\nrun.__code__ = (lambda *a: None).__code__\nreturn 1", Gives(1)),
        in_runner("its interpreter calls another json", "class J:\n    dumps = staticmethod(lambda *a, **k: '7')\nfor m in list(sys.modules.values()):\n    if getattr(m, 'json', None): m.json = J\nreturn 1", Gives(7)),
        calling("its limits are lifted", "import sys\nfor m in list(sys.modules.values()):\n    if hasattr(m, 'MESSAGE_CHARS'): m.MESSAGE_CHARS = 10**9\nraise ValueError('x' * 5000)", Raises(ValueError, "x" * 4096)),
        calling("its objects are found and broken", "import gc\ngc.unfreeze()\nfor o in gc.get_objects():\n    if type(o) is dict and 'read_input' in o and 'HEADER' in o: o['HEADER'] = None\nreturn 1", Fails("", "exit status 1")),
        calling("it is interrupted", "import ctypes\nctypes.pythonapi.PyErr_SetInterrupt()\nfor _ in range(1000): pass", Fails("KeyboardInterrupt")),
        calling("it is interrupted later", "import ctypes\nadd = ctypes.pythonapi.Py_AddPendingCall\nstop = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(lambda _: -1)\nadd(stop, None)\nfor _ in range(1000): pass\nreturn 1", Raises(SystemError, "error return without exception set")),
        calling("its memory is overwritten", "import ctypes\nctypes.memset(id(None), 0, 16)\nreturn 1", Fails("", "died by SIG")),
        calling("seven is another number", "import ctypes\nctypes.c_int32.from_address(id(7) + 24).value = 8\nreturn 7", Gives(8)),
        calling("the zygote's socket is used", "import gc, socket\ngc.unfreeze()\nnext(o for o in gc.get_objects() if isinstance(o, socket.socket)).send(b'{}')", Raises(OSError, "Socket operation on non-socket")),
        calling("no digits are too many", "import sys\nsys.set_int_max_str_digits(0)\nreturn 10 ** 5000", Ends(("output_invalid",), "4300")),
        calling("odd objects are JSON", "import json\njson.JSONEncoder.default = lambda s, o: repr(type(o))\nreturn {1}", Gives("<class 'set'>")),
        calling("infinity is a number without quotes", "import json\njson.encoder.encode_basestring_ascii = lambda s: 'Infinity'\nreturn ['x', float('inf')]", Gives([float("inf"), float("inf")])),
    ],
)  # fmt: skip

VARIANTS = [*BUILTINS, *LIBRARY, *FRAMES, *INTERNALS]
