"""Hard triggers: what one event is enough for, and what it is not."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.governance.triggers import hard
from plugind.linux import seccomp_lists, seccomp_notify
from plugind.linux.seccomp_notify import NATIVE, Call
from plugind.model import Code, Outcome, Violation
from plugind.sandbox.refusals import Refusal, violations
from tests.support.observed import refused, seen

RULES = seccomp_notify.Rules()
VIOLATION = Outcome.VIOLATION


def said(name, key=0, count=1, arch=NATIVE):
    """What the sandbox says of a call, in its own words."""
    (found_number,) = seccomp_notify._numbers([name])
    call = Call(found_number, arch, key)
    return violations([Refusal(call, count, RULES.dangerous(call))], 0, RULES)


def triggers(observation):
    return [(each.trigger, each.severity) for each in hard(observation)]


@pytest.mark.parametrize("name", seccomp_lists.DANGEROUS)
def test_every_dangerous_call_in_the_words_of_the_sandbox(name):
    if not seccomp_notify._numbers([name]):
        pytest.skip("a call of another architecture")
    found = triggers(seen(VIOLATION, violations=said(name)))
    severity = (
        "high"
        if name in "acct add_key keyctl quotactl quotactl_fd request_key swapoff swapon unshare".split()
        else "critical"
    )
    assert found == [("dangerous_syscall", severity)]


def test_a_call_by_the_entry_of_another_architecture_is_an_attack():
    found = triggers(seen(VIOLATION, violations=said("read", arch=0x40000003)))
    assert found == [("dangerous_syscall", "critical")]


@pytest.mark.parametrize("mode", ["run", "map", "session", "import"])
@pytest.mark.parametrize("outcome", [VIOLATION, Outcome.KILLED, Outcome.TIMEOUT])
def test_a_dangerous_call_counts_in_whatever_it_was_made_and_however_that_ended(mode, outcome):
    (found,) = hard(seen(outcome, violations=said("ptrace", count=2), mode=mode))
    assert (found.hard, found.trigger, found.numbers) == (True, "dangerous_syscall", {"calls": 2.0})
    assert found.actual == "tried 2 times: ptrace"
    assert not found.observed


def test_more_refused_calls_than_allowed():
    detail = "more than 10000 refused system calls"
    (found,) = hard(seen(VIOLATION, violations=said("chroot", count=10001), detail=detail))
    assert (found.trigger, found.severity, found.numbers) == ("too_many_refused_calls", "high", {"calls": 10001.0})
    assert found.actual == "tried 10001 times: chroot"


def test_a_violation_of_which_nothing_is_known_is_one():
    assert hard(seen(VIOLATION))[0].actual == "a violation of which nothing more is known"


@pytest.mark.parametrize(
    ("key", "count", "expected"),
    [
        (2, 1, True),  # AF_INET
        (10, 1, False),  # AF_INET6: a probe
        (10, 2, True),
        (17, 1, True),  # AF_PACKET
        (40, 1, True),  # AF_VSOCK
        (38, 1, True),  # AF_ALG
        (31, 1, True),  # AF_BLUETOOTH, which has no word
        (1, 50, False),  # AF_UNIX: syslog
        (16, 50, False),  # AF_NETLINK: getifaddrs
    ],
)
def test_sockets_of_a_plugin_without_a_network(key, count, expected):
    for mode in ("run", "import"):
        found = triggers(seen(violations=said("socket", key, count), mode=mode))
        assert found == ([("undeclared_connection", "high")] if expected else [])
    assert not hard(seen(violations=said("socket", key, count), network=True)), (
        "it may have sockets: it is no connection"
    )
    assert not hard(seen(violations=said("socketpair", key, count)))


def test_other_peers_than_were_approved():
    peers = (
        Violation("network", "192.0.2.7:25/tcp", 2, "refused: not approved"),
        Violation("network", "", 1, "refused: other peers"),
    )
    (found,) = hard(seen(violations=(*peers, *said("socket", 2)), network=True))
    assert (found.expected, found.actual) == (
        "connections to approved peers only",
        "tried 3 times to 192.0.2.7:25/tcp, others",
    )
    assert found.numbers == {"connections": 3.0, "sockets": 0.0}


def test_what_libraries_try_is_nothing():
    tried = (*said("io_uring_setup", count=5), *said("flock"), *said("chroot"), *said("socket", 10))
    assert not hard(seen(violations=tried))
    assert not hard(seen(Outcome.FAILED, violations=tried))


@pytest.mark.parametrize("code", list(Code))
def test_codes_of_denials(code):
    found = triggers(seen(None, codes=("BUSY", str(code))))
    mismatch = code in (Code.DIGEST_MISMATCH, Code.UNLISTED_FILE)
    assert found == ([("digest_mismatch", "critical")] if mismatch else [])


def test_a_secret_in_the_output():
    leaked = Violation("output", "GitHub token", 1, "withheld")
    (found,) = hard(seen(VIOLATION, violations=(leaked,)))
    assert (found.trigger, found.severity, found.actual) == ("secret_in_output", "high", "withheld: GitHub token")
    assert triggers(seen(Outcome.KILLED, violations=(leaked,))) == [("secret_in_output", "high")]


def test_a_file_that_it_may_not_write():
    left = (
        Violation("file", "a/b.sh", 1, "no approved pattern of file_write means it"),
        Violation("file", "c", 1, "fifo"),
    )
    (found,) = hard(seen(VIOLATION, violations=left))
    assert (found.trigger, found.severity, found.numbers) == ("undeclared_file", "high", {"files": 2.0})
    said = "tried 2 times: a/b.sh (no approved pattern of file_write means it), c (fifo)"
    assert (found.expected, found.actual) == ("regular files that an approved pattern means", said)
    long = (Violation("file", "x" * 1024, 1, "symlink"),) * 9
    assert hard(seen(VIOLATION, violations=long))[0].actual.endswith(" (symlink) and 4 more")


def test_all_of_one_event_are_told():
    both = (*said("bpf"), *said("socket", 2), Violation("output", "private key", 1, "withheld"))
    assert [name for name, _ in triggers(seen(VIOLATION, violations=both))] == [
        "dangerous_syscall",
        "undeclared_connection",
        "secret_in_output",
    ]


@pytest.mark.parametrize("outcome", [each for each in Outcome if each is not VIOLATION])
def test_no_outcome_alone_is_one(outcome):
    assert not hard(seen(outcome))


VIOLATIONS = st.builds(
    Violation,
    st.sampled_from(["syscall", "network", "output", "file", "else"]),
    st.sampled_from(["socket", "bpf", "mount (i386)", ""]) | st.text(max_size=5),
    st.integers(1, 10**6),
    st.sampled_from(["AF_INET: refused with EPERM", "no plugin may make it: the run ended", "withheld"])
    | st.text(max_size=9),
)


@given(
    st.lists(VIOLATIONS, max_size=40),
    st.sampled_from([None, *Outcome]),
    st.lists(st.sampled_from(list(Code)), max_size=3),
    st.booleans(),
)
def test_whatever_comes_is_told_at_most_once_a_trigger_in_a_sentence(tried, outcome, codes, network):
    observation = seen(outcome, violations=tuple(tried), codes=tuple(map(str, codes)), network=network)
    found = hard(observation)
    assert len({each.trigger for each in found}) == len(found)
    for each in found:
        assert each.hard
        assert each.expected
        assert 0 < len(each.actual) < 2000
        assert each.seen is observation
        assert all(type(value) is float for value in each.numbers.values())
    if outcome is VIOLATION:
        assert found, "a violation is never overlooked"
    assert hard(dataclasses.replace(observation)) == found


def test_a_detail_of_nothing_known_has_no_argument():
    assert (
        refused("socket", "refused with EPERM").argument,
        refused("socket", "AF_INET: refused with EPERM").argument,
    ) == ("", "AF_INET")
