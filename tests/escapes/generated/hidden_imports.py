"""`from os import system`, and ways to come by it that no reader of import statements sees. The jail lets none execute."""

from __future__ import annotations

from tests.escapes.generated.variant import MARK, Gives, Raises, calling, family, variant

COMMAND = f"touch /tmp/{MARK}"
NOTHING_RAN = Gives(32512)
"""The status of a shell that could not be started: system() tells no more."""


def by(title, lines, expected=NOTHING_RAN):
    """`lines` set `system`."""
    return calling(title, f"{lines}\nreturn system({COMMAND!r})", expected)


VARIANTS = family(
    "hidden import",
    [
        variant("at the top", f"from os import system\ndef f(): return system({COMMAND!r})\n", NOTHING_RAN),
        variant("under the name of a function", "from os import system as f\ndef g(): return 1\n", Gives(1), function="g"),
        by("in a function", "from os import system"),
        by("posix", "from posix import system"),
        by("__import__", "system = __import__('o' + 's').system"),
        by("importlib", "import importlib\nsystem = importlib.import_module(''.join(['o', 's'])).system"),
        by("getattr of a name spelled backwards", "import sys\nsystem = getattr(sys.modules['os'], 'metsys'[::-1])"),
        by("the dictionary of builtins", "system = vars(__builtins__ if not isinstance(__builtins__, dict) else __import__('builtins'))['__imp' + 'ort__']('os').system"),
        by("builtins as they are in every module", "system = (__builtins__ if isinstance(__builtins__, dict) else vars(__builtins__))['__import__']('os').system"),
        by("globals of a function of another module", "import random\nsystem = random.__dict__['_os'].system"),
        by("a module that has it as a name", "import shutil\nsystem = shutil.os.system"),
        by("the subclasses of object", "system = next(c for c in object.__subclasses__() if c.__name__ == '_wrap_close').__init__.__globals__['system']"),
        by("the subclasses of a literal's class", "system = [c for c in ().__class__.__mro__[-1].__subclasses__() if c.__name__ == '_wrap_close'][0].close.__globals__['system']"),
        by("the loader of a built-in module", "import sys\nsystem = sys.modules['posix'].__loader__.load_module('posix').system"),
        by("the finder itself", "import sys\nspec = next(filter(None, (m.find_spec('posix') for m in sys.meta_path)))\nimport importlib.util\nm = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(m)\nsystem = m.system"),
        by("exec", "space = {}\nexec('from os import system', space)\nsystem = space['system']"),
        by("eval of base64", "import base64\nsystem = eval(base64.b64decode(b'X19pbXBvcnRfXygnb3MnKS5zeXN0ZW0='))"),
        by("compile of rot13", "import codecs\nspace = {}\nexec(compile(codecs.decode('sebz bf vzcbeg flfgrz', 'rot13'), 'x', 'exec'), space)\nsystem = space['system']"),
        by("pickle's memory of a name", "import pickle\nsystem = pickle.loads(b'cposix\\nsystem\\n.')"),
        by("marshal", "import marshal, types\ncode = marshal.loads(marshal.dumps(compile('import os; out = os.system', 'x', 'exec')))\nspace = {'__builtins__': __builtins__}\nexec(code, space)\nsystem = space['out']"),
        by("a code object by hand", "import types\nsystem = types.FunctionType((lambda: __import__('os').system).__code__, {'__builtins__': __builtins__})()"),
        by("libc", "import ctypes\nsystem = lambda text: ctypes.CDLL(None).system(text.encode())"),
        by("the garbage collector's list", "import gc\ngc.unfreeze()\nsystem = next(o['system'] for o in gc.get_objects() if isinstance(o, dict) and 'system' in o and 'fork' in o)"),
        by("the frame of the caller", "import sys\nframe = sys._getframe()\nwhile 'os' not in frame.f_globals: frame = frame.f_back\nsystem = frame.f_globals['os'].system"),
        by("the traceback of an exception", "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    frame = e.__traceback__.tb_frame\nwhile 'os' not in frame.f_globals: frame = frame.f_back\nsystem = frame.f_globals['os'].system"),
        by("the loader of its own module", "system = __loader__.get_data.__globals__['_os'].system"),
        by("an operator on a name", "import operator, sys\nsystem = operator.attrgetter('modules')(sys)['os'].system"),
        by("a warning's module", "import warnings\nsystem = warnings.sys.modules['os'].system"),
        by("the help of pdb", "import pdb\nsystem = pdb.os.system"),
        by("a zip of its own", "import io, zipfile, sys\nwith zipfile.ZipFile('/tmp/m.zip', 'w') as z: z.writestr('m_in_zip.py', 'from os import system')\nsys.path.insert(0, '/tmp/m.zip')\nfrom m_in_zip import system"),
        by("a file of its own", "import sys\nopen('/tmp/m_in_tmp.py', 'w').write('from os import system')\nsys.path.insert(0, '/tmp')\nfrom m_in_tmp import system"),
        by("a native library of its own", "import ctypes\nopen('/tmp/x.so', 'wb').write(open('/proc/self/exe', 'rb').read(4096))\nsystem = ctypes.CDLL('/tmp/x.so')", Raises(OSError, "/tmp/x.so")),
        by("a decoder of its own", "import codecs\ncodecs.register(lambda name: codecs.CodecInfo(None, lambda *a: (__import__('os').system, 0)) if name == 'sly' else None)\nimport _codecs\nsystem = _codecs.lookup('sly').decode(b'')[0]"),
    ],
)  # fmt: skip
