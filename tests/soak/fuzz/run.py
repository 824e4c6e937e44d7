"""Every target, one after the other: python -m tests.soak.fuzz.run [--executions N] [--corpus FOLDER] [TARGET ...].

N is for all of them together, and shared out by how long one execution takes. For each it prints executions, executions
a second, the corpus and crashes. What crashed lies in CORPUS/NAME/crash-…; `python -m tests.soak.fuzz.one NAME FILE`
shows it again. Ends with 1 when anything did.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.soak.fuzz.target import Target
from tests.soak.fuzz.targets import TARGETS

RSS_LIMIT_MB = 768
SLOWEST_S = 10
"""An input that takes longer is a finding."""
ARTIFACTS = ("crash-", "oom-", "timeout-", "leak-")


@dataclass(frozen=True)
class Result:
    """What became of one target."""

    name: str
    executions: int
    seconds: float
    corpus: int
    crashes: list[Path]
    peak_mb: int
    code: int
    said: str

    def line(self) -> str:
        rate = self.executions / self.seconds if self.seconds else 0
        return (
            f"{self.name:20} {self.executions:>10} executions {rate:>8.0f}/s  corpus {self.corpus:>5}  "
            f"peak {self.peak_mb:>4} MB  crashes {len(self.crashes)}"
        )


def fuzz(target: Target, executions: int, folder: Path, seed: int) -> Result:
    """So many executions of one target, or fewer when one of them crashes."""
    corpus = folder / target.name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(data)
    words = folder / target.name / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words or (b"\n",)))
    command = [
        sys.executable, "-m", "tests.soak.fuzz.one", target.name, str(corpus), f"-dict={words}",
        f"-runs={executions}", f"-max_len={target.max_len}", f"-rss_limit_mb={RSS_LIMIT_MB}", f"-timeout={SLOWEST_S}",
        f"-artifact_prefix={folder / target.name}/", f"-seed={seed}", "-print_final_stats=1", "-verbosity=1",
        *(["-close_fd_mask=2"] if target.logs else []),
    ]  # fmt: skip
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="plugind-fuzz-") as scratch:  # libFuzzer ends without Python's own end
        done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "TMPDIR": scratch})
    said = (done.stdout + done.stderr).decode(errors="replace")
    return Result(
        name=target.name,
        executions=_stat(said, "number_of_executed_units"),
        seconds=time.monotonic() - began,
        corpus=len(list(corpus.iterdir())),
        crashes=sorted(path for path in (folder / target.name).iterdir() if path.name.startswith(ARTIFACTS)),
        peak_mb=_stat(said, "peak_rss_mb"),
        code=done.returncode,
        said=said,
    )


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _stat(said: str, name: str) -> int:
    found = re.search(rf"stat::{name}:\s+(\d+)", said)
    return int(found[1]) if found else 0


def run_all(names: list[str], executions: int, folder: Path, seed: int) -> list[Result]:
    """All of them, each told when it is done."""
    chosen = [TARGETS[name] for name in names]
    shares = sum(target.share for target in chosen)
    results = []
    for target in chosen:
        result = fuzz(target, max(1, executions * target.share // shares), folder, seed)
        print(result.line(), flush=True)
        if result.code or result.crashes:
            print(result.said[-4000:], flush=True)
        results.append(result)
    total = sum(result.executions for result in results)
    crashes = sum(len(result.crashes) for result in results)
    print(f"{'all':20} {total:>10} executions, {crashes} crashes, seed {seed}", flush=True)
    return results


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser()
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], metavar="TARGET")
    parser.add_argument("--executions", type=int, default=10_000_000)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 2**31)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="plugind-fuzz-") as temporary:
        folder = options.corpus or Path(temporary)
        results = run_all(options.targets or list(TARGETS), options.executions, folder, options.seed)
        bad = [result for result in results if result.code or result.crashes]
        if bad and not options.corpus:
            for path in (path for result in bad for path in result.crashes):
                print(f"{path.name}: {path.read_bytes()!r:.2000}", flush=True)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
