"""Attacks on the result: forged frames, more than one, by others than the plugin; and JSON that is not what it seems."""

import os
import struct
import sys
import threading
import time

import raw

RESULT = 3


def nonce():
    """This run's nonce, out of the runner's own frames: a plugin shares the interpreter with it."""
    frame = sys._getframe()
    while "nonce" not in frame.f_locals:
        frame = frame.f_back
    return frame.f_locals["nonce"]


def frame(body, kind=b"V", length=None, mark=None):
    return (
        (nonce() if mark is None else mark) + kind + struct.pack(">Q", len(body) if length is None else length) + body
    )


def _write(data):
    view = memoryview(data)
    while view:
        view = view[os.write(RESULT, view) :]


def two_frames():
    _write(frame(b'"forged"'))
    return "real"


def frame_by_a_child():
    mark = nonce()
    if os.fork() == 0:
        _write(frame(b'"forged"', mark=mark))
        os._exit(0)
    os.wait()
    return "real"


def frame_by_a_thread():
    thread = threading.Thread(target=_write, args=(frame(b'"forged"'),))
    thread.start()
    thread.join()
    return "real"


def frame_of_a_child_that_lives_on():
    """The first process ends without one; a child that it left behind writes one later."""
    mark = nonce()
    if os.fork() == 0:
        time.sleep(0.2)
        _write(frame(b'"late"', mark=mark))
        os._exit(0)
    os._exit(0)


def wrong_nonce():
    _write(frame(b'"forged"', mark=bytes(16)))
    os._exit(0)


def cut_frame():
    _write(frame(b'"forged"')[:20])
    os._exit(0)


def wrong_length(length):
    _write(frame(b'"forged"', length=length))
    os._exit(0)


def unknown_kind():
    _write(frame(b'"forged"', kind=b"X"))
    os._exit(0)


def frame_and_status(status):
    _write(frame(b'"forged"'))
    os._exit(status)


def frame_and_signal(number):
    """A good frame, and then a death: the result is not believed."""
    mark = frame(b'"forged"')
    _write(mark)
    import ctypes

    ctypes.string_at(0) if number == 11 else os.abort()


def noise_before():
    """An early frame: something on the pipe before the runner writes its own."""
    os.write(RESULT, b"{}")
    return "real"


def error_frame(body):
    """What the plugin raised, made up."""
    _write(frame(body.encode("utf-8", "surrogatepass"), kind=b"E"))
    os._exit(0)


def raw_json(text):
    """A frame whose JSON text the runner would never have made."""
    _write(frame(text.encode("utf-8", "surrogatepass")))
    os._exit(0)


def raw_bytes(numbers):
    _write(frame(bytes(numbers)))
    os._exit(0)


def deep(levels):
    _write(frame(b"[" * levels + b"]" * levels))
    os._exit(0)


def wide(items):
    _write(frame(b"[" + b"0," * (items - 1) + b"0]"))
    os._exit(0)


def exact():
    return [2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1, 0.1, "\u0000\ud7ff\U0010ffff", 1e308, -0.0]


def say_everything(text):
    """The same text by every way that it can go into an answer, a log or a record."""
    os.write(1, text.encode("utf-8", "surrogatepass"))
    os.write(2, text.encode("utf-8", "surrogatepass"))
    raw.syscall("prctl", 15, text.encode("utf-8", "surrogatepass")[:15])
    raw.syscall("socket", 1, 1, 0)
    kind = type(text[:200].replace("\0", "?"), (Exception,), {"__module__": text.replace("\0", "?")})
    raise kind(text)


def return_text(text):
    os.write(1, text.encode("utf-8", "surrogatepass"))
    os.write(2, text.encode("utf-8", "surrogatepass"))
    return {text: text}


def results_of_a_map(text):
    """In a map: a batch of results of its own making, and not another word."""
    _write(frame(text.encode("latin-1")))
    os._exit(0)
