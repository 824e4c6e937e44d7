"""One daemon for all attacks that leave it as it was, in each tier; and what of the host they look for."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.escapes.box import Box
from tests.support.daemon import Daemon


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    """After the last attack it still runs, and no process of a plugin does."""
    with Daemon() as running:
        yield running
        assert running.process.poll() is None, running.log.read_text()
        assert Box(running, 2).left() == []
        assert running.client().audit.verify().holds


@pytest.fixture(scope="session")
def boxes(daemon: Daemon) -> dict[int, Box]:
    return {tier: Box(daemon, tier) for tier in (1, 2)}


@pytest.fixture(params=[1, 2], ids=["tier1", "tier2"])
def box(request: pytest.FixtureRequest, boxes: dict[int, Box]) -> Box:
    """The attacks in a tier; each test that takes this runs in both."""
    return boxes[request.param]


@pytest.fixture
def tier1(boxes: dict[int, Box]) -> Box:
    return boxes[1]


@pytest.fixture
def tier2(boxes: dict[int, Box]) -> Box:
    return boxes[2]


@pytest.fixture(scope="session")
def canary() -> Iterator[tuple[Path, str]]:
    """A file of the host that everybody may read, and the secret in it."""
    secret = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="plugind-canary-") as folder:
        Path(folder).chmod(0o755)
        path = Path(folder, "canary")
        path.write_text(secret)
        path.chmod(0o644)
        yield path, secret
