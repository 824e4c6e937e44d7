"""Networks are used again for the same plugin only, and what is over leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct

import pytest
from pyroute2 import IPRoute

from plugind.addresses import Endpoint
from plugind.linux import sock_diag
from plugind.sandbox.network import namespaces
from plugind.sandbox.network.words import Failed, Settings
from tests.support.internet import (
    OUTSIDE4,
    PORTS,
    Template,
    forked,
    inside,
    instance,
    speak,
)
from tests.support.networks import (
    CAPS,
    hear,
    leave_nothing,
    namespace_of,
    release,
    settled,
    take,
)

pytestmark = pytest.mark.alone  # one looks at what its keeper writes


def test_a_used_namespace_serves_the_same_digest_only(start_keeper, template) -> None:
    kept = start_keeper()
    used = {}
    for run, digest in enumerate(["a", "b", "a", "c", "b", "a"]):
        given = take(kept, template, f"r{run}", digest=digest)
        assert used.setdefault(namespace_of(given), digest) == digest
        os.close(given.namespace)
        release(kept, f"r{run}")
        settled(kept)
    assert sorted(used.values()) == ["a", "b", "c"]


def test_when_all_are_used_the_one_idle_longest_goes_and_when_all_run_nobody_gets_one(start_keeper, template) -> None:
    kept = start_keeper()
    seen = []
    for run in range(20):
        given = take(kept, template, f"r{run}", digest=f"d{run}")
        seen.append(given.namespace)
        release(kept, f"r{run}")
    assert len({os.fstat(each).st_ino for each in seen}) == 20
    for run in range(8):
        take(kept, template, f"s{run}", digest="x")
    kept.take("one-more", "tier2", template.namespace, "x", [], CAPS)
    assert hear(kept, Failed).run == "one-more"
    release(kept, "s3")
    take(kept, template, "one-more", digest="y")


def test_the_next_run_gets_nothing_of_what_the_last_was_allowed_or_is_sent(start_keeper, template, net) -> None:
    kept = start_keeper()
    allowed = [Endpoint(OUTSIDE4[0], "udp", PORTS[0])]
    with namespaces.entered(net.outside):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((OUTSIDE4[0], 9011))
    server.settimeout(5)
    first = take(kept, template, "a", [Endpoint(OUTSIDE4[0], "udp", 9011)])

    def ask():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("0.0.0.0", 7777))
            sock.sendto(b"?", (OUTSIDE4[0], 9011))
        return True

    assert inside(template, first.namespace, ask)
    _, peer = server.recvfrom(10)
    release(kept, "a")
    settled(kept)
    second = take(kept, template, "b", allowed)
    assert namespace_of(second) == namespace_of(first)

    def wait():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("0.0.0.0", 7777))
            server.sendto(b"late", peer)
            return bool(select.select([sock], [], [], 0.5)[0]), speak(OUTSIDE4[0], "udp", 9011)

    with server:
        came, answer = inside(template, second.namespace, wait)
    assert not came
    assert answer != "ok"
    assert release(kept, "b").received_bytes == 0


def test_500_runs_leave_nothing_behind(start_keeper, template, net, tmp_path) -> None:
    leave_nothing(start_keeper(Settings(folder=tmp_path, most=6, spare=1)), template, net, 500)


@pytest.mark.parametrize("state", ["established", "lingering", "udp"])
def test_sockets_that_are_left_are_destroyed_and_the_namespace_is_used_again(
    start_keeper, template, net, state
) -> None:
    kept = start_keeper()
    protocol = "udp" if state == "udp" else "tcp"
    given = take(kept, template, "a", [Endpoint(OUTSIDE4[0], protocol, 9013)])
    listening = net.listen(OUTSIDE4[0], 9013)
    reads, writes = os.pipe()

    def leave():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if state == "udp" else socket.SOCK_STREAM)
        sock.connect((OUTSIDE4[0], 9013))
        if state == "lingering":
            with contextlib.suppress(BlockingIOError):
                sock.setblocking(False)
                while True:
                    sock.send(bytes(1 << 20))
        else:
            theirs.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", sock.fileno()))])
        os.write(writes, b"x")

    ours, theirs = socket.socketpair()
    pid = instance(template, given.namespace, leave)
    assert os.read(reads, 1) == b"x"
    os.waitpid(pid, 0)
    with namespaces.entered(given.namespace):
        assert sock_diag.left()
    before = namespace_of(given)
    release(kept, "a")
    settled(kept)
    if state == "lingering":
        with namespaces.entered(given.namespace):
            assert not sock_diag.left()
    again = take(kept, template, "b")
    # One that somebody still holds cannot be destroyed altogether: then another namespace serves.
    assert (namespace_of(again) == before) == (state == "lingering")
    for each in (ours, theirs, listening):
        each.close()
    os.close(reads)
    os.close(writes)


def test_slots_of_a_template_that_is_gone_are_not_there_for_the_next_of_its_name(start_keeper, template) -> None:
    kept = start_keeper()
    given = take(kept, template, "a")
    idle = take(kept, template, "b")
    release(kept, "b")
    kept.forget("tier2")
    release(kept, "a")
    other = Template()
    try:
        again = take(kept, other, "c")
        assert namespace_of(again) not in {namespace_of(given), namespace_of(idle)}
        # Also where nobody said that the first is gone.
        third = Template()
        release(kept, "c")
        assert namespace_of(take(kept, third, "d")) != namespace_of(again)
        third.close()
    finally:
        other.close()


def test_a_template_s_root_that_deletes_its_link_harms_itself_only(start_keeper, template) -> None:
    kept = start_keeper()
    given = take(kept, template, "a", [Endpoint(OUTSIDE4[0], "tcp", PORTS[0])])

    def delete():
        found = speak(OUTSIDE4[0], "tcp", PORTS[0])
        with IPRoute() as ip:
            ip.link("del", index=ip.link_lookup(ifname="eth0")[0])
        return found

    assert inside(template, given.namespace, delete) == "ok"
    assert release(kept, "a").connections == 1
    again = take(kept, template, "b", [Endpoint(OUTSIDE4[0], "tcp", PORTS[0])])
    assert namespace_of(again) != namespace_of(given)
    assert inside(template, again.namespace, lambda: speak(OUTSIDE4[0], "tcp", PORTS[0])) == "ok"


def test_a_template_that_can_have_no_network_is_told_and_others_have_theirs(start_keeper, template, capfd) -> None:
    kept = start_keeper()
    poor = Template()
    try:
        pid = forked(poor.enter_and_allow_no_network)
        os.waitpid(pid, 0)
        kept.expect("poor", poor.namespace)
        kept.take("a", "poor", poor.namespace, "d", [], CAPS)
        assert "No space left" in hear(kept, Failed).detail
        take(kept, template, "b")
        assert "plugind-launcher: networks of poor:" in capfd.readouterr().err
    finally:
        poor.close()
