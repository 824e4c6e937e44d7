"""`plugind serve`, in the order that safety needs: what takes root comes first, what is heavy comes last.

1. configuration      nothing was touched yet
2. state folder       made, marked, locked: a second daemon on it ends here
3. public sockets     locked, bound and given to their owners
4. launcher           forked while this process is small, single-threaded, without asyncio, grpc and cryptography
5. root is dropped    for good
6. the rest           ledger, registry, gRPC

As a unit of systemd it starts as the user plugind: then 4 is the launcher's own unit, and there is no root to drop.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import resource
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from plugind import config, state
from plugind.api import listen
from plugind.api.roles import OPERATORS
from plugind.config import Loopback, ServeConfig, log
from plugind.environments.shelf import path_of
from plugind.errors import ConfigError, LauncherGoneError, NotAllowedError
from plugind.model import Profile
from plugind.profiles import load_profiles, profiles_dir
from plugind.sandbox import front, spawn

_REAP_S = 5.0
_MOST_DESCRIPTORS = 65536
_OPEN_MODE = 0o666


def serve(serve_config: ServeConfig) -> int:
    """Run the daemon until it is told to stop. Returns the exit code. Raises PlugindError before anything is served."""
    _refuse_what_cannot_be(serve_config)
    os.umask(0o077)
    folder = serve_config.profiles or profiles_dir()
    profiles = load_profiles(folder)
    for path in _socket_paths(serve_config):
        listen.check_path(path)
        listen.check_folder(path)
    if isinstance(serve_config.metrics, Path):
        listen.check_path(serve_config.metrics, "metrics")
        listen.check_folder(serve_config.metrics, "metrics")
    if not serve_config.standalone:
        held = state.prepare(serve_config.state, _mode(serve_config), os.geteuid(), os.getegid())
        with _sockets(serve_config, os.geteuid(), os.getegid()) as sockets:
            return _become_front(serve_config, profiles, held, sockets, None)
    uid, gid = front_ids()
    held = state.prepare(serve_config.state, _mode(serve_config), uid, gid)
    environments = _environments(held.path)
    owner_uid, owner_gid = _owner(os.environ) if serve_config.dev else (uid, gid)
    with _sockets(serve_config, owner_uid, owner_gid) as sockets:
        sock, pid = spawn.start_launcher(_launcher_config(serve_config, held, sockets.listeners, folder, uid, gid))
        try:
            front.drop_root(uid, gid, [serve_config.state, environments, *_files(serve_config)])
            return _become_front(serve_config, profiles, held, sockets, sock, pid)
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


def _environments(held: Path) -> Path:
    """The folder of the environments: there before the front looks, which sees no folder that is made later."""
    folder = path_of(held)
    # Never a chmod of what is there: beside a state below /tmp it can be anybody's link to anything.
    before = os.umask(0o022)
    try:
        folder.mkdir(mode=0o755)
    except FileExistsError:
        pass  # whether it is a folder of root's is looked at whenever it is read
    finally:
        os.umask(before)
    return folder


def _refuse_what_cannot_be(serve_config: ServeConfig) -> None:
    if serve_config.standalone and os.geteuid() != 0:
        raise NotAllowedError(
            "serve: needs root: only root can make control groups, give each instance a uid of its own and mount its"
            " read-only file system; the part that talks to callers drops root before it listens to anybody."
            " Type: sudo plugind serve --standalone --dev …"
        )
    if serve_config.dev and not serve_config.standalone:
        raise ConfigError("serve: --dev needs --standalone: the launcher's unit serves the daemon's unit alone; add it")
    if not serve_config.standalone and os.geteuid() == 0:
        raise ConfigError(
            "serve: without --standalone this is for systemd, which starts it as the user plugind: type"
            " `systemctl start plugind`; for a daemon of your own add --standalone --dev"
        )


def _mode(serve_config: ServeConfig) -> state.Mode:
    return "dev" if serve_config.dev else "production"


def _socket_paths(serve_config: ServeConfig) -> list[Path]:
    paths = [serve_config.socket] if serve_config.dev else [serve_config.socket, serve_config.admin_socket]
    if serve_config.standalone:
        for path in paths:
            if path in (config.DEFAULT_SOCKET, config.DEFAULT_ADMIN_SOCKET):
                path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    return paths


def _files(serve_config: ServeConfig) -> list[Path]:
    """The folders of the files that the front reads, also again while it serves."""
    named = [serve_config.profiles, serve_config.policy and serve_config.policy.parent]
    named.append(serve_config.trust and serve_config.trust.parent)
    return [profiles_dir(), *(folder for folder in named if folder is not None)]


@dataclass(frozen=True, slots=True)
class _Sockets:
    """What is listened on. Of `listeners` the last is for metrics, where these have a Unix socket."""

    public: tuple[listen.Listener, ...]
    metrics: socket.socket | None
    listeners: tuple[listen.Listener, ...]


@contextlib.contextmanager
def _sockets(serve_config: ServeConfig, owner_uid: int, owner_gid: int) -> Iterator[_Sockets]:
    """The public sockets. With --dev one for the owner alone; else everybody may knock, and the daemon decides."""
    mode = 0o600 if serve_config.dev else _OPEN_MODE
    opened: list[listen.Listener] = []
    try:
        for path in _socket_paths(serve_config):
            listener = listen.open_listener(path, owner_uid, owner_gid, mode=mode)
            opened.append(listener)
        public = tuple(opened)
        match serve_config.metrics:
            case Path() as path:
                gid, mode = (owner_gid, 0o600) if serve_config.dev else (_readers(owner_gid), 0o660)
                opened.append(listen.open_listener(path, owner_uid, gid, mode=mode, setting="metrics"))
                yield _Sockets(public, opened[-1].sock, tuple(opened))
            case Loopback(host, port):
                with listen.open_loopback(host, port) as sock:
                    yield _Sockets(public, sock, public)
            case None:
                yield _Sockets(public, None, public)
    finally:
        for listener in opened:
            with contextlib.suppress(OSError):  # the launcher removes what the front may not
                listener.remove()


def _readers(own_gid: int) -> int:
    """The group that may read metrics: the operators', where there is one and this process may give files to it."""
    try:
        gid = grp.getgrnam(OPERATORS).gr_gid
    except KeyError:
        return own_gid
    return gid if os.geteuid() == 0 or gid in os.getgroups() else own_gid


def _owner(environment: Mapping[str, str]) -> tuple[int, int]:
    """Who started it, through sudo or directly."""
    try:
        return int(environment["SUDO_UID"]), int(environment["SUDO_GID"])
    except KeyError:
        return 0, 0
    except ValueError as error:
        raise ConfigError(f"SUDO_UID, SUDO_GID: expected whole numbers: {error}") from error


def _launcher_config(
    serve_config: ServeConfig,
    held: state.State,
    listeners: Sequence[listen.Listener],
    profiles: Path,
    uid: int,
    gid: int,
) -> spawn.LauncherConfig:
    return spawn.LauncherConfig(
        state_dir=held.path,
        profiles_dir=profiles,
        front_uid=uid,
        front_gid=gid,
        unlink=tuple(path for listener in listeners for path in (listener.path, listener.lock_path)),
        nameservers=serve_config.nameservers,
        network_range=serve_config.network_range,
        policy=serve_config.policy or profiles_dir() / "policy.toml",
        development=serve_config.dev,
        keep_descriptors=(held.lock_descriptor, *(listener.lock_descriptor for listener in listeners)),
    )


def _become_front(
    serve_config: ServeConfig,
    profiles: Mapping[int, Profile],
    held: state.State,
    sockets: _Sockets,
    launcher: socket.socket | None,
    launcher_pid: int = 0,
) -> int:
    # Fork support makes grpc's children hang, and nothing forks from here on.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    _raise_descriptor_limit()
    # These bring grpc, cryptography and ssl, which the launcher must not have.
    import asyncio  # noqa: PLC0415

    from plugind.serving import Front, Prepared  # noqa: PLC0415

    owner_uid, _ = _owner(os.environ)
    prepared = Prepared(serve_config, profiles, held, sockets.public, owner_uid, sockets.metrics, launcher_pid)
    try:
        return asyncio.run(Front(prepared, launcher).serve())
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
