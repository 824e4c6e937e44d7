"""Five thousand networks, taken and given back: a minute or two. PLUGIND_SOAK_NETWORKS makes it more or fewer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plugind.sandbox.network import keeper, namespaces
from plugind.sandbox.network.words import Settings
from tests.support.internet import Internet, Template
from tests.support.networks import FakeGroup, leave_nothing

RUNS = int(os.environ.get("PLUGIND_SOAK_NETWORKS", "5000"))


@pytest.mark.timeout(1800)
def test_five_thousand_networks_leave_nothing_behind_and_take_no_memory(tmp_path: Path) -> None:
    net, template = Internet(), Template()
    net.serve()
    with namespaces.entered(net.host):
        kept = keeper.start(Settings(folder=tmp_path, most=6, spare=1), FakeGroup())
    try:
        leave_nothing(kept, template, net, 500)
        before = resident_kib(kept.process.pid)
        leave_nothing(kept, template, net, RUNS)
        assert resident_kib(kept.process.pid) < before * 1.05
    finally:
        with namespaces.entered(net.host):
            kept.end()
        template.close()
        net.close()


def resident_kib(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmRSS:")).split()[1])
