"""Exactly the allowed cells of (declared, approved, read or write, tier, sensitivity, pattern matches or not) work."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from plugind.provenance import bundle
from plugind.provenance.keys import PrivateKey
from plugind_client import Client, Denied, Violated
from plugind_client.records import Permission
from tests.support.daemon import Daemon, profiles_with
from tests.support.plugins import attested, folder

pytestmark = pytest.mark.root

CODE = """
import os

def run(payload, context):
    plan, output = "/grant/read/plan", "/grant/write/output"
    found = {"read": {}, "wrote": [], "plan_dir": context.plan_dir, "output_dir": context.output_dir}
    for name in payload["read"]:
        try:
            with open(os.path.join(plan, name)) as stream:
                found["read"][name] = stream.read()
        except OSError:
            pass
    for name in payload["write"]:
        try:
            with open(os.path.join(output, name), "w") as stream:
                stream.write("new " + name)
        except OSError:
            continue
        found["wrote"].append(name)
    return found
"""
KINDS = {"read": "file_read", "write": "file_write"}
PATTERNS = {"read": "in_*.txt", "write": "out_*.txt"}
MEANT = {"read": "in_1.txt", "write": "out_1.txt"}
OTHER = {"read": "prompt.txt", "write": "report.txt"}
"""Files that no pattern means."""
SENSITIVITIES = {"public": (0, 1, 2), "internal": (0, 1, 2), "confidential": (0, 1), "restricted": (0, 1)}
"""Tiers that the policy as shipped lets see such plans."""
TIER_KINDS = {0: ("read", "write"), 1: ("read", "write"), 2: ("read",)}
DECLARED = ((), ("read",), ("write",), ("read", "write"))
APPROVED = ("as declared", "nothing")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, tuple[str, ...], str], bytes]:
    """One plugin for each tier, what it declares, and what of that is to be approved."""
    parent = tmp_path_factory.mktemp("plugins")
    made = {}
    for tier, declared, approved in itertools.product(TIER_KINDS, DECLARED, APPROVED):
        name = "_".join(("cell", str(tier), *declared, approved.split()[0]))
        extra = "".join(f'[[permissions.{KINDS[kind]}]]\npath = "{PATTERNS[kind]}"\n' for kind in declared)
        made[tier, declared, approved] = bundle.build(folder(parent, name, code=CODE, extra=extra))
    return made


@pytest.fixture(scope="module")
def daemon(
    bundles: Mapping[tuple[int, tuple[str, ...], str], bytes], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    parent = tmp_path_factory.mktemp("configured")
    parent.chmod(0o755)
    profiles = profiles_with(parent, parked=2)
    listed = [bundle.read(data).digest for (tier, _, _), data in bundles.items() if tier == 0]
    (profiles / "builtin.list").write_text("\n".join(listed) + "\n")
    config = parent / "plugind.toml"
    config.write_text(f'profiles = "{profiles}"\n')
    with Daemon("--config", str(config)) as running:
        yield running


def install(client: Client, data: bytes, tier: int, approved: str) -> str:
    """Submit with the evidence for the tier, approve so much, activate; its name."""
    manifest = bundle.read(data).manifest
    keys = [PrivateKey.generate(), PrivateKey.generate()] if tier == 1 else []
    pems = [key.public.to_pem().decode() for key in keys]
    submitted = client.submit(data, attested(data, *keys) if keys else b"", development_public_keys=pems)
    assert submitted.tier == tier
    nothing: list[Permission] = []
    allowed: dict[str, Any] = (
        {"as_declared": True} if approved == "as declared" else {"stages": ["*"], "permissions": nothing}
    )
    client.approve(manifest.name, manifest.version, tier=tier, reason="a test", **allowed)
    client.activate(manifest.name, manifest.version)
    return manifest.name


def plan(parent: Path, name: str) -> Path:
    """A plan with a file for each word of MEANT and OTHER."""
    made = parent / name
    made.mkdir()
    for each in (*MEANT.values(), *OTHER.values()):
        (made / each).write_text(f"old {each}")
    return made


def contents(folder: Path) -> dict[str, str]:
    """All that is in it."""
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("approved", APPROVED)
@pytest.mark.parametrize("declared", DECLARED, ids=lambda kinds: "+".join(kinds) or "nothing")
@pytest.mark.parametrize("tier", TIER_KINDS)
def test_exactly_the_allowed_cells_work(
    daemon: Daemon,
    bundles: Mapping[tuple[int, tuple[str, ...], str], bytes],
    tmp_path: Path,
    tier: int,
    declared: tuple[str, ...],
    approved: str,
) -> None:
    client = daemon.client()
    name = install(client, bundles[tier, declared, approved], tier, approved)
    granted = approved == "as declared" or not declared
    for sensitivity, tiers in SENSITIVITIES.items():
        allowed = granted and set(declared) <= set(TIER_KINDS[tier]) and tier in tiers
        for writes in ((), (MEANT["write"],), (MEANT["write"], OTHER["write"])):
            of_plan = plan(tmp_path, f"{sensitivity}{len(writes)}")
            before = contents(of_plan)
            payload = {"read": [MEANT["read"], OTHER["read"], *MEANT.values()], "write": list(writes)}
            asked = {"plan_dir": of_plan, "sensitivity": sensitivity, "stage": "report"}
            cell = (tier, declared, approved, sensitivity, writes)
            if not allowed:
                with pytest.raises(Denied) as denied:
                    client.run(name, payload, **asked)
                codes = {each.code for each in denied.value.reasons}
                assert codes & {"PERMISSION_NOT_APPROVED", "SENSITIVITY_TOO_HIGH"}, cell
                assert contents(of_plan) == before, cell
                continue
            if "write" in declared and OTHER["write"] in writes:
                with pytest.raises(Violated) as broken:
                    client.run(name, payload, **asked)
                assert [each.name for each in broken.value.violations if each.kind == "file"] == [OTHER["write"]], cell
                assert contents(of_plan) == before, cell
                continue
            result = client.run(name, payload, **asked)
            read = {MEANT["read"]: before[MEANT["read"]]} if "read" in declared else {}
            wrote = list(writes) if "write" in declared else []
            assert result.output["read"] == read, cell
            assert result.output["wrote"] == wrote, cell
            assert bool(result.output["plan_dir"]) == ("read" in declared), cell
            assert bool(result.output["output_dir"]) == ("write" in declared), cell
            assert contents(of_plan) == before | {each: f"new {each}" for each in wrote}, cell
