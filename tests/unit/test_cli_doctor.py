"""doctor: which tiers can run, what is missing or not known, what to do: for machines that are not here, and for this one."""

import dataclasses
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.sandbox.features import Feature, missing
from plugind_client.cli import adapters, doctor
from plugind_client.cli.adapters import Machine, MachineCheck
from plugind_client.cli.doctor import Verdict, Word
from plugind_client.cli.settings import Settings
from tests.support import fake_machine as fakes
from tests.support.fake_daemon import FakeDaemon, plugindctl_process, plugindctl_terminal

NEEDED = (
    "architecture root seccomp seccomp_notify libseccomp user_namespaces apparmor cgroups pidfd proc_subset_pid uids"
    " interpreter"
).split()
PROFILES = {tier: replace(profile, requires=tuple(NEEDED)) for tier, profile in adapters.profiles().items()}
"""Whatever the shipped profiles require: here all three tiers need what no plugin could run without."""


@pytest.fixture(autouse=True)
def nobody_to_ask(tmp_path, monkeypatch):
    monkeypatch.setenv("PLUGIND_SOCKET", str(tmp_path / "missing.sock"))


@pytest.fixture
def ask(tmp_path, capsys):
    """doctor on a fake: its exit code, and what it prints."""

    def asked(fake, **options):
        machine = adapters.machine_of(fakes.build(fake, tmp_path), PROFILES)
        code = doctor.report(machine, Settings(**options))
        shown = capsys.readouterr()
        assert shown.err == ""
        return code, shown.out.replace(str(tmp_path), "TOP")

    return asked


def check(name, ok, *tiers, **told):
    return MachineCheck(name, ok, f"found {name}", tiers, f"get {name}", **told)


def machine(*checks, **tight):
    return Machine((0, 1, 2), checks, {int(tier[1:]): told for tier, told in tight.items()})


# --- machines --------------------------------------------------------------------------------------------------------

DEBIAN_12 = """\
needed by tiers 0, 1 and 2
  ok       architecture     x86_64
  ok       root             this is root
  ok       seccomp          actions kill_process, errno, user_notif, allow
  ok       seccomp_notify   a call was answered by another process
  ok       libseccomp       2.5.4
  ok       user_namespaces  available
  ok       apparmor         user namespaces are not restricted
  ok       pidfd            available
  ok       proc_subset_pid  available
  ok       uids             1879048192 to 1879310335 are free
  ok       interpreter      /opt/python/bin/python3
  ok       cgroups          driver DRIVER, with memory, pids and cpu

good to have
  ok       kernel           6.1.0-30-amd64
  absent   memfd_noexec     no sysctl vm.memfd_noexec
                            instead: memfd_create is refused
                            to get it: Linux 6.3 or newer
  ok       landlock         ABI 2: files, refer
  ok       journald         there
  ok       cgroup_kill      available
  ok       memory_peak      available
  ok       swap             there is none

Tier 0 can run
Tier 1 can run
Tier 2 can run
"""


@pytest.mark.parametrize(
    ("fake", "driver"), [(fakes.DEBIAN_12, "unified"), (fakes.DEBIAN_12_HYBRID, "v1/hybrid")], ids=["unified", "hybrid"]
)
def test_debian_12(ask, fake, driver):
    assert ask(fake) == (0, DEBIAN_12.replace("DRIVER", driver))


def refused(what, *to_do):
    """The end of what is said where no tier can run."""
    tiers = "".join(f"Tier {tier} is refused: it needs {what}\n" for tier in (0, 1, 2))
    return f"{tiers}\nwhat to do\n" + "".join(f"{line}\n" for line in to_do)


CONTAINER = "this looks like a container: run plugind in a privileged one, on the host or in a VM"
OLDER = refused("seccomp_notify", "  seccomp_notify: Linux 5.19 or newer")
ENDS = {
    "5.13": (fakes.KERNEL_5_13, OLDER),
    "5.15": (fakes.NO_MEMORY_PEAK, OLDER),
    "wsl": (fakes.WSL, OLDER),
    "ubuntu 24.04": (
        fakes.UBUNTU_24_04,
        refused(
            "apparmor",
            "  apparmor: load the profile plugind-launcher, as packaging/install.sh does; then start plugind anew",
            "    sudo packaging/apparmor/load.sh",
        ),
    ),
    "ubuntu 24.04, the profile is there": (
        fakes.UBUNTU_24_04_INSTALLED,
        refused(
            "apparmor",
            "  apparmor: the service has the profile; start by hand, and ask doctor, below `aa-exec -p plugind-launcher --`",
            '    sudo aa-exec -p plugind-launcher -- "$(command -v plugind)" serve --standalone',
        ),
    ),
    "4.19": (
        fakes.NO_USER_NOTIF,
        refused(
            "seccomp, seccomp_notify, pidfd and proc_subset_pid",
            "  seccomp: Linux 5.0 or newer with CONFIG_SECCOMP_FILTER",
            "  seccomp_notify: Linux 5.19 or newer",
            "  pidfd: Linux 5.3 or newer",
            "  proc_subset_pid: Linux 5.8 or newer",
        ),
    ),
    "without pids": (
        fakes.NO_PIDS,
        refused(
            "cgroups", "  cgroups: boot with systemd, or mount a cgroup2 with the controllers memory, pids and cpu"
        ),
    ),
    "without user namespaces": (
        fakes.NO_USER_NAMESPACES,
        refused(
            "user_namespaces",
            "  user_namespaces: allow some",
            "    echo user.max_user_namespaces=65536 | sudo tee /etc/sysctl.d/60-plugind.conf; sudo sysctl --system",
        ),
    ),
    "a container": (
        fakes.CONTAINER,
        refused(
            "root, user_namespaces, proc_subset_pid and cgroups",
            f"  root: {CONTAINER}",
            f"  user_namespaces: {CONTAINER}",
            f"  proc_subset_pid: {CONTAINER}",
            "  cgroups: this looks like a container: run plugind on the host or in a VM",
        ),
    ),
    "riscv64": (
        fakes.RISCV,
        refused(
            "architecture and seccomp_notify",
            "  architecture: a machine with x86_64 or aarch64",
            "  seccomp_notify: a machine with x86_64 or aarch64",
        ),
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_where_no_tier_can_run(ask, name):
    fake, end = ENDS[name]
    code, out = ask(fake)
    assert (code, out[out.index("Tier 0") :]) == (7, end)


INSTEAD = {
    "without Landlock": (fakes.NO_LANDLOCK, ["landlock: mounts and uids alone keep files apart"]),
    "5.13": (
        fakes.KERNEL_5_13,
        [
            "kernel: what counts is what the other lines say; nothing older than 6.1 is tested",
            "memfd_noexec: memfd_create is refused",
            "cgroup_kill: processes are killed one by one, and the kill switch needs the launcher",
            "memory_peak: the usage of a run says 0 bytes of memory",
        ],
    ),
    "5.15": (
        fakes.NO_MEMORY_PEAK,
        [
            "kernel: what counts is what the other lines say; nothing older than 6.1 is tested",
            "memfd_noexec: memfd_create is refused",
            "memory_peak: the usage of a run says 0 bytes of memory",
        ],
    ),
    "wsl": (
        fakes.WSL,
        [
            "kernel: what counts is what the other lines say; nothing older than 6.1 is tested",
            "memfd_noexec: memfd_create is refused",
            "landlock: mounts and uids alone keep files apart",
            "journald: records are in the ledger only",
        ],
    ),
    "swap that is not counted": (
        replace(fakes.MODERN, swap=True, lacks=frozenset({"memory.swap.max"})),
        ["swap: a plugin can use swap beyond its limit"],
    ),
    "without swap": (fakes.MODERN, []),
}


@pytest.mark.parametrize("name", INSTEAD)
def test_what_is_done_without_what_no_tier_needs(ask, name):
    fake, instead = INSTEAD[name]
    _, out = ask(fake)
    said, absent = [], ""
    for line in out.splitlines():
        words = line.split()
        absent = words[1] if words[:1] == ["absent"] else absent
        if words[:1] == ["instead:"]:
            said.append(f"{absent}: {' '.join(words[1:])}")
    assert said == instead


@pytest.mark.parametrize(
    "fake",
    [
        fakes.MODERN,
        fakes.AARCH64,
        fakes.NO_LANDLOCK,
        fakes.UBUNTU_24_04_SERVICE,
        replace(fakes.MODERN, hierarchy="v1"),
        replace(fakes.MODERN, lacks=frozenset({"cgroup.kill", "memory.peak"})),
        replace(fakes.MODERN, swap=True, lacks=frozenset({"memory.swap.max"}), journald=False),
    ],
)
def test_where_every_tier_can_run(ask, fake):
    code, out = ask(fake)
    assert code == 0
    assert out.endswith("\n\nTier 0 can run\nTier 1 can run\nTier 2 can run\n")


def test_an_old_windows_is_told_how_to_get_a_newer_kernel(ask):
    assert "\n                              wsl --update\n" in ask(fakes.WSL)[1]


def test_somebody_without_root_is_told_what_only_root_can_find_out(ask):
    code, out = ask(fakes.SOMEBODY)
    assert code == 0
    assert "  ?        root             this is uid 1000\n" in out
    assert "  ?        proc_subset_pid  only root can find out\n" in out
    assert out[out.index("Tier 0") :] == (
        "Tier 0 can run, as far as can be seen without root\n"
        "Tier 1 can run, as far as can be seen without root\n"
        "Tier 2 can run, as far as can be seen without root\n"
        "\n"
        "what to do\n"
        "  only root can find out about root and proc_subset_pid\n"
        '    sudo "$(command -v plugindctl)" doctor\n'
    )


def test_a_ceiling_that_this_machine_cannot_give(ask):
    code, out = ask(replace(fakes.MODERN, memory_mib=2048))
    assert code == 0
    assert (
        "\nTier 0 can run\n"
        "  but a plugin may ask for 4096 MiB of memory and there are 2048 MiB: lower memory_bytes in the policy\n"
        "Tier 1 can run\n"
    ) in out


def test_json_for_programs(ask):
    code, out = ask(replace(fakes.UBUNTU_24_04, memory_mib=3000), as_json=True)
    told = json.loads(out)
    assert (code, told["ok"], told["can_run"], told["daemon"]) == (7, False, [], None)
    assert told["tiers"][0] == {
        "tier": 0,
        "state": "refused",
        "names": ["apparmor"],
        "why": "",
        "by_daemon": False,
        "tight": ["a plugin may ask for 4096 MiB of memory and there are 3000 MiB: lower memory_bytes in the policy"],
    }
    assert [row for row in told["checks"] if row["ok"] is not True] == [
        {
            "name": "apparmor",
            "ok": False,
            "found": "user namespaces are restricted, and this process is unconfined",
            "tiers": [0, 1, 2],
            "remedy": "load the profile plugind-launcher, as packaging/install.sh does; then start plugind anew",
            "command": "sudo packaging/apparmor/load.sh",
            "instead": "",
        }
    ]


# --- judging ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ok,tiers,state",
    [
        (True, (), "ok"),
        (True, (2,), "ok"),
        (None, (), "?"),
        (None, (0, 1), "?"),
        (False, (), "absent"),
        (False, (1,), "MISSING"),
    ],
)
def test_state_of_a_check(ok, tiers, state):
    assert doctor.state(check("x", ok, *tiers)) == state


RUN = [Verdict(0, "runs"), Verdict(1, "runs"), Verdict(2, "runs")]


@pytest.mark.parametrize(
    "checks,said",
    [
        ((), RUN),
        ((check("a", True, 0, 1, 2),), RUN),
        ((check("a", False),), RUN),
        ((check("a", None),), RUN),
        (
            (check("a", None, 0), check("b", None, 1)),
            [Verdict(0, "unknown", ("a",)), Verdict(1, "unknown", ("b",)), RUN[2]],
        ),
        ((check("a", False, 2), check("b", None, 2)), [*RUN[:2], Verdict(2, "refused", ("a",))]),
        (
            (check("a", False, 0, 1), check("b", False, 1), check("c", False), check("d", True, 1)),
            [Verdict(0, "refused", ("a",)), Verdict(1, "refused", ("a", "b")), RUN[2]],
        ),
    ],
)
def test_whether_each_tier_can_run(checks, said):
    assert doctor.verdicts(machine(*checks)) == said


@given(st.data())
def test_doctor_and_the_launcher_agree_where_everything_is_known(data):
    names = st.sampled_from(["root", "seccomp", "cgroups", "pidfd", "no_such_thing"])
    profiles = {
        tier: dataclasses.replace(profile, requires=tuple(data.draw(st.sets(names))))
        for tier, profile in PROFILES.items()
    }
    known = data.draw(st.sets(names)) - {"no_such_thing"}
    found = {name: Feature(name, data.draw(st.booleans()), "found") for name in sorted(known)}
    said = doctor.verdicts(adapters.judged(found, profiles))
    assert {each.tier: each.state for each in said} == {
        tier: "refused" if missing(profile, found) else "runs" for tier, profile in profiles.items()
    }


def test_requirement_that_nobody_knows_is_missing():
    profiles = PROFILES | {1: replace(PROFILES[1], requires=("secomp",))}
    rows = {row.name: row for row in adapters.judged({}, profiles).checks}
    assert (rows["secomp"].ok, rows["secomp"].tiers) == (False, (1,))
    assert (rows["seccomp"].ok, rows["seccomp"].tiers) == (False, (0, 2))
    assert rows["secomp"].found == "no such feature is known"


def test_facts_are_grouped_by_the_tiers_that_need_them(capsys):
    told = machine(check("a", True, 0, 1, 2), check("b", False, 2), check("c", None), check("d", True, 0, 1, 2))
    doctor.show_lines(doctor.facts(told))
    assert capsys.readouterr().out == (
        "needed by tiers 0, 1 and 2\n"
        "  ok       a                found a\n"
        "  ok       d                found d\n"
        "\n"
        "needed by tier 2\n"
        "  MISSING  b                found b\n"
        "\n"
        "good to have\n"
        "  ?        c                found c\n"
        "\n"
    )


def test_what_is_found_cannot_steer_the_terminal(capsys):
    told = machine(replace(check("a", False, 0), found="\x1b[2J\nTier 0 can run", remedy="\x1b[2J", command="\x1b[2J"))
    doctor.show_lines(doctor.facts(told))
    doctor.show_lines(doctor.conclusions(told, doctor.verdicts(told)))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\nTier 0 can run" not in out


# --- a daemon to ask -------------------------------------------------------------------------------------------------


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    with FakeDaemon(str(tmp_path / "d.sock")) as served:
        monkeypatch.setenv("PLUGIND_SOCKET", served.socket)
        yield served


def test_what_the_daemons_launcher_found_counts(daemon):
    daemon.condition.unavailable_tiers[2] = "this machine lacks cgroups (no luck)"
    done = plugindctl_process("doctor")
    assert done.code == 7
    assert (
        "\nTier 0 can run: so says the daemon\n"
        "Tier 1 can run: so says the daemon\n"
        "Tier 2 is refused: this machine lacks cgroups (no luck)\n"
    ) in done.out
    told = plugindctl_process("doctor", "--json").json
    assert (told["ok"], told["can_run"]) == (False, [0, 1])
    assert told["daemon"] == {"socket": daemon.socket, "problem": "", "refused": {"2": told["tiers"][2]["why"]}}


def test_the_daemons_word_is_worth_more_than_what_a_session_can_see(daemon, tmp_path, capsys):
    (tmp_path / "top").mkdir()
    fake = adapters.machine_of(fakes.build(fakes.UBUNTU_24_04_INSTALLED, tmp_path / "top"), PROFILES)
    assert doctor.report(fake, Settings()) == 0
    out = capsys.readouterr().out
    assert "MISSING  apparmor" in out
    assert out.endswith("\nTier 2 can run: so says the daemon\n")


def test_a_daemon_without_a_launcher_knows_nothing_of_the_machine():
    told = machine(check("a", False, 1))
    said = doctor.verdicts(told, Word("/s", "the launcher is away"))
    assert said == doctor.verdicts(told)


def test_a_daemon_whose_launcher_is_away_is_said(daemon):
    daemon.condition.launcher_problem = "no launcher listens"
    done = plugindctl_process("doctor")
    assert done.err == f"the daemon at {daemon.socket} says nothing of it: no launcher listens\n"
    assert "so says the daemon" not in done.out


def test_a_daemon_that_was_named_and_is_not_there_is_said(tmp_path):
    done = plugindctl_process("doctor", "--socket", tmp_path / "no.sock")
    assert done.err.startswith(f"the daemon at {tmp_path}/no.sock says nothing of it: ")
    assert done.out == plugindctl_process("doctor").out


# --- on this machine -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [80, 120])
def test_on_a_terminal_only_commands_are_wider_than_it(columns):
    _, screen = plugindctl_terminal("doctor", columns=columns)
    assert "needed by tiers 0, 1 and 2\n" in screen
    wide = [line for line in screen.splitlines() if len(line) > columns]
    assert [line for line in wide if not line.startswith("    sudo ")] == []
    assert "\x1b" not in screen  # the terminal of this test knows no escapes


UNPRIVILEGED = """
import os
from plugind_client.cli import doctor
from tests.support.fake_daemon import plugindctl

doctor.ask = lambda settings: None  # gRPC's threads would be there when the next one forks: a child can hang then
plugindctl("doctor")  # loads all that it needs: afterwards the interpreter may be out of reach
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
people, programs = plugindctl("doctor"), plugindctl("doctor", "--json")
assert (people.code, programs.err) == (programs.code, ""), (people, programs)
print(programs.code, people.out, programs.out, sep="\\0")
"""


def unprivileged():
    out = subprocess.check_output([sys.executable, "-c", UNPRIVILEGED], text=True, timeout=60)
    code, people, programs = out.split("\0")
    return int(code), people, json.loads(programs)


def holds(code, told):
    """The exit code is 7 exactly when a tier lacks something that it requires."""
    lacking = [row for row in told["checks"] if row["ok"] is False and row["tiers"]]
    affected = {tier for row in lacking for tier in row["tiers"]}
    assert code == (7 if lacking else 0)
    assert told["ok"] is not bool(lacking)
    assert told["can_run"] == [tier for tier in (0, 1, 2) if tier not in affected]


def test_doctor_on_this_machine_as_whoever_asks():
    done = plugindctl_process("doctor", "--json", env=os.environ)
    holds(done.code, done.json)
    assert done.err == ""
    required = {name for profile in adapters.profiles().values() for name in profile.requires}
    assert required <= {row["name"] for row in done.json["checks"]}


def test_doctor_without_root_shows_what_it_cannot_find_out_as_not_known():
    code, people, told = unprivileged()
    holds(code, told)
    rows = {row["name"]: row["ok"] for row in told["checks"]}
    assert rows["proc_subset_pid"] is None
    assert rows["interpreter"] is not False  # below a home that is closed to whoever asks it is no less there
    lines = [line.split() for line in people.splitlines() if line.startswith(("  ok ", "  ? ", "  absent ", "  MISSI"))]
    shown = {words[1]: words[0] for words in lines}
    assert shown.keys() == rows.keys()
    assert shown["proc_subset_pid"] == "?"
    assert {name: state for name, state in shown.items() if rows[name] is True} == dict.fromkeys(
        (name for name, ok in rows.items() if ok), "ok"
    )
