"""What the jail of one instance is, as a value: steps in the order the kernel needs them. Pure.

The launcher builds it, the instance carries it out step by step (inside/setup.py has one function per step), and
`plugindctl jail` prints it. A step either works or the run ends with ISOLATION_UNAVAILABLE.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace

from plugind.model import Limits, Profile
from plugind.planfiles import OUTPUT_DIR, PLAN_DIR

INSIDE_UID = 1000
"""The one uid there is in an instance's user namespace."""
HOSTNAME = "plugin"
PLUGIN_DIR = "/plugin"
SCRATCH_DIR = "/tmp"  # noqa: S108 - a path inside the jail, a tmpfs of its own
CODE_DIR = "/code"
ENVIRONMENT_DIR = "/environment"
KIB = 1024


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the jail. `name` is the setup function inside, `arguments` its keyword arguments."""

    name: str
    arguments: Mapping[str, object]
    why: str

    def describe(self) -> str:
        """The step as a person reads it."""
        shown = ", ".join(f"{key}={_short(value)}" for key, value in self.arguments.items())
        return f"{self.name}({shown})  - {self.why}"


def _short(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {item}" for key, item in value.items()) + "}"
    return str(value)


@dataclass(frozen=True, slots=True)
class JailSpec:
    """Everything about one jail. Limits that the kernel cannot hold alone are the supervisor's (supervisor.py)."""

    tier: int
    limits: Limits
    steps: tuple[Step, ...]

    def describe(self) -> list[str]:
        """All steps, numbered, with what is watched from outside at the end."""
        lines = [f"{number:2}. {step.describe()}" for number, step in enumerate(self.steps, 1)]
        return [*lines, *(f" *. watched from outside: {text}" for text in self._watched())]

    def _watched(self) -> list[str]:
        limits = self.limits
        return [
            f"wall clock {limits.wall_ms} ms from the first line of plugin code",
            f"CPU time of the whole tree {limits.cpu_ms} ms",
            f"memory group {limits.memory_bytes} bytes without swap, killed as a whole",
            f"pids group {limits.pids} processes and threads",
            f"result {limits.output_bytes} bytes, exactly one frame with the run's nonce",
        ]

    def wire(self) -> list[list[object]]:
        """The steps as JSON values for the instance."""
        return [[step.name, dict(step.arguments)] for step in self.steps]


def effective_limits(asked: Limits, profile: Profile) -> Limits:
    """What was asked for, with the profile's defaults where it is zero."""
    defaults = dict(profile.default_limits.items())
    return Limits(**{name: value or defaults[name] for name, value in asked.items()})


def session_limits(limits: Limits, session_ms: int) -> Limits:
    """The limits of a whole session of instances with these: it lasts longer, at the same share of CPU."""
    if session_ms <= limits.wall_ms:
        return limits
    return replace(limits, wall_ms=session_ms, cpu_ms=limits.cpu_ms * session_ms // limits.wall_ms)


def limits_of_session(limits: Limits, profile: Profile) -> Limits:
    """What the launcher holds a session to: as for one run, but for as long as the tier lets a session last."""
    ceilings = session_limits(profile.ceilings, profile.session_ms)
    wanted = session_limits(limits, profile.session_ms)
    return replace(wanted, wall_ms=min(wanted.wall_ms, ceilings.wall_ms), cpu_ms=min(wanted.cpu_ms, ceilings.cpu_ms))


def above_ceiling(limits: Limits, profile: Profile, *, session: bool = False) -> list[tuple[str, int, int]]:
    """Name, value and ceiling of each limit that is zero, negative or above what the profile allows."""
    most = session_limits(profile.ceilings, profile.session_ms) if session else profile.ceilings
    ceilings = dict(most.items())
    return [(name, value, ceilings[name]) for name, value in limits.items() if not 0 < value <= ceilings[name]]


@dataclass(frozen=True, slots=True)
class Ground:
    """What the machine gives to jails: Landlock's ABI (0: none), and the trees with interpreter and libraries."""

    landlock_abi: int
    trees: tuple[str, ...]


def build(profile: Profile, limits: Limits, digest: str, slice_uid: int, ground: Ground) -> JailSpec:
    """The jail of one instance.

    `slice_uid` is the instance's uid within its template's slice (the host uid is the slice's base plus this);
    `digest` the sha256 of the bundle, whose files lie in the template's /code.
    """
    return JailSpec(
        tier=profile.tier,
        limits=limits,
        steps=(
            _step("session", "no terminal, signals of its own"),
            _step("plugin_files", "the verified files, read-only; no other plugin's", digest=digest),
            _step(
                "scratch",
                "the only places to write: sized tmpfs, charged to the memory group",
                path=SCRATCH_DIR,
                size_bytes=limits.scratch_bytes,
                inodes=profile.inodes,
                uid=slice_uid,
                noexec=not profile.exec_allowed,
            ),
            _step(
                "scratch",
                "POSIX shared memory of its own",
                path="/dev/shm",  # noqa: S108
                size_bytes=profile.shm_bytes,
                inodes=profile.inodes,
                uid=slice_uid,
                noexec=True,
            ),
            _step("proc", "its own processes and nothing else (subset=pid)"),
            _step("hostname", "hides the host's name", name=HOSTNAME),
            _step("cgroup_namespace", "after the launcher moved it into its groups: they look like the root"),
            _step("descriptors", "0-3 and nothing else: null, stdout, stderr, result; in a session 4: inputs"),
            _step("rlimits", "a second net below the groups", limits=_rlimits(profile, limits)),
            _step("identity", "a uid that nothing else on the host has", uid=slice_uid),
            _step("user_namespace", "one uid, and no further namespaces below", outside=slice_uid, inside=INSIDE_UID),
            _step("capabilities", "all five sets empty, securebits locked"),
            _step("no_new_privileges", "setuid and file capabilities do nothing; not dumpable, umask 077"),
            *_landlock(profile, ground),
            _step("seccomp", "allow-list of the tier; what is not on it is named, counted and refused"),
        ),
    )


def with_network(spec: JailSpec, hosts: str) -> JailSpec:
    """The same of an instance that was granted network: a namespace that is filtered from outside, and its names.

    `hosts` is the text of /etc/hosts (hosts(5)): no name is ever asked for from inside.
    """
    steps: list[Step] = []
    for step in spec.steps:
        if step.name == "landlock":
            step = replace(step, arguments={**step.arguments, "network": True})  # noqa: PLW2901
        elif step.name == "proc":
            steps.append(
                _step("hosts", "the names that were approved, with the addresses that were checked", text=hosts)
            )
        steps.append(step)
        if step.name == "session":
            steps.append(_step("network", "a namespace of its own, of which others decide what gets through"))
    return replace(spec, steps=tuple(steps))


def with_files(spec: JailSpec, *, reads: bool, write_files: int, write_bytes: int) -> JailSpec:
    """The same of an instance that may read files of a plan, or leave some (at most so many, and so many bytes)."""
    granted = []
    if reads:
        granted.append(
            _step(
                "plan_files",
                "the files that were granted, a copy of its own: read-only, and nothing else",
                path=PLAN_DIR,
            )
        )
    if write_files:
        granted.append(
            _step(
                "output_folder",
                f"what it writes, on a tmpfs of its own, charged to the memory group; at the end at most {write_files}"
                f" files and {write_bytes} bytes are taken",
                path=OUTPUT_DIR,
            )
        )
    # As root of the template, before Landlock: what that restricts may move no mount.
    place = max(
        number for number, step in enumerate(spec.steps, 1) if step.name in ("session", "plugin_files", "scratch")
    )
    return replace(spec, steps=(*spec.steps[:place], *granted, *spec.steps[place:]))


def _landlock(profile: Profile, ground: Ground) -> list[Step]:
    if not ground.landlock_abi:
        return []
    own = [SCRATCH_DIR, "/dev/shm"]  # noqa: S108
    rules = {
        "execute" if profile.exec_allowed else "read": list(ground.trees),
        "device": ["/dev"],
        "write": [*own, "/grant/write"],
    }
    rules.setdefault("read", []).extend([PLUGIN_DIR, ENVIRONMENT_DIR, "/runtime", "/etc", "/proc", "/grant/read"])
    if profile.exec_allowed:
        rules["execute"] += [PLUGIN_DIR, SCRATCH_DIR]
    return [
        _step(
            "landlock",
            "the same once more, by path: for what a mount might yet show",
            abi=ground.landlock_abi,
            rules=rules,
            network=False,
        )
    ]


def _step(name: str, why: str, /, **arguments: object) -> Step:
    return Step(name, arguments, why)


def _rlimits(profile: Profile, limits: Limits) -> dict[str, int]:
    """setrlimit(2) by name. CPU is a backstop in whole seconds; the exact budget of the tree is the supervisor's."""
    return {
        "CORE": 1,  # bytes: no core, and for a host that pipes cores into a helper no helper (core(5))
        "CPU": limits.cpu_ms // 1000 + 2,
        "FSIZE": profile.file_bytes,
        "MEMLOCK": 64 * KIB,
        "MSGQUEUE": 0,
        "NICE": 0,
        "NOFILE": profile.open_files,
        "RTPRIO": 0,
        "SIGPENDING": 1024,
    }


def to_json(spec: JailSpec) -> dict[str, object]:
    """For `plugindctl jail --json`."""
    return dataclasses.asdict(spec)
