"""Plugins with the permission `network`, for a daemon that lives on an internet of our own."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from plugind_client import Client
from tests.support.daemon import Daemon
from tests.support.internet import OUTSIDE4, Internet
from tests.support.jail import descendants
from tests.support.networks import connections_of, host_state, settled
from tests.support.plugins import folder
from tests.support.servers import PORTS

STAGE = "currency_strategy"
"""One in which the policy as shipped allows a network."""
SPEAKS = """
import errno, json, socket

def speak(address, protocol, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM) as sock:
            sock.settimeout(2)
            sock.connect((address, port))
            sock.send(b"hello")
            return "ok" if sock.recv(64) == b"hello" else "other"
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))

def run(payload, context):
    return [speak(*each) for each in payload]
"""


def permission(host: str, port: int, protocol: str = "tcp") -> str:
    return f'[[permissions.network]]\nhost = "{host}"\nport = {port}\nprotocol = "{protocol}"\n'


def daemon_on(internet: Internet, *arguments: str) -> Daemon:
    """One that lives in its host namespace."""
    return Daemon(*arguments, namespace=Path(f"/proc/{os.getpid()}/fd/{internet.host}"))


def approved(
    daemon: Daemon, parent: Path, name: str, code: str, *wanted: str, payload: Any = None, tier: int = 1
) -> Any:
    """Submit, approve, activate and run a plugin; what `try` says."""
    extra = "[limits]\nwall_ms = 20000\n" + "".join(wanted)
    return daemon.try_plugin(folder(parent, name, code=code, extra=extra), payload, stage=STAGE, tier=tier)


def outcome(client: Client, log: str) -> dict[str, Any]:
    """The OUTCOME of a run."""
    intent = int(log.removeprefix("log_"))
    found = client.audit.query(limit=50).records
    return next(each.fields for each in found if each.event == "OUTCOME" and each.fields["intent"] == intent)


def leave_nothing(daemon: Daemon, internet: Internet, parent: Path, runs: int) -> None:
    """So many runs, four at a time, each with a connection; then there is in router, host and keeper what was before."""
    cell = [OUTSIDE4[0], "tcp", PORTS[0]]
    approved(daemon, parent, "comes_again", SPEAKS, permission(OUTSIDE4[0], PORTS[0]), payload=[cell])
    client = daemon.client()

    def run_many(count: int) -> None:
        with ThreadPoolExecutor(4) as pool:
            done = pool.map(lambda _: client.run("comes_again", [cell], stage=STAGE).output, range(count))
            assert all(output == ["ok"] for output in done)

    def there() -> tuple[Any, ...]:
        (pid,) = [pid for pid, name in descendants(daemon.process.pid).items() if name == "plugind-network"]
        keeper = SimpleNamespace(process=SimpleNamespace(pid=pid))
        launcher = len(os.listdir(f"/proc/{daemon.pids[1]}/fd"))
        return settled(keeper), host_state(internet), connections_of(internet.host), launcher

    run_many(50)
    before = there()
    run_many(runs)
    after = there()
    assert after == before
