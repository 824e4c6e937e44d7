"""What a machine lacks is named, for the tiers that need it: on machines that are not here, and on this one."""

from __future__ import annotations

import errno
import os
import platform
import struct
import subprocess
import sys
import tempfile
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from plugind.errors import IsolationUnavailableError
from plugind.linux import cgroup, constants, landlock, syscalls
from plugind.profiles import load_profiles
from plugind.sandbox import features, machine
from plugind.sandbox.features import Check, Feature
from plugind.sandbox.rootfs import Interpreter
from tests.support import fake_machine as fakes
from tests.support.fake_machine import Fake

PROFILES = load_profiles(Path(__file__).parents[2] / "profiles")
EVERYTHING = tuple(features.probe())
SHOWN = {"kernel", "landlock", "journald", "memfd_noexec", "cgroup_kill", "memory_peak", "swap"}
"""Facts without which a plugin runs all the same."""


@pytest.fixture
def found(tmp_path):
    """What is found on a fake, as {name: Feature}."""
    return lambda fake: features.probe(fakes.build(fake, tmp_path))


def lacking(features_found):
    return {feature.name: feature.found for feature in features_found.values() if feature.ok is not True}


# --- machines --------------------------------------------------------------------------------------------------------

OLD = {"memfd_noexec": "no sysctl vm.memfd_noexec"}
MACHINES = {
    "modern": (fakes.MODERN, {}),
    "aarch64": (fakes.AARCH64, {}),
    "debian 12": (fakes.DEBIAN_12, OLD),
    "debian 12, hybrid": (fakes.DEBIAN_12_HYBRID, OLD),
    "ubuntu 24.04": (
        fakes.UBUNTU_24_04,
        {"apparmor": "user namespaces are restricted, and this process is unconfined"},
    ),
    "ubuntu 24.04, installed": (
        fakes.UBUNTU_24_04_INSTALLED,
        {"apparmor": "user namespaces are restricted, and this process is unconfined"},
    ),
    "ubuntu 24.04, as the service": (fakes.UBUNTU_24_04_SERVICE, {}),
    "without Landlock": (fakes.NO_LANDLOCK, {"landlock": "not there"}),
    "4.19": (
        fakes.NO_USER_NOTIF,
        {
            "kernel": "4.19.0-27-amd64",
            "seccomp": "without user_notif",
            "seccomp_notify": "Invalid argument",
            "pidfd": "Function not implemented",
            "proc_subset_pid": "Invalid argument",
            "landlock": "not there",
            "cgroup_kill": "not in this kernel",
            "memory_peak": "not in this kernel",
        }
        | OLD,
    ),
    "5.13": (
        fakes.KERNEL_5_13,
        {
            "kernel": "5.13.0-52-generic",
            "seccomp_notify": "Invalid argument",
            "cgroup_kill": "not in this kernel",
            "memory_peak": "not in this kernel",
        }
        | OLD,
    ),
    "5.15": (
        fakes.NO_MEMORY_PEAK,
        {
            "kernel": "5.15.0-100-generic",
            "seccomp_notify": "Invalid argument",
            "memory_peak": "not in this kernel",
        }
        | OLD,
    ),
    "without pids": (fakes.NO_PIDS, {"cgroups": "the unified hierarchy lacks the controllers pids"}),
    "without groups": (
        fakes.NO_GROUPS,
        {
            "cgroups": "no hierarchy with the controllers memory, pids, cpu, cpuacct is mounted",
            "cgroup_kill": "no unified hierarchy is mounted",
        },
    ),
    "v1 alone": (replace(fakes.MODERN, hierarchy="v1"), {"cgroup_kill": "no unified hierarchy is mounted"}),
    "a session without cpu, whose machine has it": (fakes.SESSION, {}),
    "without user namespaces": (fakes.NO_USER_NAMESPACES, {"user_namespaces": "user.max_user_namespaces is 0"}),
    "user namespaces left out": (
        replace(fakes.MODERN, most_user_namespaces=None),
        {"user_namespaces": "not in this kernel"},
    ),
    "wsl": (
        fakes.WSL,
        {
            "kernel": "5.15.153.1-microsoft-standard-WSL2",
            "seccomp_notify": "Invalid argument",
            "landlock": "not there",
            "journald": "no socket",
        }
        | OLD,
    ),
    "riscv64": (
        fakes.RISCV,
        {
            "architecture": "riscv64",
            "seccomp_notify": "plugind runs on x86_64 and aarch64, this is riscv64",
        },
    ),
    "another listener": (
        replace(fakes.MODERN, notify="Device or resource busy"),
        {"seccomp_notify": "Device or resource busy"},
    ),
    "without libseccomp": (
        replace(fakes.MODERN, libseccomp=None),
        {"libseccomp": "not found, or ldconfig does not know it"},
    ),
    "libseccomp 2.4": (replace(fakes.MODERN, libseccomp=(2, 4, 4)), {"libseccomp": "2.4.4"}),
    "a closed interpreter": (
        replace(fakes.MODERN, interpreter_mode=0o700),
        {"interpreter": "/opt/python/bin/python3 has mode 0700"},
    ),
    "taken uids": (replace(fakes.MODERN, taken_uids=fakes.TAKEN), {"uids": fakes.TAKEN[0]}),
    "swap": (replace(fakes.MODERN, swap=True), {}),
    "swap that is not counted": (
        replace(fakes.MODERN, swap=True, lacks=frozenset({"memory.swap.max"})),
        {"swap": "there, and not counted for each group"},
    ),
    "v1, swap that is not counted": (
        replace(fakes.DEBIAN_12_HYBRID, swap=True, lacks=frozenset({"memory.memsw.limit_in_bytes"})),
        {"swap": "there, and not counted for each group"} | OLD,
    ),
    "somebody": (fakes.SOMEBODY, {"root": "this is uid 1000", "proc_subset_pid": "only root can find out"}),
    "somebody without user namespaces": (
        replace(fakes.SOMEBODY, user_namespace="Operation not permitted"),
        {
            "root": "this is uid 1000",
            "proc_subset_pid": "only root can find out",
            "user_namespaces": "not for uid 1000 (Operation not permitted); only root can find out",
        },
    ),
}


@pytest.mark.parametrize("name", MACHINES)
def test_what_each_machine_lacks(found, name) -> None:
    fake, wanted = MACHINES[name]
    assert lacking(found(fake)) == wanted


def test_a_container_without_capabilities(found, tmp_path) -> None:
    assert lacking(found(fakes.CONTAINER)) == {
        "root": "uid 0 without CAP_SYS_ADMIN",
        "user_namespaces": "Operation not permitted",
        "proc_subset_pid": "Operation not permitted",
        "journald": "no socket",
        "cgroups": f"driver unified, mounted read-only at {tmp_path}/groups/unified",
    }
    assert lacking(found(replace(fakes.MODERN, capabilities="0" * 16)))["root"].count("CAP_") == 7


def test_a_rootless_container_has_no_uids_for_instances(found) -> None:
    assert found(fakes.ROOTLESS)["uids"].found == "1879048192 to 1879310335 do not exist in this user namespace"
    most = replace(fakes.MODERN, uid_map="0 0 1879310336")
    assert found(most)["uids"].ok is True
    assert found(replace(most, uid_map="0 0 1879310335"))["uids"].ok is False


@pytest.mark.parametrize("fake", [fakes.SOMEBODY, replace(fakes.SOMEBODY, session="memory pids")])
def test_what_takes_root_to_find_out_is_neither_there_nor_missing(found, fake) -> None:
    unknown = {name for name, feature in found(fake).items() if feature.ok is not True}
    assert unknown == {name for name, feature in found(fake).items() if feature.ok is None}


def test_everything_that_is_missing_says_how_to_get_it_or_what_is_done_instead(found) -> None:
    for fake, _ in (*MACHINES.values(), (fakes.CONTAINER, {}), (fakes.ROOTLESS, {})):
        for name, feature in found(fake).items():
            if feature.ok is False:
                assert feature.remedy, (fake, name)
                assert bool(feature.instead) == (name in SHOWN), (fake, name)


@pytest.mark.parametrize(("restricted", "ok"), [(None, True), ("0", True), ("0\n", True), ("1\n", False), ("2", False)])
def test_apparmor_restricts_nothing_where_it_says_zero_or_nothing(found, restricted, ok) -> None:
    assert found(replace(fakes.UBUNTU_24_04, restricted=restricted))["apparmor"].ok is ok


@pytest.mark.parametrize(
    ("label", "ok"),
    [
        ("plugind-launcher (unconfined)", True),
        ("plugind-launcher", True),
        ("unconfined", False),
        ("unprivileged_userns (enforce)", False),
        ("plugind-launcher//&unprivileged_userns (enforce)", False),
        ("plugind-launcher2 (unconfined)", False),
        ("", False),
    ],
)
def test_the_profile_that_this_process_is_in(found, tmp_path, label, ok) -> None:
    feature = found(replace(fakes.UBUNTU_24_04_INSTALLED, label=label))["apparmor"]
    assert feature.ok is ok
    assert ("aa-exec -p plugind-launcher --" in feature.command) is not ok
    fakes.put(tmp_path, "proc/self/attr/apparmor/current", "unconfined\n")  # wins, where there is more than AppArmor
    assert features.probe(fakes.build(fakes.UBUNTU_24_04_SERVICE, tmp_path))["apparmor"].ok is False


def test_before_it_is_used_the_profile_has_to_be_loaded(found) -> None:
    assert found(fakes.UBUNTU_24_04)["apparmor"].command == "sudo packaging/apparmor/load.sh"


@pytest.mark.parametrize(
    ("version", "told"),
    [(1, "ABI 1: files"), (4, "ABI 4: files, refer, truncate, tcp"), (99, "ABI 99: files, refer, truncate, tcp, ")],
)
def test_what_each_version_of_landlock_adds(found, version, told) -> None:
    assert found(replace(fakes.MODERN, landlock=version))["landlock"].found.startswith(told)


@pytest.mark.parametrize(("release", "told"), [("5.18.9", "Linux 5.19 or newer"), ("5.19.0", "a container's runtime")])
def test_what_gets_a_listener(found, release, told) -> None:
    feature = found(replace(fakes.MODERN, release=release, notify="Invalid argument"))["seccomp_notify"]
    assert (feature.ok, feature.found, feature.remedy.startswith(told)) == (False, "Invalid argument", True)


@pytest.mark.parametrize(("release", "ok"), [("5.13.9", False), ("5.14.0", True)])
def test_without_a_group_to_look_at_the_version_tells(tmp_path, release, ok) -> None:
    here = fakes.build(replace(fakes.MODERN, release=release), tmp_path)
    for path in (tmp_path / "groups/unified/user.slice").iterdir():
        path.unlink()
    assert features.probe(here)["cgroup_kill"].ok is ok


@pytest.mark.parametrize(
    ("release", "ok"),
    [
        ("6.1", True), ("6.1.0-30-amd64", True), ("6.18.5+", True), ("10.0-rc1", True), ("6.2+deb", True),
        ("6.0.19", False), ("5.15.0-100-generic", False), ("5.20", False), ("strange", False), ("6.x", False),
    ],
)  # fmt: skip
def test_kernel_releases(found, release, ok) -> None:
    feature = found(replace(fakes.MODERN, release=release))["kernel"]
    assert (feature.ok, feature.found) == (ok, release)


def test_an_interpreter_of_which_a_stranger_cannot_read_everything(tmp_path) -> None:
    here = fakes.build(fakes.MODERN, tmp_path)
    closed = tmp_path / "opt/python/lib"
    closed.chmod(0o700)
    assert features.probe(here)["interpreter"].found == "/opt/python/lib has mode 0700"
    closed.chmod(0o755)
    (tmp_path / "opt").chmod(0o700)  # above the prefix: the jail has a folder of its own there
    assert features.probe(here)["interpreter"].ok is True
    (closed / "python3.11/os.py").unlink()
    assert features.probe(here)["interpreter"].found == "/opt/python/lib/python3.11/os.py: No such file or directory"


def test_an_interpreter_that_no_jail_could_show(tmp_path) -> None:
    def reserved():
        raise IsolationUnavailableError("rootfs", "the interpreter lies at /tmp/python, below /tmp")

    here = replace(fakes.build(fakes.MODERN, tmp_path), interpreter=reserved)
    assert features.probe(here)["interpreter"].found.endswith("/tmp/python, below /tmp")


def test_a_file_that_reads_as_nobody_expected_is_a_fact_that_is_missing(tmp_path) -> None:
    here = fakes.build(fakes.MODERN, tmp_path)
    fakes.put(tmp_path, "proc/self/uid_map", "strange\n")
    feature = features.probe(here)["uids"]
    assert (feature.ok, feature.found.startswith("cannot be found out: ")) == (False, True)
    assert lacking(features.probe(here)).keys() == {"uids"}


def test_a_machine_of_which_nothing_can_be_read(tmp_path) -> None:
    here = replace(fakes.build(fakes.MODERN, tmp_path / "there"), top=tmp_path / "nothing")
    found = features.probe(here)
    for profile in PROFILES.values():
        assert {"seccomp", "cgroups"} <= {text.split(" ")[0] for text in features.missing(profile, found)}


# --- room ------------------------------------------------------------------------------------------------------------


def test_ceilings_above_what_the_machine_has(tmp_path) -> None:
    profile = PROFILES[0]
    assert profile.ceilings.memory_bytes == 4 << 30
    assert features.tight(fakes.build(fakes.MODERN, tmp_path), profile) == []
    assert features.tight(fakes.build(replace(fakes.MODERN, memory_mib=2048, pid_max=400), tmp_path), profile) == [
        "a plugin may ask for 4096 MiB of memory and there are 2048 MiB: lower memory_bytes in the policy",
        "a plugin may ask for 512 processes and there can be 400: lower pids in the policy",
    ]


@pytest.mark.parametrize("place", ["user.slice/memory.max", "user.slice/session-1.scope/memory.max", "memory.max"])
def test_ceilings_above_what_a_group_above_has(tmp_path, place) -> None:
    here = fakes.build(replace(fakes.MODERN, session="cpu memory pids"), tmp_path)
    fakes.put(tmp_path, f"groups/unified/{place}", f"{1 << 30}\n")
    assert [text.split(":")[0] for text in features.tight(here, PROFILES[1])] == [
        "a plugin may ask for 2048 MiB of memory and there are 1024 MiB"
    ]
    assert features.tight(here, PROFILES[2]) == []


# --- what a tier needs -----------------------------------------------------------------------------------------------


def facts(**changed):
    """A machine that has everything, but for what is given."""
    return {name: changed.get(name) or Feature(name, True, "available") for name in EVERYTHING}


def test_nothing_is_missing_where_everything_is_there() -> None:
    assert [features.missing(profile, facts()) for profile in PROFILES.values()] == [[], [], []]


@pytest.mark.parametrize("name", EVERYTHING)
@pytest.mark.parametrize("ok", [False, None])
def test_what_is_not_there_or_not_known_is_missing(name, ok) -> None:
    found = facts(**{name: Feature(name, ok, "no such luck")})
    needy = replace(PROFILES[2], requires=(name,))
    assert features.missing(needy, found) == [f"{name} (no such luck)"]
    assert features.missing(replace(needy, requires=()), found) == []


def test_every_fact_that_the_shipped_profiles_require_is_known() -> None:
    for profile in PROFILES.values():
        assert set(profile.requires) <= set(EVERYTHING)


def test_an_unknown_requirement_is_missing() -> None:
    odd = replace(PROFILES[2], requires=("seccomp", "telepathy"))
    assert features.missing(odd, facts()) == ["telepathy (no such feature is known)"]
    assert [check.feature for check in features.checks(facts(), {2: odd}) if not check.feature.ok] == [
        Feature("telepathy", False, "no such feature is known",
                "take it out of `requires` in the tier's profile, or mend the spelling"),
    ]  # fmt: skip


def test_checks_say_who_needs_what() -> None:
    profiles = {1: replace(PROFILES[1], requires=("root",)), 0: replace(PROFILES[0], requires=("root", "pidfd"))}
    told = [Feature("root", False, "uid 5", "sudo"), Feature("pidfd", True, "yes"), Feature("x", None, "?")]
    assert features.checks({feature.name: feature for feature in told}, profiles) == [
        Check(told[0], (0, 1)),
        Check(told[1], (0,)),
        Check(told[2], ()),
    ]


KNOWN = st.dictionaries(st.sampled_from(EVERYTHING), st.sampled_from([True, False, None]))


@given(known=KNOWN, required=st.lists(st.sampled_from((*EVERYTHING, "telepathy"))))
def test_no_tier_runs_that_requires_what_is_not_there_for_certain(known, required) -> None:
    found = {name: Feature(name, ok, "found") for name, ok in known.items()}
    runs = not features.missing(replace(PROFILES[2], requires=tuple(required)), found)
    assert runs is all(known.get(name) is True for name in required)


ERRORS = st.sampled_from(["", "", "Operation not permitted", "no answer within 5 s"])
KNOBS = {
    "release": st.sampled_from(["4.19", "5.13.0", "6.1.0-30-amd64", "6.18", "strange"]),
    "architecture": st.sampled_from(["x86_64", "aarch64", "riscv64"]),
    "uid": st.sampled_from([0, 0, 1000]),
    "capabilities": st.sampled_from([fakes.ALL_CAPABILITIES, fakes.DOCKER_CAPABILITIES]),
    "uid_map": st.sampled_from(["0 0 4294967295", "0 1000 1", "strange"]),
    "taken_uids": st.sampled_from([(), fakes.TAKEN]),
    "actions": st.sampled_from([fakes.ACTIONS, "allow", ""]),
    "notify": ERRORS,
    "libseccomp": st.sampled_from([None, (2, 4, 0), (2, 5, 4)]),
    "most_user_namespaces": st.sampled_from([None, "0", "100"]),
    "user_namespace": ERRORS,
    "restricted": st.sampled_from([None, "0", "1"]),
    "label": st.sampled_from(["unconfined", "plugind-launcher (unconfined)", ""]),
    "profile_installed": st.booleans(),
    "pidfd": ERRORS,
    "proc_subset_pid": ERRORS,
    "memfd_noexec": st.booleans(),
    "landlock": st.integers(0, 9),
    "journald": st.booleans(),
    "interpreter_mode": st.sampled_from([0o755, 0o700, 0o644]),
    "hierarchy": st.sampled_from(["unified", "hybrid", "v1", "none"]),
    "controllers": st.sampled_from(["cpu memory pids", "cpu memory", ""]),
    "session": st.sampled_from([None, "memory pids", "cpu memory pids"]),
    "lacks": st.frozensets(st.sampled_from(["cgroup.kill", "memory.peak", "memory.swap.max"])),
    "read_only": st.booleans(),
    "swap": st.booleans(),
    "memory_mib": st.integers(1, 1 << 20),
    "pid_max": st.integers(1, 1 << 22),
}


def could_run(fake: Fake) -> bool:
    """The same judgement, from what is told of the machine and not from what is read of it."""
    return all(
        (
            fake.architecture != "riscv64",
            fake.uid == 0 and fake.capabilities == fakes.ALL_CAPABILITIES,
            fake.uid_map == "0 0 4294967295" and not fake.taken_uids,
            fake.actions == fakes.ACTIONS and not fake.notify,
            fake.libseccomp == (2, 5, 4),
            fake.most_user_namespaces == "100" and not fake.user_namespace,
            fake.restricted != "1" or fake.label.startswith("plugind-launcher"),
            not fake.pidfd and not fake.proc_subset_pid,
            fake.interpreter_mode == 0o755,
            fake.hierarchy in ("hybrid", "v1") or (fake.hierarchy == "unified" and "pids" in fake.controllers),
            fake.hierarchy == "none" or not fake.read_only,
        )
    )


def test_machines_are_told_apart_by_everything_that_a_fake_can_be() -> None:
    assert set(KNOBS) == {each.name for each in fields(Fake)}


CHANGED = st.lists(st.sampled_from(sorted(KNOBS)), max_size=4, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: KNOBS[name] for name in names})
)
"""A few things at a time: with everything at random hardly a machine could run anything."""


@settings(max_examples=60, deadline=None)
@given(changed=CHANGED)
@example(changed={})
def test_whatever_machine_there_is_a_tier_runs_exactly_where_it_could(changed) -> None:
    fake = replace(fakes.MODERN, libseccomp=(2, 5, 4), most_user_namespaces="100")
    fake = replace(fake, **changed)
    needy = replace(PROFILES[2], requires=tuple(name for name in EVERYTHING if name not in SHOWN))
    with tempfile.TemporaryDirectory() as folder:
        found = features.probe(fakes.build(fake, Path(folder)))
    assert set(found) == set(EVERYTHING)
    assert (not features.missing(needy, found)) is could_run(fake)


# --- this machine ----------------------------------------------------------------------------------------------------


def test_every_fact_of_this_machine() -> None:
    found = features.probe()
    assert all(feature.name == name and feature.found for name, feature in found.items())
    assert found["architecture"].found == platform.machine()
    assert found["kernel"].found == os.uname().release
    assert (found["root"].ok is True) is (os.geteuid() == 0)
    assert found["interpreter"].found == Interpreter.current().executable
    assert found["cgroups"].ok is not True or cgroup.detect(prepare=False).name in found["cgroups"].found


def test_asking_leaves_no_process_and_no_descriptor_behind() -> None:
    def around():
        return os.listdir("/proc/self/fd"), Path(f"/proc/self/task/{os.getpid()}/children").read_text()

    before = around()
    features.probe()
    assert around() == before


def test_a_call_is_really_answered_by_another_process() -> None:
    assert machine.in_child(machine.answer_a_call) == ""


ALLOW_ALL = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)  # struct sock_filter: return SECCOMP_RET_ALLOW


def test_where_a_listener_is_there_already_there_cannot_be_another() -> None:
    def twice():
        syscalls.prctl(constants.PR_SET_NO_NEW_PRIVS, 1)
        syscalls.seccomp_listen(ALLOW_ALL)
        machine.answer_a_call()

    assert machine.in_child(twice) == os.strerror(errno.EBUSY)


@pytest.mark.parametrize("call", ["seccomp", "getppid"])
def test_a_call_that_nobody_answers_is_no_success(call) -> None:
    """Below a filter that takes the listener away, or answers first, the probe says no and does not hang."""
    script = (
        "import errno, pyseccomp\n"
        "rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)\n"
        f"rules.add_rule(pyseccomp.ERRNO(errno.EINVAL), {call!r})\n"
        "rules.load()\n"
        "from plugind.sandbox import features\n"
        "feature = features.probe()['seccomp_notify']\n"
        "print(feature.ok, feature.found)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == {"seccomp": "False Invalid argument\n", "getppid": "False the answer did not arrive\n"}[call]


def test_landlock_is_asked_for_its_version() -> None:
    version = landlock.abi()
    assert features.probe()["landlock"].found.split(":")[0] == (f"ABI {version}" if version else "not there")


def test_the_library_that_builds_filters_is_the_one_that_is_asked_for_its_version() -> None:
    version = machine.libseccomp_version()
    assert version is not None
    mapped = Path("/proc/self/maps").read_text()
    assert f"libseccomp.so.{'.'.join(map(str, version))}" in mapped


def test_what_is_tried_in_a_child() -> None:
    def refuse():
        raise PermissionError(1, "Operation not permitted")

    def explain():
        raise OSError("plugind runs on x86_64")

    def blunder():
        raise ValueError("wrong")

    assert machine.in_child(lambda: None) == ""
    assert machine.in_child(refuse) == "Operation not permitted"
    assert machine.in_child(explain) == "plugind runs on x86_64"
    assert machine.in_child(blunder) == "ValueError('wrong')"
    assert machine.in_child(lambda: os._exit(0)) == "it died"
