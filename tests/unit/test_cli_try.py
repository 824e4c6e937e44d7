"""try: from a folder to a run, what is signed and approved on the way, and the user's development keys."""

import hashlib
import json
import stat

import pytest

from plugind.provenance import dsse
from plugind.provenance.keys import PublicKey
from tests.support.fake_daemon import FakeDaemon, allowed, denied, ended, plugindctl
from tests.unit.test_cli_run import KEYS

CASE = {"tasks": 2, "total_days": 42.5, "longest_days": 30.5}


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    with FakeDaemon(str(tmp_path / "d.sock")) as daemon:
        monkeypatch.setenv("PLUGIND_SOCKET", daemon.socket)
        daemon.answers["demo"] = allowed(json.dumps(CASE).encode())
        assert plugindctl("new", "demo").code == 0
        yield daemon


def kinds(daemon):
    return [type(request).__name__ for request in daemon.requests]


def statements(daemon):
    """What was submitted, each verified with the one public key that was sent for it."""
    request = daemon.last("SubmitRequest")
    envelopes = [dsse.parse(line) for line in request.attestations.splitlines()]
    keys = [PublicKey.from_pem(key.encode()) for key in request.development_public_keys]
    assert len(envelopes) == len(keys)
    return [json.loads(envelope.payload) for envelope in envelopes]


def test_try_submits_approves_as_declared_activates_and_runs_the_first_case(daemon):
    done = plugindctl("try", "demo")
    assert (done.code, json.loads(done.out)) == (0, CASE)
    assert "case two_tasks: the output is as expected" in done.err.splitlines()
    assert kinds(daemon) == ["GetRequest", "SubmitRequest", "ApproveRequest", "ActivateRequest", "RunRequest"]
    approved = daemon.last("ApproveRequest")
    assert (approved.plugin, approved.version, approved.tier, approved.as_declared) == ("demo", "0.1.0", 2, True)
    ran = daemon.last("RunRequest")
    assert (ran.plugin, ran.version, ran.stage) == ("demo", "0.1.0", "")
    assert len(json.loads(ran.input_json)["tasks"]) == 2


@pytest.mark.parametrize("arguments", [("try", "demo", "--json"), ("--json", "try", "demo")], ids=" ".join)
def test_json_object_has_exactly_the_keys_of_the_contract(daemon, arguments):
    done = plugindctl(*arguments)
    assert (done.code, list(done.json), done.json["output"]) == (0, KEYS, CASE)


def test_output_that_differs_from_the_case_is_a_check_that_did_not_hold(daemon):
    daemon.answers["demo"] = allowed(json.dumps(CASE | {"tasks": 3}).encode())
    done = plugindctl("try", "demo")
    assert done.code == 7
    assert done.err.splitlines()[-2:] == [
        'case two_tasks: expected {"tasks": 2, "total_days": 42.5, "longest_days": 30.5}',
        'case two_tasks: got      {"tasks": 3, "total_days": 42.5, "longest_days": 30.5}',
    ]


@pytest.mark.parametrize(
    "answer,code", [(ended("failed", "raised"), 1), (denied("BUSY"), 3), (ended("timeout"), 4), (ended("fault"), 6)]
)
def test_how_the_run_ended_comes_before_the_case(daemon, answer, code):
    daemon.answers["demo"] = answer
    assert plugindctl("try", "demo").code == code


def test_own_input_takes_the_place_of_the_case(daemon, tmp_path):
    (tmp_path / "in.json").write_text('{"tasks": []}')
    daemon.answers["demo"] = allowed(b"0")
    assert plugindctl("try", "demo", "--input", "in.json").code == 0
    assert daemon.last("RunRequest").input_json == b'{"tasks": []}'


def test_folder_without_a_case_needs_an_input(daemon, tmp_path):
    (tmp_path / "demo/cases/two_tasks.json").unlink()
    done = plugindctl("try", "demo")
    assert (done.code, done.err) == (
        2,
        "plugindctl: demo 0.1.0 has no case in cases/: name its input with --input FILE\n",
    )
    assert daemon.requests == []


def test_stage_is_the_first_that_is_declared_or_what_was_said(daemon, tmp_path):
    manifest = tmp_path / "demo/plugin.toml"
    manifest.write_text(manifest.read_text().replace('["*"]', '["durations", "wbs"]'))
    plugindctl("try", "demo")
    assert daemon.last("RunRequest").stage == "durations"
    plugindctl("try", "demo", "--stage", "wbs")
    assert daemon.last("RunRequest").stage == "wbs"


@pytest.mark.parametrize(
    "flags,types",
    [
        ([], ["https://slsa.dev/provenance/v1"]),
        (["--tier", "1"], ["https://slsa.dev/provenance/v1", "https://slsa.dev/verification_summary/v1"]),
    ],
)
def test_tier_decides_who_signs(daemon, flags, types):
    assert plugindctl("try", "demo", *flags).code == 0
    said = statements(daemon)
    assert [statement["predicateType"] for statement in said] == types
    digest = hashlib.sha256(daemon.last("SubmitRequest").bundle).hexdigest()
    assert [statement["subject"][0]["digest"] for statement in said] == [{"sha256": digest}] * len(types)
    assert daemon.last("ApproveRequest").tier == 3 - len(types)


def test_same_folder_again_is_the_same_version_and_an_edited_one_gets_its_own(daemon, tmp_path):
    plugindctl("try", "demo")
    plugindctl("try", "demo")
    assert daemon.last("RunRequest").version == "0.1.0"
    code = tmp_path / "demo/demo.py"
    code.write_text(code.read_text() + "# edited\n")
    plugindctl("try", "demo")
    version = daemon.last("RunRequest").version
    assert version.startswith("0.1.0+try.")
    assert [stored.version for stored in daemon.plugins["demo"].versions] == ["0.1.0", version]
    plugindctl("try", "demo")
    assert daemon.last("RunRequest").version == version


def test_keep_leaves_what_was_submitted_beside_the_folder(daemon, tmp_path):
    done = plugindctl("try", "demo", "--keep")
    request = daemon.last("SubmitRequest")
    assert (tmp_path / "demo-0.1.0.plugin.tar").read_bytes() == request.bundle
    assert (tmp_path / "demo-0.1.0.plugin.tar.intoto.jsonl").read_bytes() == request.attestations
    assert done.err.count("kept ") == 2


# --- development keys ------------------------------------------------------------------------------------------------


def test_keys_are_made_once_for_the_user_alone(daemon, tmp_path):
    plugindctl("try", "demo", "--tier", "1")
    first = list(daemon.last("SubmitRequest").development_public_keys)
    plugindctl("try", "demo", "--tier", "1")
    assert list(daemon.last("SubmitRequest").development_public_keys) == first
    folder = tmp_path / "config/plugind"
    assert sorted(path.name for path in folder.iterdir()) == ["dev-publisher.pem", "dev-vetter.pem"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()] == [0o600, 0o600]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "spoil,said",
    [
        (lambda path: path.write_text("nonsense"), "cannot use this development key"),
        (lambda path: path.chmod(0o640), "others may read it: `chmod 600` it, or remove it"),
    ],
    ids=["nonsense", "readable"],
)
def test_key_that_cannot_be_used_is_told_by_its_path(daemon, tmp_path, spoil, said):
    plugindctl("try", "demo")
    path = tmp_path / "config/plugind/dev-publisher.pem"
    spoil(path)
    done = plugindctl("try", "demo")
    assert done.code == 2
    assert done.err.startswith(f"plugindctl: {path}: ")
    assert said in done.err


@pytest.mark.parametrize("configured", ["", "relative/path"])
def test_keys_are_below_the_home_folder_where_xdg_says_nothing(daemon, tmp_path, monkeypatch, configured):
    monkeypatch.setenv("XDG_CONFIG_HOME", configured)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert plugindctl("try", "demo").code == 0
    assert (tmp_path / "home/.config/plugind/dev-publisher.pem").is_file()
