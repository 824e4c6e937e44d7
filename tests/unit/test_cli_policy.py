"""policy check: every mistake without a daemon. policy explain: every check of one request."""

import dataclasses

import pytest
import typer
from typer.testing import CliRunner

from plugind.policyfile import shipped_policy
from plugind_client.cli import policy
from plugind_client.cli.app import Guarded
from plugind_client.cli.settings import Settings
from plugind_client.records import Reason

GOOD = 'schema = 1\n[tier.2]\npermissions = []\nmode = "warn"\n[settings]\napprovers = 2\n'
BAD = "schema = 1\n[tier.2]\npermissions = ['network']\n[settings]\napprovers = 0\nx = 1\n"


@dataclasses.dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    reasons: tuple = ()


@dataclasses.dataclass
class FakeClient:
    """What Client.explain answers, and what it was asked."""

    checks: list
    asked: list = dataclasses.field(default_factory=list)
    socket: str = "unused"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def explain(self, plugin, *, version=None, stage=None, sensitivity=None):
        self.asked.append((plugin, version, stage, sensitivity))
        return self.checks


class FakeSettings(Settings):
    """Settings with a client of our own."""

    def __init__(self, client=None):
        super().__init__()
        self._client = client

    def client(self):
        return self._client


def plugindctl(*arguments, client=None):
    app = typer.Typer(cls=Guarded, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    policy.register(app)
    app.callback()(lambda: None)
    return CliRunner().invoke(app, ["policy", *map(str, arguments)], obj=FakeSettings(client))


@pytest.fixture(autouse=True)
def _no_configuration(tmp_path, monkeypatch):
    (tmp_path / "plugind.toml").write_text("")
    monkeypatch.setenv("PLUGIND_CONFIG", str(tmp_path / "plugind.toml"))


def written(tmp_path, text):
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return path


def test_good_file(tmp_path):
    path = written(tmp_path, GOOD)
    done = plugindctl("check", path)
    assert done.exit_code == 0
    assert done.stdout.startswith(
        f"{path}: ok, 1 tiers, 0 stages, 0 sensitivities; approvers 2; 1 rules not enforced; sha256 "
    )


def test_bad_file_has_all_its_mistakes_one_a_line(tmp_path):
    path = written(tmp_path, BAD)
    done = plugindctl("check", path)
    assert done.exit_code == 7
    assert [line.split(": ")[:2] for line in done.stdout.splitlines()] == [
        [f"{path}:3:16", "tier.2.permissions"],
        [f"{path}:5:13", "settings.approvers"],
        [f"{path}:6:1", "settings.x"],
    ]
    assert "3 problem(s)" in done.stderr


def test_json_of_both(tmp_path):
    import hashlib
    import json

    good = plugindctl("check", written(tmp_path, GOOD), "--json")
    told = json.loads(good.stdout)
    assert (good.exit_code, told["ok"], told["problems"]) == (0, True, [])
    assert told["sha256"] == hashlib.sha256(GOOD.encode()).hexdigest()
    bad = plugindctl("check", written(tmp_path, "schema = "), "--json")
    told = json.loads(bad.stdout)
    assert (bad.exit_code, told["ok"], told["sha256"], len(told["problems"])) == (7, False, None, 1)


def test_without_a_file_the_configured_one_is_checked_and_else_the_shipped_one(tmp_path):
    shipped = plugindctl("check")
    assert (shipped.exit_code, shipped.stdout.split(": ")[0]) == (0, str(shipped_policy()))
    assert "who publishes or submits may approve" in shipped.stdout
    path = written(tmp_path, BAD)
    (tmp_path / "plugind.toml").write_text(f'policy = "{path}"\n')
    configured = plugindctl("check")
    assert (configured.exit_code, configured.stdout.count(f"{path}:")) == (7, 3)


def test_no_such_file_is_a_usage_error(tmp_path):
    done = plugindctl("check", tmp_path / "nothing.toml")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "nothing.toml: expected a policy file, there is none" in done.stderr


REASON = Reason("TIER_NOT_ALLOWED", 'stage."report".tiers', "Tier 0", "Tier 2", "plugindctl policy check")
WARNING = Reason("PERMISSION_NOT_APPROVED", "policy.tier.2.permissions", "no permission", "network")
CHECKS = [Check("caller", True), Check("stage", False, (REASON,)), Check("permissions", True, (WARNING,))]


@pytest.mark.parametrize(
    "arguments,asked",
    [
        (["costs"], ("costs", None, None, None)),
        (["plug_1@1.2.0", "--stage", "s", "--sensitivity", "public"], ("plug_1", "1.2.0", "s", "public")),
    ],
)
def test_what_is_asked_for_is_explained(arguments, asked):
    client = FakeClient([Check("caller", True)])
    done = plugindctl("explain", *arguments, client=client)
    assert (done.exit_code, client.asked) == (0, [asked])
    assert done.stderr == "allowed\n"


def test_every_check_is_shown_with_what_it_found():
    done = plugindctl("explain", "costs", client=FakeClient(CHECKS))
    assert done.exit_code == 7
    assert [line.split()[:3] for line in done.stdout.splitlines()] == [
        ["check", "found"],
        ["ok", "caller"],
        ["DENIES", "stage", "TIER_NOT_ALLOWED"],
        ["what", "to", "do:"],
        ["warns", "permissions", "PERMISSION_NOT_APPROVED"],
    ]
    assert "expected Tier 0, got Tier 2" in done.stdout
    assert done.stderr == "denied: stage\n"


def test_checks_as_json():
    import json

    done = plugindctl("explain", "costs", "--json", client=FakeClient(CHECKS))
    assert (done.exit_code, done.stderr) == (7, "")
    told = json.loads(done.stdout)
    assert [(each["name"], each["ok"]) for each in told] == [("caller", True), ("stage", False), ("permissions", True)]
    assert told[1]["reasons"] == [dataclasses.asdict(REASON)]
