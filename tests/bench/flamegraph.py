"""make flamegraph: the front under ten seconds of Run by 16 callers, seen by py-spy: a picture, and its top in words."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.plugins import ECHO, write_plugin  # noqa: E402
from tests.bench.worker import Worker  # noqa: E402
from tests.support.daemon import Daemon  # noqa: E402

RATE = 200
"""Looks a second."""
PROCESSES, THREADS = 2, 8
TOP = 25


def self_times(raw: Iterable[str]) -> list[tuple[str, float]]:
    """Share of all samples in which a function itself was at work, most first; lines of a function together. Pure.

    `raw` is py-spy's raw format: frames from outside to inside with `;` between them, a space, and a count.
    """
    counts: Counter[str] = Counter()
    for line in raw:
        stack, _, count = line.strip().rpartition(" ")
        if stack and count.isdigit():
            counts[function_of(stack.rpartition(";")[2])] += int(count)
    total = counts.total() or 1
    return [(name, count / total) for name, count in counts.most_common()]


def function_of(frame: str) -> str:
    """`name (path:12)` without the line, and no more of the path than its end says. Pure."""
    name, _, place = frame.partition(" (")
    path = place.rstrip(")").rpartition(":")[0] or place.rstrip(")")
    return f"{name} ({'/'.join(path.split('/')[-2:])})" if path else name


def record(pid: int, seconds: float, output: Path, *options: str) -> None:
    """Look at a process. Raises CalledProcessError."""
    tool = str(Path(sys.executable).with_name("py-spy"))
    look = ("record", "--pid", str(pid), "--rate", str(RATE), "--duration", f"{seconds:.0f}", "--output", str(output))
    subprocess.run([tool, *look, *options], check=True, capture_output=True, text=True)


def raw_record(pid: int, seconds: float, *options: str) -> list[str]:
    """The lines of py-spy's raw format. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory(prefix="plugind-bench-") as folder:
        raw = Path(folder, "raw")
        record(pid, seconds, raw, "--format", "raw", *options)
        return raw.read_text().splitlines()


def tell(title: str, raw: list[str], most: int) -> None:
    """The functions at the top."""
    print(title)
    for name, share in self_times(raw)[:most]:
        print(f"{share:7.1%}  {name}")


def main() -> int:
    """0: the picture is there; 1: py-spy is not, or could not look."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--output", type=Path, default=ROOT / "flamegraph.svg")
    options = parser.parse_args()
    if not shutil.which(Path(sys.executable).with_name("py-spy")):
        print("flamegraph: py-spy is not installed: make flamegraph installs it", file=sys.stderr)
        return 1
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="plugind-bench-")))
        daemon = stack.enter_context(Daemon())
        daemon.install(write_plugin(folder, ECHO))
        callers = [stack.enter_context(Worker("caller", str(daemon.socket))) for _ in range(PROCESSES)]
        for caller in callers:
            caller.tell("load", threads=THREADS, seconds=3 * options.seconds + 6)
        try:
            # One after the other: several looks at once would stop the process several times as often.
            pid = daemon.process.pid
            held = raw_record(pid, options.seconds, "--gil")
            everything = raw_record(pid, options.seconds)
            record(pid, options.seconds, options.output)
        except subprocess.CalledProcessError as error:
            print(f"flamegraph: py-spy could not look: {error.stderr.strip()[-300:]}", file=sys.stderr)
            return 1
        for caller in callers:
            caller.hear()
    load = f"{options.seconds:.0f} s of Run by {PROCESSES * THREADS} callers"
    tell(f"the front, {load}: own time by function, of what held the interpreter's lock", held, TOP)
    tell("the same of all threads, also without the lock and while they wait", everything, TOP // 2)
    print(f"written: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
