"""What files of a plan cost: a run that reads 20 files of 50 KB and writes 3, beside the same without files."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from plugind.provenance import bundle
from plugind.provenance.keys import PrivateKey
from plugind_client import Client
from tests.bench.figures import spread
from tests.support.daemon import Daemon, profiles_with
from tests.support.plugins import attested, folder

READS, READ_BYTES, WRITES = 20, 50_000, 3
ROUNDS = 60
CODE = f"""
import os

def run(payload, context):
    size = 0
    for name in os.listdir(context.plan_dir) if context.plan_dir else ():
        with open(os.path.join(context.plan_dir, name), "rb") as stream:
            size += len(stream.read())
    for number in range({WRITES} if context.output_dir else 0):
        with open(os.path.join(context.output_dir, f"out_{{number}}.txt"), "w") as stream:
            stream.write("x" * 1000 + payload["salt"])
    return size
"""
FILES = """[[permissions.file_read]]
path = "in_*.json"
[[permissions.file_write]]
path = "out_*.txt"
"""


def measure(rounds: int = ROUNDS) -> dict[str, dict[str, float]]:
    """p50 and p99 of each kind of run, milliseconds, taken in turns; none has an instance that waits for it."""
    with tempfile.TemporaryDirectory(prefix="plugind-bench-") as name:
        parent = Path(name)
        parent.chmod(0o755)
        (config := parent / "plugind.toml").write_text(f'profiles = "{profiles_with(parent, parked=0)}"\n')
        plan = parent / "plan"
        plan.mkdir()
        for number in range(READS):
            (plan / f"in_{number:02}.json").write_text("x" * READ_BYTES)
        with Daemon("--config", str(config)) as daemon:
            client = daemon.client()
            for plugin, extra in (("files", FILES), ("no_files", "")):
                _install(client, bundle.build(folder(parent, plugin, code=CODE, extra=extra)))
            return _in_turns(client, plan, rounds)


def _in_turns(client: Client, plan: Path, rounds: int) -> dict[str, dict[str, float]]:
    kinds: dict[str, Callable[[str], object]] = {
        "no files": lambda salt: client.run("no_files", {"salt": salt}, stage="report"),
        "files": lambda salt: client.run("files", {"salt": salt}, plan_dir=plan, stage="report"),
    }
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number, (kind, run) in itertools.product(range(rounds + 5), kinds.items()):
        began = time.perf_counter()
        run(str(number))
        if number >= 5:
            times[kind].append((time.perf_counter() - began) * 1000)
    return {kind: spread(values) for kind, values in times.items()}


def _install(client: Client, data: bytes) -> None:
    manifest = bundle.read(data).manifest
    keys = [PrivateKey.generate(), PrivateKey.generate()]
    pems = [key.public.to_pem().decode() for key in keys]
    client.submit(data, attested(data, *keys), development_public_keys=pems)
    client.approve(manifest.name, manifest.version, tier=1, as_declared=True, reason="a measurement")
    client.activate(manifest.name, manifest.version)
