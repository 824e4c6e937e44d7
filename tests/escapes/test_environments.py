"""A package in an environment's lock is hostile: what its code can do when the template imports it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugind.sandbox.uids import slice_of
from tests.escapes.attack import attack
from tests.support.environments import shelve
from tests.support.jail import jail

HOSTILE = Path(__file__).with_name("attacks") / "hostile_package.py"
USES = "import hostile_package\ndef run(payload, context): return hostile_package.seen"


@pytest.fixture
def server() -> Iterator[int]:
    """Somebody on the host who would hear it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0)
        yield listening.getsockname()[1]
        with pytest.raises(BlockingIOError):
            listening.accept()


@attack(
    49,
    "a malicious package in an environment's lock: at import, look at and change what is the host's",
    "imported in a template of its own: user, pid, mount, network and IPC namespaces, no capability in the host's",
)
@pytest.mark.parametrize("tier", [1, 2])
async def test_a_hostile_package_has_nothing_of_the_host(
    tier: int, canary: tuple[Path, str], server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLUGIND_CANARY", canary[1])  # of the launcher's own environment
    before = {path: Path(path).read_text() for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname")}
    async with jail() as box:
        told = {"canary": str(canary[0]), "port": server, "pids": [os.getpid(), box.launcher_pid]}
        files = {"hostile_package.py": HOSTILE.read_text(), "told.py": f"told = {told!r}"}
        made = shelve(box.shelf, files, imports=["hostile_package"])
        seen: dict[str, Any] = json.loads(json.dumps(await box.value(USES, tier=tier, environment=made.digest)))
        (imported,) = box.imported
        assert await box.value("def run(payload, context): return 1", tier=tier) == 1
    base, count = slice_of(tier)
    assert base <= imported.uid < base + count
    assert imported.user_namespace == seen.pop("user namespace") != str(Path("/proc/self/ns/user").readlink())
    assert canary[1] not in str(seen)
    done = {what: how for what, how in seen.items() if not how.startswith("refused")}
    assert done == {}, "it could do this"
    assert len(seen) >= 15
    assert before == {path: Path(path).read_text() for path in before}
