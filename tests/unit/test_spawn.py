"""A launcher that cannot start says so, cleans up, and never comes back into the code of the one that started it."""

from __future__ import annotations

import subprocess
import sys

START = """
import os, sys
from pathlib import Path
from plugind.sandbox import spawn
folder = Path(sys.argv[1])
config = spawn.LauncherConfig(folder, folder / "none", 0, 0, unlink=(folder / "folder", folder / "file", folder / "missing"))
sock, pid = spawn.start_launcher(config)
print("back", sock.recv(100), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def test_a_launcher_without_profiles(tmp_path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    shown = subprocess.run(
        [sys.executable, "-c", START, tmp_path], capture_output=True, text=True, timeout=20, check=False
    )
    assert shown.stdout == "back b'' 1\n"
    assert "cannot go on" in shown.stderr
    assert "tier0.toml: the profile of tier 0 cannot be read" in shown.stderr
    assert "folder is left behind" in shown.stderr  # and the others are not
    assert not (tmp_path / "file").exists()
