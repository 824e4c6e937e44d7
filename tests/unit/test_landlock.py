"""Landlock on this kernel, in processes of its own; where the kernel has none the tests say so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from plugind.linux import landlock

TRY = """
import os, socket, sys
from plugind.linux import constants as c, landlock, syscalls
folder, abi = sys.argv[1], int(sys.argv[2])
for name in ("read", "write", "none"):
    os.makedirs(f"{folder}/{name}/below")
    open(f"{folder}/{name}/file", "w").close()
os.symlink(f"{folder}/none/file", f"{folder}/read/link")
hold = os.open(f"{folder}/none", os.O_RDONLY)
syscalls.prctl(c.PR_SET_NO_NEW_PRIVS, 1)
landlock.restrict(abi, {"read": [f"{folder}/read"], "write": [f"{folder}/write"], "execute": ["/usr"]})
def works(what, *arguments, **named):
    try:
        result = what(*arguments, **named)
    except OSError as error:
        return error.errno
    if isinstance(result, int) and result > 2:
        os.close(result)
    return 0
print([
    works(os.open, f"{folder}/read/file", os.O_RDONLY),
    works(os.open, f"{folder}/read/file", os.O_WRONLY),
    works(os.listdir, f"{folder}/read/below"),
    works(os.mkdir, f"{folder}/read/new"),
    works(os.unlink, f"{folder}/read/file"),
    works(os.open, f"{folder}/write/new", os.O_RDWR | os.O_CREAT),
    works(os.rename, f"{folder}/write/new", f"{folder}/write/below/new"),
    works(os.symlink, "x", f"{folder}/write/link"),
    works(os.mkfifo, f"{folder}/write/fifo"),
    works(os.open, f"{folder}/none/file", os.O_RDONLY),
    works(os.open, f"{folder}/read/link", os.O_RDONLY),
    works(os.open, f"{folder}/read/../none/file", os.O_RDONLY),
    works(os.open, "file", os.O_RDONLY, dir_fd=hold),
    works(os.listdir, f"{folder}/none"),
    works(os.open, "/etc/passwd", os.O_RDONLY),
])
"""
EACCES, EXDEV = 13, 18
EXPECTED = [0, EACCES, 0, EACCES, EACCES, 0, 0, 0, EACCES, EACCES, EACCES, EACCES, EACCES, EACCES, EACCES]


@pytest.mark.parametrize("abi", range(1, 8))
def test_only_what_the_rules_name_is_possible(tmp_path, abi) -> None:
    if landlock.abi() < abi:
        pytest.skip(f"NOT TESTED: this kernel's Landlock is ABI {landlock.abi()}")
    done = subprocess.run(
        [sys.executable, "-c", TRY, str(tmp_path), str(abi)], capture_output=True, text=True, check=False
    )
    expected = list(EXPECTED)
    if abi == 1:
        expected[6] = EXDEV  # the first ABI knows no rename to another folder
    assert done.stdout.strip() == str(expected), done.stderr


FILE = """
import os, sys
from plugind.linux import constants as c, landlock, syscalls
first, second = sys.argv[1:]
syscalls.prctl(c.PR_SET_NO_NEW_PRIVS, 1)
landlock.restrict(landlock.abi(), {"execute": [first], "write": [second]})
open(first).close()
open(second, "w").close()
try:
    open(first, "w")
except PermissionError:
    print("refused")
"""


@pytest.mark.skipif(landlock.abi() == 0, reason="NOT TESTED: this kernel has no Landlock")
def test_a_rule_may_name_a_file(tmp_path) -> None:
    names = [str(tmp_path / name) for name in ("first", "second")]
    for name in names:
        Path(name).write_text("x")
    done = subprocess.run([sys.executable, "-c", FILE, *names], capture_output=True, text=True, check=False)
    assert done.stdout == "refused\n", done.stderr


def test_a_path_that_is_not_there_is_an_error_and_nothing_is_restricted(tmp_path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        landlock.restrict(max(landlock.abi(), 1), {"read": [str(tmp_path / "nowhere")]})
    assert (tmp_path / "x").write_text("still writable") == 14
