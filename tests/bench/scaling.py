"""Whether a run takes longer when many plugins are registered, or when the audit is long."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plugind.audit.ledger import Ledger
from plugind.audit.records import Refused
from plugind.catalog import Catalog
from plugind.model import Approval, Limits
from plugind.provenance import bundle
from plugind.provenance.evidence import Trust
from plugind.registry.database import Registry
from plugind.registry.store import Store
from plugind_client import Client
from tests.bench.figures import spread
from tests.bench.plugins import ECHO, PAYLOAD, write_plugin
from tests.support.daemon import Daemon

FEW = 10
ROUNDS = 40
WARM = 5
AT_ONCE = 5000
"""Records that are appended together."""
DETAIL = "x" * 300
SMALL, MANY, LONG = "few plugins, short audit", "many plugins", "long audit"


def measure(plugins: int, records: int) -> dict[str, Any]:
    """Three daemons that take turns: a small one, one with many plugins, one with a long audit."""
    found: dict[str, Any] = {"plugins": plugins, "records": records}
    with contextlib.ExitStack() as stack:
        made = {
            SMALL: lambda state: register(state, FEW),
            MANY: lambda state: register(state, plugins),
            LONG: lambda state: (register(state, FEW), asyncio.run(fill(state / "ledger", records))),
        }
        clients = {name: filled(stack, name, fill_it, found) for name, fill_it in made.items()}
        times: dict[str, list[float]] = {name: [] for name in clients}
        for number in range(ROUNDS + WARM):
            for name, client in clients.items():
                took = timed(client)
                if number >= WARM:
                    times[name].append(took)
        for name, values in times.items():
            found[name] |= spread(values)
    return found


def filled(stack: contextlib.ExitStack, name: str, fill_it: Callable[[Path], object], found: dict[str, Any]) -> Client:
    """A daemon on a state that was filled while none used it; `found` is told how long its start took."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="plugind-bench-")))
    folder.chmod(0o755)
    with Daemon(state=folder / "state"):
        pass  # it makes the state
    began = time.monotonic()
    fill_it(folder / "state")
    give_to_front(folder / "state")
    found[name] = {"filled_s": time.monotonic() - began}
    began = time.monotonic()
    daemon = stack.enter_context(Daemon(state=folder / "state"))
    found[name]["start_s"] = time.monotonic() - began
    client = daemon.client()
    began = time.perf_counter()
    client.run(ECHO, PAYLOAD)
    found[name]["first_ms"] = (time.perf_counter() - began) * 1000
    return client


def timed(client: Client) -> float:
    """One run, after one that counts for nobody; milliseconds."""
    client.run(ECHO, PAYLOAD)
    started = time.perf_counter()
    client.run(ECHO, PAYLOAD)
    return (time.perf_counter() - started) * 1000


def register(state: Path, count: int) -> None:
    """So many plugins that may run, written as the daemon does, but without its audit."""
    catalog = Catalog(
        Registry(state / "registry.db", lambda change: None, print), Store(state / "store"), trust=Trust()
    )
    approval = Approval(2, ("*",), (), Limits(), 0, time.time_ns() // 1_000_000, "it is measured", 0)
    with tempfile.TemporaryDirectory(prefix="plugind-bench-") as folder:
        for number in range(count):
            name = ECHO if not number else f"bench_many_{number}"
            catalog.submit(bundle.build(write_plugin(Path(folder), name)), b"", [], by_uid=0)
            catalog.approve(name, "1.0.0", approval, approvers=1)
            catalog.activate(name, "1.0.0", by_uid=0)
    catalog.close()


async def fill(directory: Path, count: int) -> None:
    """So many records."""
    ledger, _ = Ledger.open(directory, "dev")
    record = Refused("bench", 0, "operator", DETAIL)
    for first in range(0, count, AT_ONCE):
        await asyncio.gather(*(ledger.append(record) for _ in range(min(AT_ONCE, count - first))))
    await ledger.close()


def give_to_front(state: Path) -> None:
    """What root has written is the front's."""
    owner = (state / "ledger").stat()
    for name in ("ledger", "store"):
        for folder, _, files in os.walk(state / name):
            for each in (folder, *(Path(folder, file) for file in files)):
                os.chown(each, owner.st_uid, owner.st_gid)
    for path in state.glob("registry.db*"):
        os.chown(path, owner.st_uid, owner.st_gid)
