"""What the daemon answers, as frozen values. Every quantity has its unit in its name.

Source of the fields and their meaning: proto/plugind_proto/v1/*.proto.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason of a denial or refusal. `remedy` says what to do, often a command line."""

    code: str
    rule: str
    expected: str = ""
    actual: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Governance:
    """The governance record of a run: these five keys and no other."""

    plugin_id: str
    tier: str
    permissions: tuple[str, ...]
    execution_limit_ms: int
    audit_log: str

    def as_dict(self) -> dict[str, object]:
        """The record as it is written in JSON."""
        return {
            "plugin_id": self.plugin_id,
            "tier": self.tier,
            "permissions": list(self.permissions),
            "execution_limit_ms": self.execution_limit_ms,
            "audit_log": self.audit_log,
        }


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run used. `memory_peak_bytes` is 0 where the kernel does not tell; all are 0 when nothing ran."""

    wall_ms: int = 0
    cpu_ms: int = 0
    memory_peak_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Violation:
    """Something the jail refused, and how often. `name` is empty where it is not known."""

    kind: str
    name: str
    count: int
    detail: str


@dataclass(frozen=True, slots=True)
class PluginException:
    """An exception as the plugin raised it. `type` is the class name, such as "ZeroDivisionError"."""

    type: str
    message: str
    traceback: str


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A file that a run put into its plan, or that came back because files were sent. Digests: sha256 in hex."""

    path: str
    """Within the plan's folder."""
    sha256: str
    bytes: int
    replaced_sha256: str = ""
    """Of the file that was there before; empty: there was none."""
    replaced_bytes: int = 0
    content: bytes | None = None  # type: ignore[valid-type]
    """What is in it, where files were sent; None: it is in the plan's folder."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What a plugin tried to open, in a run that learns."""

    path: str
    """Relative to the plan's folder, or to the output folder; absolute for all else."""
    mode: str
    """ "read" or "write"."""
    place: str
    """ "plan", "output" or "elsewhere", for which there is no permission."""
    found: bool
    """Whether there was such a file."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """The whole answer to one run.

    `Client.run` returns it only when the outcome is "ok"; `Client.execute` returns it always.
    """

    decision: str
    """ "allow" or "deny"."""
    reasons: tuple[Reason, ...]
    """All reasons of a denial."""
    governance: Governance
    outcome: str
    """One of the outcomes of SPEC.md; empty when denied."""
    outcome_detail: str
    """One sentence for people; empty when ok."""
    output: Any
    """The plugin's result as a JSON value; None unless the outcome is "ok"."""
    usage: Usage
    violations: tuple[Violation, ...]
    stdout: str
    """Captured, cut at the tier's limit; bytes that are no UTF-8 are replaced."""
    stderr: str
    error: PluginException | None
    """What the plugin raised, when the outcome is "failed" and it raised."""
    run_id: str
    version: str
    """The version that ran or would have run."""
    retry_after_ms: int = 0
    """Of a denial because there is no place: when it may be worth to ask again, milliseconds. 0: not known."""
    files: tuple[PlanFile, ...] = ()
    """What it wrote into the plan, all of it; only when the outcome is "ok"."""
    opened: tuple[Opening, ...] = ()
    """What it tried to open, in a run that learns."""

    @property
    def audit_log(self) -> str:
        """The id of the run's audit record, such as "log_4001"."""
        return self.governance.audit_log

    @property
    def ok(self) -> bool:
        """Whether the plugin ran and gave a valid output."""
        return self.decision == "allow" and self.outcome == "ok"


@dataclass(frozen=True, slots=True)
class Limits:
    """What an instance may use. Zero in what a manifest asks for: the profile's default."""

    wall_ms: int = 0
    cpu_ms: int = 0
    memory_bytes: int = 0
    pids: int = 0
    output_bytes: int = 0
    scratch_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Permission:
    """One permission. `entry_json` is the manifest's table as JSON with sorted keys."""

    kind: str
    entry_json: str = "{}"


@dataclass(frozen=True, slots=True)
class Approval:
    """What was approved for a version, by whom (uid), when (milliseconds since the epoch) and why."""

    by_uid: int
    at_unix_ms: int
    tier: int
    stages: tuple[str, ...]
    permissions: tuple[Permission, ...]
    limits: Limits
    reason: str
    not_after_unix_ms: int = 0
    """When it lapses; 0: never."""


@dataclass(frozen=True, slots=True)
class Hold:
    """What keeps versions from running until it is lifted. Who is a uid, when milliseconds since the epoch."""

    kind: str
    """killed, quarantined, suspended or revalidation_required."""
    target: str
    """ "all", "sha256:HEX", "NAME@VERSION", "NAME", or as in `kill`."""
    reason: str
    by_uid: int
    at_unix_ms: int


@dataclass(frozen=True, slots=True)
class PluginVersion:
    """One version of a plugin. `limits` and `permissions` are what its manifest asks for."""

    version: str
    digest: str
    state: str
    """submitted, approved, active, retired or revoked."""
    tier: int
    summary: str
    license: str
    origin: str
    runtime: str
    interface: str
    entrypoint: str
    stages: tuple[str, ...]
    limits: Limits
    permissions: tuple[Permission, ...]
    approval: Approval | None
    submitted_unix_ms: int
    submitted_by_uid: int
    holds: tuple[Hold, ...] = ()
    """All that keeps it from running, whatever its state."""
    widens: tuple[str, ...] = ()
    """What is wider than the version that was approved last, one sentence each."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin with its versions, oldest first. `active_version` is empty when none is active."""

    plugin_id: str
    name: str
    active_version: str
    versions: tuple[PluginVersion, ...]

    def version(self, version: str = "") -> PluginVersion | None:
        """The named version, or without a name the active one, or the newest where none is active."""
        wanted = version or self.active_version
        for candidate in self.versions:
            if candidate.version == wanted:
                return candidate
        return self.versions[-1] if self.versions and not wanted else None


@dataclass(frozen=True, slots=True)
class Submission:
    """The answer to a bundle that was handed in. `tier` is what the evidence gives, `digest` the bundle's sha256."""

    plugin_id: str
    name: str
    version: str
    digest: str
    tier: int
    state: str


@dataclass(frozen=True, slots=True)
class PluginSource:
    """The module of a plugin whose functions can be called. `digest` is the bundle's sha256."""

    name: str
    version: str
    digest: str
    source: bytes


@dataclass(frozen=True, slots=True)
class RunningRun:
    """A run in flight. `state` is "starting" or "running"; `started_unix_ms` counts from the epoch.

    What its instance has now is some seconds old at most; None: it is not known, as of a run that waits for a place.
    """

    run_id: str
    plugin_id: str
    plugin: str
    version: str
    tier: int
    stage: str
    started_unix_ms: int
    caller_uid: int
    state: str
    memory_bytes: int | None = None
    cpu_ms: int | None = None
    """Processor time of all its processes since its run began."""
    pids: int | None = None
    """Processes and threads."""
    refused_calls: int | None = None
    """System calls that the jail refused so far."""
    sampled_unix_ms: int = 0
    """When that was so; 0: it is not known."""


@dataclass(frozen=True, slots=True)
class Denial:
    """A run that was denied. `audit_log` is empty when it could not be recorded."""

    plugin: str
    version: str
    stage: str
    sensitivity: str
    reasons: tuple[Reason, ...]
    audit_log: str
    at_unix_ms: int


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the history: who (uid), when (milliseconds since the epoch), what and why.

    What it is not about is empty. `detail_json` is the approval as given, or the target of a hold.
    """

    revision: int
    plugin_id: str
    plugin: str
    version: str
    digest: str
    action: str
    state: str
    """Of the version, afterwards."""
    by_uid: int
    at_unix_ms: int
    why: str
    detail_json: str


@dataclass(frozen=True, slots=True)
class KillReport:
    """What the kill switch did. `took_us`: until the last process of the ended runs was gone, microseconds."""

    hold: Hold
    ended_runs: int
    took_us: int
    unconfirmed_runs: int
    """Runs whose processes could not be seen to be gone in time. Not 0: look at the machine."""


@dataclass(frozen=True, slots=True)
class Status:
    """How the daemon is. A problem that is empty is none."""

    daemon_version: str
    mode: str
    """dev or production."""
    started_unix_ms: int
    runs_in_flight: int
    launcher_problem: str
    cgroup_driver: str
    unavailable_tiers: dict[int, str]
    """Tiers that this machine cannot run, with the reason."""
    ledger_size: int
    ledger_root: str
    ledger_problem: str
    journal: str
    policy_sha256: str
    policy_path: str
    holds: tuple[Hold, ...]
    plugins: int
    monitor_problem: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One check of the policy. `reasons` also tell what a rule that only warns has found."""

    name: str
    ok: bool
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class PolicyReload:
    """The policy now in force, and whether it is another than before."""

    policy_sha256: str
    changed: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a metric. Of a histogram the name ends in _bucket, _sum or _count; `labels` then have `le` too."""

    name: str
    labels: dict[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Metric:
    """Something that is counted or measured. Its unit ends its name, or stands before _total."""

    name: str
    help: str
    kind: str
    """counter, gauge or histogram."""
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class MetricsReport:
    """All metrics, and the same in Prometheus' text format."""

    metrics: tuple[Metric, ...]
    text: str
