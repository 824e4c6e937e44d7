"""keys new and sign: keys that nobody else can read, and statements that the daemon's own code verifies."""

import hashlib
import stat
from pathlib import Path

import pytest

from plugind.provenance import dsse, intoto
from plugind.provenance.keys import PrivateKey, PublicKey
from tests.support.fake_daemon import plugindctl, plugindctl_terminal

BUNDLE = "demo-0.1.0.plugin.tar"
SIGNED = f"{BUNDLE}.intoto.jsonl"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """No daemon is needed, and none is there."""
    monkeypatch.setenv("PLUGIND_SOCKET", str(tmp_path / "missing.sock"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def bundle(here):
    assert plugindctl("new", "demo").code == 0
    assert plugindctl("build", "demo").code == 0
    return (here / BUNDLE).read_bytes()


@pytest.fixture
def key(here):
    assert plugindctl("keys", "new", "k.pem", "--no-passphrase").code == 0
    return PublicKey.from_pem((here / "k.pem.pub").read_bytes())


def statements(path, *keys):
    """What a file says, each line verified with the key that belongs to it."""
    envelopes = dsse.parse_lines(path.read_bytes())
    assert [dsse.verify(envelope, [key]) for envelope, key in zip(envelopes, keys, strict=True)] == [
        frozenset({key}) for key in keys
    ]
    return [intoto.parse(envelope.payload) for envelope in envelopes]


# --- keys new ------------------------------------------------------------------------------------------------------


def test_new_key_is_a_pair_that_only_its_owner_can_read(here):
    done = plugindctl("keys", "new", "k.pem", "--no-passphrase")
    private = PrivateKey.from_pem((here / "k.pem").read_bytes())
    assert (done.code, done.out) == (0, f"{private.public.keyid}\n")
    assert "for development" in done.err
    assert private.public == PublicKey.from_pem((here / "k.pem.pub").read_bytes())
    assert [stat.S_IMODE((here / name).stat().st_mode) for name in ("k.pem", "k.pem.pub")] == [0o600, 0o644]
    assert sorted(path.name for path in here.iterdir()) == ["k.pem", "k.pem.pub"]


def test_new_key_as_json(here):
    done = plugindctl("keys", "new", "k.pem", "--no-passphrase", "--json")
    keyid = PublicKey.from_pem((here / "k.pem.pub").read_bytes()).keyid
    assert done.json == {"keyid": keyid, "file": "k.pem", "public_file": "k.pem.pub"}


@pytest.mark.parametrize("there", ["k.pem", "k.pem.pub"])
def test_nothing_is_overwritten(here, there):
    (here / there).write_text("mine")
    done = plugindctl("keys", "new", "k.pem", "--no-passphrase")
    assert (done.code, done.out) == (2, "")
    assert f"{there}: is there already" in done.err
    assert [(path.name, path.read_text()) for path in here.iterdir()] == [(there, "mine")]


def test_link_that_leads_nowhere_is_not_followed(here):
    (here / "k.pem").symlink_to(here / "elsewhere")
    assert plugindctl("keys", "new", "k.pem", "--no-passphrase").code == 2
    assert not (here / "elsewhere").exists()


def test_folder_that_is_not_there(here):
    done = plugindctl("keys", "new", "no/k.pem", "--no-passphrase")
    assert (done.code, list(here.iterdir())) == (2, [])
    assert "No such file or directory" in done.err


def test_passphrase_is_asked_for_on_a_terminal_only(here):
    done = plugindctl("keys", "new", "k.pem")
    assert (done.code, list(here.iterdir())) == (2, [])
    assert "--no-passphrase" in done.err


@pytest.mark.slow
def test_passphrase_is_asked_for_twice_not_shown_and_needed_to_sign(here, bundle):
    ask, again = "Passphrase of the new key: ", "The same again: "
    code, screen = plugindctl_terminal("keys", "new", "k.pem", typed=[(ask, "grün"), (again, "grau")])
    assert (code, (here / "k.pem").exists()) == (2, False)
    assert "the two passphrases differ" in screen
    code, screen = plugindctl_terminal("keys", "new", "k.pem", typed=[(ask, "grün"), (again, "grün")])
    key = PrivateKey.from_pem((here / "k.pem").read_bytes(), "grün".encode())
    assert (code, key.public.keyid in screen, "grün" in screen) == (0, True, False)
    assert plugindctl("sign", BUNDLE, "--key", "k.pem").code == 2
    code, screen = plugindctl_terminal("sign", BUNDLE, "--key", "k.pem", typed=[("Passphrase of k.pem: ", "wrong")])
    assert (code, "right passphrase" in screen, (here / SIGNED).exists()) == (2, True, False)
    code, _ = plugindctl_terminal("sign", BUNDLE, "--key", "k.pem", typed=[("Passphrase of k.pem: ", "grün")])
    assert (code, len(statements(here / SIGNED, key.public))) == (0, 1)


# --- sign ----------------------------------------------------------------------------------------------------------


def test_publisher_signs_where_the_bundle_came_from(here, bundle, key):
    done = plugindctl("sign", BUNDLE, "--key", "k.pem", "--builder", "https://example.org/ci")
    assert (done.code, done.out) == (0, f"{SIGNED}\n")
    (said,) = statements(here / SIGNED, key)
    assert (said.subject_digests, said.predicate_type) == ((hashlib.sha256(bundle).hexdigest(),), intoto.PROVENANCE)
    assert intoto.check_provenance(said.predicate) == "https://example.org/ci"
    assert said.predicate["buildDefinition"]["externalParameters"] == {
        "name": "demo",
        "version": "0.1.0",
        "origin": "authored",
    }


def test_vetter_signs_what_was_checked_against_which_policy_and_until_when(here, bundle, key):
    policy = here / "p.toml"
    shipped = Path(plugindctl("policy", "check", "--json").json["file"])
    policy.write_bytes(shipped.read_bytes() + b"# ours\n")
    plugindctl(
        "sign",
        BUNDLE,
        "--key",
        "k.pem",
        "--as",
        "vetter",
        "--verifier",
        "urn:v",
        "--expires",
        "3",
        "--policy",
        "p.toml",
    )
    (said,) = statements(here / SIGNED, key)
    summary = intoto.parse_summary(said.predicate)
    assert (said.predicate_type, summary.passed, summary.levels) == (intoto.VSA, True, (intoto.TIER_1,))
    assert (summary.verifier_id, summary.policy_sha256) == ("urn:v", hashlib.sha256(policy.read_bytes()).hexdigest())
    assert summary.not_after_unix_ms - summary.verified_unix_ms == 3 * 24 * 60 * 60 * 1000


def test_each_signature_is_a_line_of_its_own_behind_the_others(here, bundle, key):
    plugindctl("sign", BUNDLE, "--key", "k.pem")
    (here / SIGNED).write_bytes((here / SIGNED).read_bytes().rstrip())  # as an editor may leave it
    plugindctl("keys", "new", "v.pem", "--no-passphrase")
    plugindctl("sign", BUNDLE, "--key", "v.pem", "--as", "vetter")
    vetter = PublicKey.from_pem((here / "v.pem.pub").read_bytes())
    first, second = statements(here / SIGNED, key, vetter)
    assert (first.predicate_type, second.predicate_type) == (intoto.PROVENANCE, intoto.VSA)
    assert intoto.check_provenance(first.predicate) == f"https://planexe.org/plugind/key/{key.keyid}"
    assert intoto.parse_summary(second.predicate).verifier_id == f"https://planexe.org/plugind/key/{vetter.keyid}"


def test_signature_goes_where_it_is_wanted_and_is_told_as_json(here, bundle, key):
    done = plugindctl("sign", BUNDLE, "--key", "k.pem", "-o", "s.jsonl", "--json")
    assert done.json == {
        "file": "s.jsonl",
        "keyid": key.keyid,
        "role": "publisher",
        "sha256": hashlib.sha256(bundle).hexdigest(),
    }
    assert len(statements(here / "s.jsonl", key)) == 1
    assert not (here / SIGNED).exists()


@pytest.mark.parametrize(
    "arguments,said",
    [
        (("--verifier", "urn:v"), "not for a publisher"),
        (("--expires", "3"), "not for a publisher"),
        (("--policy", "p.toml"), "not for a publisher"),
        (("--as", "vetter", "--builder", "urn:b"), "not for a vetter"),
        (("--as", "vetter", "--policy", "missing.toml"), "missing.toml"),
        (("--as", "approver"), "approver"),
        (("--as", "vetter", "--expires", "0"), "--expires"),
    ],
)
def test_what_does_not_fit_the_role_is_a_wrong_usage(here, bundle, key, arguments, said):
    done = plugindctl("sign", BUNDLE, "--key", "k.pem", *arguments)
    assert (done.code, (here / SIGNED).exists()) == (2, False)
    assert said in done.err


def test_file_that_is_no_valid_bundle_is_not_signed(here, bundle, key):
    flipped = bytearray(bundle)
    flipped[bundle.index(b"def run")] ^= 1
    (here / BUNDLE).write_bytes(flipped)
    done = plugindctl("sign", BUNDLE, "--key", "k.pem", "--json")
    assert (done.code, done.json["error"]["code"], (here / SIGNED).exists()) == (2, "INVALID_BUNDLE", False)
    assert any("sha256" in problem for problem in done.json["error"]["problems"])


@pytest.mark.parametrize("before", [b"no envelope\n", b'{"payload": 5}\n'])
def test_file_that_holds_something_else_is_left_alone(here, bundle, key, before):
    (here / SIGNED).write_bytes(before)
    done = plugindctl("sign", BUNDLE, "--key", "k.pem")
    assert (done.code, (here / SIGNED).read_bytes()) == (2, before)
    assert "line 1" in done.err


@pytest.mark.parametrize("pem", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_signs_nothing(here, bundle, pem):
    (here / "k.pem").write_bytes(pem)
    done = plugindctl("sign", BUNDLE, "--key", "k.pem")
    assert (done.code, (here / SIGNED).exists()) == (2, False)
    assert done.err.startswith("plugindctl: k.pem: ")


def test_file_that_is_not_there_is_named(here, bundle, key):
    assert "other.pem" in plugindctl("sign", BUNDLE, "--key", "other.pem").err
    assert "other.tar" in plugindctl("sign", "other.tar", "--key", "k.pem").err


def test_help_of_keys_has_examples():
    done = plugindctl("keys", "new", "--help")
    assert (done.code, "plugindctl keys new publisher.pem" in done.out) == (0, True)
