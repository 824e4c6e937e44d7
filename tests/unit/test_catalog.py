"""The catalog: what was verified is what is found, the tier comes from evidence, wider updates wait."""

from __future__ import annotations

import pytest

from plugind.catalog import Catalog
from plugind.errors import ConflictError, InvalidBundleError, InvalidRequestError
from plugind.provenance.evidence import RoleKeys, Trust, TrustedKey
from plugind.provenance.keys import PrivateKey
from plugind.registry.database import Registry
from plugind.registry.store import Store
from tests.support.plugins import DAY_MS, approval, attested, built

PUBLISHER, VETTER, STRANGER = (PrivateKey.generate() for _ in range(3))
TRUST = Trust(
    {
        "publisher": RoleKeys((TrustedKey(PUBLISHER.public),), 1),
        "vetter": RoleKeys((TrustedKey(VETTER.public),), 1),
    }
)
NETWORK = '[[permissions.network]]\nhost = "example.org"\nport = 443\nprotocol = "tcp"\n'


class Clock:
    def __init__(self):
        import time

        self.now_ms = time.time_ns() // 1_000_000

    def __call__(self):
        return self.now_ms


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def catalog(tmp_path, clock):
    opened = make(tmp_path, clock)
    yield opened
    opened.close()


def make(tmp_path, clock, **named):
    registry = Registry(tmp_path / "registry.db", lambda change: None, print)
    return Catalog(registry, Store(tmp_path / "store"), trust=TRUST, now_ms=clock, **named)


def install(catalog, data, attestations=b"", tier=2):
    record = catalog.submit(data, attestations, [], by_uid=1)
    name, version = record.manifest.name, record.manifest.version
    catalog.approve(name, version, approval(tier=tier, permissions=record.manifest.permissions), approvers=1)
    return catalog.activate(name, version, by_uid=1)


@pytest.mark.parametrize(
    ("signers", "tier"),
    [((), 2), ((PUBLISHER,), 2), ((PUBLISHER, VETTER), 1), ((STRANGER, VETTER), 2), ((PUBLISHER, STRANGER), 2)],
)
def test_the_tier_comes_from_evidence(tmp_path, catalog, signers, tier):
    data = built(tmp_path / "p")
    said = attested(data, *signers) if signers else b""
    assert catalog.submit(data, said, [], by_uid=1).tier == tier


def test_a_digest_on_the_built_in_list_is_tier_0(tmp_path, clock):
    from plugind.provenance import bundle

    data = built(tmp_path / "p")
    catalog = make(tmp_path, clock, built_in={bundle.read(data).digest})
    assert catalog.submit(data, b"", [], by_uid=1).tier == 0
    catalog.close()


def test_evidence_that_has_lapsed_counts_no_more(tmp_path, catalog, clock):
    data = built(tmp_path / "p")
    install(catalog, data, attested(data, PUBLISHER, VETTER, clock.now_ms + DAY_MS), tier=1)
    assert catalog.find("echo", "").evidence.tier == 1
    clock.now_ms += DAY_MS + 1000
    lapsed = catalog.find("echo", "").evidence
    assert lapsed.tier == 2
    assert "ATTESTATION_EXPIRED" in {str(reason.code) for reason in lapsed.reasons}


def test_a_changed_byte_in_the_store_is_found_and_mended_by_the_same_bundle(tmp_path, clock, catalog):
    data = built(tmp_path / "p")
    record = install(catalog, data)
    assert catalog.find("echo", "").bundle_reasons == ()
    path = Store(tmp_path / "store").path(record.digest)
    path.chmod(0o600)
    path.write_bytes(data[:-1] + b"x")
    catalog.close()
    again = make(tmp_path, clock)
    (reason,) = again.find("echo", "").bundle_reasons
    assert str(reason.code) == "DIGEST_MISMATCH"
    assert record.digest in reason.expected
    again.submit(data, b"", [], by_uid=1)
    assert again.find("echo", "").bundle_reasons == ()
    again.close()


def test_what_a_name_leads_to(tmp_path, catalog):
    assert catalog.find("echo", "").other_versions is None
    catalog.submit(built(tmp_path / "p"), b"", [], by_uid=1)
    assert catalog.find("echo", "").other_versions == {"1.0.0": "submitted"}
    assert catalog.find("echo", "9.9.9").record is None
    assert catalog.find("plug_1", "1.0.0").record.label == "echo@1.0.0"


def test_a_bad_bundle_and_a_development_key_change_nothing(tmp_path, catalog):
    with pytest.raises(InvalidBundleError):
        catalog.submit(b"nonsense", b"", [], by_uid=1)
    with pytest.raises(InvalidBundleError):
        catalog.submit(built(tmp_path / "p"), b"not an envelope", [], by_uid=1)
    with pytest.raises(InvalidRequestError, match="no --dev daemon"):
        catalog.submit(built(tmp_path / "q"), b"", [PUBLISHER.public.to_pem().decode()], by_uid=1)
    assert catalog.plugins() == []


def test_a_development_daemon_trusts_the_keys_that_come_with_a_bundle(tmp_path, clock):
    catalog = make(tmp_path, clock, development=True)
    data = built(tmp_path / "p")
    keys = [key.public.to_pem().decode() for key in (STRANGER, VETTER)]
    assert catalog.submit(data, attested(data, STRANGER, VETTER), keys, by_uid=1).tier == 1
    catalog.close()


# --- updates -----------------------------------------------------------------------------------------------------


def test_a_version_that_asks_for_more_says_what_and_waits(tmp_path, catalog):
    install(catalog, built(tmp_path / "p"))
    wider = catalog.submit(
        built(tmp_path / "q", version="1.1.0", extra=NETWORK), b"", [], by_uid=1, narrower_follows=True
    )
    assert wider.state == "submitted"
    (said,) = catalog.widened(wider)
    assert "network" in said
    with pytest.raises(ConflictError):
        catalog.activate("echo", "1.1.0", by_uid=1)


@pytest.mark.parametrize("rule", [True, False])
def test_an_equal_or_narrower_version_may_follow_by_rule(tmp_path, catalog, rule):
    install(catalog, built(tmp_path / "p", extra=NETWORK))
    data = built(tmp_path / "q", version="1.1.0")
    record = catalog.submit(data, b"", [], by_uid=1, narrower_follows=rule)
    assert record.state == ("approved" if rule else "submitted")
    if rule:
        assert "settings.narrower_updates" in record.approval.reason
        assert record.approval.permissions == ()
    assert catalog.widened(record) == []


def test_worse_evidence_does_not_follow_by_rule(tmp_path, catalog):
    data = built(tmp_path / "p")
    install(catalog, data, attested(data, PUBLISHER, VETTER), tier=1)
    unsigned = catalog.submit(built(tmp_path / "q", version="1.1.0"), b"", [], by_uid=1, narrower_follows=True)
    assert unsigned.state == "submitted"
