"""The words of plugind as frozen values: parsed once at the edge, passed around, never changed.

Every quantity has its unit in its name. Codes, outcomes and names are those of SPEC.md.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from plugind.planfiles import FileCeilings

Tier = Literal[0, 1, 2]
TIERS: Final[tuple[Tier, ...]] = (0, 1, 2)
SENSITIVITIES: Final = ("public", "internal", "confidential", "restricted")
PERMISSION_KINDS: Final = ("file_read", "file_write", "network", "external_api", "sensitive_data")
DRILL: Final = "plugind_drill"
"""The plugin of drills, which are no attacks."""
POLICY_UID: Final = 2**32 - 1
"""In the place of a uid, where a rule of the policy decided and no person: (uid_t) -1 is nobody's (setreuid(2))."""
Interface = Literal["json", "functions"]
Protocol = Literal["tcp", "udp"]
Mode = Literal["run", "map", "session", "import"]
"""One input to one instance, many in one message, or many as they come; and an import ahead of a run, without one."""
State = Literal["submitted", "approved", "active", "retired", "revoked"]
"""Where a version is in its life; `active` is the one that runs when no version is asked for, `revoked` is final."""
HoldKind = Literal["killed", "quarantined", "suspended", "revalidation_required"]
Severity = Literal["low", "medium", "high", "critical"]
SEVERITIES: Final[tuple[Severity, ...]] = ("low", "medium", "high", "critical")
MonitorMode = Literal["enforce", "observe"]
"""Whether what the monitor finds has consequences, or is only reported."""


class Outcome(enum.StrEnum):
    """How a run that started has ended. A run that never started has reasons instead."""

    OK = "ok"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CPU_EXCEEDED = "cpu_exceeded"
    OUT_OF_MEMORY = "out_of_memory"
    PIDS_EXCEEDED = "pids_exceeded"
    OUTPUT_LIMIT = "output_limit"
    OUTPUT_INVALID = "output_invalid"
    VIOLATION = "violation"
    KILLED = "killed"
    CANCELED = "canceled"
    FAULT = "fault"
    UNKNOWN = "unknown"


class Code(enum.StrEnum):
    """Why a run never started."""

    CALLER_NOT_ALLOWED = "CALLER_NOT_ALLOWED"
    PLUGIN_NOT_FOUND = "PLUGIN_NOT_FOUND"
    NOT_SIGNED = "NOT_SIGNED"
    BAD_SIGNATURE = "BAD_SIGNATURE"
    THRESHOLD_NOT_MET = "THRESHOLD_NOT_MET"
    DIGEST_MISMATCH = "DIGEST_MISMATCH"
    UNLISTED_FILE = "UNLISTED_FILE"
    ATTESTATION_EXPIRED = "ATTESTATION_EXPIRED"
    KEY_REVOKED = "KEY_REVOKED"
    BUNDLE_REVOKED = "BUNDLE_REVOKED"
    SEQUENCE_ROLLBACK = "SEQUENCE_ROLLBACK"
    TRUST_STALE = "TRUST_STALE"
    NOT_APPROVED = "NOT_APPROVED"
    APPROVAL_EXPIRED = "APPROVAL_EXPIRED"
    PERMISSION_NOT_APPROVED = "PERMISSION_NOT_APPROVED"
    STAGE_NOT_ALLOWED = "STAGE_NOT_ALLOWED"
    TIER_NOT_ALLOWED = "TIER_NOT_ALLOWED"
    SENSITIVITY_TOO_HIGH = "SENSITIVITY_TOO_HIGH"
    LIMIT_ABOVE_CEILING = "LIMIT_ABOVE_CEILING"
    INPUT_INVALID = "INPUT_INVALID"
    INPUT_TOO_LARGE = "INPUT_TOO_LARGE"
    QUARANTINED = "QUARANTINED"
    KILLED = "KILLED"
    SUSPENDED = "SUSPENDED"
    REVALIDATION_REQUIRED = "REVALIDATION_REQUIRED"
    AUDIT_UNAVAILABLE = "AUDIT_UNAVAILABLE"
    ISOLATION_UNAVAILABLE = "ISOLATION_UNAVAILABLE"
    BUSY = "BUSY"
    POLICY_ERROR = "POLICY_ERROR"


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason of a denial."""

    code: Code
    rule: str
    expected: str = ""
    actual: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an instance may use. In a manifest zero means "the profile's default"."""

    wall_ms: int = 0
    cpu_ms: int = 0
    memory_bytes: int = 0
    pids: int = 0
    output_bytes: int = 0
    scratch_bytes: int = 0

    def items(self) -> list[tuple[str, int]]:
        """Name and value of each limit, in a fixed order."""
        return [(f.name, getattr(self, f.name)) for f in dataclasses.fields(self)]


@dataclass(frozen=True, slots=True, order=True)
class Permission:
    """One permission a manifest asks for. `entry` is the manifest's table as canonical JSON (sorted keys)."""

    kind: str
    entry: str


@dataclass(frozen=True, slots=True, order=True)
class Wanted:
    """A peer that a plugin may talk to, as it was approved: a name or an address, a port, a protocol."""

    host: str
    port: int
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class Manifest:
    """plugin.toml, checked. Source: SPEC.md, section "Bundle"."""

    name: str
    version: str
    summary: str
    license: str
    origin: str
    runtime: str
    requires_python: str
    environment: str
    interface: Interface
    entrypoint: str
    stages: tuple[str, ...]
    deterministic: bool
    limits: Limits
    permissions: tuple[Permission, ...]
    input_schema: str
    """Path of the schema in the bundle; empty: none (only interface "functions" may have none)."""
    output_schema: str
    adapted_from: str = ""
    capability: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Approval:
    """What somebody approved of one version, and nothing beyond it. Limits: zero means "as the manifest says"."""

    tier: Tier
    """Highest trust it may run with; never more than the evidence gave."""
    stages: tuple[str, ...]
    permissions: tuple[Permission, ...]
    limits: Limits
    by_uid: int
    at_unix_ms: int
    reason: str
    not_after_unix_ms: int = 0
    """When it lapses; 0: never."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Something that keeps a version from running, whatever its state: independent of it, and reversible.

    `target` is as plugind.targets keeps it: "all", "sha256:HEX", "NAME@VERSION" or "NAME" (a name, never an id), or a
    key's, package's, plan's, caller's or tier's.
    """

    kind: HoldKind
    target: str
    reason: str
    by_uid: int
    at_unix_ms: int


@dataclass(frozen=True, slots=True)
class Probation:
    """What follows a release from quarantine: fewer stages, closer thresholds, until so many runs went well."""

    digest: str
    stages: tuple[str, ...]
    runs_left: int
    since_unix_ms: int


@dataclass(frozen=True, slots=True)
class PluginVersion:
    """One submitted bundle as the registry knows it."""

    plugin_id: str
    """"plug_1": the same for every version of a name."""
    digest: str
    """sha256 of the bundle, hex."""
    sequence: int
    state: State
    tier: Tier
    """The tier that the evidence gave when it was submitted."""
    manifest: Manifest
    attestations: bytes
    """The attestations as handed in, one DSSE envelope a line."""
    approval: Approval | None
    submitted_by_uid: int
    submitted_unix_ms: int

    @property
    def label(self) -> str:
        """How messages name it: "cost_breakdown@1.2.0"."""
        return f"{self.manifest.name}@{self.manifest.version}"

    @property
    def targets(self) -> frozenset[str]:
        """The targets of holds that this version is meant by."""
        return frozenset({"all", f"sha256:{self.digest}", self.label, self.manifest.name})


@dataclass(frozen=True, slots=True)
class Monitoring:
    """`[monitor]` of a profile: when what a version does is out of the ordinary. Source: SPEC.md, "Monitor"."""

    mode: MonitorMode = "enforce"
    required: bool = False
    """Whether the tier refuses to run while the monitor is lost."""
    window: int = 20
    """Runs of which the failures are counted."""
    failures_percent: int = 50
    """Of the window; so many, and the breaker opens."""
    schema_failures: int = 3
    """Results in a row that are none."""
    warm_up: int = 30
    """Samples before duration, memory and output are compared with their median; before that the limits hold alone."""
    deviations: int = 6
    """A sample is out of the ordinary beyond median + so many median absolute deviations (MAD)."""
    open_ms: int = 60_000
    """So long an open breaker lets nothing start."""
    probes: int = 5
    """Runs that are then let through, one after the other, before it closes."""
    openings: int = 3
    """So often it opens without having recovered in between, and the version is quarantined."""
    together: int = 3
    """So many plugins whose breakers open for time within open_ms, and the machine is the likelier cause."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What a tier may have at most: profiles/tierN.toml, checked. Source: SPEC.md, section "Profiles"."""

    tier: Tier
    default_limits: Limits
    ceilings: Limits
    input_bytes: int
    """Largest input, bytes."""
    stdio_bytes: int
    """Largest standard output, and largest standard error, bytes each; more ends the run as output_limit."""
    inodes: int
    """Inodes of the scratch tmpfs."""
    shm_bytes: int
    """Size of /dev/shm."""
    open_files: int
    """RLIMIT_NOFILE."""
    file_bytes: int
    """RLIMIT_FSIZE."""
    cpu_percent: int
    """CPU bandwidth, percent of one CPU: 200 is two CPUs."""
    instances: int
    """Instances of this tier at one time; one more is BUSY."""
    exec_allowed: bool
    """Whether a plugin may execute programs that the jail shows (execve)."""
    parked: int = 0
    """Instances at one time that have imported their plugin ahead and wait; 0: each run has a fresh interpreter."""
    file_locks: bool = False
    """Whether a plugin may lock files (fcntl). By a lock on a file that both see, siblings can signal each other."""
    refused_calls: int = 10000
    """Refused system calls that one run may make; more ends it as a violation."""
    session_ms: int = 600_000
    """Longest session, milliseconds; its CPU budget grows with it (jailspec.session_limits)."""
    session_idle_ms: int = 60_000
    """Longest time that a session may go without an input, milliseconds; then it ends well."""
    session_bytes: int = 32 * 1024 * 1024
    """Most that the inputs and outputs of one session may have together, bytes; then it ends well."""
    network_bytes_per_second: int = 0
    """Of one instance with the permission `network`, each way; 0: the tier has no network."""
    network_connections: int = 0
    """Connections that one such instance may have at one time."""
    network_private: tuple[str, ...] = ()
    """Private ranges (CIDR) whose addresses may be approved at all."""
    seccomp_extra: tuple[str, ...] = ()
    """System calls allowed on top of the base list of plugind.linux.seccomp."""
    requires: tuple[str, ...] = ()
    """Kernel features without which this tier refuses to run; names as `plugindctl doctor` shows them."""
    permissions: tuple[str, ...] = ()
    """Kinds of permission that can be approved for this tier at all."""
    monitor: Monitoring = field(default_factory=Monitoring)
    files: FileCeilings = field(default_factory=FileCeilings)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run used. memory_peak_bytes is 0 where the kernel does not tell."""

    wall_ms: int = 0
    cpu_ms: int = 0
    memory_peak_bytes: int = 0


@dataclass(frozen=True, slots=True)
class NetworkUse:
    """What a run with the permission `network` sent and received, link layer not counted."""

    sent_bytes: int = 0
    received_bytes: int = 0
    connections: int = 0


@dataclass(frozen=True, slots=True)
class Violation:
    """Something the jail refused: a "syscall", or a peer on the "network"; or what it gave out: a secret, a "file".

    A kind of secret in its "output", or a file that it left and may not write.
    `name` is empty where it is not known.
    """

    kind: str
    name: str
    count: int
    detail: str

    @property
    def ended_the_run(self) -> bool:
        """Whether it was a system call for which the whole run ends, at once."""
        return self.kind == "syscall" and self.detail.endswith(ENDED_THE_RUN)

    @property
    def argument(self) -> str:
        """Of a system call that was refused: which of its kind it was, "AF_INET" of a socket; empty: not told."""
        return self.detail.partition(ARGUMENT_ENDS)[0] if ARGUMENT_ENDS in self.detail else ""


ENDED_THE_RUN: Final = "no plugin may make it: the run ended"
ARGUMENT_ENDS: Final = ": refused with "
"""How the details of refused calls read (sandbox/refusals.py), for who judges them."""


@dataclass(frozen=True, slots=True)
class PluginError:
    """An exception as the plugin raised it."""

    type: str
    message: str
    traceback: str


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is at the other end of the socket, as the kernel says (SO_PEERCRED, unix(7))."""

    uid: int
    gid: int
    pid: int
    roles: frozenset[str] = frozenset()
    """What its connection may do (plugind.api.roles)."""
    since_ns: int = 0
    """When it connected, CLOCK_BOOTTIME: whoever has its pid and began later is somebody else."""
