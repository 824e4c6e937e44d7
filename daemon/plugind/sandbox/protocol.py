"""What the front and the launcher say to each other, as values; how they become bytes, and are checked: codec.py.

Front to launcher: Load (with the bundle as sealed memfd), Start (with four descriptors, and with files five), Open
(with one more), Park (with three), Use (with four), PlanWork (with one), Kill, KillMany, Sample, Stop.
Launcher to front: Ready, Loaded, Imported, Placed, Parked, Started, Wrote, Ended, Refused, PlanDone, PlanFailed,
Sampled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from plugind.model import Limits, NetworkUse, Violation, Wanted

MAX_MESSAGE_BYTES = 16 * 1024
MOST_KILLED = 200
"""Names of runs in one message: with the longest names it is not too long."""
KILLED = "killed"
"""The step of a Refused whose digest is killed offline (latch.py)."""
NOT_LOADED = "not_loaded"
"""The step of a Refused whose digest made room for others: load it and start again."""
NAMES, ADDRESSES = "network.names", "network.addresses"
"""The steps of a Refused whose names lead nowhere, or to where nobody may go."""
NO_FREEZER = "freezer"
"""The step of a Refused that could not stand still while it waits: this machine parks none."""
NOT_PARKED = "not_parked"
"""The step of a Refused whose instance is not there, or not parked, any more: nothing ran, start one."""


@dataclass(frozen=True, slots=True)
class Load:
    """Take this bundle (one descriptor: a sealed memfd). The launcher checks its sha256 itself."""

    op: ClassVar[str] = "load"
    descriptors: ClassVar[int] = 1
    digest: str


@dataclass(frozen=True, slots=True)
class Start:
    """Start an instance of a loaded digest. Descriptors: input (sealed memfd), result, stdout, stderr (pipes)."""

    op: ClassVar[str] = "start"
    own_descriptors: ClassVar[int] = 4
    run: str
    digest: str
    tier: int
    limits: Limits
    environment: str = ""
    """Digest of the environment whose packages it has; empty: the standard library alone."""
    network: tuple[Wanted, ...] = ()
    """Whom it may talk to. Empty: it has no network, and cannot make a socket."""
    reads: int = 0
    """1: it may read files of a plan, which come as one more descriptor, the last: a sealed memfd (planfiles.pack)."""
    write_files: int = 0
    """Files that it may leave in its output folder; 0: it has none."""
    write_bytes: int = 0
    """Size of that folder."""

    @property
    def descriptors(self) -> int:
        """How many come with it."""
        return self.own_descriptors + self.reads


@dataclass(frozen=True, slots=True)
class Open(Start):
    """Start an instance for a session: with a fifth descriptor, the pipe that its inputs come by."""

    op: ClassVar[str] = "open"
    own_descriptors: ClassVar[int] = 5


@dataclass(frozen=True, slots=True)
class Park(Start):
    """Start an instance that imports its plugin and waits. Descriptors: call (sealed memfd), stdout, stderr (pipes)."""

    op: ClassVar[str] = "park"
    own_descriptors: ClassVar[int] = 3


@dataclass(frozen=True, slots=True)
class Use:
    """Have a parked instance do the one run that it is for. Descriptors: input, result, stdout, stderr, as of Start."""

    op: ClassVar[str] = "use"
    descriptors: ClassVar[int] = 4
    run: str
    """The name under which it was parked, and goes on to be known to the launcher."""
    wall_ms: int


@dataclass(frozen=True, slots=True)
class PlanWork:
    """Have a plan helper do something in a plan's folder, as its caller (sandbox/plans/). Descriptor: what, packed.

    Answered with one PlanDone or PlanFailed.
    """

    op: ClassVar[str] = "plan_work"
    descriptors: ClassVar[int] = 1
    run: str
    """The name of this piece of work, which is no run's."""
    task: str
    """read, stage, settle, clean or compare (plugind.plans.folders.PlanFolders)."""
    plan_dir: str
    caller_pid: int
    """Of the caller's process as the kernel named it to the front; 0: it may be gone, and somebody whom the launcher
    has seen write to this folder before (plans/known.py) is meant."""
    caller_uid: int
    caller_gid: int
    since_ns: int
    """When the caller connected, CLOCK_BOOTTIME: a process that began later is another one."""


@dataclass(frozen=True, slots=True)
class Kill:
    """End an instance. `cause` comes back in Ended: canceled, killed, output_limit, timeout (of an input)."""

    op: ClassVar[str] = "kill"
    descriptors: ClassVar[int] = 0
    run: str
    cause: str


@dataclass(frozen=True, slots=True)
class Sample:
    """Tell what instances use now. Answered with one Sampled, however often it was asked meanwhile (sampler.py)."""

    op: ClassVar[str] = "sample"
    descriptors: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class KillMany:
    """End several instances, up to MOST_KILLED, as Kill does. Their ends are told together: see launcher.py."""

    op: ClassVar[str] = "kill_many"
    descriptors: ClassVar[int] = 0
    runs: tuple[str, ...]
    cause: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End every instance and every template, clean up, and exit."""

    op: ClassVar[str] = "stop"
    descriptors: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class Ready:
    """All templates are up. `unavailable` maps tiers that cannot run to the reason, as "2": "no seccomp"."""

    op: ClassVar[str] = "ready"
    descriptors: ClassVar[int] = 0
    cgroup_driver: str
    unavailable: dict[str, str]


@dataclass(frozen=True, slots=True)
class Loaded:
    """The bundle is unpacked, or (`error` not empty) was refused."""

    op: ClassVar[str] = "loaded"
    descriptors: ClassVar[int] = 0
    digest: str
    error: str


@dataclass(frozen=True, slots=True)
class Imported:
    """The template of an environment is up: its packages were imported, by a process that is what is said here."""

    op: ClassVar[str] = "imported"
    descriptors: ClassVar[int] = 0
    environment: str
    tier: int
    uid: int
    """Of the zygote, in the host."""
    capabilities: str
    """What it has effectively, in its own user namespace only: hexadecimal (CapEff)."""
    user_namespace: str
    wall_ms: int
    failed: dict[str, str]
    """Modules that could not be imported ahead, and why."""


@dataclass(frozen=True, slots=True)
class Placed:
    """An instance is in its groups; its plugin does not run yet. Descriptors: its cgroup.kill and cgroup.events.

    With them the front can end it, and see that it is gone, while the launcher is stopped. Not sent where there is no
    unified hierarchy.
    """

    op: ClassVar[str] = "placed"
    descriptors: ClassVar[int] = 2
    run: str


@dataclass(frozen=True, slots=True)
class Parked:
    """An instance has imported its plugin, is one task, and stands still. What the import used."""

    op: ClassVar[str] = "parked"
    descriptors: ClassVar[int] = 0
    run: str
    wall_ms: int
    cpu_ms: int
    memory_peak_bytes: int


@dataclass(frozen=True, slots=True)
class Started:
    """The jail is complete and plugin code runs from here on."""

    op: ClassVar[str] = "started"
    descriptors: ClassVar[int] = 0
    run: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing of the plugin ran: a step of the jail failed, or the request was above what the launcher allows."""

    op: ClassVar[str] = "refused"
    descriptors: ClassVar[int] = 0
    run: str
    step: str
    detail: str


@dataclass(frozen=True, slots=True)
class Wrote:
    """What an instance that ended well has left in its output folder; before its Ended. Descriptor: a sealed memfd.

    It is packed as planfiles.pack does it: regular files with their contents; what is something else, or too much, as
    an entry that says why it was not taken.
    """

    op: ClassVar[str] = "wrote"
    descriptors: ClassVar[int] = 1
    run: str


@dataclass(frozen=True, slots=True)
class PlanDone:
    """A plan helper has done it. Descriptor: what came of it, a sealed memfd (planfiles.pack)."""

    op: ClassVar[str] = "plan_done"
    descriptors: ClassVar[int] = 1
    run: str
    """As in PlanWork."""


@dataclass(frozen=True, slots=True)
class PlanFailed:
    """It has not, and changed nothing."""

    op: ClassVar[str] = "plan_failed"
    descriptors: ClassVar[int] = 0
    run: str
    code: str
    """One of planfiles.PLAN_CODES."""
    detail: str


@dataclass(frozen=True, slots=True)
class Ended:
    """Every process of the instance is gone and its groups are removed."""

    op: ClassVar[str] = "ended"
    descriptors: ClassVar[int] = 0
    run: str
    cause: str
    """Why it was killed: "" (it ended by itself), canceled, killed, output_limit, timeout, cpu_exceeded,
    out_of_memory, pids_exceeded, violation, fault."""
    exit_code: int
    """Exit code of the plugin's process, or -signal."""
    wall_ms: int
    cpu_ms: int
    memory_peak_bytes: int
    detail: str = ""
    """What there is to say of the cause, beyond the limits that the front knows."""
    violations: tuple[Violation, ...] = ()
    """Refused system calls, what ended the run first; then refused peers."""
    network: NetworkUse = field(default_factory=NetworkUse)


@dataclass(frozen=True, slots=True)
class InstanceUse:
    """What one run's instance has now. -1: it cannot be read."""

    run: str
    cpu_ms: int
    """Processor time of all its processes since its run began."""
    memory_bytes: int
    """What is charged to its group: with the files of its scratch, and without what it shares with its template."""
    pids: int
    """Processes and threads."""
    refused_calls: int
    """System calls that were refused so far; one that is refused just now may be missing."""


@dataclass(frozen=True, slots=True)
class ParkedUse:
    """What the instances of a tier have together that import ahead, or wait for a run. -1: one cannot be read."""

    tier: int
    instances: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """What one process of the daemon itself has now. -1: it cannot be read."""

    pid: int
    cpu_ms: int
    memory_bytes: int
    open_files: int
    """Descriptors of any kind."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """What is used now by instances of runs. Whoever asks until `left_out` is 0 has been told of each once."""

    op: ClassVar[str] = "sampled"
    descriptors: ClassVar[int] = 0
    instances: tuple[InstanceUse, ...]
    parked: tuple[ParkedUse, ...]
    """Of the tiers that have some."""
    launcher: ProcessUse
    left_out: int
    """Instances that the next one tells of."""


ToLauncher = Load | Start | Open | Park | Use | PlanWork | Kill | KillMany | Sample | Stop
OfARun = Placed | Parked | Started | Refused | Wrote | Ended
OfAPlan = PlanDone | PlanFailed
ToFront = Ready | Loaded | Imported | OfARun | OfAPlan | Sampled
Message = ToLauncher | ToFront
