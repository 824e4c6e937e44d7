"""Attacks on the file tree: mounting, control groups, a false /proc, and links where something else was."""

import ctypes
import errno
import os
import threading

import raw

POINTS = ("/proc", "/dev", "/dev/shm", "/tmp", "/plugin", "/code", "/etc", "/runtime", "/grant", "/usr", "/dev/null")
HOST_PROC = (
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/vm/memfd_noexec",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/fs/binfmt_misc/register",
    "/proc/sysrq-trigger",
    "/proc/kcore",
    "/proc/kallsyms",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/acpi",
    "/proc/irq",
    "/proc/bus",
    "/proc/fs",
    "/proc/meminfo",
    "/proc/loadavg",
    "/proc/mounts/../sys",
    "/proc/1/../sys",
    "/sys",
    "/sys/fs/cgroup",
    "/sys/kernel/uevent_helper",
    "/sys/kernel/security",
    "/dev/mem",
    "/dev/kmsg",
    "/dev/kvm",
    "/dev/fuse",
    "/dev/userfaultfd",
    "/dev/net/tun",
    "/dev/loop-control",
    "/dev/mapper/control",
    "/dev/vsock",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/tty",
    "/dev/console",
    "/dev/mqueue",
    "/dev/hugepages",
    "/run",
    "/var",
    "/home",
    "/boot",
    "/mnt",
)

AT_TMP = ["none", "/tmp", "tmpfs", 0, 0]
MOUNTS = {
    "a control group": ["cgroup", "/tmp", "cgroup", 0, "memory"],
    "the unified control groups": ["cgroup2", "/tmp", "cgroup2", 0, 0],
    "another proc": ["proc", "/tmp", "proc", 0, 0],
    "sysfs": ["sysfs", "/tmp", "sysfs", 0, 0],
    "an overlay": ["overlay", "/tmp", "overlay", 0, "lowerdir=/,upperdir=/tmp,workdir=/tmp"],
    "a bind of the root": ["/", "/tmp", "", 0x5000, 0],
    "the root writable": ["", "/", "", 0x20 | 0x1000, 0],
    "propagation to the host": ["", "/", "", 0x100000 | 0x4000, 0],
}


def mount(what):
    arguments = [value.encode() if isinstance(value, str) else value for value in MOUNTS[what]]
    return raw.attempt("mount", *arguments)


def replace_mountpoints():
    """Rename, remove, link over and fill every mountpoint and special folder."""
    answers = {}
    for point in POINTS:
        answers[f"rename {point}"] = raw.caught(os.rename, point, "/tmp/x")
        answers[f"rename over {point}"] = raw.caught(_rename_over, point)
        answers[f"exchange {point}"] = raw.answer(raw.syscall("renameat2", -100, b"/tmp/y", -100, point.encode(), 2))
        answers[f"rmdir {point}"] = raw.caught(os.rmdir, point)
        answers[f"unlink {point}"] = raw.caught(os.unlink, point)
        answers[f"symlink {point}"] = raw.caught(os.symlink, "/tmp", point)
    for folder in (
        "/proc",
        "/proc/self",
        "/dev",
        "/plugin",
        "/code",
        "/etc",
        "/runtime",
        "/",
        "/usr",
        "/grant",
        "/proc/self/fd",
    ):
        answers[f"create in {folder}"] = raw.caught(os.open, f"{folder}/new", os.O_CREAT | os.O_WRONLY)
        answers[f"link in {folder}"] = raw.caught(os.symlink, "/tmp", f"{folder}/link")
    return answers


def _rename_over(point):
    os.makedirs("/tmp/y", exist_ok=True)
    os.rename("/tmp/y", point)


def look_at_the_host():
    """What of the kernel and the host is to be seen: what opens, for reading or writing."""
    return {path: raw.caught(_open_any, path) for path in HOST_PROC}


def _open_any(path):
    try:
        return os.open(path, os.O_WRONLY)
    except IsADirectoryError:
        return os.listdir(path)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise
        return os.open(path, os.O_RDONLY)


def file_system_of(path):
    """statfs' magic number."""
    found = raw.buffer(256)
    result = raw.syscall("statfs", path.encode(), found)
    return ctypes.c_long.from_buffer(found).value if result == 0 else raw.answer(result)


def false_proc():
    """A /proc of its own making: below /tmp, and by way of links; the real one stays what it is."""
    os.makedirs("/tmp/proc/self")
    with open("/tmp/proc/self/status", "w") as file:
        file.write("Uid:\t0\n")
    answers = {
        "rename": raw.caught(os.rename, "/tmp/proc", "/proc"),
        "link": raw.caught(os.symlink, "/tmp/proc", "/proc/1/fake"),
        "chroot": raw.attempt("chroot", b"/tmp"),
        "magic": file_system_of("/proc"),
        "self": os.readlink("/proc/self"),
        "pids": sorted(name for name in os.listdir("/proc") if name.isdigit()),
        "names": sorted(os.listdir("/proc")),
    }
    answers["writes"] = {
        name: raw.caught(_write, f"/proc/self/{name}")
        for name in (
            "attr/current",
            "attr/exec",
            "uid_map",
            "gid_map",
            "setgroups",
            "mem",
            "loginuid",
            "clear_refs",
            "sched",
            "autogroup",
            "oom_score_adj",
            "coredump_filter",
            "projid_map",
            "timens_offsets",
        )
    }
    return answers


def _write(path):
    with open(path, "w") as file:
        file.write("-1000")
    return path


def control_groups():
    """Control groups by every path; making one, moving, and raising the own limits."""
    with open("/proc/self/cgroup") as file:
        own = file.read().splitlines()
    answers = {"own": own, "mounts": [line for line in open("/proc/self/mountinfo") if "cgroup" in line]}
    for path in ("/sys/fs/cgroup/x", "/sys/fs/cgroup/memory/x", "/proc/self/cgroup/x"):
        answers[f"mkdir {path}"] = raw.caught(os.mkdir, path)
    for path in ("/proc/self/cgroup", "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        answers[f"write {path}"] = raw.caught(_write, path)
    answers["into another"] = raw.answer(raw.syscall("clone", 0x2000000 | 17, 0, 0, 0, 0))
    return answers


def swap_links(path, swaps):
    """A folder that becomes a link to / and back, 10,000 times, while somebody opens the host's file through it."""
    os.makedirs("/tmp/in/deep")
    os.symlink("/", "/tmp/out")
    os.rename("/tmp/in", "/tmp/way")
    stop = threading.Event()
    done = [0]

    def swap():
        while done[0] < swaps:
            if raw.syscall("renameat2", -100, b"/tmp/way", -100, b"/tmp/out", 2) == 0:
                done[0] += 1
        stop.set()

    thread = threading.Thread(target=swap)
    thread.start()
    reached, tries = [], 0
    while not stop.is_set():
        tries += 1
        for target in (f"/tmp/way{path}", f"/tmp/way/deep/../../../../..{path}"):
            try:
                with open(target) as file:
                    reached.append(file.read())
            except OSError:
                pass
    thread.join()
    return {"swaps": done[0], "tries": tries, "reached": reached}


def mount_flags():
    """Options of each mount, so that it can be asked which are writable, executable or take devices."""
    return [[fields[4], fields[5].split(",")] for fields in (line.split() for line in open("/proc/self/mountinfo"))]


def devices():
    """Device nodes: making them, and writing to what is there."""
    answers = {
        "mknod block": raw.attempt("mknod", b"/tmp/disk", 0o60666, 0xFE00, name="mknod block"),
        "mknod zero": raw.attempt("mknod", b"/tmp/null", 0o20666, 0x103, name="mknod zero"),
        "times": raw.caught(os.utime, "/dev/null"),
        "chmod": raw.caught(os.chmod, "/dev/null", 0o777),
        "urandom": raw.caught(lambda: os.write(os.open("/dev/urandom", os.O_WRONLY), b"seed")),
    }
    answers["kinds"] = sorted(os.listdir("/dev"))
    return answers
