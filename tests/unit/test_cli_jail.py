"""jail: the steps of a folder's and of a registered plugin's jail, in order, without privileges."""

import pytest

from plugind.profiles import load_profiles, profiles_dir
from plugind_proto.v1 import common_pb2, registry_pb2
from tests.support.fake_daemon import FakeDaemon, plugindctl

PROFILES = load_profiles(profiles_dir())


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert plugindctl("new", "demo").code == 0
    with FakeDaemon(str(tmp_path / "d.sock")) as daemon:
        monkeypatch.setenv("PLUGIND_SOCKET", daemon.socket)
        yield daemon


def stored(daemon, **fields):
    plugin = registry_pb2.Plugin(plugin_id="plug_1", name="costs", active_version="1.0.0")
    plugin.versions.add(**({"version": "1.0.0", "digest": "a" * 64, "state": "active", "tier": 1} | fields))
    daemon.plugins["costs"] = plugin


@pytest.mark.parametrize("folder", ["demo", "demo/", "./demo"])
def test_folder_needs_no_daemon_and_prints_numbered_steps(daemon, folder):
    done = plugindctl("jail", folder)
    lines = done.out.splitlines()
    steps = [line for line in lines if "watched from outside" not in line]
    assert (done.code, done.err) == (0, "")
    assert [line.split(".")[0].strip() for line in steps] == [str(number) for number in range(1, len(steps) + 1)]
    assert any("wall clock 2000 ms" in line for line in lines)  # what its manifest asks for
    assert daemon.requests == []


@pytest.mark.parametrize("flags,tier", [([], 2), (["--tier", "0"], 0), (["--tier", "1"], 1), (["--tier", "2"], 2)])
def test_json_is_the_spec_of_the_tier_with_its_limits(daemon, flags, tier):
    done = plugindctl("jail", "demo", "--json", *flags)
    assert (done.code, done.json["tier"]) == (0, tier)
    assert done.json["limits"]["wall_ms"] == 2000
    assert done.json["limits"]["cpu_ms"] == PROFILES[tier].default_limits.cpu_ms
    assert done.json["steps"][-1]["name"] == "seccomp"
    assert {"name", "arguments", "why"} == set(done.json["steps"][0])


def test_registered_version_has_the_jail_that_was_approved(daemon):
    limits = common_pb2.Limits(
        wall_ms=700, cpu_ms=600, memory_bytes=1 << 26, pids=5, output_bytes=9, scratch_bytes=4096
    )
    stored(daemon, limits=common_pb2.Limits(wall_ms=9000), approval=registry_pb2.Approval(tier=2, limits=limits))
    told = plugindctl("jail", "costs", "--json").json
    assert (told["tier"], told["limits"]["wall_ms"], told["limits"]["pids"]) == (2, 700, 5)
    assert "a" * 64 in plugindctl("jail", "plug_1@1.0.0").out


def test_a_network_is_a_step_where_the_tier_may_have_one(daemon):
    wanted = registry_pb2.Permission(kind="network", entry_json='{"host": "a.example", "port": 443, "protocol": "tcp"}')
    approval = registry_pb2.Approval(tier=1, permissions=[wanted])
    stored(daemon, permissions=[wanted], approval=approval)
    steps = {step["name"]: step["arguments"] for step in plugindctl("jail", "costs", "--json").json["steps"]}
    assert "a.example" in steps["hosts"]["text"]
    assert "network" in steps
    for other in (registry_pb2.Approval(tier=1), registry_pb2.Approval(tier=2, permissions=[wanted])):
        stored(daemon, permissions=[wanted], approval=other)
        names = [step["name"] for step in plugindctl("jail", "costs", "--json").json["steps"]]
        assert not {"network", "hosts"} & set(names)


def test_files_of_a_plan_are_steps_where_the_tier_may_have_them(daemon):
    wanted = [
        registry_pb2.Permission(kind=kind, entry_json='{"path": "wbs_*.json"}') for kind in ("file_read", "file_write")
    ]
    for tier, permissions, names in (
        (1, wanted, {"plan_files", "output_folder"}),
        (1, wanted[:1], {"plan_files"}),
        (1, wanted[1:], {"output_folder"}),
        (2, wanted, {"plan_files"}),
        (1, [], set()),
    ):
        stored(daemon, tier=tier, approval=registry_pb2.Approval(tier=tier, permissions=permissions))
        steps = {step["name"]: step for step in plugindctl("jail", "costs", "--json").json["steps"]}
        assert {"plan_files", "output_folder"} & set(steps) == names
    stored(daemon, tier=1, approval=registry_pb2.Approval(tier=1, permissions=wanted))
    shown = plugindctl("jail", "costs").out
    assert "plan_files(path=/grant/read/plan)" in shown
    assert f"{PROFILES[1].files.write_files} files and {PROFILES[1].files.write_bytes} bytes" in shown


def test_unapproved_version_has_the_jail_that_it_asks_for(daemon):
    stored(daemon, state="submitted", limits=common_pb2.Limits(wall_ms=9000))
    told = plugindctl("jail", "costs", "--json").json
    assert (told["tier"], told["limits"]["wall_ms"]) == (1, 9000)


def test_approval_narrows_the_tier_and_never_widens_it(daemon):
    stored(daemon, tier=2, approval=registry_pb2.Approval(tier=0))
    assert plugindctl("jail", "costs", "--json").json["tier"] == 2


@pytest.mark.parametrize(
    "arguments,code,said",
    [
        (["nothing"], 3, "no plugin nothing"),
        (["costs@9.9.9"], 3, "costs: no version 9.9.9"),
        (["costs", "--tier", "1"], 2, "--tier is for folders"),
        (["nothing/"], 2, "expected a plugin's folder, got nothing"),
    ],
)
def test_what_has_no_jail(daemon, arguments, code, said):
    stored(daemon)
    done = plugindctl("jail", *arguments)
    assert (done.code, done.out) == (code, "")
    assert said in done.err


def test_profiles_of_the_daemons_configuration_count(daemon, tmp_path, monkeypatch):
    (tmp_path / "c.toml").write_text(f'profiles = "{tmp_path}"\n')
    monkeypatch.setenv("PLUGIND_CONFIG", str(tmp_path / "c.toml"))
    done = plugindctl("jail", "demo")
    assert (done.code, done.out) == (2, "")
    assert f"{tmp_path}/tier0.toml: the profile of tier 0 cannot be read: No such file or directory" in done.err
