"""Bundles: code runs in the jail only, the verified bytes are the executed ones, and a manifest gives no rights."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from plugind_client import PlugindError
from tests.escapes.attack import attack
from tests.escapes.box import Box
from tests.support.daemon import Daemon
from tests.support.plugins import built, folder

SAYS = "def run(payload, context):\n    return {word!r}\n"


@attack(
    42,
    "swap a bundle in the store after it was verified",
    "digest checked at each load; the verified bytes are the executed bytes",
)
def test_a_swapped_bundle_does_not_run(tmp_path: Path) -> None:
    with Daemon() as daemon:
        good = folder(tmp_path / "good", "swapped", code=SAYS.format(word="good"))
        evil = built(tmp_path / "evil", "swapped", code=SAYS.format(word="evil"))
        daemon.install(good)
        assert daemon.client().run("swapped", None).output == "good"
        digest = daemon.client().get("swapped").versions[0].digest
        (stored,) = [path for path in daemon.state.rglob(f"*{digest}*") if path.is_file() and path.suffix != ".jsonl"][
            :1
        ]
        stored.chmod(0o600)
        stored.write_bytes(evil)
        assert daemon.client().execute("swapped", None).output in ("good", None)
        daemon.restart()
        result = daemon.client().execute("swapped", None)
        assert (result.decision, [reason.code for reason in result.reasons]) == ("deny", ["DIGEST_MISMATCH"])
        denied = daemon.client().audit.query(events=("DENIED",)).records[0]
        assert digest[:8] in str(denied.fields)


IMPORTED = """
import os, subprocess, sys
for place in ({place!r}, "/tmp/{name}", "/dev/shm/{name}"):
    try:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        open(place, "w").write("imported by %d" % os.getpid())
    except OSError:
        pass
WHERE = [os.getpid(), os.getuid()]
def run(payload, context):
    return WHERE
"""


@attack(
    47,
    "code that runs when a plugin is imported, before anything was decided: at submit, approve, build, run",
    "imported in the jail only",
)
def test_import_time_code_runs_in_the_jail_only(box: Box, tmp_path: Path) -> None:
    name = f"imported_t{box.tier}"
    place = tmp_path / "host" / "mark"
    place.parent.mkdir()
    mark = f"{name}_{secrets.token_hex(8)}"
    tmp_path.chmod(0o755)
    source = folder(tmp_path, name, code=IMPORTED.format(place=str(place), name=mark))
    box.install(source)
    done = box.daemon.command("build", source, "--output", tmp_path / "built.plugin.tar")
    assert done.returncode == 0, done.stderr
    assert not place.exists()
    assert box.run_plugin(name, None).value() == [1, 1000]
    for path in (place, Path("/tmp", mark), Path("/dev/shm", mark)):
        assert not path.exists()


@attack(
    48,
    "a manifest that claims a tier, or rights that nobody approved",
    "the tier comes from evidence; unknown fields are refused",
)
@pytest.mark.parametrize("claim", ["tier = 0", 'tier = "Tier 0"', "trusted = true", "builtin = true"])
def test_a_manifest_cannot_claim_a_tier(tmp_path: Path, claim: str) -> None:
    with pytest.raises(Exception, match=claim.partition(" ")[0]):
        built(tmp_path, "claims", extra=claim)


@attack(48, "approve for a higher tier than the evidence gives", "the lower of both counts")
def test_an_approval_gives_no_tier(tier2: Box, tmp_path: Path) -> None:
    data = built(tmp_path, "lifted")
    tier2.client.submit(data)
    for tier in (0, 1):
        try:
            tier2.client.approve("lifted", "1.0.0", tier=tier, as_declared=True, reason="an attack")
            tier2.client.activate("lifted", "1.0.0")
            break
        except PlugindError:
            continue
    result = tier2.client.execute("lifted", 1)
    assert result.decision == "deny" or result.governance.tier == "Tier 2", result


@attack(
    48,
    "a version that asks for more than the one approved before",
    "needs an approval of its own; what widened is told",
)
def test_a_wider_version_does_not_run_unapproved(tier2: Box, tmp_path: Path) -> None:
    first = folder(tmp_path, "widening", "1.0.0", extra="[limits]\nwall_ms = 1000\n")
    tier2.install(first)
    wider = built(
        tmp_path, "widening", "1.1.0", extra='[limits]\nwall_ms = 50000\n[[permissions.file_read]]\npath = "*.json"\n'
    )
    tier2.client.submit(wider)
    with pytest.raises(PlugindError):
        tier2.client.activate("widening", "1.1.0")
    result = tier2.client.execute("widening", 1, version="1.1.0")
    assert result.decision == "deny"
    assert "NOT_APPROVED" in [reason.code for reason in result.reasons]
    version = tier2.client.get("widening").version("1.1.0")
    assert version is not None
    assert any("wall_ms" in each for each in version.widens), version.widens
    assert any("file_read" in each for each in version.widens)
    assert tier2.client.execute("widening", 1).version == "1.0.0"


@attack(52, "a frame on the result pipe while the plugin is imported", "the early frame is no result")
def test_an_early_frame_is_no_result(box: Box, tmp_path: Path) -> None:
    name = f"early_t{box.tier}"
    code = "import os\nos.write(3, bytes(16) + b'V' + bytes(7) + b'\\1' + b'1')\ndef run(payload, context):\n    return 2\n"
    box.install(folder(tmp_path, name, code=code))
    ran = box.run_plugin(name, None)
    assert (ran.outcome, ran.result.output) == ("output_invalid", None), ran.why()
