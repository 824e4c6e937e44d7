"""Attacks by processes: outliving the run, hiding in it, other identities, other priorities."""

import os
import signal
import time

import raw


def environment():
    """Everything that tells of who started it."""
    found = {"environment": sorted(os.environ), "files": {}}
    for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
        for name in ("environ", "cmdline", "mountinfo", "maps", "cgroup", "status", "limits", "stat", "net/unix"):
            found["files"][f"{pid} {name}"] = raw.caught(lambda path: open(path).read(), f"/proc/{pid}/{name}")
    return found


def capabilities():
    """The five sets, ids, securebits and no_new_privs, as the kernel has them."""
    status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
    return {
        "sets": {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")},
        "no_new_privs": status["NoNewPrivs"].strip(),
        "uid": os.getresuid(),
        "gid": os.getresgid(),
    }


def gain():
    """Every call that gives an identity or a capability."""
    capset = (0x20080522).to_bytes(4, "little") + bytes(4)
    everything = b"\xff" * 24
    calls = {
        "setuid": (0,),
        "setreuid": (0, 0),
        "setresuid": (0, 0, 0),
        "setgid": (0,),
        "setregid": (0, 0),
        "setresgid": (0, 0, 0),
        "setfsuid": (0,),
        "setfsgid": (0,),
        "setgroups": (1, bytes(8)),
        "capset": (capset, everything),
    }
    answers = {name: raw.attempt(name, *arguments) for name, arguments in calls.items()}
    for name, arguments in {
        "ambient": (47, 2, 21, 0, 0),
        "securebits": (28, 0, 0, 0, 0),
        "keepcaps": (8, 1, 0, 0, 0),
    }.items():
        answers[name] = raw.attempt("prctl", *arguments, name=name)
    return answers


def priorities():
    """Real-time, a negative nice, deadlines, I/O priority, CPU affinity of others, and limits above the hard ones."""
    import resource
    import struct

    answers = {
        "fifo": raw.attempt("sched_setscheduler", 0, 1, struct.pack("i", 50)),
        "setattr": raw.attempt("sched_setattr", 0, struct.pack("IIQiIQQQ", 48, 6, 0, 0, 0, 10**6, 10**7, 10**7), 0),
        "setparam": raw.attempt("sched_setparam", 0, struct.pack("i", 50)),
        "ioprio": raw.attempt("ioprio_set", 1, 0, 1 << 13),
        "nice": raw.answer(raw.syscall("setpriority", 0, 0, -20)),
        "nice of the user": raw.answer(raw.syscall("setpriority", 2, 0, -20)),
        "affinity of others": raw.answer(raw.syscall("sched_setaffinity", 2, 8, b"\1" + bytes(7))),
    }
    for name in ("RTPRIO", "NICE", "NOFILE", "CORE", "CPU", "FSIZE", "MEMLOCK", "MSGQUEUE", "SIGPENDING"):
        number = {"MSGQUEUE": 12, "NICE": 13, "RTPRIO": 14, "SIGPENDING": 11}.get(name) or getattr(
            resource, f"RLIMIT_{name}"
        )
        hard = resource.getrlimit(number)[1]
        answers[f"limit {name}"] = raw.caught(resource.setrlimit, number, (hard + 1, hard + 1))
    return answers


def outlive(seconds):
    """Double fork, setsid, every signal ignored, PDEATHSIG cleared, output closed; then the first process returns."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
                try:
                    signal.signal(number, signal.SIG_IGN)
                except (OSError, ValueError):
                    pass
            raw.syscall("prctl", 1, 0)
            raw.syscall("prctl", 36, 1)
            for descriptor in range(4):
                os.close(descriptor)
            time.sleep(seconds)
        os._exit(0)
    return "returned"


def stop_all(seconds, children):
    """Children that stop themselves; some ignore everything and some are traced by nobody. Then wait to be killed."""
    pids = []
    for _ in range(children):
        pid = os.fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(seconds)
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, os.WUNTRACED)
    raw.say(f"stopped {len(pids)}")
    os.kill(os.getpid(), signal.SIGSTOP)  # pid 1 of its namespace does not hear it
    time.sleep(seconds)


def vfork_parent(seconds):
    """A parent that cannot be interrupted because its vfork child sleeps."""
    import ctypes

    if os.fork() == 0:
        ctypes.CDLL(None).vfork  # noqa: B018 - found; a raw clone with CLONE_VFORK is the same and safer here
        pid = raw.syscall("clone", 0x4000 | 17, 0, 0, 0, 0)
        if pid == 0:
            time.sleep(seconds)
            os._exit(0)
        os._exit(0)
    raw.say("waiting")
    time.sleep(seconds)


def churn(rounds):
    """Children come and go as fast as they can, so that pids are used again and again."""
    for _ in range(rounds):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    return rounds


def clear_death_signal(seconds):
    """Without a signal at its parent's death, and under a name of the daemon's own."""
    raw.syscall("prctl", 1, 0)
    raw.syscall("prctl", 15, b"plugind-launch")
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            raw.syscall("prctl", 1, 0)
            time.sleep(seconds)
            os._exit(0)
    raw.say("cleared")
    time.sleep(seconds)
