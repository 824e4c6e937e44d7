"""Five thousand runs with a network, through a daemon: minutes. PLUGIND_SOAK_NETWORKS makes it more or fewer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.internet import Internet
from tests.support.networked import daemon_on, leave_nothing

RUNS = int(os.environ.get("PLUGIND_SOAK_NETWORKS", "5000"))


@pytest.mark.timeout(3600)
def test_five_thousand_runs_with_a_network_leave_nothing(tmp_path: Path) -> None:
    internet = Internet()
    internet.serve()
    try:
        with daemon_on(internet) as daemon:
            leave_nothing(daemon, internet, tmp_path, RUNS)
    finally:
        internet.close()
