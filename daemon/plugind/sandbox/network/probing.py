"""Whether plugins can have networks on this machine, in words, for doctor and for the launcher.

Tried with the keeper's own code, in a child and in namespaces of its own: nothing is changed, and the caller loads
neither pyroute2 nor libnftables.
"""

from __future__ import annotations

import dataclasses
import json
import os
import select
import signal
import tempfile
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final, NoReturn

from plugind.addresses import Endpoint
from plugind.linux import constants as c
from plugind.linux import syscalls
from plugind.sandbox.facts import Feature
from plugind.sandbox.network import namespaces
from plugind.sandbox.network.foreign import Obstacle
from plugind.sandbox.network.words import Caps, Settings
from plugind.sandbox.words import short

_PATIENCE_S: Final = 20.0
_REFUSED: Final = "a run with the permission network is refused"
_SILENT: Final = "a run with the permission network reaches nobody"
_ROOT_ONLY: Final = "only root can find out"
_KERNEL: Final = "a kernel with nf_tables, conntrack and veth, and the packages libnftables1 and pyroute2"


def settings(range4: str) -> Settings:
    """Of a keeper that is only tried."""
    return Settings(Path("/nonexistent"), IPv4Network(range4))


def facts(settings: Settings) -> list[Feature]:
    """All of them. Raises OSError where no child can be made."""
    if os.geteuid() != 0:
        return [Feature("network", None, _ROOT_ONLY, "start the daemon with sudo")]
    found = _asked(settings)
    return [
        _network(found["attempt"]),
        _route(found["route"], settings),
        _forwarding(found["obstacles"]),
        _ipv6(forwards=found["forwards6"]),
    ]


def _network(error: str) -> Feature:
    found = error or "a router and a plugin's network were made and taken back"
    return Feature("network", not error, found, _KERNEL, instead=_REFUSED)


def _route(error: str, settings: Settings) -> Feature:
    remedy = "give plugins' networks another range: `network_range` in plugind.toml"
    found = error or f"{settings.range4} and {settings.range6} are free"
    return Feature("network_range", not error, found, remedy, instead=_REFUSED)


def _forwarding(obstacles: list[Obstacle] | str) -> Feature:
    if isinstance(obstacles, str):
        return Feature("network_forward", False, obstacles, _KERNEL, instead=_SILENT)
    found = "; ".join(f"{each.who} drops what it does not know ({each.chain})" for each in obstacles)
    remedy = "let what comes from plugins' uplink be forwarded; also after the next boot"
    command = " && ".join(each.command for each in obstacles)
    found = found or "no other firewall drops it"
    return Feature("network_forward", not obstacles, found, remedy, command, instead=_SILENT)


def _ipv6(*, forwards: bool) -> Feature:
    found = "forwarded" if forwards else "not forwarded: IPv6 of plugins does not leave this machine"
    return Feature(
        "network_ipv6",
        forwards,
        found,
        "switch on net.ipv6.conf.all.forwarding, if this machine's own way out survives it: it ignores router "
        "advertisements from then on, unless accept_ra is 2",
        instead="plugins reach IPv4 only",
    )


def _asked(settings: Settings) -> dict[str, Any]:
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        _ask(settings, writes)
    os.close(writes)
    said = b""
    try:
        while select.select([reads], [], [], _PATIENCE_S)[0] and (more := os.read(reads, 65536)):
            said += more
    finally:
        os.close(reads)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    try:
        found: dict[str, Any] = json.loads(said)
    except ValueError:
        lost = f"whoever tried it said nothing within {_PATIENCE_S:.0f} s"
        return {"attempt": lost, "route": lost, "obstacles": lost, "forwards6": False}
    if isinstance(found["obstacles"], list):
        found["obstacles"] = [Obstacle(**each) for each in found["obstacles"]]
    return found


def _ask(settings: Settings, answer: int) -> NoReturn:
    try:
        found: dict[str, Any] = {"forwards6": namespaces.sysctl("net/ipv6/conf/all/forwarding") == "1"}
        found["route"] = _error_of(lambda: _host(settings).check())
        try:
            found["obstacles"] = [dataclasses.asdict(each) for each in _host(settings).obstacles()]
        except Exception as error:  # noqa: BLE001 - whatever it is, it is an answer
            found["obstacles"] = _said(error)
        found["attempt"] = _error_of(lambda: _try(settings))
        os.write(answer, json.dumps(found).encode())
    finally:
        os._exit(0)


def _error_of(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the answer
        return _said(error)
    return ""


def _said(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return short(f"{error.filename}: {error.strerror}")
    return short(str(error) or type(error).__name__)


def _host(settings: Settings) -> Any:
    from plugind.sandbox.network.host import Host  # noqa: PLC0415 - what it loads is for the child only

    return Host(settings)


def _try(settings: Settings) -> None:
    """All that the keeper does for one run, where a fresh namespace takes the host's place."""
    from plugind.sandbox.network.router import Router  # noqa: PLC0415 - the same
    from plugind.sandbox.network.slots import Slots  # noqa: PLC0415 - the same

    namespaces.enter(namespaces.fresh())
    with tempfile.TemporaryDirectory() as folder:
        router = Router(dataclasses.replace(settings, folder=Path(folder)))
        slots = Slots(router)
        slots.expect("probe", _user_namespace())
        endpoints = [Endpoint("192.0.2.1", "tcp", 443), Endpoint("2001:db8::1", "udp", 443)]
        slots.take("probe", "probe", "probe", endpoints, Caps(1_000_000, 10))
        slots.release("probe")
        slots.tidy()
        router.close()


def _user_namespace() -> int:
    """A descriptor of a new one that nobody is in: nobody may enter the one that he is in. Raises OSError."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.prctl(c.PR_SET_PDEATHSIG, signal.SIGKILL)
            syscalls.unshare(c.CLONE_NEWUSER)
            os.write(writes, b"x")
            signal.pause()
        finally:
            os._exit(1)
    os.close(writes)
    try:
        os.read(reads, 1)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(reads)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
