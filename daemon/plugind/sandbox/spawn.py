"""Starts the launcher, before anything heavy is imported: it is a fork of a small process and stays small."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from plugind.errors import ConfigError, IsolationUnavailableError
from plugind.linux import cgroup, seccomp, syscalls
from plugind.linux import constants as c
from plugind.model import Profile
from plugind.profiles import builtin_digests, load_profiles
from plugind.sandbox import codestore, features, rootfs, uids
from plugind.sandbox.latch import Latch, path_of
from plugind.sandbox.launcher import Launcher, log
from plugind.sandbox.template import TemplateSpec

JAILS = Path("/run")


@dataclass(frozen=True, slots=True)
class LauncherConfig:
    """What the launcher needs. `unlink` are paths to remove at its end: the front cannot, once it is not root."""

    state_dir: Path
    profiles_dir: Path
    front_uid: int
    front_gid: int
    unlink: tuple[Path, ...] = ()
    keep_descriptors: tuple[int, ...] = ()
    """Such as the lock of the state: it is free only when the launcher has cleaned up."""


def start_launcher(config: LauncherConfig) -> tuple[socket.socket, int]:
    """Fork the launcher. Returns the front's end of the SOCK_SEQPACKET connection and the launcher's pid."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        _become_launcher(config, theirs)
    theirs.close()
    return ours, pid


def _become_launcher(config: LauncherConfig, front: socket.socket) -> NoReturn:
    code = 1
    try:
        os.setsid()
        run_launcher(config, front)
        code = 0
    except (ConfigError, IsolationUnavailableError, OSError) as error:
        log(f"cannot go on: {error}")
    except BaseException:  # noqa: BLE001 - a mistake of ours: whoever looks for it needs the place
        log(f"cannot go on: {traceback.format_exc()}")
    finally:
        try:
            _unlink(config.unlink)
        finally:
            os._exit(code)  # never back into the code of the process that was forked


def run_launcher(config: LauncherConfig, front: socket.socket) -> None:
    """Be the launcher of one front, until it is gone or SIGTERM comes.

    Raises ConfigError, IsolationUnavailableError, OSError.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    syscalls.set_name("plugind-launch")
    syscalls.close_all_but({0, 1, 2, front.fileno(), *config.keep_descriptors})
    _run(config, front)


def _unlink(paths: Sequence[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log(f"{path} is left behind: {error.strerror}")


def _run(config: LauncherConfig, front: socket.socket) -> None:
    profiles = load_profiles(config.profiles_dir)
    builtin = builtin_digests(config.profiles_dir)
    driver = cgroup.detect()
    # One group a state folder: what an earlier daemon on it left behind by kill -9 is found and removed.
    name = f"{os.stat(config.state_dir).st_dev:x}-{os.stat(config.state_dir).st_ino:x}"
    driver.sweep(name)
    base = driver.create_base(name)
    unavailable = _unavailable(profiles)
    latch = Latch(path_of(config.state_dir))
    with _private_mounts(JAILS / f"plugind-{name}") as jail:
        code = codestore.CodeStore(jail / "code")
        specs = {tier: _spec(profile, jail) for tier, profile in profiles.items()}
        launcher = Launcher(front, base, profiles, specs, code, builtin, unavailable, latch)
        signal.signal(signal.SIGTERM, lambda _number, _frame: launcher.stop())
        try:
            launcher.serve(driver.name)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            launcher.shut_down()


def _unavailable(profiles: Mapping[int, Profile]) -> dict[int, str]:
    found = features.probe()
    missing = {tier: features.missing(profile, found) for tier, profile in profiles.items()}
    return {tier: f"this machine lacks {', '.join(names)}" for tier, names in missing.items() if names}


@contextmanager
def _private_mounts(jail: Path) -> Iterator[Path]:
    """A mount namespace of the launcher's own, with the tmpfs for plugin code. The host sees two empty folders.

    Not below the state folder: there the front may write.
    """
    for name in ("code", "root"):
        (jail / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    syscalls.unshare(c.CLONE_NEWNS)
    syscalls.mount("", "/", None, c.MS_REC | c.MS_PRIVATE)
    flags = c.MS_NOSUID | c.MS_NODEV
    size = codestore.CAPACITY_BYTES
    syscalls.mount("none", str(jail / "code"), "tmpfs", flags, f"size={size},nr_inodes=65536,mode=0755")
    try:
        yield jail
    finally:
        syscalls.umount2(str(jail / "code"), c.MNT_DETACH)
        shutil.rmtree(jail, ignore_errors=True)


def _spec(profile: Profile, jail: Path) -> TemplateSpec:
    base, count = uids.slice_of(profile.tier)
    return TemplateSpec(
        tier=profile.tier,
        uid_base=base,
        uid_count=count,
        staging=jail / "root",
        code=jail / "code",
        interpreter=rootfs.Interpreter.current(),
        programs=profile.exec_allowed,
        template_filter=seccomp.template_filter(),
        instance_filter=seccomp.build(profile),
    )
