"""What the daemon is told: flags, then environment, then the configuration file, then the defaults here.

Parsed once into a frozen ServeConfig; every mistake is a ConfigError with file, key, what was expected and what came.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from plugind.errors import ConfigError

DEFAULT_CONFIG: Final = Path("/etc/plugind/plugind.toml")
DEFAULT_STATE: Final = Path("/var/lib/plugind")
DEFAULT_DEV_STATE: Final = Path("/var/lib/plugind-dev")
DEFAULT_SOCKET: Final = Path("/run/plugind/run/plugind.sock")
DEFAULT_ADMIN_SOCKET: Final = Path("/run/plugind/admin.sock")
DEFAULT_LAUNCHER_SOCKET: Final = Path("/run/plugind-launcher/launcher.sock")
DEFAULT_POLICY: Final = Path("/etc/plugind/policy.toml")
DEFAULT_TRUST: Final = Path("/etc/plugind/root.json")
DEFAULT_NETWORK_RANGE: Final = "198.19.0.0/16"
"""Half of what is set aside for benchmarks of networks (RFC 2544): no network that means it well uses it."""
MOST_PREFIX: Final = 20
"""A thousand instances, four addresses each."""
FRONT_USER: Final = "plugind"
FRONT_UID_WITHOUT_USER: Final = 1879048192
"""uid and gid of the front where there is no user plugind: the first of the range that is nobody's."""
METRICS_SOCKET: Final = "metrics.sock"
"""Beside the admin socket, where nothing else is configured."""
_LOOPBACK: Final = re.compile(r"(127\.0\.0\.1|\[::1\]):([0-9]{1,5})")
_KEYS: Final[Mapping[str, type]] = {
    "state": str,
    "socket": str,
    "admin_socket": str,
    "launcher_socket": str,
    "profiles": str,
    "policy": str,
    "trust": str,
    "connections_per_uid": int,
    "monitor": str,
    "nameservers": str,
    "network_range": str,
    "metrics": str,
}


@dataclass(frozen=True, slots=True)
class Flags:
    """The command line of `plugind serve` and `plugind check`. None: not given."""

    config: Path | None = None
    state: Path | None = None
    socket: Path | None = None
    admin_socket: Path | None = None
    dev: bool = False
    standalone: bool = False


@dataclass(frozen=True, slots=True)
class Loopback:
    """An address that only this machine can reach."""

    host: str
    """127.0.0.1 or ::1."""
    port: int


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """Everything that can be chosen. Paths are absolute."""

    state: Path
    socket: Path
    admin_socket: Path
    launcher_socket: Path
    dev: bool
    standalone: bool
    profiles: Path | None
    """Folder of the tier profiles; None: those that came with this installation."""
    policy: Path | None
    """The policy file; None: the one that came with this installation."""
    trust: Path | None
    """The trust root, root.json; None: no key is trusted."""
    connections_per_uid: int
    """Connections that one uid may have open at a time."""
    nameservers: tuple[str, ...]
    """Whom the names are asked for that plugins may talk to; none: those of /etc/resolv.conf."""
    network_range: str
    """IPv4 range, CIDR, whose addresses stand for instances with a network, within this machine alone."""
    monitor: str
    """ "observe": what the monitor finds is reported, and nothing comes of it; empty: what the profiles say."""
    metrics: Path | Loopback | None
    """Where metrics can be read: a Unix socket or loopback; None: nowhere but through the API."""


def load(flags: Flags, environment: Mapping[str, str]) -> ServeConfig:
    """The configuration that is in force. Raises ConfigError."""
    stored = _read(flags.config, environment)

    def path(key: str, flag: Path | None, default: Path) -> Path:
        chosen = flag or environment.get(f"PLUGIND_{key.upper()}") or stored.get(key) or default
        return Path(chosen).absolute()

    connections = stored.get("connections_per_uid", 128)
    if not 1 <= connections <= 4096:
        raise ConfigError(f"connections_per_uid: expected 1 to 4096, got {connections}")
    admin_socket = path("admin_socket", flags.admin_socket, DEFAULT_ADMIN_SOCKET)
    return ServeConfig(
        state=path("state", flags.state, DEFAULT_DEV_STATE if flags.dev else DEFAULT_STATE),
        socket=path("socket", flags.socket, DEFAULT_SOCKET),
        admin_socket=admin_socket,
        launcher_socket=path("launcher_socket", None, DEFAULT_LAUNCHER_SOCKET),
        dev=flags.dev,
        standalone=flags.standalone,
        profiles=Path(stored["profiles"]).absolute() if "profiles" in stored else None,
        policy=_file(stored, "policy", None if flags.dev else DEFAULT_POLICY),
        trust=_file(stored, "trust", None if flags.dev else DEFAULT_TRUST),
        connections_per_uid=connections,
        nameservers=_nameservers(stored.get("nameservers", "")),
        network_range=_range(stored.get("network_range", DEFAULT_NETWORK_RANGE)),
        monitor=_monitor(environment.get("PLUGIND_MONITOR") or stored.get("monitor", "")),
        metrics=_metrics(stored.get("metrics"), None if flags.dev else admin_socket.with_name(METRICS_SOCKET)),
    )


def _nameservers(text: str) -> tuple[str, ...]:
    for each in text.split():
        try:
            ipaddress.ip_address(each)
        except ValueError:
            raise ConfigError(f"nameservers: expected addresses with spaces between, got {each!r}") from None
    return tuple(text.split())


def _monitor(text: str) -> str:
    if text not in ("", "enforce", "observe"):
        raise ConfigError(f'monitor: expected "observe", or "enforce" for what the profiles say, got {text!r}')
    return "" if text == "enforce" else text


def _range(text: str) -> str:
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise ConfigError(f"network_range: expected an IPv4 range such as {DEFAULT_NETWORK_RANGE}: {error}") from None
    if network.prefixlen > MOST_PREFIX:
        raise ConfigError(f"network_range: expected /{MOST_PREFIX} or wider, got {text}")
    return text


def _metrics(text: str | None, default: Path | None) -> Path | Loopback | None:
    if text is None:
        return default
    if not text:
        return None
    if text.startswith("/"):
        return Path(text)
    found = _LOOPBACK.fullmatch(text)
    if found is None or not 1 <= int(found[2]) <= 65535:
        raise ConfigError(
            f"metrics: expected an absolute path, 127.0.0.1:PORT, [::1]:PORT, or nothing for none, got {text!r}: they"
            " are not encrypted and ask nobody who he is, so they are for this machine alone"
        )
    return Loopback(found[1].strip("[]"), int(found[2]))


def _file(stored: Mapping[str, Any], key: str, default: Path | None) -> Path | None:
    """A file that is named, or the usual one where it is there. A development daemon has no usual ones."""
    if key in stored:
        return Path(stored[key]).absolute()
    return default if default is not None and default.exists() else None


def _read(flag: Path | None, environment: Mapping[str, str]) -> dict[str, Any]:
    named = flag or environment.get("PLUGIND_CONFIG")
    file = Path(named or DEFAULT_CONFIG)
    if not named and not file.exists():
        return {}
    try:
        stored = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: expected TOML: {error}") from error
    for key, value in stored.items():
        _check(file, key, value)
    return stored


def _check(file: Path, key: str, value: object) -> None:
    kind = _KEYS.get(key)
    if kind is None:
        close = difflib.get_close_matches(key, _KEYS, 1)
        hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(sorted(_KEYS))}"
        raise ConfigError(f"{file}: {key}: unknown key; {hint}")
    if type(value) is not kind:
        words = {str: "a text", int: "a whole number"}
        raise ConfigError(f"{file}: {key}: expected {words[kind]}, got {value!r}")
    if value == "" and key != "metrics":
        raise ConfigError(f"{file}: {key}: expected a path, got an empty text")


def log(text: str) -> None:
    """One line on standard error, which systemd or the person at the terminal sees."""
    print(f"plugind: {text}", file=sys.stderr, flush=True)  # noqa: T201 - this is the log
