"""`plugind serve`, in the order that safety needs: what takes root comes first, what is heavy comes last.

1. configuration      nothing was touched yet
2. state folder       made, marked, locked: a second daemon on it ends here
3. public socket      locked, bound and given to its owner
4. launcher           forked while this process is small, single-threaded, without grpc and cryptography
5. root is dropped    for good
6. the rest           ledger, registry, gRPC
"""

from __future__ import annotations

import asyncio
import os
import pwd
import resource
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from plugind import config, state
from plugind.api import listen
from plugind.config import ServeConfig, log
from plugind.errors import ConfigError, LauncherGoneError, NotAllowedError
from plugind.model import Profile
from plugind.profiles import load_profiles, profiles_dir
from plugind.sandbox import front, spawn

_REAP_S = 5.0
_MOST_DESCRIPTORS = 65536


def serve(serve_config: ServeConfig) -> int:
    """Run the daemon until it is told to stop. Returns the exit code. Raises PlugindError before anything is served."""
    _refuse_what_cannot_be(serve_config)
    os.umask(0o077)
    folder = serve_config.profiles or profiles_dir()
    profiles = load_profiles(folder)
    uid, gid = front_ids()
    owner_uid, owner_gid = _owner(os.environ)
    listen.check_path(serve_config.socket)
    held = state.prepare(serve_config.state, "dev", uid, gid)
    if serve_config.socket == config.DEFAULT_SOCKET:
        serve_config.socket.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    listener = listen.open_listener(serve_config.socket, owner_uid, owner_gid)
    sock, pid = _start_launcher(held, listener, folder, uid, gid)
    try:
        front.drop_root(uid, gid, [serve_config.state])
        return _become_front(serve_config, profiles, held, listener, owner_uid, sock)
    finally:
        sock.close()  # the launcher ends with its front, if it was not told before
        _reap(pid)


def front_ids() -> tuple[int, int]:
    """Uid and gid of the front: the user plugind, or where there is none the first of the range that is nobody's."""
    try:
        entry = pwd.getpwnam(config.FRONT_USER)
    except KeyError:
        return config.FRONT_UID_WITHOUT_USER, config.FRONT_UID_WITHOUT_USER
    return entry.pw_uid, entry.pw_gid


def _refuse_what_cannot_be(serve_config: ServeConfig) -> None:
    if not serve_config.standalone:
        raise ConfigError(
            "serve: without --standalone the launcher has to be a systemd unit of its own, which this version does not"
            " have yet; add --standalone"
        )
    if not serve_config.dev:
        raise ConfigError(
            "serve: without --dev the daemon needs a second socket for operators and approvers, which this version does"
            " not have yet; add --dev for one socket that serves you alone"
        )
    if os.geteuid() != 0:
        raise NotAllowedError(
            "serve: needs root: only root can make control groups, give each instance a uid of its own and mount its"
            " read-only file system; the part that talks to callers drops root before it listens to anybody."
            " Type: sudo plugind serve --standalone --dev …"
        )


def _owner(environment: Mapping[str, str]) -> tuple[int, int]:
    """Who started it, through sudo or directly."""
    try:
        return int(environment["SUDO_UID"]), int(environment["SUDO_GID"])
    except KeyError:
        return 0, 0
    except ValueError as error:
        raise ConfigError(f"SUDO_UID, SUDO_GID: expected whole numbers: {error}") from error


def _start_launcher(
    held: state.State, listener: listen.Listener, profiles: Path, uid: int, gid: int
) -> tuple[socket.socket, int]:
    launcher = spawn.LauncherConfig(
        state_dir=held.path,
        profiles_dir=profiles,
        front_uid=uid,
        front_gid=gid,
        unlink=(listener.path, listener.lock_path),
        keep_descriptors=(held.lock_descriptor, listener.lock_descriptor),
    )
    try:
        return spawn.start_launcher(launcher)
    except BaseException:
        listener.remove()
        raise


def _become_front(
    serve_config: ServeConfig,
    profiles: Mapping[int, Profile],
    held: state.State,
    listener: listen.Listener,
    owner_uid: int,
    sock: socket.socket,
) -> int:
    # Fork support makes grpc's children hang, and nothing forks from here on.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    _raise_descriptor_limit()
    # Imports grpc and cryptography, which the launcher must not have.
    from plugind.serving import Front, Prepared  # noqa: PLC0415

    prepared = Prepared(serve_config, profiles, held, listener, owner_uid)
    try:
        return asyncio.run(Front(prepared, sock).serve())
    except LauncherGoneError as error:
        log(f"the launcher is gone, nothing can run: {error}")
        return 6


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def _reap(pid: int) -> None:
    deadline = time.monotonic() + _REAP_S
    while time.monotonic() < deadline:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return
        time.sleep(0.002)
    log(f"the launcher (pid {pid}) has not ended after {_REAP_S:.0f} s; look at it with: ps -fp {pid}")
