"""How long a run waits for its network, and what ends one: in an internet of its own. As a program it prints its figures.

`take` and `release` are the keeper's own work; `asked` and `returned` what the launcher sees, with the way there and back.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from plugind.addresses import Endpoint  # noqa: E402
from plugind.sandbox.network import keeper, namespaces  # noqa: E402
from plugind.sandbox.network.words import Caps, Settings  # noqa: E402
from tests.bench.figures import spread  # noqa: E402
from tests.support.internet import OUTSIDE4, Internet, Template  # noqa: E402
from tests.support.networks import FakeGroup, release, take  # noqa: E402

ROUNDS = 200
SPACE_S = 0.005
ENDPOINTS = [Endpoint(OUTSIDE4[0], "tcp", port) for port in range(1, 9)]
CAPS = Caps(10_000_000, 16)


def measure() -> dict[str, dict[str, float]]:
    """p50 and p99 of each, milliseconds, in a process of its own: network namespaces are entered by one thread only."""
    done = subprocess.run([sys.executable, __file__], stdout=subprocess.PIPE, check=True, env={**os.environ}, text=True)
    return json.loads(done.stdout)


class _Times:
    def __init__(self) -> None:
        self.ms: dict[str, list[float]] = {}

    def of(self, name: str, work: Callable[[], object]) -> object:
        began = time.perf_counter()
        found = work()
        self.ms.setdefault(name, []).append((time.perf_counter() - began) * 1000)
        return found


def through_the_keeper(internet: Internet, template: Template, settings: Settings, times: _Times) -> None:
    with namespaces.entered(internet.host):
        kept = times.of("start", lambda: keeper.start(settings, FakeGroup()))
    for number in range(ROUNDS):
        run = f"r{number}"
        given = times.of("asked", lambda run=run: take(kept, template, run, ENDPOINTS, CAPS))
        times.of("cut", lambda at=given.ifindex: kept.cut(at))
        times.of("returned", lambda run=run: release(kept, run))
        os.close(given.namespace)
        time.sleep(SPACE_S)
    with namespaces.entered(internet.host):
        kept.end()


def within_the_keeper(internet: Internet, template: Template, settings: Settings, times: _Times) -> None:
    from plugind.sandbox.network.router import Router
    from plugind.sandbox.network.slots import Slots

    namespaces.enter(internet.host)
    router = Router(settings)
    slots = Slots(router)
    slots.expect("tier2", os.dup(template.namespace))
    times.of("make", slots.work)
    for number in range(ROUNDS):
        run = f"r{number}"
        times.of("take", lambda run=run: slots.take(run, "tier2", "d1", ENDPOINTS, CAPS))
        times.of("release", lambda run=run: slots.release(run))
        time.sleep(SPACE_S)
        slots.tidy()
    router.close()


def main() -> None:
    """Print the figures as JSON."""
    times = _Times()
    internet, template = Internet(), Template()
    try:
        with tempfile.TemporaryDirectory(prefix="plugind-bench-") as folder:
            settings = Settings(folder=Path(folder))
            through_the_keeper(internet, template, settings, times)
            within_the_keeper(internet, template, settings, times)
    finally:
        template.close()
        internet.close()
    print(json.dumps({name: spread(values) for name, values in times.ms.items()}))


if __name__ == "__main__":
    main()
