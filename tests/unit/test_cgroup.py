"""Both drivers against folders that look like cgroup file systems: which files are written, with what."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from plugind.errors import IsolationUnavailableError
from plugind.linux import cgroup
from plugind.linux.cgroup import GroupLimits, GroupStats, GroupUse, UnifiedGroup, V1Group

LIMITS = GroupLimits(memory_bytes=1 << 28, pids=32, cpu_percent=150)
V1 = ("memory", "pids", "cpu", "cpuacct")


def files(folder: Path, **content: str) -> Path:
    """A folder with these files; a dot in a file's name is written as two underscores."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in content.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def mounts_of(top: Path, *names: str) -> str:
    lines = [f"tmpfs {top} tmpfs rw 0 0"]
    for name in names:
        kind = "cgroup2" if name == "unified" else "cgroup"
        lines.append(f"cgroup {top / name} {kind} rw,relatime,{name} 0 0")
    return "\n".join(lines) + "\n"


def own_of(*names: str, path: str = "/") -> str:
    return "".join(f"{0 if name == 'unified' else 1}:{'' if name == 'unified' else name}:{path}\n" for name in names)


def detect(top: Path, *names: str, controllers: str = "", path: str = "/"):
    for name in names:
        (top / name).mkdir(exist_ok=True)
    if "unified" in names:
        files(top / "unified" / path.strip("/"), cgroup__controllers=controllers, cgroup__subtree_control="")
    return cgroup.detect(mounts_of(top, *names), own_of(*names, path=path))


@pytest.mark.parametrize(
    ("names", "controllers", "driver", "places"),
    [
        (V1, "", "v1", {"memory", "pids", "cpu", "cpuacct"}),
        ((*V1, "unified"), "", "v1/hybrid", {"unified", "memory", "pids", "cpu", "cpuacct"}),
        ((*V1, "unified"), "cpuset hugetlb", "v1/hybrid", {"unified", "memory", "pids", "cpu", "cpuacct"}),
        (("unified",), "cpuset cpu io memory pids", "unified", {"unified"}),
        ((*V1, "unified"), "cpu memory pids", "unified", {"unified"}),
    ],
)
def test_the_driver_that_fits(tmp_path, names, controllers, driver, places) -> None:
    found = detect(tmp_path, *names, controllers=controllers)
    assert found.name == driver
    assert set(found._folders) == places


@pytest.mark.parametrize("lacking", V1)
def test_a_missing_v1_controller_is_named(tmp_path, lacking) -> None:
    names = [name for name in V1 if name != lacking]
    with pytest.raises(IsolationUnavailableError, match=rf"controllers {lacking} is mounted"):
        detect(tmp_path, *names, "unified")


@pytest.mark.parametrize("lacking", ["memory", "pids", "cpu"])
def test_a_missing_unified_controller_is_named(tmp_path, lacking) -> None:
    there = " ".join(name for name in ("memory", "pids", "cpu") if name != lacking)
    with pytest.raises(IsolationUnavailableError, match=rf"unified hierarchy lacks the controllers {lacking}$"):
        detect(tmp_path, "unified", controllers=there)


def test_no_hierarchy_at_all() -> None:
    with pytest.raises(IsolationUnavailableError, match="memory, pids, cpu, cpuacct"):
        cgroup.detect("proc /proc proc rw 0 0\n", "0::/\n")


def test_a_mount_with_a_space_in_its_path_and_controllers_that_share_one(tmp_path) -> None:
    (tmp_path / "a b").mkdir()
    where = str(tmp_path / "a b").replace(" ", "\\040")
    mounts = f"cgroup {where} cgroup rw,memory,pids,cpu,cpuacct 0 0\n"
    driver = cgroup.detect(mounts, "3:memory,pids,cpu,cpuacct:/deep/inside\n")
    assert set(driver._folders.values()) == {tmp_path / "a b"}
    base = driver.create_base("x")
    assert (tmp_path / "a b/plugind-x/instances").is_dir()
    base.remove()
    assert list((tmp_path / "a b").iterdir()) == []


def test_unified_groups_lie_below_our_own_group_and_v1_groups_below_the_root(tmp_path) -> None:
    unified = detect(tmp_path, "unified", controllers="cpu memory pids", path="/system.slice/p")
    assert unified._folders == {"unified": tmp_path / "unified/system.slice/p"}
    v1 = detect(tmp_path, *V1, path="/limited")
    assert v1._folders["memory"] == tmp_path / "memory"


def test_as_a_unit_of_systemd_every_group_lies_below_the_units(tmp_path) -> None:
    found = detect(tmp_path, *V1, "unified", path="/system.slice/plugind-launcher.service")
    assert set(found._folders.values()) == {
        tmp_path / name / "system.slice/plugind-launcher.service" for name in (*V1, "unified")
    }


def test_the_reins_are_kill_and_events(tmp_path) -> None:
    assert v1_group(tmp_path).reins() is None
    group = v1_group(tmp_path, unified=True)
    with pytest.raises(FileNotFoundError):
        group.reins()
    files(tmp_path / "unified", cgroup__events="populated 0\nfrozen 0\n")
    reins = group.reins()
    assert reins is not None
    kill, events = reins
    os.write(kill, b"1")
    assert os.read(events, 100).startswith(b"populated 0")
    for descriptor in reins:
        os.close(descriptor)
    assert (tmp_path / "unified/cgroup.kill").read_text() == "1"


def test_our_own_processes_move_into_a_leaf_before_controllers_are_handed_down(tmp_path) -> None:
    files(tmp_path / "unified/own", cgroup__type="domain", cgroup__procs="17\n18\n")
    leaf = files(tmp_path / "unified/own/plugind-daemon", cgroup__procs="")
    detect(tmp_path, "unified", controllers="cpu memory pids", path="/own")
    assert (leaf / "cgroup.procs").read_text() == "18"  # the last write; the kernel takes each
    assert (tmp_path / "unified/own/cgroup.subtree_control").read_text() == "+memory +pids +cpu"


def test_who_was_moved_into_the_leaf_still_has_the_group_above(tmp_path) -> None:
    """Else each launcher that is started after another would nest one deeper, and sweep in the wrong place."""
    group = files(tmp_path / "unified/own", cgroup__controllers="cpu memory pids", cgroup__subtree_control="")
    found = cgroup.detect(mounts_of(tmp_path, "unified"), own_of("unified", path="/own/plugind-daemon"))
    assert found._folders == {"unified": group}


def test_a_login_session_without_controllers_uses_the_root_of_the_unified_hierarchy(tmp_path) -> None:
    files(tmp_path / "unified", cgroup__controllers="cpu memory pids", cgroup__subtree_control="", cgroup__procs="")
    session = files(tmp_path / "unified/session-1.scope", cgroup__controllers="memory pids", cgroup__procs="17\n")
    files(session, cgroup__type="domain")
    found = cgroup.detect(mounts_of(tmp_path, "unified"), own_of("unified", path="/session-1.scope"))
    assert (found.name, found._folders) == ("unified", {"unified": tmp_path / "unified"})
    assert (tmp_path / "unified/cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    assert not (session / "plugind-daemon").exists()


def test_a_unit_without_controllers_is_told_and_goes_nowhere_else(tmp_path) -> None:
    """`systemctl stop` ends what lies below the unit, and nothing that lies beside it."""
    files(tmp_path / "unified", cgroup__controllers="cpu memory pids", cgroup__subtree_control="")
    own = "/system.slice/plugind-launcher.service"
    files(tmp_path / "unified" / own.strip("/"), cgroup__controllers="memory pids")
    with pytest.raises(IsolationUnavailableError, match="lacks the controllers cpu"):
        cgroup.detect(mounts_of(tmp_path, "unified"), own_of("unified", path=own))


def test_only_looking_changes_nothing(tmp_path) -> None:
    folder = files(tmp_path / "unified", cgroup__controllers="cpu memory pids", cgroup__type="domain")
    before = {path.name: path.read_text() for path in folder.iterdir()}
    driver = cgroup.detect(mounts_of(tmp_path, "unified"), own_of("unified"), prepare=False)
    assert driver.name == "unified"
    assert {path.name: path.read_text() for path in folder.iterdir()} == before


def v1_group(top: Path, *, swap: bool = True, unified: bool = False) -> V1Group:
    memory = {"memory__limit_in_bytes": "", "memory__swappiness": "60", "cgroup__procs": "5\n"}
    if swap:
        memory["memory__memsw__limit_in_bytes"] = ""
    folders = {
        "memory": files(top / "memory", **memory),
        "pids": files(top / "pids", pids__max="max", cgroup__procs=""),
        "cpu": files(top / "cpu", cpu__cfs_period_us="", cpu__cfs_quota_us="-1", cgroup__procs=""),
        "cpuacct": files(top / "cpuacct", cgroup__procs=""),
    }
    if unified:
        folders = {"unified": files(top / "unified", cgroup__kill="", cgroup__procs="7\n8\n"), **folders}
    return V1Group(folders)


@pytest.mark.parametrize("swap", [True, False])
def test_v1_limits(tmp_path, swap) -> None:
    v1_group(tmp_path, swap=swap).set_limits(LIMITS)
    assert (tmp_path / "memory/memory.limit_in_bytes").read_text() == str(1 << 28)
    if swap:
        assert (tmp_path / "memory/memory.memsw.limit_in_bytes").read_text() == str(1 << 28)
    else:
        assert (tmp_path / "memory/memory.swappiness").read_text()[0] == "0"
    assert (tmp_path / "pids/pids.max").read_text()[:2] == "32"
    assert (tmp_path / "cpu/cpu.cfs_period_us").read_text() == "100000"
    assert (tmp_path / "cpu/cpu.cfs_quota_us").read_text() == "150000"


def test_v1_stats(tmp_path) -> None:
    group = v1_group(tmp_path)
    files(tmp_path / "cpuacct", cpuacct__usage="123456789\n")
    files(
        tmp_path / "memory",
        memory__max_usage_in_bytes="4096\n",
        memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
    )
    files(tmp_path / "pids", pids__events="max 2\n")
    assert group.stats() == GroupStats(123456789, 4096, 3, 2)


def test_cpu_time_of_v1_is_the_unified_hierarchys_where_it_counts_it(tmp_path) -> None:
    files(tmp_path / "unified", cpu__stat="usage_usec 0\n")
    found = detect(tmp_path, *V1, "unified")
    assert (found.name, set(found._folders)) == ("v1/hybrid", {"unified", "memory", "pids", "cpu"})
    group = found.create_base("x").create_template("t")
    places = [next((tmp_path / name).rglob("t")) for name in ("unified", "memory", "pids")]
    files(places[0], cpu__stat="usage_usec 42\nuser_usec 40\nsystem_usec 2\n")
    files(places[1], memory__max_usage_in_bytes="4096\n", memory__oom_control="oom_kill 0\n")
    files(places[2], pids__events="max 0\n")
    assert group.stats() == GroupStats(42_000, 4096, 0, 0)


def test_what_is_looked_at_again_stays_open_and_no_more_than_so_many(tmp_path, monkeypatch) -> None:
    def looked_at() -> int:
        return sum(
            str(each.readlink()).startswith(str(tmp_path))
            for each in Path("/proc/self/fd").iterdir()
            if each.is_symlink()
        )

    group = unified_group(tmp_path)
    files(
        tmp_path / "g",
        cpu__stat="usage_usec 1\n",
        memory__peak="2\n",
        memory__events="oom_kill 3\n",
        pids__events="max 4\n",
    )
    monkeypatch.setattr(cgroup, "MOST_OPEN", cgroup.Group._opened + 3)
    for peak in (2, 5):
        files(tmp_path / "g", memory__peak=f"{peak}\n")
        assert group.stats() == GroupStats(1_000, peak, 3, 4)
        assert looked_at() == 3
    for path in (tmp_path / "g").iterdir():
        path.unlink()  # as the kernel takes a group's files with the group
    group.remove()
    assert (looked_at(), cgroup.Group._opened) == (0, cgroup.MOST_OPEN - 3)


def unified_group(top: Path) -> UnifiedGroup:
    names = "memory__max memory__swap__max memory__oom__group pids__max cpu__max cgroup__procs cgroup__kill".split()
    return UnifiedGroup({"unified": files(top / "g", **dict.fromkeys(names, ""))})


def test_unified_limits(tmp_path) -> None:
    unified_group(tmp_path).set_limits(LIMITS)
    written = {path.name: path.read_text() for path in (tmp_path / "g").iterdir() if path.read_text()}
    assert written == {
        "memory.max": str(1 << 28),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "32",
        "cpu.max": "150000 100000",
    }


def test_unified_stats(tmp_path) -> None:
    group = unified_group(tmp_path)
    files(
        tmp_path / "g",
        cpu__stat="usage_usec 42\nuser_usec 40\nsystem_usec 2\n",
        memory__events="low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 1\n",
        pids__events="max 5\n",
    )
    assert group.stats() == GroupStats(42_000, 0, 1, 5)  # memory.peak is not there before Linux 5.19
    files(tmp_path / "g", memory__peak="777\n")
    assert group.stats().memory_peak_bytes == 777


def test_what_a_unified_group_has_now(tmp_path) -> None:
    group = unified_group(tmp_path)
    files(tmp_path / "g", cpu__stat="usage_usec 42\n", memory__current="4096\n", pids__current="3\n")
    assert group.use() == GroupUse(42_000, 4096, 3)


def test_what_a_v1_group_has_now(tmp_path) -> None:
    group = v1_group(tmp_path)
    files(tmp_path / "cpuacct", cpuacct__usage="123456789\n")
    files(tmp_path / "memory", memory__usage_in_bytes="4096\n")
    files(tmp_path / "pids", pids__current="3\n")
    assert group.use() == GroupUse(123456789, 4096, 3)


@pytest.mark.parametrize("text", [None, "", "much\n"])
@pytest.mark.parametrize("which", ["memory__current", "pids__current"])
def test_a_figure_that_cannot_be_read_is_not_told_and_the_others_are(tmp_path, which, text) -> None:
    there = {"cpu__stat": "usage_usec 42\n", "memory__current": "4096\n", "pids__current": "3\n"}
    del there[which]
    group = unified_group(tmp_path)
    files(tmp_path / "g", **there, **({} if text is None else {which: text}))
    memory, pids = (-1, 3) if which == "memory__current" else (4096, -1)
    assert group.use() == GroupUse(42_000, memory, pids)


def test_nothing_can_be_read_of_a_group_that_is_gone(tmp_path) -> None:
    group = v1_group(tmp_path)
    assert group.use() == GroupUse(-1, -1, -1)


def test_stats_that_are_not_there_raise(tmp_path) -> None:
    with pytest.raises(OSError, match=r"cpu\.stat"):
        unified_group(tmp_path).stats()


def test_attach_writes_the_pid_into_every_hierarchy_unified_first(tmp_path) -> None:
    group = v1_group(tmp_path, unified=True)
    group.attach(4711)
    for name in ("unified", *V1):
        assert (tmp_path / name / "cgroup.procs").read_text().startswith("4711"), name
    assert group.pids() == [4711]


def test_kill_uses_cgroup_kill_where_the_unified_hierarchy_is_mounted(tmp_path) -> None:
    v1_group(tmp_path, unified=True).kill()  # and sends no signal to 7 and 8, whoever they are
    assert (tmp_path / "unified/cgroup.kill").read_text() == "1"


def test_kill_sends_signals_where_it_is_not(tmp_path) -> None:
    group = v1_group(tmp_path)
    with subprocess.Popen(["sleep", "60"]) as process:
        (tmp_path / "memory/cgroup.procs").write_text(f"{process.pid}\n")
        group.kill()
        assert process.wait(5) == -9
    group.kill()  # it is gone already, which is what was wanted


def test_create_that_fails_leaves_nothing(tmp_path) -> None:
    base = detect(tmp_path, *V1).create_base("x")
    with pytest.raises(OSError, match=r"memory\.limit_in_bytes"):
        base.create("run1", LIMITS)
    assert list(tmp_path.rglob("run1")) == []


def test_a_group_that_cannot_be_made_in_one_hierarchy_is_left_in_none(tmp_path) -> None:
    base = detect(tmp_path, *V1).create_base("x")
    (tmp_path / "cpu/plugind-x/templates/t").write_text("in the way")
    with pytest.raises(FileExistsError):
        base.create_template("t")
    assert [path for path in tmp_path.rglob("t") if path.is_dir()] == []


def test_a_base_is_made_and_removed_in_every_hierarchy(tmp_path) -> None:
    base = detect(tmp_path, *V1, "unified").create_base("x")
    for name in (*V1, "unified"):
        assert {path.name for path in (tmp_path / name / "plugind-x").iterdir()} == {"instances", "templates"}
    base.remove()
    assert list(tmp_path.rglob("plugind-x*")) == []


def test_the_kill_descriptor(tmp_path) -> None:
    base = detect(tmp_path, *V1, "unified").create_base("x")
    assert base.kill_descriptor() is None
    kill = files(tmp_path / "unified/plugind-x/instances", cgroup__kill="") / "cgroup.kill"
    descriptor = base.kill_descriptor()
    assert descriptor is not None
    os.write(descriptor, b"1")
    os.close(descriptor)
    assert kill.read_text() == "1"


def test_sweep_removes_what_an_earlier_daemon_of_that_name_left_and_nothing_else(tmp_path) -> None:
    driver = detect(tmp_path, *V1, "unified")
    driver.create_base("mine").create_template("tier1")
    driver.create_base("other")
    driver.sweep("mine")
    driver.sweep("never-there")
    assert list(tmp_path.rglob("plugind-mine*")) == []
    assert len([path for path in tmp_path.rglob("plugind-other") if path.is_dir()]) == 5


def test_a_sweep_kills_what_is_still_in_a_group(tmp_path) -> None:
    group = files(tmp_path / "g", cgroup__procs="")
    with subprocess.Popen(["sleep", "60"]) as process:
        (group / "cgroup.procs").write_text(f"{process.pid}\n")
        timer = subprocess.Popen(["sh", "-c", f"sleep 0.1; : > {group}/cgroup.procs"])  # as the kernel empties it
        cgroup._kill_until_empty(group)
        assert process.wait(5) == -9
        timer.wait(5)
