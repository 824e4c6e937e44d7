"""What became of undoing runs, and what a plugin has touched: records, and how they are read from the daemon's answers.

Source of the fields and their meaning: proto/plugind_proto/v1/audit.proto, SPEC.md "Files of a plan".
"""

from __future__ import annotations

from dataclasses import dataclass

from plugind_proto.v1 import audit_pb2


@dataclass(frozen=True, slots=True)
class RestoredFile:
    """A file of a run. Digests are sha256 in hex, and empty where there is no such file."""

    path: str
    written_sha256: str
    """What the run had put there."""
    found_sha256: str
    """What is there now, or was before it was put back."""
    restored_sha256: str
    """What was there before the run."""
    unchanged: bool
    """Whether what is found is what the run had put there."""
    difference: str
    """How it differs from that, a unified diff; empty where it does not, or where one of both is no text."""
    kept_as: str
    """Where what was found is kept; empty: it needs not be."""
    problem: str
    """What is there now and no regular file, such as "symlink"; empty: it is one, or none."""


@dataclass(frozen=True, slots=True)
class RestoredRun:
    """A run, or the undoing of one, that was to be undone."""

    log_id: str
    plugin: str
    version: str
    plan_id: str
    plan_dir: str
    state: str
    """restored, would_restore (a dry run), conflict, nothing (there is nothing to undo), or failed."""
    audit_log: str
    """The record of the undoing; empty: there is none."""
    files: tuple[RestoredFile, ...]
    detail: str

    @property
    def label(self) -> str:
        """Plugin and version."""
        return f"{self.plugin}@{self.version}" if self.version else self.plugin


@dataclass(frozen=True, slots=True)
class TouchedFile:
    """A file of a plan, and what was last done with it."""

    path: str
    log_id: str
    """The last run that put it there; empty: it was only read."""
    state: str
    """read, written, sent (back to the caller), undone (it did not stay in the folder), or restored."""
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class PlanImpact:
    """What runs have done to one plan. Empty `plan_dir`: they had nothing to do with its folder."""

    plan_id: str
    plan_dir: str
    versions: tuple[str, ...]
    runs: int
    last_unix_ms: int
    files: tuple[TouchedFile, ...]
    files_left_out: int
    """There are too many to tell them."""


@dataclass(frozen=True, slots=True)
class Impact:
    """The plans that a plugin has touched, newest first."""

    plans: tuple[PlanImpact, ...]
    runs: int
    """That were looked at."""
    plans_left_out: int
    """Older ones; there are too many to tell them."""


def restored(answer: audit_pb2.RestoreResponse) -> tuple[RestoredRun, ...]:
    """One for each run, in the order in which they were undone."""
    return tuple(
        RestoredRun(
            *(run.log_id, run.plugin, run.version, run.plan_id, run.plan_dir, run.state, run.audit_log),
            files=tuple(map(_restored_file, run.files)),
            detail=run.detail,
        )
        for run in answer.runs
    )


def _restored_file(file: audit_pb2.RestoredFile) -> RestoredFile:
    return RestoredFile(
        path=file.path,
        written_sha256=file.written_sha256,
        found_sha256=file.found_sha256,
        restored_sha256=file.restored_sha256,
        unchanged=file.unchanged,
        difference=file.difference,
        kept_as=file.kept_as,
        problem=file.problem,
    )


def impact(answer: audit_pb2.ImpactResponse) -> Impact:
    """Plans with their files."""
    plans = tuple(
        PlanImpact(
            plan_id=plan.plan_id,
            plan_dir=plan.plan_dir,
            versions=tuple(plan.versions),
            runs=plan.runs,
            last_unix_ms=plan.last_unix_ms,
            files=tuple(
                TouchedFile(file.path, file.log_id, file.state, file.sha256, file.bytes) for file in plan.files
            ),
            files_left_out=plan.files_left_out,
        )
        for plan in answer.plans
    )
    return Impact(plans, answer.runs, answer.plans_left_out)
