"""doctor as an operator types it where plugind is a service."""

import json

import pytest


@pytest.fixture(scope="module", autouse=True)
def running(machine):
    machine.get("systemctl", "start", "plugind-launcher.socket", "plugind")
    machine.until(lambda: machine.do("plugindctl", "status").code == 0, "all is well")


def told(machine, *before):
    done = machine.do(*before, "plugindctl", "doctor", "--json")
    return done.code, json.loads(done.out)


def test_somebody_learns_from_the_daemon_what_only_root_can_find_out(machine):
    nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    code, answer = told(machine, *nobody)
    assert (code, answer["can_run"]) == (0, [0, 1, 2])
    assert {tier["by_daemon"] for tier in answer["tiers"]} == {True}
    assert {row["name"] for row in answer["checks"] if row["ok"] is None} >= {"root", "proc_subset_pid"}
    done = machine.do(*nobody, "plugindctl", "doctor")
    assert done.out.endswith(
        "\nTier 0 can run: so says the daemon\nTier 1 can run: so says the daemon\nTier 2 can run: so says the daemon\n"
    )


def test_root_finds_everything_that_the_installation_brings(machine):
    code, answer = told(machine)
    rows = {row["name"]: row for row in answer["checks"]}
    assert code == 0
    assert {name: rows[name]["ok"] for name in ("journald", "interpreter", "libseccomp", "uids", "cgroups")} == {
        "journald": True, "interpreter": True, "libseccomp": True, "uids": True, "cgroups": True,
    }  # fmt: skip
    assert rows["interpreter"]["found"].startswith("/usr/bin/python3")
