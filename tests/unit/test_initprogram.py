"""The program that init becomes, as a process of its own."""

from __future__ import annotations

import subprocess

import pytest

from plugind.linux import constants
from plugind.sandbox import initprogram


def test_it_runs_here_and_ends_where_there_is_no_zygote(tmp_path) -> None:
    (tmp_path / "runtime").mkdir()
    initprogram.place(tmp_path)
    path = tmp_path / initprogram.PATH.lstrip("/")
    assert path.stat().st_mode & 0o777 == 0o111
    assert subprocess.run(["anything"], executable=path, env={}, timeout=10, check=False).returncode == 0


def test_there_is_one_for_each_architecture_that_plugind_knows() -> None:
    assert set(initprogram._MACHINES) == set(constants._NUMBERS)
    assert len({initprogram.program(machine) for machine in constants._NUMBERS}) == 2
    with pytest.raises(OSError, match="plugind runs on x86_64 and aarch64, this is riscv64"):
        initprogram.program("riscv64")


@pytest.mark.parametrize("machine", sorted(initprogram._MACHINES))
def test_the_file_says_what_it_holds(machine: str) -> None:
    """As the kernel reads it: one segment, all of the file, in which the code is. Source: elf(5)."""
    data = initprogram.program(machine)
    number, code = initprogram._MACHINES[machine]
    assert data.startswith(b"\x7fELF\x02\x01\x01" + bytes(9))
    assert int.from_bytes(data[18:20], "little") == number
    entry, segments = (int.from_bytes(data[at : at + 8], "little") for at in (24, 32))
    kind, flags = (int.from_bytes(data[segments + at : segments + at + 4], "little") for at in (0, 4))
    begin, address, _, in_file, in_memory, alignment = (
        int.from_bytes(data[segments + at : segments + at + 8], "little") for at in range(8, 56, 8)
    )
    assert (kind, flags) == (1, 5), "loaded; to be read and executed, and not written"
    assert (begin, in_file, in_memory) == (0, len(data), len(data))
    assert address % alignment == 0
    assert data[entry - address :] == code
