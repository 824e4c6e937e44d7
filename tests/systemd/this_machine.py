"""The machine that the tests themselves run on, in place of a container: it was booted for them, and is thrown away after them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Self

from tests.support.pace import stretched
from tests.systemd.container import HERE, Container, Done
from tests.systemd.inside import agent


class ThisMachine(Container):
    """Needs plugind installed here by packaging/install.sh, and never a machine that somebody uses: its services are restarted."""

    def __init__(self) -> None:
        self.share = Path("/mnt/t")  # where the container has it too

    def __enter__(self) -> Self:
        shutil.copytree(HERE / "inside", self.share)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.share)

    def do(self, *argv: str, user: str = "root", text: str = "", timeout_s: float = 60) -> Done:
        return Done(**agent.run(argv, user, text, stretched(timeout_s)))
