"""doctor: what is judged missing, absent or not known, and which tiers can run."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.sandbox.features import Feature, missing
from plugind_client.cli import adapters, doctor
from plugind_client.cli.adapters import Machine, MachineCheck
from tests.support.fake_daemon import plugindctl_process

PROFILES = adapters.profiles()


def check(name, ok, *tiers):
    return MachineCheck(name, ok, f"found {name}", tiers, f"get {name}")


def machine(*checks):
    return Machine((0, 1, 2), checks)


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


@pytest.mark.parametrize(
    "checks,able,summary",
    [
        ((), (0, 1, 2), "tiers 0, 1 and 2 can run here"),
        ((check("a", True, 0, 1, 2),), (0, 1, 2), "tiers 0, 1 and 2 can run here"),
        ((check("a", False),), (0, 1, 2), "tiers 0, 1 and 2 can run here"),
        ((check("a", None),), (0, 1, 2), "tiers 0, 1 and 2 can run here"),
        (
            (check("a", None, 0), check("b", None, 1)),
            (0, 1, 2),
            "tiers 0, 1 and 2 can run here; only root can find out about a and b",
        ),
        ((check("a", False, 2),), (0, 1), "tiers 0 and 1 can run here; tier 2 cannot, for lack of a"),
        (
            (check("a", False, 0, 1), check("b", False, 1), check("c", False), check("d", True, 1)),
            (2,),
            "tier 2 can run here; tiers 0 and 1 cannot, for lack of a and b",
        ),
        (
            (check("a", False, 0, 1, 2), check("b", None, 2)),
            (),
            "no tier can run here; for lack of a; only root can find out about b",
        ),
    ],
)
def test_tiers_that_can_run_and_what_is_said_of_them(checks, able, summary):
    assert doctor.able(machine(*checks)) == able
    assert doctor.summary(machine(*checks)) == summary


def test_table_for_people(capsys):
    doctor.show(
        machine(check("a", True, 0), check("b", None, 1, 2), check("c", False), check("d", False, 2)), as_json=False
    )
    shown = capsys.readouterr()
    assert [line.split() for line in shown.out.splitlines()] == [
        ["what", "found", "tiers", "what", "to", "do"],
        ["ok", "a", "found", "a", "0"],
        ["?", "b", "found", "b", "1,", "2", "get", "b"],
        ["absent", "c", "found", "c", "-", "get", "c"],
        ["MISSING", "d", "found", "d", "2", "get", "d"],
    ]
    assert shown.err.startswith("tiers 0 and 1 can run here; tier 2 cannot, for lack of d")


def test_json_for_programs(capsys):
    doctor.show(machine(check("a", None, 0), check("b", False, 1)), as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "ok": False,
        "can_run": [0, 2],
        "checks": [
            {"name": "a", "ok": None, "found": "found a", "tiers": [0], "remedy": "get a"},
            {"name": "b", "ok": False, "found": "found b", "tiers": [1], "remedy": "get b"},
        ],
    }


@given(st.data())
def test_doctor_and_the_launcher_agree_where_everything_is_known(data):
    names = st.sampled_from(["root", "seccomp", "cgroups", "pidfd", "no_such_thing"])
    profiles = {
        tier: dataclasses.replace(profile, requires=tuple(data.draw(st.sets(names))))
        for tier, profile in PROFILES.items()
    }
    known = data.draw(st.sets(names)) - {"no_such_thing"}
    found = {name: Feature(name, data.draw(st.booleans()), "found") for name in sorted(known)}
    runs = tuple(tier for tier, profile in profiles.items() if not missing(profile, found))
    assert doctor.able(adapters.machine_of(found, profiles)) == runs


def test_requirement_that_nobody_knows_is_missing():
    profiles = PROFILES | {1: dataclasses.replace(PROFILES[1], requires=("secomp",))}
    rows = {row.name: row for row in adapters.machine_of({}, profiles).checks}
    assert (rows["secomp"].ok, rows["secomp"].tiers) == (False, (1,))
    assert (rows["seccomp"].ok, rows["seccomp"].tiers) == (False, (0, 2))
    assert rows["secomp"].found == "no such feature is known"


# --- on this machine -------------------------------------------------------------------------------------------------

UNPRIVILEGED = """
import os
from tests.support.fake_daemon import plugindctl

plugindctl("doctor")  # loads all that it needs: afterwards the interpreter may be out of reach
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
people, programs = plugindctl("doctor"), plugindctl("doctor", "--json")
assert (people.code, programs.err) == (programs.code, "")
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


def test_doctor_on_this_machine_as_whoever_asks(tmp_path):
    done = plugindctl_process("doctor", "--json", env=os.environ | {"PLUGIND_SOCKET": str(tmp_path / "missing.sock")})
    holds(done.code, done.json)
    assert done.err == ""
    required = {name for profile in PROFILES.values() for name in profile.requires}
    assert required <= {row["name"] for row in done.json["checks"]}


def test_doctor_without_root_shows_what_it_cannot_find_out_as_not_known():
    code, people, told = unprivileged()
    holds(code, told)
    rows = {row["name"]: row["ok"] for row in told["checks"]}
    assert rows["proc_subset_pid"] is None
    shown = {line.split()[1]: line.split()[0] for line in people.splitlines()[1:]}
    assert shown["proc_subset_pid"] == "?"
    assert {name: state for name, state in shown.items() if rows[name] is True} == dict.fromkeys(
        (name for name, ok in rows.items() if ok), "ok"
    )
