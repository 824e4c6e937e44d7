"""Plugins that are programs (runtime "exec") in real jails: what they get, what they give, and every way to end."""

from __future__ import annotations

import json
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugind_client import LimitExceeded, OutputInvalid, PluginFailed
from tests.escapes.box import Box
from tests.support.daemon import Daemon, profiles_with
from tests.support.pace import stretched
from tests.support.plugins import folder, program
from tests.support.programs import ECHO, compiled

pytestmark = [pytest.mark.root, pytest.mark.alone]
EXAMPLE = Path(__file__).parents[2] / "client/examples/plugins/word_count"
SHELL_ECHO = """#!/bin/sh
text=$(cat)
echo "read ${#text} bytes" >&2
printf '{"input": %s, "stage": "%s", "plan_id": "%s", "place": "%s", "arguments": %d, "name": "%s", "home": "%s"}' \
    "$text" "$PLUGIND_STAGE" "$PLUGIND_PLAN_ID" "$PWD" $(($# + 1)) "$0" "$HOME"
"""
COUNT = """#!/bin/sh
# How often it ran in this instance; an input of 13 fails, one of 14 leaves a process behind that would count too.
read -r number
ran=$(($(cat ran 2>/dev/null || echo 0) + 1))
echo $ran > ran
[ "$number" = 14 ] && (sleep 0.3; echo 99 > ran) &
[ "$number" = 13 ] && exit 13
echo $ran
"""


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """Tier 1 as shipped, but that instances wait for runs also here: none is to wait for a program."""
    with tempfile.TemporaryDirectory(prefix="plugind-test-") as parent:
        Path(parent).chmod(0o755)
        config = Path(parent, "plugind.toml")
        config.write_text(f'profiles = "{profiles_with(Path(parent), 4)}"\n')
        with Daemon("--config", str(config)) as daemon:
            yield Box(daemon, 1)


def installed(box: Box, parent: Path, name: str, content: str | bytes, **named: str) -> str:
    return box.install(program(parent, name, content, **named))


@pytest.mark.parametrize("kind", ["shell", "dynamic", "static"])
def test_a_program_gets_its_input_and_gives_its_output(box: Box, tmp_path: Path, kind: str) -> None:
    contents = {
        "shell": lambda: SHELL_ECHO,
        "dynamic": lambda: compiled(ECHO),
        "static": lambda: compiled(ECHO, "-static"),
    }
    name = installed(box, tmp_path, f"echo_{kind}", contents[kind]())
    ran = box.ran(box.client.execute(name, {"a": [1, "ü"]}, stage="durations", plan_id="plan $(7)"))
    assert ran.value() == {
        "input": {"a": [1, "ü"]},
        "stage": "durations",
        "plan_id": "plan $(7)",
        "place": "/tmp",
        "arguments": 1,
        "name": f"/plugin/bin/{name}",
        "home": "/tmp",
    }
    assert re.fullmatch(r"read \d+ bytes\n", ran.result.stderr)
    assert ran.result.stdout == "", "it is the result"
    assert (ran.record["mode"], ran.record["imported"], ran.record["violations"]) == ("run", -1, [])
    assert ran.result.usage.wall_ms < stretched(1000)
    assert ran.result.usage.memory_peak_bytes > 0


ENDS = {
    "exit_3": ("exit 3", "failed", "the program ended with exit status 3"),
    "by_signal": ("kill -SEGV $$", "failed", "the program died by SIGSEGV"),
    "by_sigkill": ("kill -KILL $$", "failed", "the program died by SIGKILL"),
    "output_and_exit": ("echo 1; exit 1", "failed", "the program ended with exit status 1"),
    "timeout": ("sleep 30", "timeout", "wall clock: more than 1500 ms"),
    "cpu": ("while :; do :; done", "cpu_exceeded", "CPU time: more than 700 ms over all its processes"),
    "children_cpu": (
        "(while :; do :; done) & (while :; do :; done) & wait",
        "cpu_exceeded",
        "CPU time: more than 700 ms over all its processes",
    ),
    "memory": ("tail /dev/zero", "out_of_memory", "memory: more than 33554432 bytes"),
    "pids": ("for i in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done; wait", "pids_exceeded", "processes and threads: more than 6"),
    "output": ("exec cat /dev/zero", "output_limit", "output: result of more than 4096 bytes"),
    "stderr": ("cat /dev/zero >&2", "output_limit", "output: standard error of more than 1048576 bytes"),
    "nothing": ("exit 0", "output_invalid", "output: line 1 column 1: expecting value"),
    "two_values": ("echo 1 2", "output_invalid", "output: line 1 column 3"),
    "no_utf_8": (r"printf '\"\377\"'", "output_invalid", "output: "),
    "not_a_number": ("echo NaN", "output_invalid", "output: NaN is not JSON"),
    "closed_output": ("exec >&-; sleep 0.2", "output_invalid", "output: line 1 column 1: expecting value"),
}  # fmt: skip
LIMITS = "wall_ms = 1500\ncpu_ms = 700\nmemory_bytes = 33554432\npids = 6\noutput_bytes = 4096"


@pytest.mark.parametrize("name", ENDS)
def test_every_end_has_its_outcome(box: Box, tmp_path: Path, name: str) -> None:
    code, outcome, words = ENDS[name]
    installed(box, tmp_path, name, f"#!/bin/sh\necho told >&2\n{code}\n", limits=LIMITS)
    ran = box.run_plugin(name, 1)
    assert (ran.outcome, words in ran.result.outcome_detail) == (outcome, True), ran.why()
    assert ran.result.stderr.startswith("told\n")
    assert ran.result.stdout == ""
    assert ran.result.output is None
    if outcome == "failed":
        assert ran.result.error is not None
        assert (ran.result.error.type, ran.result.error.message) == ("ProgramFailed", words)
    assert box.left() == []


def foreign(content: bytes) -> bytes:
    """The same program for another machine: e_machine of its header, elf(5)."""
    assert content[:4] == b"\x7fELF"
    return content[:18] + (0x2A).to_bytes(2, "little") + content[20:]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("without_a_first_line", b"echo 1\n", "Exec format error: neither a program of this machine's kind"),
        ("foreign", lambda: foreign(compiled(ECHO)), "Exec format error: neither a program of this machine's kind"),
        ("no_such_interpreter", b"#!/no/such\n", "No such file or directory: what it names as its interpreter"),
        ("empty", b"", "Exec format error"),
    ],
)
def test_what_cannot_be_executed_is_told_why(box: Box, tmp_path: Path, name: str, content, words: str) -> None:
    installed(box, tmp_path, name, content if isinstance(content, bytes) else content())
    ran = box.run_plugin(name, 1)
    assert ran.outcome == "failed", ran.why()
    assert f"/plugin/bin/{name} cannot be executed: {words}" in ran.result.outcome_detail


def test_large_inputs_and_outputs_come_through(box: Box, tmp_path: Path) -> None:
    name = installed(box, tmp_path, "cat_large", "#!/bin/sh\nexec cat\n", limits="output_bytes = 8388608")
    value = "x" * 6_000_000
    assert box.client.run(name, value).output == value
    deaf = installed(box, tmp_path, "deaf", "#!/bin/sh\necho 1\n")
    assert box.client.run(deaf, value).output == 1


def test_the_usual_paths_of_its_streams_can_be_opened(box: Box, tmp_path: Path) -> None:
    name = installed(box, tmp_path, "by_path", "#!/bin/sh\ncat < /dev/stdin > /dev/stdout\n")
    assert box.client.run(name, [1]).output == [1]


def test_it_can_write_scratch_and_execute_what_it_wrote(box: Box, tmp_path: Path) -> None:
    name = installed(
        box, tmp_path, "unpacks", "#!/bin/sh\nprintf '#!/bin/sh\\necho 7\\n' > tool; chmod +x tool; ./tool\n"
    )
    assert box.client.run(name, 1).output == 7


def test_a_map_runs_it_once_for_each_input(box: Box, tmp_path: Path) -> None:
    name = installed(box, tmp_path, "counts", COUNT)
    result = box.client.map(name, [1, 14, 13, 5, 6])
    assert [result[place] for place in (0, 1, 3, 4)] == [1, 2, 4, 5], "what the second left behind was killed"
    assert {place: type(error) for place, error in result.errors.items()} == {2: PluginFailed}
    with pytest.raises(PluginFailed) as caught:
        _ = result[2]
    assert caught.value.message == "the program ended with exit status 13"
    assert box.client.run(name, 1).output == 1, "another run is another instance"


def test_outputs_of_a_map_are_each_held_against_the_schema(box: Box, tmp_path: Path) -> None:
    name = installed(box, tmp_path, "as_it_is", "#!/bin/sh\nread -r line; eval echo $line\n")
    result = box.client.map(name, ["1", "nan", "2"])
    assert (result[0], result[2]) == (1, 2)
    assert isinstance(result.errors[1], OutputInvalid)


def test_a_session_runs_it_once_for_each_input(box: Box, tmp_path: Path) -> None:
    name = installed(box, tmp_path, "counts_on", COUNT)
    with box.client.session(name) as session:
        assert [session.call(number) for number in (1, 14, 6)] == [1, 2, 3]
        with pytest.raises(PluginFailed):
            session.call(13)
        assert session.call(7) == 5
    assert session.result is not None
    assert session.result.answered == 5
    record = box.ran(session.result.run).record
    assert (record["mode"], record["items"], record["items_failed"]) == ("session", 5, 1)


def test_an_input_of_a_session_that_writes_too_much_ends_it(box: Box, tmp_path: Path) -> None:
    name = installed(
        box, tmp_path, "floods", "#!/bin/sh\nread -r n\n[ $n = 1 ] && exec cat /dev/zero\necho 1\n", limits=LIMITS
    )
    with pytest.raises(LimitExceeded), box.client.session(name) as session:
        assert session.call(0) == 1
        session.call(1)


def test_a_kill_ends_it_with_all_that_it_started(box: Box, tmp_path: Path) -> None:
    name = installed(box, tmp_path, "goes_on", "#!/bin/sh\n(sleep 60) &\nsleep 60\n")
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(box.client.execute(name, 1).outcome))
    thread.start()
    deadline = time.monotonic() + stretched(10)
    while len(box.instances()) < 1 or not box.client.runs():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    box.client.kill(name, reason="a test")
    thread.join(stretched(10))
    box.client.lift_kill(name, reason="a test")
    assert outcomes == ["killed"]
    assert box.left() == []


def test_none_waits_for_a_program(box: Box, tmp_path: Path) -> None:
    name = installed(box, tmp_path, "not_parked", "#!/bin/sh\ncat\n")
    for _ in range(3):
        box.client.run(name, 1)
    ahead = box.install(folder(tmp_path, "parked"))
    box.client.run(ahead, 1)
    deadline = time.monotonic() + stretched(10)
    while "parked" not in imported(box):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert imported(box) == {"parked"}


def imported(box: Box) -> set[str]:
    """Plugins of which instances were imported ahead."""
    records = box.client.audit.query(events=("INTENT",), limit=1000).records
    return {record.fields["plugin"] for record in records if record.fields["mode"] == "import"}


def test_tier_2_denies_it_before_it_runs(box: Box, tmp_path: Path) -> None:
    tier2 = Box(box.daemon, 2)
    name = installed(tier2, tmp_path, "unsigned", "#!/bin/sh\ncat\n")
    denied = tier2.client.execute(name, 1)
    (reason,) = denied.reasons
    assert (denied.decision, reason.code, reason.rule) == ("deny", "TIER_NOT_ALLOWED", "tier.2.runtime")
    assert "exec_allowed = true in tier2.toml" in reason.remedy
    shown = box.daemon.command("policy", "explain", name)
    assert "tier.2.runtime" in shown.stdout + shown.stderr


def test_tier_2_runs_it_where_its_profile_lets_it(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="plugind-test-") as parent:
        Path(parent).chmod(0o755)
        profiles = profiles_with(Path(parent), 0)
        tier2 = profiles / "tier2.toml"
        tier2.write_text(tier2.read_text().replace("exec_allowed = false", "exec_allowed = true"))
        config = Path(parent, "plugind.toml")
        config.write_text(f'profiles = "{profiles}"\n')
        with Daemon("--config", str(config)) as daemon:
            allowed = Box(daemon, 2)
            name = installed(allowed, tmp_path, "unsigned", SHELL_ECHO)
            ran = allowed.run_plugin(name, 5)
            assert ran.value()["input"] == 5
            assert ran.record["tier"] == 2


def test_orphans_are_reaped_while_it_runs(box: Box, tmp_path: Path) -> None:
    code = "#!/bin/sh\ni=0\nwhile [ $i -lt 100 ]; do (true &); i=$((i + 1)); done\necho $i\n"
    name = installed(box, tmp_path, "orphans", code, limits="pids = 24")
    assert box.run_plugin(name, 1).value() == 100


@pytest.mark.parametrize("made", ["example", "new"])
def test_an_author_tries_one_and_runs_it(box: Box, tmp_path: Path, made: str) -> None:
    target = EXAMPLE
    if made == "new":
        target = tmp_path / "counter"
        assert box.daemon.command("new", "counter", "--runtime", "exec", "--dir", tmp_path).returncode == 0
    refused = box.daemon.command("try", target)
    assert (refused.returncode, "tier.2.runtime" in refused.stderr) == (3, True)
    tried = box.daemon.command("try", target, "--tier", "1")
    assert tried.returncode == 0, tried.stderr
    assert "the output is as expected" in tried.stderr
    stage = ["--stage", "report"]
    ran = box.daemon.command("run", target.name, "--input", "-", "--json", *stage, text='"one two\\nthree"')
    answer = json.loads(ran.stdout)
    assert (answer["outcome"], answer["output"], answer["stdout"]) == ("ok", {"words": 3}, "")
