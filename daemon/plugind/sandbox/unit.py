"""The launcher as a unit of its own: `plugind-launcher`, started by systemd when the front connects to its socket.

It serves one front and ends with it; systemd keeps the socket, so the next front starts the next launcher.
Source: sd_listen_fds(3).
"""

from __future__ import annotations

import argparse
import os
import pwd
import socket
import sys
from pathlib import Path
from typing import Final, NoReturn

from plugind import config
from plugind.errors import ConfigError, PlugindError
from plugind.profiles import profiles_dir
from plugind.sandbox import channel, spawn
from plugind.sandbox.words import log

LISTENER: Final = 3
"""The descriptor of the first socket that systemd hands over."""
_EXIT_USAGE, _EXIT_FAULT = 2, 6


def main() -> NoReturn:
    """Serve one front. Exit codes: 0 the front is gone or SIGTERM came; 2 not started as a unit; 6 a fault."""
    options = _options()
    try:
        loaded = config.load(config.Flags(config=options.config, state=options.state), os.environ)
        listener = _listener()
        front_uid, front_gid = _front_ids()
        front = _accept(listener, front_uid)
        spawn.run_launcher(
            spawn.LauncherConfig(
                state_dir=loaded.state,
                profiles_dir=loaded.profiles or profiles_dir(),
                front_uid=front_uid,
                front_gid=front_gid,
                nameservers=loaded.nameservers,
                network_range=loaded.network_range,
                policy=loaded.policy or profiles_dir() / "policy.toml",
            ),
            front,
        )
    except ConfigError as error:
        log(str(error))
        sys.exit(_EXIT_USAGE)
    except (PlugindError, OSError) as error:
        log(f"cannot go on: {error}")
        sys.exit(_EXIT_FAULT)
    sys.exit(0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="plugind-launcher",
        description="The part of plugind that makes jails. It is for systemd: systemctl status plugind-launcher.socket",
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"default: {config.DEFAULT_CONFIG}, if it is there")
    parser.add_argument("--state", type=Path, metavar="DIR", help=f"default: {config.DEFAULT_STATE}")
    return parser.parse_args()


def _listener() -> socket.socket:
    """The listening socket. Raises ConfigError where systemd has handed none over."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        raise ConfigError(
            "plugind-launcher: expected one socket from systemd (LISTEN_FDS=1), got none: type `systemctl start"
            " plugind`; without systemd, `plugind serve --standalone` starts a launcher itself"
        )
    return socket.socket(fileno=LISTENER)


def _front_ids() -> tuple[int, int]:
    try:
        entry = pwd.getpwnam(config.FRONT_USER)
    except KeyError as error:
        raise ConfigError(
            f"plugind-launcher: expected the user {config.FRONT_USER}; systemd-sysusers makes it"
        ) from error
    return entry.pw_uid, entry.pw_gid


def _accept(listener: socket.socket, front_uid: int) -> socket.socket:
    """The one front. Whoever else connects is sent away: the socket's mode should have kept them out already."""
    while True:
        front, _ = listener.accept()
        pid, uid, _ = channel.UCRED.unpack(front.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, channel.UCRED.size))
        if uid == front_uid:
            listener.close()
            return front
        log(f"refused a connection of uid {uid} (pid {pid}): expected uid {front_uid}, {config.FRONT_USER}")
        front.close()
