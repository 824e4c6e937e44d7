"""Exactly the allowed cells of (address, port, protocol, family, tier, approved or not) get through."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from plugind.provenance import bundle
from plugind.provenance.keys import PrivateKey
from plugind_client import Denied
from plugind_client.records import Permission
from tests.support.daemon import Daemon, profiles_with
from tests.support.internet import OUTSIDE4, OUTSIDE6, Internet
from tests.support.networked import SPEAKS, STAGE, daemon_on, permission
from tests.support.plugins import attested, folder
from tests.support.servers import PORTS

pytestmark = pytest.mark.root

CELLS = [
    (address, protocol, port)
    for address, protocol, port in itertools.product((*OUTSIDE4[:2], *OUTSIDE6), ("tcp", "udp"), PORTS)
]
DECLARED = [
    (OUTSIDE4[0], "tcp", PORTS[0]),
    (OUTSIDE4[0], "udp", PORTS[1]),
    (OUTSIDE4[1], "udp", PORTS[0]),
    (OUTSIDE6[0], "tcp", PORTS[1]),
    (OUTSIDE6[1], "udp", PORTS[1]),
]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], bytes]:
    """One of each tier that is to be approved as declared, in part, or without its network."""
    parent = tmp_path_factory.mktemp("plugins")
    wanted = "".join(permission(address, port, protocol) for address, protocol, port in DECLARED)
    extra = "[limits]\nwall_ms = 30000\n" + wanted
    made = {}
    for tier, approval in itertools.product((0, 1, 2), ("declared", "part", "nothing")):
        made[tier, approval] = bundle.build(folder(parent, f"cells_{tier}_{approval}", code=SPEAKS, extra=extra))
    return made


@pytest.fixture(scope="module")
def daemon(bundles: dict[tuple[int, str], bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    parent = tmp_path_factory.mktemp("configured")
    parent.chmod(0o755)
    profiles = profiles_with(parent, parked=2)
    listed = [bundle.read(data).digest for (tier, _), data in bundles.items() if tier == 0]
    (profiles / "builtin.list").write_text("\n".join(listed) + "\n")
    config = parent / "plugind.toml"
    config.write_text(f'profiles = "{profiles}"\n')
    internet = Internet()
    internet.serve()
    try:
        with daemon_on(internet, "--config", str(config)) as running:
            yield running
    finally:
        internet.close()


def install(daemon: Daemon, data: bytes, tier: int, approval: str) -> str:
    """Submit with the evidence for the tier, approve so much, activate; its name."""
    manifest = bundle.read(data).manifest
    keys = [PrivateKey.generate(), PrivateKey.generate()] if tier == 1 else []
    client = daemon.client()
    pems = [key.public.to_pem().decode() for key in keys]
    submitted = client.submit(data, attested(data, *keys) if keys else b"", development_public_keys=pems)
    assert submitted.tier == tier
    permissions = [Permission(each.kind, each.entry) for each in manifest.permissions]
    if approval == "declared":
        client.approve(manifest.name, manifest.version, tier=tier, as_declared=True, reason="a test")
    else:
        few = permissions[:2] if approval == "part" else []
        client.approve(manifest.name, manifest.version, tier=tier, stages=["*"], permissions=few, reason="a test")
    client.activate(manifest.name, manifest.version)
    return manifest.name


@pytest.mark.parametrize("approval", ["declared", "part", "nothing"])
@pytest.mark.parametrize("tier", [0, 1, 2])
def test_exactly_the_allowed_cells_get_through(
    daemon: Daemon, bundles: dict[tuple[int, str], bytes], tier: int, approval: str
) -> None:
    name = install(daemon, bundles[tier, approval], tier, approval)
    client = daemon.client()
    if tier == 2 or approval != "declared":
        with pytest.raises(Denied) as caught:
            client.run(name, CELLS, stage=STAGE)
        assert "PERMISSION_NOT_APPROVED" in {each.code for each in caught.value.reasons}
        return
    result = client.run(name, CELLS, stage=STAGE)
    reached = [cell for cell, how in zip(CELLS, result.output, strict=True) if how == "ok"]
    assert sorted(reached) == sorted(DECLARED)
    refused = {each.name for each in result.violations if each.kind == "network"}
    assert refused == {
        f"[{address}]:{port}/{protocol}" if ":" in address else f"{address}:{port}/{protocol}"
        for address, protocol, port in set(CELLS) - set(DECLARED)
    }
