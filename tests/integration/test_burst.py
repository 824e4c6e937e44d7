"""A crowd of callers after quiet hours: a daemon that enforces holds no version for what the others take from it."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from plugind_client import RunResult
from tests.support.daemon import Daemon, profiles_with
from tests.support.plugins import folder

pytestmark = [pytest.mark.root, pytest.mark.alone]  # what a run takes is what this is about

CALLERS, EACH = 16, 15
CODE = "import time\ndef run(payload, context):\n    time.sleep(payload)\n    return sum(range(20000))\n"


def quiet(daemon: Daemon, runs: int) -> None:
    with daemon.client() as client:
        for _ in range(runs):
            assert client.execute("worker", 0).ok
            time.sleep(0.01)


def burst(daemon: Daemon) -> list[RunResult]:
    def caller(_: int) -> list[RunResult]:
        with daemon.client() as client:
            return [client.execute("worker", 0) for _ in range(EACH)]

    with ThreadPoolExecutor(CALLERS) as pool:
        return [each for results in pool.map(caller, range(CALLERS)) for each in results]


@pytest.mark.parametrize("parked", [0, 16])
def test_a_crowd_after_quiet_hours_is_served(tmp_path, parked):
    config = tmp_path / "plugind.toml"
    config.write_text(f'profiles = "{profiles_with(tmp_path, parked)}"\n')
    with Daemon("--config", str(config), enforce=True) as daemon:
        daemon.install(folder(tmp_path, "worker", code=CODE))
        for _ in range(2):
            quiet(daemon, 60)
            results = burst(daemon)
            assert {(each.outcome, *each.reasons) for each in results} == {("ok",)}
        with daemon.client() as client:
            ended = [each.fields for each in client.audit.query(events=["OUTCOME"], limit=1000).records]
            runs = [each for each in ended if each["mode"] == "run"]
            assert len(runs) == 2 * (60 + CALLERS * EACH)
            assert max(each["beside"] for each in runs) < CALLERS
            assert statistics.median(each["beside"] for each in runs) >= CALLERS / 4
            assert [each["beside"] for each in runs].count(0) >= 100
            assert client.audit.query(events=["ANOMALY"]).records == ()
            # And it is still watched: one that takes much longer by itself is held.
            late = [client.execute("worker", 1) for _ in range(5)]
        assert [each.reasons[0].code for each in late if each.reasons][-1:] == ["QUARANTINED"]


def test_larger_plans_are_served(tmp_path):
    """What is held to what is usual is held to it for as much as it is given."""
    code = "def run(payload, context):\n    return [each * 2 for each in payload for _ in range(3)]\n"
    with Daemon(enforce=True) as daemon:
        daemon.install(folder(tmp_path, "grower", code=code))
        with daemon.client() as client:
            for size in [500] * 60 + [20_000] * 60:
                answer = client.execute("grower", ["x" * 8] * size)
                assert answer.ok, answer
            assert client.audit.query(events=["ANOMALY"]).records == ()
