"""A program (runtime "exec") against what executes it: its result, its memory, its end, and the run's."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.escapes.attack import OWN, attack
from tests.escapes.box import Box, Ran
from tests.support.jail import descendants
from tests.support.pace import stretched
from tests.support.plugins import program
from tests.support.programs import compiled

SOURCE = Path(__file__).parent / "attacks/program.c"


@pytest.fixture(scope="module")
def hostile(boxes: dict[int, Box]) -> str:
    """The attacks as a program of Tier 1; Tier 2 has none."""
    with tempfile.TemporaryDirectory() as parent:
        return boxes[1].install(program(Path(parent), "hostile_program", compiled(SOURCE), limits="wall_ms = 5000"))


def make(box: Box, hostile: str, attack: str) -> Ran:
    return box.run_plugin(hostile, attack)


def value(box: Box, hostile: str, attack: str) -> dict[str, Any]:
    found = make(box, hostile, attack).value()
    assert isinstance(found, dict)
    return found


@attack(
    2, "a descriptor that leaks into a program", "close on exec: its input, its output, standard error, nothing else"
)
def test_descriptors_of_a_program_are_exactly_three(tier1: Box, hostile: str) -> None:
    found = value(tier1, hostile, "descriptors")
    assert found == {"0": "pipe", "1": "pipe", "2": "pipe"}


@attack(
    45,
    "a program looks for nonce and result pipe in the process that executes it: memory, descriptors, environment",
    "that one is not dumpable; pidfd_getfd and kcmp refused",
)
def test_a_program_sees_nothing_of_what_executes_it(tier1: Box, hostile: str) -> None:
    ran = make(tier1, hostile, "look_at_pid_1")
    found = ran.value()
    assert found.pop("parent") == 1
    assert len(found) == 29
    assert {name: answer for name, answer in found.items() if answer not in ("EACCES", "EPERM")} == {}
    assert ran.tried == {"pidfd_getfd": 1, "kcmp": 1}


@attack(15, "the same by process_vm_readv and ptrace", "dangerous calls end the whole run")
@pytest.mark.parametrize(("how", "call"), [("read_memory", "process_vm_readv"), ("trace", "ptrace")])
def test_a_program_that_reaches_for_memory_ends_the_run(tier1: Box, hostile: str, how: str, call: str) -> None:
    make(tier1, hostile, how).assert_killed_for(call)


@attack(45, "a program writes frames to every descriptor there could be, before its result", "it has no result pipe")
def test_a_program_cannot_write_a_frame(tier1: Box, hostile: str) -> None:
    assert value(tier1, hostile, "forge") == {"written": 0}


@attack(
    OWN,
    "a program sends every signal to what executes it, and to everybody",
    "pid 1 takes none from its own namespace but those that it has handlers for",
)
def test_what_executes_a_program_takes_no_signal_from_it(tier1: Box, hostile: str) -> None:
    others = len(descendants(tier1.daemon.pids[0]))
    assert value(tier1, hostile, "signal_pid_1") == {"group": "done", "parent": 1}
    assert len(descendants(tier1.daemon.pids[0])) >= others - 1
    assert value(tier1, hostile, "wake_pid_1") == {"woken": "done"}


@attack(
    28,
    "processes that a program leaves behind keep its output open and go on to write there",
    "they are killed before its result counts",
)
def test_nothing_of_a_program_outlives_it_or_adds_to_its_result(tier1: Box, hostile: str) -> None:
    ran = make(tier1, hostile, "linger")
    assert ran.outcome in ("ok", "output_invalid"), ran.why()  # they may have been quick enough to break it
    if ran.outcome == "ok":
        assert ran.value() == {"left": "done"}
    assert ran.result.usage.wall_ms < stretched(2000), "nobody waited for them"
    assert tier1.left() == []
    mapped = tier1.client.map(hostile, ["linger", "descriptors", "descriptors"])
    assert mapped[1] == mapped[2] == {"0": "pipe", "1": "pipe", "2": "pipe"}, "nothing of the first was left"


@attack(
    OWN,
    "a program closes its output, goes on, and opens it anew",
    "its output is what came until it ended; it is waited for",
)
def test_a_program_that_closes_its_output_is_waited_for(tier1: Box, hostile: str) -> None:
    ran = make(tier1, hostile, "close_and_go_on")
    assert ran.value() == {"written": "done"}
    assert ran.result.usage.wall_ms >= 200


@attack(
    34,
    "a core dump of a program, which is dumpable again since it was executed",
    "RLIMIT_CORE 1, which nobody may change",
)
def test_a_program_that_crashes_leaves_no_core(tier1: Box, hostile: str) -> None:
    places = [Path("/"), Path.cwd(), tier1.daemon.state]
    before = {path for place in places for path in place.glob("core*")}
    assert value(tier1, hostile, "crash") == {
        "signal": 6,
        "core": 0,
        "soft": 1,
        "hard": 1,
        "raise": "EPERM",
        "lower": "EPERM",
        "pid 1's": "EPERM",
        "files": 0,
    }
    assert {path for place in places for path in place.glob("core*")} == before


@attack(1, "a program overwrites its own file, by name and by its memory", "read-only mount; a private mapping")
def test_a_program_cannot_change_its_file(tier1: Box, hostile: str) -> None:
    mapped = tier1.client.map(hostile, ["overwrite", "overwrite"])
    refused = {name: answer for name, answer in mapped[0].items() if name not in ("memory", "text")}
    assert set(refused) == {"exe", "path", "unlink", "rename"}
    assert set(refused.values()) <= {"EROFS", "ETXTBSY", "EACCES", "EXDEV"}
    assert mapped[0] == mapped[1]
    make(tier1, hostile, "trace").assert_killed_for("ptrace")  # the code that it wrote over is what it was


@attack(
    OWN,
    "a program hands its output round in sockets that outlive it, so that its end never comes",
    "when all processes are gone, what was written is all there is",
)
def test_the_end_of_a_programs_output_is_not_waited_for(tier1: Box, hostile: str) -> None:
    ran = make(tier1, hostile, "pass_output_round")
    assert ran.value() == {"first": "done", "second": "done"}
    assert ran.result.usage.wall_ms < stretched(2000)
