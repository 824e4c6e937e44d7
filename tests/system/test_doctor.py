"""doctor where this kernel really gives less: in namespaces, and with capabilities and filters, that the test makes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fake_daemon import COMMAND, Done

FILTERED = """
import errno, os, pyseccomp, sys
rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
rules.add_rule(pyseccomp.ERRNO(errno.{error}), {call!r})
rules.load()
os.execv(sys.argv[1], sys.argv[1:])
"""


def doctor(*prefix, arguments=("--json",)):
    """doctor, started by what comes before it."""
    done = subprocess.run(
        [*prefix, *COMMAND, "doctor", *arguments],
        capture_output=True, text=True, timeout=60, check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PLUGIND_SOCKET": "/nonexistent/plugind.sock"},
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def changes(done):
    """What is found otherwise than without any of it."""
    plain = {row["name"]: row for row in doctor().json["checks"]}
    return {row["name"]: row["found"] for row in done.json["checks"] if row != plain[row["name"]]}


def test_here_every_tier_can_run():
    done = doctor()
    assert (done.code, done.json["can_run"], done.err) == (0, [0, 1, 2], "")


def test_where_user_namespaces_are_switched_off():
    inside = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    prefix = [*"unshare --user --map-root-user --pid --fork --mount-proc sh -c".split(), inside, "sh"]
    done = doctor(*prefix, arguments=())
    assert done.code == 7
    assert done.out[done.out.index("Tier 0") :] == (
        "Tier 0 is refused: it needs user_namespaces and uids\n"
        "Tier 1 is refused: it needs user_namespaces and uids\n"
        "Tier 2 is refused: it needs user_namespaces and uids\n"
        "\n"
        "what to do\n"
        "  user_namespaces: allow some\n"
        "    echo user.max_user_namespaces=65536 | sudo tee /etc/sysctl.d/60-plugind.conf; sudo sysctl --system\n"
        "  uids: this is a rootless container: run plugind on the host or in a VM\n"
    )
    assert "  MISSING  uids             1879048192 to 1879310335 do not exist in this user namespace\n" in done.out


def test_root_without_the_capability_that_makes_namespaces():
    done = doctor("setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin")
    assert done.code == 7
    assert changes(done) == {
        "root": "uid 0 without CAP_SYS_ADMIN",
        "proc_subset_pid": "Operation not permitted",
        "network": "unshare 0x40000000: Operation not permitted",
    }
    assert [tier["names"] for tier in done.json["tiers"]] == [["root", "proc_subset_pid"]] * 3


def test_groups_that_are_mounted_read_only():
    groups = Path("/sys/fs/cgroup/memory")
    groups = groups if groups.is_dir() else groups.parent
    inside = f'mount --bind {groups} {groups} && mount -o remount,ro,bind {groups} && exec "$@"'
    done = doctor("unshare", "--mount", "--propagation", "private", "sh", "-c", inside, "sh")
    assert done.code == 7
    assert changes(done).keys() == {"cgroups"}
    assert changes(done)["cgroups"].endswith(f", mounted read-only at {groups}")


@pytest.mark.parametrize(
    ("call", "error", "fact", "found", "code"),
    [
        ("seccomp", "EINVAL", "seccomp_notify", "Invalid argument", 7),
        ("pidfd_open", "ENOSYS", "pidfd", "Function not implemented", 7),
        ("landlock_create_ruleset", "EOPNOTSUPP", "landlock", "not there", 0),
    ],
)
def test_below_a_filter_as_containers_have_them(call, error, fact, found, code):
    below = FILTERED.format(call=call, error=error)
    told = doctor(sys.executable, "-c", below)
    assert told.code == code
    assert changes(told) == {fact: found}
