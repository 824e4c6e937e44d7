"""One daemon for the whole corpus, on an internet of its own, and what came of each specimen there."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugind.environments.shelf import Shelf, path_of
from plugind_client import Client
from tests.corpus.loader import load_all
from tests.corpus.running import OPEN_MS, History, run_all
from tests.support.daemon import Daemon, profiles_with
from tests.support.environments import shelve_installed
from tests.support.internet import Internet
from tests.support.networked import daemon_on

ENVIRONMENTS = {
    "science": (("numpy", "pandas", "python-dateutil"), ("numpy", "pandas")),
    "tools": (
        ("rich", "dnspython", "cryptography", "jsonschema-rs", "httpx", "pydantic", "packaging", "hypothesis"),
        ("rich", "cryptography", "httpx", "pydantic"),
    ),
}
"""Projects, and what of them is imported ahead."""


@pytest.fixture(scope="module")
def daemon(monkeypatch_module: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """After the last specimen it still runs, and what it wrote is whole."""
    monkeypatch_module.setenv("PLUGIND_MONITOR", "enforce")  # daemons of other tests only observe
    with tempfile.TemporaryDirectory(prefix="plugind-corpus-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        profiles = impatient(profiles_with(folder, parked=2))
        config = folder / "plugind.toml"
        config.write_text(f'profiles = "{profiles}"\n')
        internet = Internet()
        try:
            with daemon_on(internet, "--config", str(config)) as running:
                yield running
                assert running.process.poll() is None, running.log.read_text()
                assert running.client().audit.verify().holds
        finally:
            internet.close()


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Client:
    """One for all: a daemon lets each user have so many connections and no more."""
    return daemon.client()


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def histories(daemon: Daemon, request: pytest.FixtureRequest) -> dict[str, History]:
    """What came of the specimens that were chosen (`-k`, or all), by name."""
    chosen = {item.callspec.params["specimen"].name for item in request.session.items if _has_specimen(item)}
    specimens = [each for each in load_all() if each.name in chosen]
    wanted = {(each.manifest or {}).get("environment") for each in specimens}
    for name, (projects, imports) in ENVIRONMENTS.items():
        if name in wanted:
            shelve_installed(Shelf(path_of(daemon.state)), projects, name=name, imports=imports)
    return run_all(daemon, specimens)


def impatient(profiles: Path) -> Path:
    """The thresholds as shipped; only the breaker is not open for a minute each time, but for a moment."""
    for tier in profiles.glob("tier*.toml"):
        tier.write_text(re.sub(r"(?m)^open_ms *= *\d+", f"open_ms = {OPEN_MS}", tier.read_text()))
    return profiles


def _has_specimen(item: pytest.Item) -> bool:
    return "specimen" in getattr(getattr(item, "callspec", None), "params", {})


@pytest.fixture(scope="session", autouse=True)
def _readable_by_the_front() -> None:
    os.umask(0o022)
