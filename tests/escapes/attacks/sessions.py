"""Attacks on a session: answers that nobody asked for, pipes that it shares with the runner, and what it keeps."""

import fcntl
import os
import struct
import threading
import time

import raw
import results

REQUESTS = 4
kept = []
"""From input to input."""


def say(value=None):
    return value


def count(mib=0):
    kept.append(bytearray(mib << 20))
    return len(kept)


def forge_before(frames=1, body='"forged"'):
    results._write(results.frame(body.encode()) * frames)
    return "real"


def forge_instead_and_serve():
    """Takes the place of the runner: answers this input, and whatever else comes, by itself."""
    mark = results.nonce()
    waiting = b""
    results._write(results.frame(b'"mine"', mark=mark))
    while True:
        while len(waiting) < 8 or len(waiting) < 8 + struct.unpack(">Q", waiting[:8])[0]:
            chunk = os.read(REQUESTS, 65536)
            if not chunk:
                os._exit(0)
            waiting += chunk
        end = 8 + struct.unpack(">Q", waiting[:8])[0]
        results._write(results.frame(b'"mine"', mark=mark))
        waiting = waiting[end:]


def later(what, after=0.1, **arguments):
    """Does it in the background, when this input is answered."""
    mark = results.nonce()

    def work():
        time.sleep(after)
        {
            "answer": lambda: results._write(results.frame(b'"late"', mark=mark)),
            "answers": lambda: results._write(results.frame(b'"late"', mark=mark) * 1000),
            "bytes": lambda: os.write(results.RESULT, b"x" * arguments.get("size", 5)),
            "flood": lambda: _flood(results.RESULT),
            "exit": lambda: os._exit(arguments.get("status", 0)),
            "close results": lambda: os.close(results.RESULT),
            "results elsewhere": lambda: os.dup2(1, results.RESULT),
        }[what]()

    threading.Thread(target=work, daemon=True).start()
    return "real"


def _flood(descriptor):
    while True:
        os.write(descriptor, b"x" * 65536)


def header(length, body=""):
    """A frame of so many bytes, of which not all come."""
    results._write(results.frame(body.encode(), length=length))
    time.sleep(60)


def stream(mib):
    """An answer that is made while it is sent."""
    results._write(results.frame(b"", length=mib << 20))
    for _ in range(mib * 16):
        results._write(b"1" * 65536)
    return "real"


def close(descriptor):
    os.close(descriptor)
    return "closed"


def leave(status):
    os._exit(status)


def outlive_the_end():
    """When there are no more requests, the runner thinks that it ends the process."""
    os._exit = lambda status: time.sleep(60)
    return "ready"


def hang():
    time.sleep(60)


def leave_traces():
    with open("/tmp/trace", "w") as file:
        file.write("secret")
    with open("/dev/shm/trace", "w") as file:
        file.write("secret")
    os.environ["TRACE"] = "secret"
    kept.append("secret")
    return traces()


def traces():
    found = [name for name in ("/tmp/trace", "/dev/shm/trace") if os.path.exists(name)]
    return [*found, *(["TRACE"] if "TRACE" in os.environ else []), *(["kept"] if kept else [])]


def other_ends():
    """The ends of the pipes that are the daemon's, by way of /proc; and what else may be done to one's own."""
    answers = {}
    for descriptor, flags in ((results.RESULT, os.O_RDONLY), (results.RESULT, os.O_RDWR)):
        answers[f"{descriptor} {flags}"] = raw.caught(os.open, f"/proc/self/fd/{descriptor}", flags)
    for flags in (os.O_WRONLY, os.O_RDWR):
        answers[f"{REQUESTS} {flags}"] = raw.caught(os.open, f"/proc/self/fd/{REQUESTS}", flags)
    answers["write requests"] = raw.caught(os.write, REQUESTS, b"x")
    answers["read results"] = raw.caught(os.read, results.RESULT, 1)
    return answers


def spare_descriptors():
    """What else is open, beside the five, and how large the pipes can be made."""
    found = []
    for number in range(1024):
        try:
            fcntl.fcntl(number, fcntl.F_GETFD)
        except OSError:
            continue
        found.append(number)
    sizes = {number: raw.caught(fcntl.fcntl, number, 1031, 1 << 20) for number in (results.RESULT, REQUESTS)}
    return {"open": found, "sizes": sizes}


def spin(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return "done"


def thread():
    try:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    except RuntimeError:
        return "refused"
    return threading.active_count()


def dangerous():
    return raw.attempt("mount", 0, 0, 0, 0, 0)


def write(descriptor, kib):
    for _ in range(kib // 64):
        os.write(descriptor, b"x" * 65535 + b"\n")
    return kib
