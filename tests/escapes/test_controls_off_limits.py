"""Without its limit the attack takes what it wants: processes, memory, inodes, output, CPU time, descriptors.

Rows shown to succeed: 21, 22, 23, 25, 27, 32 and two of our own. A limit that is off is one that lies higher than what
the attack takes, and never none at all: these are real processes on a real machine.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.escapes.controls_off import Case, Try, assert_goes, each_try, ends, held, in_place, off, reports

MIB = 1 << 20
SECONDS = {"wall_ms": 20_000, "cpu_ms": 15_000}


def _rlimit_off(name: str) -> dict[str, Any]:
    return {"rlimits": {"limits": {name: None}}}


def _scratch(**values: int) -> dict[str, Any]:
    return {"scratch": values}


CASES = (
    Case(
        "21",
        "a fork bomb",
        "exhaustion.fork_bomb",
        (
            in_place(ends("pids_exceeded", "more than 16"), limits={"pids": 16}),
            # The kernel refused the 257th, so more than 200 were there.
            off("the limit of 16 processes: 256", ends("pids_exceeded", "more than 256"), limits={"pids": 256}),
        ),
        tier=1,
        limits=SECONDS,
    ),
    Case(
        "22",
        "128 MiB by eight processes of 16",
        "exhaustion.memory_of_many",
        (
            in_place(ends("out_of_memory"), limits={"memory_bytes": 64 * MIB}),
            off(
                "the limit of 64 MiB: 256",
                lambda went: went.outcome == "timeout" and went.peak_mib > 128,  # they sleep with what they have
                limits={"memory_bytes": 256 * MIB},
            ),
        ),
        {"children": 8, "each_mib": 16},
        limits={"wall_ms": 6000, "cpu_ms": 5000},
    ),
    Case(
        "23",
        "200 MiB in memfds",
        "exhaustion.memory_by",
        (
            in_place(ends("out_of_memory"), limits={"memory_bytes": 64 * MIB}),
            off(
                "the limit of 64 MiB: 256",
                lambda went: went.value == {"mib": 200, "error": ""} and went.peak_mib > 200,
                limits={"memory_bytes": 256 * MIB},
            ),
        ),
        {"way": "memfd", "mib": 200},
        limits=SECONDS,
    ),
    Case(
        "23",
        "100 MiB in /tmp",
        "exhaustion.memory_by",
        (
            in_place(reports(lambda got: got["error"] == "ENOSPC")),
            held(
                "the size of the tmpfs: 128 MiB",
                ends("out_of_memory"),
                "the memory of the group",
                changed=_scratch(size_bytes=128 * MIB),
                limits={"memory_bytes": 64 * MIB},
            ),
            off(
                "the size of the tmpfs: 128 MiB",
                lambda went: went.value == {"mib": 100, "error": ""} and went.peak_mib > 100,
                changed=_scratch(size_bytes=128 * MIB),
            ),
        ),
        {"way": "tmpfs", "mib": 100},
        tier=1,
        limits=SECONDS,
    ),
    Case(
        "25",
        "9,000 files",
        "exhaustion.inodes",
        (
            in_place(reports(lambda got: sum(got["made"].values()) <= 2 * 1024)),
            off(
                "nr_inodes: 5,000 each",
                reports(lambda got: sum(got["made"].values()) > 9000),
                changed=_scratch(inodes=5000),
            ),
        ),
        limits=SECONDS,
    ),
    Case(
        "27",
        "8 MiB on standard output",
        "exhaustion.flood_output",
        (
            in_place(ends("output_limit", "standard output")),
            off(
                "stdio_bytes: 16 MiB",
                lambda went: went.value == "written" and len(went.result.stdout) == 8 * MIB,
                profile={"stdio_bytes": 16 * MIB},
            ),
        ),
        {"descriptor": 1, "mib": 8},
        limits=SECONDS,
    ),
    Case(
        "32",
        "CPU time by children that end at once",
        "exhaustion.burn_briefly",
        (
            in_place(ends("cpu_exceeded"), limits={"cpu_ms": 300}),
            off(
                "the budget of 300 ms: 15 s",
                lambda went: went.value == "done" and went.result.usage.cpu_ms > 300,
                limits={"cpu_ms": 15_000},
            ),
        ),
        {"seconds": 5},
        limits={"wall_ms": 20_000},
    ),
    Case(
        "+",
        "a sparse file of exabytes",
        "exhaustion.sparse_files",
        (
            in_place(reports(lambda got: got["size"] <= 64 * MIB)),
            off("RLIMIT_FSIZE", reports(lambda got: got["size"] == 1 << 62), changed=_rlimit_off("FSIZE")),
        ),
    ),
    Case(
        "+",
        "a thousand descriptors",
        "descriptors.exhaust",
        (
            in_place(reports(lambda got: got["pipes"][0] <= 256)),
            off(
                "RLIMIT_NOFILE: 1,024",
                reports(lambda got: got["pipes"][0] > 1000),
                changed={"rlimits": {"limits": {"NOFILE": 1024}}},
            ),
        ),
    ),
)


@pytest.mark.parametrize(("case", "given"), each_try(CASES))
async def test_limits(case: Case, given: Try) -> None:
    await assert_goes(case, given)
