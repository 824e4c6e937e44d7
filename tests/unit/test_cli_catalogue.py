"""list and show: the registry as tables for people and as JSON."""

import pytest

from plugind_proto.v1 import common_pb2, registry_pb2
from tests.support.fake_daemon import FakeDaemon, plugindctl

READ = registry_pb2.Permission(kind="file_read", entry_json='{"path": "wbs_*.json"}')
LIMITS = common_pb2.Limits(wall_ms=2000, pids=4)
KILLED = registry_pb2.Hold(
    kind="killed", target="costs@1.0.0", reason="wrong sums", by_uid=4_000_002, at_unix_ms=60_000
)
OLD = {
    "holds": [KILLED],
    "version": "1.0.0",
    "state": "retired",
    "tier": 2,
    "digest": "a" * 64,
    "stages": ["*"],
    "summary": "Old",
}
NEW = registry_pb2.PluginVersion(
    version="1.2.0",
    digest="b" * 64,
    state="active",
    tier=1,
    summary="Rolls costs up",
    license="MIT",
    origin="authored",
    runtime="python",
    interface="json",
    entrypoint="costs:run",
    stages=["durations", "wbs"],
    limits=LIMITS,
    permissions=[READ],
    submitted_unix_ms=1_700_000_000_000,
    submitted_by_uid=1000,
    approval=registry_pb2.Approval(
        by_uid=4_000_001,
        at_unix_ms=1_700_000_060_000,
        tier=1,
        stages=["durations"],
        limits=LIMITS,
        reason="looked at it",
    ),
)


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    with FakeDaemon(str(tmp_path / "d.sock")) as daemon:
        monkeypatch.setenv("PLUGIND_SOCKET", daemon.socket)
        costs = registry_pb2.Plugin(plugin_id="plug_1", name="costs", active_version="1.2.0")
        costs.versions.add(**OLD)
        costs.versions.append(NEW)
        fresh = registry_pb2.Plugin(plugin_id="plug_2", name="fresh")
        fresh.versions.add(version="0.1.0", state="submitted", tier=2, stages=["*"], summary="\x1b[2JNew\nline")
        daemon.plugins |= {"costs": costs, "fresh": fresh}
        yield daemon


def cells(text):
    """A table's lines: columns are two or more spaces apart."""
    return [[cell for cell in line.strip().split("  ") if cell.strip()] for line in text.splitlines()]


def about(done):
    """The first table of show: what → value."""
    return dict(f"{line} ".split(" ", 1) for line in done.out.partition("\n\n")[0].splitlines())


def test_list_has_a_line_for_each_plugin(daemon):
    done = plugindctl("list")
    rows = [[cell.strip() for cell in row] for row in cells(done.out)]
    assert (done.code, done.err) == (0, "")
    assert rows == [
        ["id", "plugin", "active", "tier", "state", "held", "stages", "summary"],
        ["plug_1", "costs", "1.2.0", "1", "active", "1.0.0 killed", "durations, wbs", "Rolls costs up"],
        ["plug_2", "fresh", "-", "2", "submitted", "-", "*", r"\u001b[2JNew\nline"],
    ]


def test_list_as_json_has_everything(daemon):
    costs, fresh = plugindctl("list", "--json").json
    assert (costs["name"], costs["active_version"], fresh["versions"][0]["approval"]) == ("costs", "1.2.0", None)
    assert costs["versions"][1]["approval"]["reason"] == "looked at it"


def test_list_of_nothing_says_so(daemon):
    daemon.plugins.clear()
    done = plugindctl("list")
    assert (done.code, done.out) == (0, "")
    assert done.err == "there are no plugins yet: `plugindctl try DIR` submits one\n"
    assert plugindctl("list", "--json").json == []


def test_plugin_without_a_version_is_listed(daemon):
    daemon.plugins["empty"] = registry_pb2.Plugin(plugin_id="plug_3", name="empty")
    assert plugindctl("list").out.splitlines()[-1].split() == ["plug_3", "empty", "-", "-", "-", "-", "-"]


@pytest.mark.parametrize("name", ["costs", "plug_1"])
def test_show_tells_what_was_asked_for_and_what_was_approved(daemon, name):
    done = plugindctl("show", name)
    text = " ".join(done.out.split())
    assert (done.code, done.err) == (0, "")
    for part in (
        "costs plug_1",
        "version 1.2.0",
        "tier 1 by its evidence",
        "runs as python, interface json, costs:run",
        "stages durations, wbs",
        "asks for file_read wbs_*.json",
        "limits wall_ms 2000, pids 4",
        "approved 2023-11-14 22:14 UTC by uid 4000001 for tier 1",
        "because looked at it",
        "for stages durations",
        "granted no permissions",
        f"1.0.0 retired killed 2 1970-01-01 00:00 UTC {'a' * 64}",
        f"1.2.0 active - 1 2023-11-14 22:13 UTC {'b' * 64}",
    ):
        assert part in text


def test_show_of_a_version(daemon):
    assert about(plugindctl("show", "costs@1.0.0"))["summary"].strip() == "Old"
    shown = plugindctl("show", "costs@1.0.0", "--json").json
    assert [version["version"] for version in shown["versions"]] == ["1.0.0"]
    assert len(plugindctl("show", "costs", "--json").json["versions"]) == 2


def test_show_tells_what_holds_a_version_and_what_it_widens(daemon):
    assert about(plugindctl("show", "costs@1.0.0"))["killed"].strip() == (
        "costs@1.0.0, 1970-01-01 00:01 UTC by uid 4000002: wrong sums"
    )
    daemon.plugins["fresh"].versions[0].widens.extend(["stages: * is new", "limits.pids: 9, was 4"])
    lines = [" ".join(line.split()) for line in plugindctl("show", "fresh").out.splitlines()]
    assert [line for line in lines if line.startswith("widens")] == [
        "widens stages: * is new",
        "widens limits.pids: 9, was 4",
    ]
    (hold,) = plugindctl("show", "costs@1.0.0", "--json").json["versions"][0]["holds"]
    assert (hold["kind"], hold["target"], hold["by_uid"]) == ("killed", "costs@1.0.0", 4_000_002)


def test_show_without_an_active_version_takes_the_newest(daemon):
    shown = about(plugindctl("show", "fresh"))
    assert (shown["state"].strip(), shown["approved"].strip()) == ("submitted", "no")


@pytest.mark.parametrize(
    "plugin,lines",
    [
        ("costs@9.9.9", ["plugindctl: costs: no version 9.9.9; there is 1.0.0, 1.2.0"]),
        ("nothing", ["plugindctl: plugind knows nothing under that name.", "  no plugin nothing"]),
    ],
)
def test_show_of_what_is_not_there(daemon, plugin, lines):
    done = plugindctl("show", plugin)
    assert (done.code, done.out, done.err.splitlines()) == (3, "", lines)
    assert plugindctl("show", plugin, "--json").json["error"]["code"] == "NOT_FOUND"
