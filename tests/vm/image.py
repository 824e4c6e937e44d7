"""The machine's kernel and root: made once from Debian's packages, and kept in a cache folder.

The folder is $XDG_CACHE_HOME/plugind-test-vm, or /var/cache/plugind-test-vm: root's, and outside the checkout. It holds one image,
named after its recipe (this file and the packages that pyproject.toml asks for): after a change of either it is made again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.vm.told import NotPossibleError, phase, run, say

TREE = Path(__file__).parents[2]
RELEASE = "bookworm"
PYTHON = "3.11"
"""Debian's own in that release."""
PACKAGES = (
    # A system that boots with systemd
    *("systemd", "systemd-sysv", "udev", "dbus", "kmod", "procps", "iproute2", "linux-image-cloud-amd64"),
    # What packaging/install.sh asks for
    *(
        "python3",
        "python3-venv",
        "python3-dev",
        "gcc",
        "libc6-dev",
        "pkg-config",
        "libsystemd-dev",
        "libseccomp2",
        "libnftables1",
    ),
)
TEST_PACKAGES = ("pytest", "pytest-asyncio", "pytest-timeout", "hypothesis")
"""Of pyproject.toml's extra `dev`: what tests are run with. The oracles of unit tests are not among them."""
COMPILED = "systemd-python"
"""The one package without wheels."""
PLATFORMS = tuple(f"{name}_x86_64" for name in ("manylinux_2_34", "manylinux_2_28", "manylinux2014", "manylinux_2_17"))
WHEELS, TEST_FOLDER = "usr/share/wheels", "opt/test-packages"
SIZE = "3G"
"""Of the file system; its file has holes."""
UNITS = {
    "vm-test.target": """\
[Unit]
Requires=basic.target
Wants=vm-test.service
After=basic.target
""",
    # The tests' own groups lie below this unit's.
    "vm-test.service": """\
[Unit]
Wants=dev-vdb.device
After=dev-vdb.device
[Service]
Type=oneshot
Delegate=yes
TasksMax=infinity
OOMPolicy=continue
ExecStart=/bin/sh -c 'mount -t ext4 /dev/vdb /mnt && exec sh /mnt/usr/src/plugind/tests/vm/inside/run.sh'
ExecStopPost=/bin/systemctl --no-block poweroff
""",
}

MASKED = (
    *("modprobe@.service", "systemd-binfmt.service", "e2scrub_reap.service", "systemd-pstore.service"),
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer"),
)
"""What nothing here needs, and what takes seconds of an emulated processor."""
COLDPLUG = """\
[Service]
ExecStart=
ExecStart=udevadm trigger --type=devices --action=add --subsystem-match=block --subsystem-match=mem
"""
"""Without it udev loads a module for each feature of the processor."""


@dataclass(frozen=True)
class Image:
    """Where its parts lie. `tree` is the root as a folder: plugind is installed into a copy of it."""

    folder: Path

    @property
    def tree(self) -> Path:
        return self.folder / "tree"

    @property
    def root(self) -> Path:
        return self.folder / "root.ext4"

    @property
    def kernel(self) -> Path:
        return next((self.tree / "boot").glob("vmlinuz-*"))

    @property
    def initrd(self) -> Path:
        return next((self.tree / "boot").glob("initrd.img-*"))


@contextlib.contextmanager
def ready() -> Iterator[Image]:
    """The image, made if it is not there; nobody replaces it meanwhile. Raises NotPossibleError."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "/var/cache") / "plugind-test-vm"
    cache.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder = cache / recipe()
    with (cache / "lock").open("w") as lock:
        _wait_for(lock, fcntl.LOCK_SH if folder.exists() else fcntl.LOCK_EX)
        if folder.exists():
            say(f"the image is {folder}")
        else:
            _make(cache, folder)
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield Image(folder)


def recipe() -> str:
    """A name for everything that the image is made of."""
    return hashlib.sha256(Path(__file__).read_bytes() + json.dumps(_requirements()).encode()).hexdigest()[:16]


def _wait_for(lock, kind: int) -> None:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        say("another `make test-vm` uses the cache: waiting for it")
        fcntl.flock(lock, kind)


def _requirements() -> tuple[list[str], list[str]]:
    """What pyproject.toml asks for: to build and run plugind, and to run its tests."""
    described = tomllib.loads((TREE / "pyproject.toml").read_text())
    project = described["project"]
    extras = project["optional-dependencies"]
    ours = [*project["dependencies"], *extras["cli"], *extras["daemon"], *described["build-system"]["requires"]]
    return ours, [line for line in extras["dev"] if _name(line) in TEST_PACKAGES]


def _name(requirement: str) -> str:
    return re.split(r"[<>=!~;\[ ]", requirement, maxsplit=1)[0]


def _make(cache: Path, folder: Path) -> None:
    for old in cache.iterdir():
        if old.is_dir():
            _remove(old)
    log = cache / "log"
    log.unlink(missing_ok=True)
    made = Image(cache / "unfinished")
    made.folder.mkdir(mode=0o755)
    say(f"making an image in {folder}, once (about 1.5 GB; its log is {log})")
    with phase("a Debian from its packages"):
        # In a mount namespace of its own: it mounts this machine's devices in there, and an early end would leave them.
        command = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "mmdebstrap",
            "--variant=minbase",
            "--mode=root",
            f"--include={','.join(PACKAGES)}",
        ]
        run([*command, RELEASE, made.tree], log)
    with phase("Python packages"):
        _python_packages(made.tree, log)
    _configure(made.tree)
    with phase("its file system"):
        run(["mke2fs", "-q", "-t", "ext4", "-d", made.tree, made.root, SIZE], log)
    made.folder.rename(folder)


def _remove(folder: Path) -> None:
    if f" {folder}/" in Path("/proc/self/mounts").read_text():
        raise NotPossibleError(f"something is mounted below {folder}: unmount it, and try again")
    shutil.rmtree(folder)


def _python_packages(tree: Path, log: Path) -> None:
    """Fetched by this checkout's pip, as its owner configured it, for the other interpreter."""
    ours, for_tests = _requirements()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    foreign = ["--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON}"]
    foreign += [f"--platform={name}" for name in PLATFORMS]
    wheels = tree / WHEELS
    wanted = [*(line for line in ours if _name(line) != COMPILED), "setuptools", "wheel"]
    run([*pip, "download", *foreign, "--dest", wheels, *wanted], log)
    (source,) = [line for line in ours if _name(line) == COMPILED]
    run([*pip, "download", "--no-deps", f"--no-binary={COMPILED}", "--dest", wheels, source], log)
    run([*pip, "install", *foreign, "--no-compile", "--target", tree / TEST_FOLDER, *for_tests], log)
    inside = f"""
        python3 -m venv /tmp/venv
        /tmp/venv/bin/python -m pip wheel --use-pep517 --no-index --find-links /{WHEELS} --no-deps --wheel-dir /{WHEELS} {COMPILED}
        rm -r /tmp/venv /{WHEELS}/*.tar.gz
        python3 -m compileall -q /{TEST_FOLDER}
    """
    run(["chroot", tree, "sh", "-ec", inside], log, PATH="/usr/bin:/usr/sbin:/bin:/sbin", LC_ALL="C.UTF-8")


def _configure(tree: Path) -> None:
    units = tree / "etc/systemd/system"
    for name, text in UNITS.items():
        (units / name).write_text(text)
    for name in MASKED:
        (units / name).symlink_to("/dev/null")
    (units / "systemd-udev-trigger.service.d").mkdir()
    (units / "systemd-udev-trigger.service.d/few.conf").write_text(COLDPLUG)
    (tree / "etc/fstab").write_text("/dev/vda / ext4 defaults,noatime 0 0\n")
    (tree / "etc/hostname").write_text("plugind-test\n")
    (tree / "etc/hosts").write_text("127.0.0.1 localhost plugind-test\n")
