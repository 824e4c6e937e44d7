"""Starts the launcher, before anything heavy is imported: it is a fork of a small process and stays small."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import resource
import shutil
import signal
import socket
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from plugind.config import DEFAULT_NETWORK_RANGE, DEFAULT_STATE
from plugind.environments.shelf import Shelf
from plugind.environments.shelf import path_of as shelf_path
from plugind.errors import ConfigError, IsolationUnavailableError
from plugind.linux import cgroup, seccomp, syscalls
from plugind.linux import constants as c
from plugind.model import Limits, Profile
from plugind.planfiles import LEARNING
from plugind.profiles import builtin_digests, load_profiles
from plugind.sandbox import codestore, features, jailspec, rootfs, template, uids
from plugind.sandbox.latch import Latch, path_of
from plugind.sandbox.launcher import Launcher
from plugind.sandbox.network.networks import Processes
from plugind.sandbox.network.words import Settings
from plugind.sandbox.plans import known, tasks, works
from plugind.sandbox.plans.helper import Perform
from plugind.sandbox.plans.roots import Roots
from plugind.sandbox.starter import Build
from plugind.sandbox.template import TemplateSpec
from plugind.sandbox.templates import Templates
from plugind.sandbox.tries import Tries
from plugind.sandbox.words import log

JAILS = Path("/run")


@dataclass(frozen=True, slots=True)
class UnsafeOverrides:
    """Who builds the jail. For tests that take a control away and show what it was good for; nothing else sets it."""

    build_jail: Callable[[Profile, Limits, str, int, jailspec.Ground], jailspec.JailSpec] = jailspec.build
    build_filter: Callable[..., bytes] = seccomp.build
    template_filter: Callable[[], bytes] = seccomp.template_filter
    memfd_noexec: bool = True
    limit_cores: Callable[[], None] = lambda: _no_cores()  # noqa: PLW0108 - it is defined below


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
    network_range: str = DEFAULT_NETWORK_RANGE
    nameservers: tuple[str, ...] = ()
    """Addresses of those that resolve names for plugins; none: those of /etc/resolv.conf."""
    policy: Path | None = None
    """The policy file, whose plan roots the launcher reads itself; None: no folder is below one."""
    development: bool = False
    """Whether the policy may be the checkout's owner's, and plans may lie where there is no root."""
    perform: Perform = tasks.perform
    """What a plan helper does. For tests that have it do something else."""
    unsafe: UnsafeOverrides = field(default_factory=UnsafeOverrides)


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
    config.unsafe.limit_cores()
    syscalls.close_all_but({0, 1, 2, front.fileno(), *config.keep_descriptors})
    _run(config, front)


def _no_cores() -> None:
    """One byte: no core file of this process and of all below, and no helper of the host for one. Source: core(5)."""
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    except ValueError:
        # Whoever started us had a hard limit of 0, and this root may not raise it: still no file.
        log("the core limit stays 0: where kernel.core_pattern is a pipe, its program is run for plugins that crash")


def _unlink(paths: Sequence[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log(f"{path} is left behind: {error.strerror}")


def _run(config: LauncherConfig, front: socket.socket) -> None:
    profiles = load_profiles(config.profiles_dir)
    if config.development:
        profiles = {tier: _learning(profile) for tier, profile in profiles.items()}
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
        specs = {tier: _spec(profile, jail, config.unsafe) for tier, profile in profiles.items()}
        shelf = Shelf(shelf_path(config.state_dir))
        templates = Templates(base, specs, unavailable, template.start, template.Starting, shelf)
        build = _builder(profiles, config.unsafe)
        networks = _network_settings(config, name)
        means = Processes(base, networks, config.nameservers)
        roots = Roots(config.policy, development=config.development)
        folders = works.Means(roots, known.Known(known.path_of(config.state_dir)), config.perform)
        launcher = Launcher(front, base, profiles, templates, code, builtin, latch, build, Tries(base), means, folders)
        signal.signal(signal.SIGTERM, lambda _number, _frame: launcher.stop())
        try:
            launcher.serve(driver.name)
        except (IsolationUnavailableError, OSError):
            raise
        except Exception:  # now: what is to be cleaned up may fail as well, and be all that is told
            log(f"a fault of plugind: {traceback.format_exc()}")
            raise
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            launcher.shut_down()
            with suppress(OSError):  # it was never made, or has in it what the next start is to undo
                networks.folder.rmdir()


def _learning(profile: Profile) -> Profile:
    """The same where runs may learn: what one leaves then comes into no plan, whatever its tier."""
    files = profile.files
    most = replace(
        files,
        write_files=max(files.write_files, LEARNING.write_files),
        write_bytes=max(files.write_bytes, LEARNING.write_bytes),
    )
    return replace(profile, files=most)


def _network_settings(config: LauncherConfig, name: str) -> Settings:
    # The usual state folder has the names that an operator knows; any other daemon of this machine has its own.
    suffix = "" if config.state_dir == DEFAULT_STATE else hashlib.sha256(name.encode()).hexdigest()[:7]
    return Settings(JAILS / f"plugind-{name}.network", ipaddress.IPv4Network(config.network_range), suffix=suffix)


def _unavailable(profiles: Mapping[int, Profile]) -> dict[int, str]:
    found = features.probe()
    missing = {tier: features.missing(profile, found) for tier, profile in profiles.items()}
    return {tier: f"this machine lacks {', '.join(names)}" for tier, names in missing.items() if names}


@contextmanager
def _private_mounts(jail: Path) -> Iterator[Path]:
    """A mount namespace of the launcher's own, with the tmpfs for plugin code. The host sees two empty folders.

    Not below the state folder: there the front may write. What the host mounts later comes in, as plans can lie on it,
    and what it unmounts goes; nothing of ours goes out. Source: mount_namespaces(7), MS_SLAVE.
    """
    for name in ("code", "root"):
        (jail / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    syscalls.unshare(c.CLONE_NEWNS)
    syscalls.mount("", "/", None, c.MS_REC | c.MS_SLAVE)
    flags = c.MS_NOSUID | c.MS_NODEV
    size = codestore.CAPACITY_BYTES
    syscalls.mount("none", str(jail / "code"), "tmpfs", flags, f"size={size},nr_inodes=65536,mode=0755")
    try:
        yield jail
    finally:
        syscalls.umount2(str(jail / "code"), c.MNT_DETACH)
        shutil.rmtree(jail, ignore_errors=True)


def _builder(profiles: Mapping[int, Profile], unsafe: UnsafeOverrides) -> Build:
    grounds = {tier: rootfs.ground(profile) for tier, profile in profiles.items()}

    def build(profile: Profile, limits: Limits, digest: str, uid: int) -> jailspec.JailSpec:
        return unsafe.build_jail(profile, limits, digest, uid, grounds[profile.tier])

    return build


def _spec(profile: Profile, jail: Path, unsafe: UnsafeOverrides) -> TemplateSpec:
    base, count = uids.slice_of(profile.tier)
    memfd = unsafe.memfd_noexec and Path("/", template.MEMFD_NOEXEC).exists()
    return TemplateSpec(
        tier=profile.tier,
        uid_base=base,
        uid_count=count,
        staging=jail / "root",
        code=jail / "code",
        interpreter=rootfs.Interpreter.current(),
        programs=profile.exec_allowed,
        template_filter=unsafe.template_filter(),
        instance_filter=unsafe.build_filter(profile, memfd=memfd),
        network_filter=unsafe.build_filter(profile, memfd=memfd, network=True),
        memfd_noexec=memfd,
    )
