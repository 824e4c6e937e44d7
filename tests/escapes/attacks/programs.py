"""Attacks by programs and code in files: what may be executed, with whose rights, and what a crash leaves."""

import errno
import glob
import mmap
import os
import resource
import shutil
import stat

import raw

RETURNS_42 = b"\xb8\x2a\0\0\0\xc3"
TRUE = "/usr/bin/true"


def _execute(path, at=None):
    """The errno with which a child could not execute it; "ran" where it could."""

    def work():
        try:
            if at is None:
                os.execve(path, ["x"], {})
            result = raw.syscall("execveat", at, b"", 0, 0, 0x1000)  # AT_EMPTY_PATH
            return -result
        except OSError as error:
            return error.errno

    code = raw.child(work)
    return raw.answer(-code) if code > 0 else "ran"


def _map_executable(descriptor):
    with mmap.mmap(descriptor, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC):
        return "mapped"


def _program():
    """A native program; a few bytes that look like one where the jail shows none."""
    for path in (TRUE, os.path.realpath("/proc/self/exe")):
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError:
            continue
    return b"\x7fELF"


def native_code():
    """Memory, a memfd, files in both tmpfs."""
    program = _program()
    answers = {"anonymous": raw.Code(RETURNS_42)()}
    answers["memfd with MFD_EXEC"] = raw.answer(raw.syscall("memfd_create", b"x", 0x10))
    try:
        plain = os.memfd_create("x", 0)
    except OSError as error:
        answers["memfd"] = errno.errorcode[error.errno]
    else:
        os.write(plain, program[: 1 << 20])
        answers["memfd execve"] = _execute(f"/proc/self/fd/{plain}")
        answers["memfd execveat"] = _execute("", plain)
        answers["memfd chmod"] = raw.caught(os.fchmod, plain, 0o777)
    for folder in ("/tmp", "/dev/shm"):
        path = f"{folder}/program"
        with open(path, "wb") as file:
            file.write(program[: 8 << 20])
        os.chmod(path, 0o755)
        answers[f"{folder} execve"] = _execute(path)
        answers[f"{folder} mmap"] = raw.caught(_map_executable, os.open(path, os.O_RDONLY))
    return answers


def execute_everything():
    """execve and execveat by every way to name a program."""
    here = os.open("/", os.O_PATH)
    interpreter = os.path.realpath("/proc/self/exe")
    answers = {}
    for name, path in {
        "program": TRUE,
        "own executable": "/proc/self/exe",
        "interpreter": interpreter,
        "shell": "/bin/sh",
    }.items():
        answers[name] = raw.attempt("execve", path.encode(), 0, 0, name=f"execve {name}")
        answers[f"{name} at"] = raw.attempt(
            "execveat", here, path.lstrip("/").encode(), 0, 0, 0, name=f"execveat {name}"
        )
    return answers


SETUID = 0o6755


def setuid_files():
    """Every mount is nosuid; a setuid file of its own; setuid programs of the host, should any be shown."""
    options = [line.split()[5].split(",") for line in open("/proc/self/mountinfo")]
    path = "/tmp/setuid"
    shutil.copyfile(os.path.realpath("/proc/self/exe"), path)
    answers = {
        "mounts without nosuid": [each for each in options if "nosuid" not in each],
        "chmod": raw.caught(os.chmod, path, SETUID),
        "chown": raw.caught(os.chown, path, 0, 0),
        "setxattr": raw.attempt("setxattr", path.encode(), b"security.capability", raw.buffer(20), 20, 0),
        "privileged": _privileged(),
    }
    return answers


def _privileged():
    """Programs of /usr/bin with setuid or setgid: after execve the ids are the same."""
    found = []
    for path in glob.glob("/usr/bin/*"):
        try:
            status = os.stat(path)
        except OSError:
            continue
        if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
            found.append(path)
    return found


def ids_after_setuid(program):
    """Execute a setuid program in a child that first says how it would be seen: the ids that /proc shows while it runs."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(reader, 0)
        os.execv(program, [program])
    seen = ""
    for _ in range(200):
        try:
            status = open(f"/proc/{pid}/status").read()
        except OSError:
            break
        if "plugind-plugin" not in status.splitlines()[0]:
            seen = status
            break
    os.close(writer)
    os.waitpid(pid, 0)
    return {
        line.split(":\t")[0]: line.split(":\t")[1]
        for line in seen.splitlines()
        if line.startswith(("Uid", "CapEff", "NoNewPrivs"))
    }


def crash(executed):
    """SIGSEGV in a child, and in a program that it executed: whether there was a core."""

    def work():
        if executed:
            os.execv("/bin/sh", ["sh", "-c", "kill -SEGV $$"])
        os.kill(os.getpid(), 11)
        resource.getrusage(0)

    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    return {
        "signal": os.WTERMSIG(status),
        "core": os.WCOREDUMP(status),
        "limit": resource.getrlimit(resource.RLIMIT_CORE),
        "raise": raw.caught(resource.setrlimit, resource.RLIMIT_CORE, (1 << 20, 1 << 20)),
        "dumpable": raw.syscall("prctl", 3),
        "set dumpable": raw.attempt("prctl", 4, 1, 0, 0, 0, name="PR_SET_DUMPABLE"),
        "files": os.listdir("."),
    }


def lower_core_limit():
    """From 1, which keeps pipe helpers out, to 0, which does not."""
    return raw.caught(resource.setrlimit, resource.RLIMIT_CORE, (0, 0))
