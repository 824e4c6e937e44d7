"""The file tree: nothing can be mounted, nothing swapped for a link, and /proc is the instance's own."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from plugind.provenance import bundle
from plugind_client import PlugindError
from tests.escapes.attack import OWN, attack
from tests.escapes.box import Box
from tests.support.plugins import built

PROC_MAGIC = 0x9FA0
MOUNTS = (
    "a control group",
    "the unified control groups",
    "another proc",
    "sysfs",
    "an overlay",
    "a bind of the root",
    "the root writable",
    "propagation to the host",
)


@attack(3, "mount a control group hierarchy and write its release_agent", "seccomp ends the run; no capability")
@attack(6, "mount another proc, without subset=pid", "the same")
@attack(12, "mount, remount and bind", "the same")
@pytest.mark.parametrize("what", MOUNTS)
def test_nothing_can_be_mounted(box: Box, what: str) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    box.run("mounts.mount", what=what).assert_killed_for("mount")
    assert Path("/proc/self/mountinfo").read_text() == before


@attack(
    4,
    "swap a mountpoint or a masked path for a link: rename, exchange, remove, link over",
    "mounted before plugin code runs, on a read-only root",
)
def test_mountpoints_cannot_be_replaced(box: Box) -> None:
    answers = box.run("mounts.replace_mountpoints").value()
    assert len(answers) > 80
    refused = {
        "EROFS",
        "EBUSY",
        "EXDEV",
        "EACCES",
        "EPERM",
        "EEXIST",
        "EISDIR",
        "ENOENT",
        "ENOTDIR",
        "ENOTEMPTY",
        "FileExistsError",
    }
    assert {name: got for name, got in answers.items() if got not in refused} == {}
    assert box.run("mounts.file_system_of", path="/proc").value() == PROC_MAGIC


@attack(
    6,
    "a /proc of its own making, /proc/self/uid_map, attr, mem, oom_score_adj",
    "proc of its own pid namespace with subset=pid; not dumpable",
)
def test_proc_is_the_own_one(box: Box) -> None:
    ran = box.run("mounts.false_proc")
    answers = ran.value()
    assert (answers["magic"], answers["self"], answers["pids"]) == (PROC_MAGIC, "1", ["1"])
    assert answers["names"] == ["1", "self", "thread-self"]
    assert not [name for name in ("rename", "link") if answers[name].startswith("done")]
    assert (answers["chroot"], ran.tried) == ("EPERM", {"chroot": 1})
    assert {name: got for name, got in answers["writes"].items() if got.startswith("done")} == {}


@attack(
    16,
    "host secrets, kernel settings and devices in /proc, /sys, /dev and /run",
    "subset=pid; a root with the interpreter and five devices",
)
@attack(
    OWN,
    "sysrq, kcore, core_pattern, uevent_helper, /dev/mem, /dev/kmsg, /dev/fuse, /dev/userfaultfd, /dev/ptmx",
    "they are not there",
)
def test_nothing_of_the_host_is_to_be_seen(box: Box) -> None:
    answers = box.run("mounts.look_at_the_host").value()
    shown = {path: got for path, got in answers.items() if got not in ("ENOENT", "ENOTDIR", "EACCES")}
    prefix = {f"/{Path(os.__file__).parts[1]}"}
    assert set(shown) - prefix == set(), shown


@attack(
    16,
    "the environment and the command line of the daemon, searched for in everything that can be read",
    "own pid namespace, cleared environment",
)
def test_no_secret_of_the_daemon_is_inside(box: Box) -> None:
    environment = dict(
        entry.split("=", 1)
        for entry in Path(f"/proc/{box.daemon.pids[0]}/environ").read_text().split("\0")
        if "=" in entry
    )
    found = box.run("processes.environment").value()
    for name in ("HOME", "PATH", "LANG", "TMPDIR", "PYTHONDONTWRITEBYTECODE"):
        environment.pop(name, None)
    assert not set(environment) & set(found["environment"])
    for text in (str(box.daemon.state), str(box.daemon.socket)):
        assert text not in str(found), "paths of the daemon are known inside"


@attack(
    31,
    "a control group below the own one, or out of it, to escape the limits",
    "no control group is mounted; own cgroup namespace",
)
def test_control_groups_are_out_of_reach(box: Box) -> None:
    ran = box.run("mounts.control_groups")
    answers = ran.value()
    assert all(line.endswith(":/") for line in answers.pop("own"))
    assert answers.pop("mounts") == []
    assert answers.pop("into another") == "EPERM"
    assert {
        name: got for name, got in answers.items() if got not in ("ENOENT", "EACCES", "ENOTDIR", "FileNotFoundError")
    } == {}


@attack(
    5,
    "swap a folder for a link to / ten thousand times while opening through it",
    "pivot_root: every path ends in the own root",
)
def test_ten_thousand_swaps_never_lead_out(box: Box, canary: tuple[Path, str]) -> None:
    ran = box.run("mounts.swap_links", path=str(canary[0]), swaps=10_000, limits={"wall_ms": 30_000, "cpu_ms": 25_000})
    answers = ran.value()
    assert answers["swaps"] == 10_000
    assert answers["tries"] > 100
    assert answers["reached"] == []


def _with_member(data: bytes, member: tarfile.TarInfo) -> bytes:
    """The bundle with one more member."""
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as before,
        tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as after,
    ):
        for each in before.getmembers():
            after.addfile(each, before.extractfile(each))
        after.addfile(member)
    return out.getvalue()


@attack(
    5,
    "a link, a hard link, a device, a FIFO or a path that leads out in a bundle",
    "regular files only, by their exact bytes; unpacked beneath one folder",
)
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (tarfile.SYMTYPE, "escape.py"),
        (tarfile.LNKTYPE, "escape.py"),
        (tarfile.CHRTYPE, "escape.py"),
        (tarfile.BLKTYPE, "escape.py"),
        (tarfile.FIFOTYPE, "escape.py"),
        (tarfile.DIRTYPE, "escape"),
        (tarfile.REGTYPE, "../escape.py"),
        (tarfile.REGTYPE, "/escape.py"),
        (tarfile.REGTYPE, "schemas/../../escape.py"),
    ],
)
def test_a_bundle_has_regular_files_only(tier2: Box, tmp_path: Path, kind: bytes, name: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/shadow"
    data = _with_member(built(tmp_path, "linked"), member)
    with pytest.raises(PlugindError):
        tier2.client.submit(data)
    bundle.read(built(tmp_path / "same", "linked"))  # without that member it is a bundle


@attack(OWN, "write to a mount that should not be writable, executable or take devices", "flags of every mount")
def test_mounts_have_the_flags_they_should_have(box: Box) -> None:
    flags = box.run("mounts.mount_flags").value()
    writable = {path for path, options in flags if "ro" not in options}
    assert writable == {"/proc", "/tmp", "/dev/shm"}
    assert [path for path, options in flags if "nosuid" not in options] == []
    executable = {path for path, options in flags if "noexec" not in options and path in writable}
    assert executable == ({"/tmp"} if box.tier == 1 else set()) | ({"/proc"} & executable)


@attack(
    OWN,
    "make a device node, change times or mode of a device that all share",
    "mknod refused; read-only mounts without devices",
)
def test_devices_cannot_be_made_or_changed(box: Box) -> None:
    before = Path("/dev/null").stat()
    ran = box.run("mounts.devices")
    answers = ran.value()
    assert (answers["mknod block"], answers["mknod zero"], ran.tried) == ("EPERM", "EPERM", {"mknod": 2})
    assert {answers["times"], answers["chmod"]} <= {"EROFS", "EPERM", "EACCES"}
    after = Path("/dev/null").stat()
    assert (after.st_mode, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_mode,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )
