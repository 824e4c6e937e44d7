"""What happens as soon as a module is imported: nothing of it may happen to whoever loads the source."""

from __future__ import annotations

from tests.escapes.generated.variant import ENDLESS, MARK, NO_FRAME, Ends, Fails, Gives, Raises, family, importing

HARMLESS = Gives("imported")
READ_ONLY = Raises(OSError, "[Errno 30] Read-only file system")
NOT_PERMITTED = Raises(PermissionError, "[Errno 1] Operation not permitted")

ENDS = family(
    "import ends the process",
    [
        importing("sys.exit", "import sys\nsys.exit(3)", Fails("SystemExit", "3")),
        importing("sys.exit with success", "import sys\nsys.exit()", Fails("SystemExit", "")),
        importing("exit of site", "exit(0)", Raises(NameError, "name 'exit' is not defined")),
        importing("os._exit as if all were well", "import os\nos._exit(0)", NO_FRAME),
        importing("os._exit with a status", "import os\nos._exit(7)", Fails("", "exit status 7")),
        importing("SIGKILL to itself", "import os\nos.kill(os.getpid(), 9)", HARMLESS),
        importing(
            "SIGKILL to everybody", "import os\nos.kill(-1, 9)", Raises(ProcessLookupError, "[Errno 3] No such process")
        ),
        importing("SIGTERM to its parent", "import os\nos.kill(os.getppid(), 15)", HARMLESS),
        importing("SIGSTOP to itself", "import os, signal\nos.kill(0, signal.SIGSTOP)", HARMLESS),
        importing(
            "an alarm",
            "import signal\nsignal.setitimer(signal.ITIMER_REAL, 0.01)\nfor _ in range(10**6): pass",
            HARMLESS,
        ),
        importing("abort", "import os\nos.abort()", Fails("", "died by SIG")),
        importing("a null pointer", "import ctypes\nctypes.string_at(0)", Fails("", "died by SIGSEGV")),
        importing("KeyboardInterrupt", "raise KeyboardInterrupt('mine')", Fails("KeyboardInterrupt", "mine")),
        importing("GeneratorExit", "raise GeneratorExit", Fails("GeneratorExit", "")),
        importing("ImportError of its own", "raise ImportError('no such luck')", Raises(ImportError, "no such luck")),
        importing(
            "a stack that has no end",
            "def down(): return down()\ndown()",
            Raises(RecursionError, "maximum recursion depth exceeded"),
        ),
        importing(
            "a stack without a limit",
            "import sys\nsys.setrecursionlimit(10**9)\ndef down(x): return down([*map(down, [x])])\ndown(0)",
            Ends(("failed", "out_of_memory")),
        ),
    ],
)

EXHAUSTS = family(
    "import exhausts",
    [
        importing("an endless loop", "while True: pass", ENDLESS),
        importing("an endless sleep", "import time\nwhile True: time.sleep(9)", ENDLESS),
        importing("waits for a lock that it holds", "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()", ENDLESS),
        importing("reads from a pipe that nobody writes", "import os\nos.read(os.pipe()[0], 1)", ENDLESS),
        importing("a regular expression that backtracks", "import re\nre.match(r'(a+)+$', 'a' * 64 + 'b')", ENDLESS),
        importing("a number that takes a year", "9 ** 9 ** 9", ENDLESS),
        importing("a fork bomb", "import os\nwhile True: os.fork()", Ends(("pids_exceeded",))),
        importing("forks until it is refused, then goes on", "import os, time\ntry:\n    while os.fork(): pass\n    time.sleep(9)\nexcept OSError: pass", Ends(("pids_exceeded",))),
        importing("a thread bomb", "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,)).start()", Ends(("pids_exceeded",))),
        importing("one large object", "kept = b'x' * (1 << 30)", Ends(("out_of_memory",))),
        importing("a list that grows", "kept = [0]\nwhile True: kept += kept", Ends(("out_of_memory",))),
        importing("many small objects", "kept = []\nwhile True: kept.append(bytearray(65536))", Ends(("out_of_memory",))),
        importing("memory by way of files", f"""
            stream = open("/dev/shm/{MARK}", "wb")
            while True: stream.write(b"x" * 65536)
            """, Raises(OSError, "[Errno 28] No space left on device")),
        importing("a flood on standard output", "while True: print('x' * 65536)", Ends(("output_limit",))),
        importing("a flood on standard error", "import os\nwhile True: os.write(2, b'x' * 65536)", Ends(("output_limit",))),
        importing("a flood on the result", "import os\nwhile True: os.write(3, b'x' * 65536)", Ends(("output_limit",))),
        importing("descriptors", "import os\nkept = [os.dup(0) for _ in range(10_000)]", Raises(OSError, "[Errno 24] Too many open files")),
        importing("refused calls", """
            import ctypes
            libc = ctypes.CDLL(None)
            while True: libc.syscall(41, 1, 1, 0)
            """, Ends(("violation",))),
    ],
)  # fmt: skip

LEAVES = family(
    "import leaves something behind",
    [
        importing("a file beside itself", f"open('/plugin/{MARK}', 'w')", Raises(OSError, f"[Errno 30] Read-only file system: '/plugin/{MARK}'")),
        importing("a file where it is", f"open('{MARK}', 'w').write('x')", HARMLESS),
        importing("a file in /tmp", f"open('/tmp/{MARK}', 'w').write('x')", HARMLESS),
        importing("a file at home", f"import os\nopen(os.path.expanduser('~/{MARK}'), 'w').write('x')", HARMLESS),
        importing("nothing of its own file", "import os\nos.remove(__file__)", READ_ONLY),
        importing("other text in its own file", "open(__file__, 'w').write('x')", READ_ONLY),
        importing("bytecode", "import py_compile\npy_compile.compile(__file__)", READ_ONLY),
        importing("another working directory", "import os\nos.chdir('/')", HARMLESS),
        importing("another umask and environment", f"import os\nos.umask(0)\nos.environ['{MARK}'] = 'x'", HARMLESS),
        importing("a thread", f"import threading, time\nthreading.Thread(target=time.sleep, args=(99,), name='{MARK}').start()", HARMLESS),
        importing("a child", "import os, time\nif not os.fork(): time.sleep(99)", HARMLESS),
        importing("an orphan in a session of its own", "import os, time\nif not os.fork():\n    os.setsid()\n    if os.fork(): os._exit(0)\n    time.sleep(99)", HARMLESS),
        importing("a function for the end", f"import atexit\natexit.register(open, '/tmp/{MARK}', 'w')", HARMLESS),
        importing("a function for the end that never ends", "import atexit, time\natexit.register(time.sleep, 99)", HARMLESS),
        importing("a finalizer that never ends", "class Last:\n    def __del__(self):\n        while True: pass\nlast = Last()", HARMLESS),
        importing("a handler of signals", "import signal\nfor n in (2, 15): signal.signal(n, signal.SIG_IGN)", HARMLESS),
        importing("a tracer", "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)", HARMLESS),
        importing("a tracer that raises", "import sys\ndef _trace(*a): raise OSError('traced')\nsys.settrace(_trace)", Raises(OSError, "traced")),
        importing("an audit hook that forbids everything", "import sys\ndef _hook(*a): raise OSError('hooked')\nsys.addaudithook(_hook)\nopen('/tmp/x')", Fails("Indescribable", "cannot be described")),
        importing("an import hook", "import sys\nclass Finder:\n    def find_spec(self, *a): raise OSError('found')\nsys.meta_path.insert(0, Finder())", HARMLESS),
        importing("no modules", "import sys\nsys.modules.clear()", Raises(KeyError, "generated_")),
        importing("no paths", "import sys\nsys.path[:] = []\nsys.meta_path[:] = []\nsys.path_hooks[:] = []", HARMLESS),
        importing("itself as another module", "import sys\nsys.modules['json'] = sys.modules[__name__]", HARMLESS),
        importing("another module as itself", "import sys, json\nsys.modules[__name__] = json", Raises(AttributeError, "no public function f")),
        importing("no module as itself", "import sys\ndel sys.modules[__name__]", Raises(KeyError, "generated_")),
        importing("a number as itself", "import sys\nsys.modules[__name__] = 7", Raises(TypeError, "vars() argument must have __dict__")),
        importing("another name", "__name__ = 'json'", HARMLESS),
    ],
)  # fmt: skip

REACHES = family(
    "import reaches out",
    [
        importing("a socket", "import socket\nsocket.socket()", NOT_PERMITTED),
        importing("a name of the network", "import socket\nsocket.getaddrinfo('example.org', 80)", Fails("gaierror")),
        importing("a page of the web", "import urllib.request\nurllib.request.urlopen('http://192.0.2.1/')", Fails("URLError", "Operation not permitted")),
        importing("the daemon's socket", "import socket\nsocket.socket(socket.AF_UNIX).connect('/run/plugind/run/plugind.sock')", NOT_PERMITTED),
        importing("a shell", "import os\nkept = os.system('touch /tmp/x')", HARMLESS),
        importing("a program", "import subprocess\nsubprocess.run(['/bin/true'])", NOT_PERMITTED),
        importing("its own interpreter", "import os, sys\nos.execv(sys.executable, ['python3'])", NOT_PERMITTED),
        importing("the passwords", "open('/etc/shadow')", Raises(FileNotFoundError, "No such file or directory: '/etc/shadow'")),
        importing("another root", "import os\nos.chroot('/tmp')", NOT_PERMITTED),
        importing("a new namespace", "import ctypes\nctypes.CDLL(None).unshare(0x10000000)", Ends(("violation",), "unshare")),
        importing("another process", "import ctypes\nctypes.CDLL(None).ptrace(16, 1, 0, 0)", Ends(("violation",), "ptrace")),
        importing("another user", "import os\nos.setuid(0)", NOT_PERMITTED),
        importing("the clock", "import time\ntime.clock_settime(time.CLOCK_REALTIME, 0)", NOT_PERMITTED),
        importing("more of everything", "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20))", Raises(ValueError, "not allowed to raise maximum limit")),
    ],
)  # fmt: skip

VARIANTS = [*ENDS, *EXHAUSTS, *LEAVES, *REACHES]
