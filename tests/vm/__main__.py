"""`make test-vm`: tests on the unified cgroup hierarchy, in a virtual machine that is emulated in software.

Prints each phase, then what the tests print; the exit status is pytest's. Arguments go to pytest instead of the usual choice of tests.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.vm import image
from tests.vm.boot import Drives, boot
from tests.vm.disk import make_disk
from tests.vm.told import NotPossibleError, say

TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "chroot": "coreutils",
    "unshare": "util-linux",
}
NOT_POSSIBLE = 1
"""Also where nobody asked for it in CI: who types `make test-vm` wants to know."""


def check_machine() -> None:
    """Raises NotPossibleError naming everything that is missing, and how to get it."""
    os.environ["PATH"] += os.pathsep + "/usr/sbin" + os.pathsep + "/sbin"
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if missing:
        raise NotPossibleError(f"missing: apt-get install {' '.join(missing)} (`make setup` does)")
    if platform.machine() != "x86_64":
        raise NotPossibleError(f"expected an x86_64 machine, got {platform.machine()}")
    if os.geteuid() != 0:
        raise NotPossibleError("needs root: `make test-vm` asks for it")


def main(arguments: list[str]) -> int:
    """Make what is missing, boot, and answer with pytest's exit status."""
    began = time.monotonic()
    try:
        check_machine()
        with image.ready() as system, tempfile.TemporaryDirectory(prefix="plugind-vm-") as work:
            disk = make_disk(system, Path(work), arguments)
            status = boot(Drives(system.kernel, system.initrd, system.root, disk), Path(work) / "console.log")
    except NotPossibleError as error:
        print(f"\n*** NOT TESTED on the unified cgroup hierarchy: {error}\n", file=sys.stderr, flush=True)
        return NOT_POSSIBLE
    say(f"pytest's exit status is {status}; {time.monotonic() - began:.0f} s in all")
    return status


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # an end in order: nothing is left behind
    sys.exit(main(sys.argv[1:]))
