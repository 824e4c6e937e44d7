"""A pipeline as PlanExe's, in a process of its own: `python -m tests.support.luigi_pipeline SOCKET TASKS WORKERS FOLDER`.

Luigi forks a process for each task, and each calls a plugin through the one client that the parent made, and has used,
before the first fork. A task leaves FOLDER/NUMBER.json with what it got; FOLDER/summary.json is the parent's.
"""

import json
import os
import sys
import time
from pathlib import Path

import luigi

from plugind_client import Client, PlugindError

SOCKET, TASKS, WORKERS, FOLDER = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
PLUGIN = "square"
client = Client(SOCKET)


class Stage(luigi.Task):
    """One call."""

    number = luigi.IntParameter()

    def output(self):
        return luigi.LocalTarget(FOLDER / f"{self.number}.json")

    def run(self):
        attempts = FOLDER / f"{self.number}.attempts"
        with attempts.open("a") as file:
            file.write(f"{os.getpid()}\n")
        told = {"pid": os.getpid(), "parent": os.getppid()}
        try:
            result = client.run(PLUGIN, {"number": self.number}, stage="durations", plan_id="plan_1")
            told |= {"output": result.output, "audit_log": result.audit_log}
        except PlugindError as error:
            told |= {"error": error.code, "detail": error.detail}
        with self.output().open("w") as file:
            json.dump(told, file)


class Plan(luigi.WrapperTask):
    """All stages."""

    def requires(self):
        return [Stage(number) for number in range(TASKS)]


if __name__ == "__main__":
    before = client.run(
        PLUGIN, {"number": -1}
    ).output  # the parent's channel is open, with gRPC's threads, when it forks
    started = time.monotonic()
    succeeded = luigi.build([Plan()], workers=WORKERS, local_scheduler=True, log_level="WARNING")
    took_s = time.monotonic() - started
    after = client.run(PLUGIN, {"number": -2}).output  # and is still good when all are gone
    summary = {"pid": os.getpid(), "succeeded": succeeded, "before": before, "after": after, "took_s": took_s}
    (FOLDER / "summary.json").write_text(json.dumps(summary))
