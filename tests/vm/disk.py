"""The machine's second disk, made anew each time: the code under test, and plugind as packaging/install.sh installs it."""

from __future__ import annotations

import shlex
from pathlib import Path

from tests.vm.image import TREE, WHEELS, Image
from tests.vm.told import phase, run

HERE = Path(__file__).parent


def make_disk(system: Image, work: Path, arguments: list[str]) -> Path:
    """`arguments` are pytest's; none: what tests/vm/inside/run.sh chooses. Raises NotPossibleError."""
    disk = work / "disk.ext4"
    chosen = work / "arguments"
    chosen.write_text(" ".join(map(shlex.quote, arguments)))
    command = [HERE / "install.sh", system.tree, TREE, disk, f"/{WHEELS}", chosen]
    with phase("installing this checkout"):
        run(["unshare", "--mount", "--propagation", "private", *command], work / "install.log")
    return disk
