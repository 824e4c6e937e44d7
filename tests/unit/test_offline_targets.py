"""What a kill without a daemon means: found in the registry as it lies there, and refused where it cannot be."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from plugind.provenance import bundle
from plugind.provenance.keys import PrivateKey
from plugind.registry.database import Registry, Submission
from plugind_client.cli.offline_targets import Wanted, found
from plugind_client.cli.problems import CommandError, Exit
from tests.support.plugins import attested, built

DIGEST = "ab" * 32


@pytest.fixture
def state(tmp_path):
    """A state folder with a version that two keys have signed, one of them trusted, and one that none has."""
    folder, trusted, other = tmp_path / "state", PrivateKey.generate(), PrivateKey.generate()
    folder.mkdir()
    registry = Registry(folder / "registry.db", lambda change: None, print)
    registry.trust_for_development([trusted.public.raw])
    digests = {}
    for name in ("signed", "plain"):
        data = built(tmp_path, name)
        read = bundle.read(data)
        attestations = attested(data, trusted) + attested(data, other) if name == "signed" else b""
        registry.submit(Submission(read.manifest, read.digest, read.sequence, 2, attestations, 1, 1))
        digests[name] = read.digest
    registry.close()
    return SimpleNamespace(folder=folder, keys=[trusted.public.keyid, other.public.keyid], digests=digests)


@pytest.mark.parametrize("target", ["all", "tier:0", "tier:2"])
def test_what_the_launcher_knows_is_looked_up_nowhere(tmp_path, target):
    assert found(target, tmp_path, ()) == Wanted(target, (target,))


@pytest.mark.parametrize("target", [DIGEST, f"sha256:{DIGEST}"])
def test_a_digest_need_not_be_there(tmp_path, target):
    assert found(target, tmp_path, ()) == Wanted(DIGEST, (DIGEST,))


@pytest.mark.parametrize("target", ["plain", "plain@1.0.0", "plug_2", "plug_2@1.0.0"])
def test_a_plugin_is_found_by_name_and_by_id(state, target):
    assert found(target, state.folder, ()) == Wanted(target, (state.digests["plain"],))


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("digits", [8, 64])
def test_a_key_is_found_by_what_it_signed_and_kept_whole(state, which, digits):
    key = state.keys[which]
    assert found(f"key:{key[:digits]}", state.folder, ()) == Wanted(f"key:{key}", (state.digests["signed"],))


@pytest.mark.parametrize("target", ["nothing", "plain@9", f"key:{DIGEST}", "pkg:pypi/numpy", "plug_9"])
def test_what_nothing_is_of_is_refused_unless_it_was_killed_before(state, target):
    with pytest.raises(CommandError, match="no such") as refused:
        found(target, state.folder, ())
    assert refused.value.exit_code == Exit.DENIED
    assert found(target, state.folder, {target}) == Wanted(target, ())


@pytest.mark.parametrize("target", ["plan:p", "caller:0"])
def test_what_only_the_daemon_knows_is_refused_with_what_to_do(state, target):
    with pytest.raises(CommandError, match="sudo plugindctl kill all --offline --reason TEXT") as refused:
        found(target, state.folder, {target})
    assert refused.value.exit_code == Exit.USAGE


@pytest.mark.parametrize("target", ["tier:3", "pkg:npm/a", "key:short", "user:1"])
def test_what_is_no_target_is_refused(state, target):
    with pytest.raises(CommandError, match="target: expected"):
        found(target, state.folder, ())


def test_a_registry_that_cannot_be_read_says_what_can_be_killed_all_the_same(tmp_path):
    (tmp_path / "registry.db").write_bytes(b"rubbish" * 1000)
    with pytest.raises(CommandError, match="kill by sha256, a tier, or all"):
        found("plain", tmp_path, ())
