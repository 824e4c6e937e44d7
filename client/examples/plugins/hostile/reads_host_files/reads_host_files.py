"""HOSTILE. Looks for secrets of the host, of the daemon and of other plugins.

Expected: `ok`, and nothing got. Nothing here is forbidden: there is simply nothing to be seen. The output lists every
attempt as {"what", "got", "detail"}; `got` is true where something was found that is none of a plugin's business.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

SECRETS = (
    "/etc/shadow",
    "/etc/sudoers",
    "/etc/machine-id",
    "/etc/ssh/ssh_host_ed25519_key",
    "/root/.ssh/id_ed25519",
    "/root/.ssh/authorized_keys",
    "/root/.bash_history",
    "/proc/kcore",
    "/proc/kallsyms",
    "/proc/cmdline",
    "/proc/1/root/etc/shadow",
    "/proc/self/root/etc/shadow",
    "/proc/self/cwd/" + "../" * 40 + "etc/shadow",
    "/dev/kmsg",
    "/dev/mem",
)
FOLDERS = ("/root", "/home", "/etc/ssh", "/boot", "/mnt", "/srv", "/var/lib", "/var/log", "/run", "/sys", "/work")
DAEMON = ("/run/plugind", "/run/plugind/run/plugind.sock", "/var/lib/plugind", "/etc/plugind", "/code")
USUAL_ENVIRONMENT = {
    *("HOME", "LANG", "LC_ALL", "LC_CTYPE", "PATH", "TMPDIR", "TZ"),
    *("PYTHONDONTWRITEBYTECODE", "PYTHONUTF8"),
}
BUNDLE_FILES = {"plugin.json", "plugin.toml"}

Attempt = dict[str, Any]


def run(payload: dict[str, Any], context: object) -> dict[str, list[Attempt]]:
    """The plugin's entrypoint."""
    attempts: list[Attempt] = []
    if payload["attack"] == "none":
        return {"attempts": attempts}

    def attempt(what: str, look: Callable[[], str]) -> None:
        """`look` returns what it found: an empty text is nothing."""
        try:
            found = look()
        except OSError as error:
            attempts.append({"what": what, "got": False, "detail": errno.errorcode.get(error.errno or 0, str(error))})
        else:
            attempts.append({"what": what, "got": bool(found), "detail": found[:200] or "nothing there"})

    for path in (*SECRETS, *DAEMON):
        attempt(f"read {path}", partial(_read, path))
    for path in payload.get("paths", []):
        attempt(f"see {path}", partial(_exists, path))
    for path in FOLDERS:
        attempt(f"list {path}", partial(_listing, path))
    attempt("read /etc/shadow through a symlink in /tmp", _through_symlink)
    attempt("environment", _environment)
    attempt("open descriptors", _descriptors)
    attempt("processes of others", _other_processes)
    attempt("block devices", _block_devices)
    attempt("code of other plugins, sockets, keys and databases anywhere", _search_everywhere)
    return {"attempts": attempts}


def _read(path: str) -> str:
    if os.path.isdir(path):
        return _listing(path)
    with open(path, "rb") as file:
        return f"{len(file.read(4096))} bytes or more"


def _exists(path: str) -> str:
    return f"it exists, mode {os.lstat(path).st_mode:o}"


def _listing(path: str) -> str:
    """What a folder shows, but for the way to the interpreter, which plugins do need."""
    return ", ".join(name for name in os.listdir(path) if not _leads_to_python(os.path.join(path, name)))


def _leads_to_python(path: str) -> bool:
    prefix = os.path.realpath(sys.base_prefix)
    return (prefix + "/").startswith(path + "/") or path.startswith(prefix + "/")


def _through_symlink() -> str:
    link = "/tmp/innocent"
    os.symlink("/etc/shadow", link)
    try:
        return _read(link)
    finally:
        os.unlink(link)


def _environment() -> str:
    return ", ".join(name for name in os.environ if name not in USUAL_ENVIRONMENT)


def _descriptors() -> str:
    """Open descriptors that lead to files of the host."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the descriptor that listed the folder
        harmless = target.startswith(("pipe:", "/dev/null", "/proc/", "/tmp/"))
        if not harmless:
            found.append(f"{name} -> {target}")
    return ", ".join(found)


def _other_processes() -> str:
    """Every process that is not this one: its environment, its memory, its files."""
    found = []
    for pid in (name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()):
        found.append(f"pid {pid}")
        for secret in ("environ", "mem", "cmdline"):
            try:
                with open(f"/proc/{pid}/{secret}", "rb"):
                    found.append(f"{pid}'s {secret}")
            except OSError:
                pass
    return ", ".join(found)


def _block_devices() -> str:
    names = [os.path.join("/dev", name) for name in os.listdir("/dev")]
    return ", ".join(name for name in names if stat.S_ISBLK(os.lstat(name).st_mode))


def _search_everywhere() -> str:
    own = os.path.dirname(os.path.abspath(__file__))
    return ", ".join(_interesting(own))


def _interesting(own: str) -> Iterator[str]:
    for folder, folders, files in os.walk("/"):
        folders[:] = [name for name in folders if _worth_a_look(os.path.join(folder, name), own)]
        for name in files:
            path = os.path.join(folder, name)
            if name in BUNDLE_FILES or name.endswith((".pem", ".key", ".sqlite", ".db", ".sock")):
                yield path
            elif stat.S_ISSOCK(os.lstat(path).st_mode):
                yield path


def _worth_a_look(path: str, own: str) -> bool:
    system = ("/proc", "/sys", "/usr", "/lib", "/lib64", own, os.path.realpath(sys.base_prefix))
    return path not in system
