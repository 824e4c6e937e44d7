"""The keeper of networks with a real kernel, in an internet of our own: what is allowed gets through, and nothing else."""

from __future__ import annotations

import itertools
import select
import time

import pytest

from plugind.sandbox.network import keeper, namespaces
from plugind.sandbox.network.words import Caps, Endpoint, Given, Settings, Used
from tests.support.internet import OUTSIDE4, OUTSIDE6, PORTS, Internet, Template, inside, speak

CAPS = Caps(bytes_per_second=100_000_000, connections=100)


class FakeGroup:
    def __init__(self):
        self.limits, self.attached, self.removed = None, [], False

    def set_limits(self, limits):
        self.limits = limits

    def attach(self, pid):
        self.attached.append(pid)

    def remove(self):
        self.removed = True


def hear(kept, kind=None, timeout_s=20):
    deadline = time.monotonic() + timeout_s
    while True:
        assert select.select([kept.sock], [], [], max(0, deadline - time.monotonic()))[0], "it says nothing"
        message = kept.receive()
        if message is not None:
            assert kind is None or isinstance(message, kind), message
            return message


def take(kept, template, run="run-1", endpoints=(), caps=CAPS, digest="d1", key="tier2"):
    kept.take(run, key, template.namespace, digest, endpoints, caps)
    return hear(kept, Given)


def release(kept, run="run-1"):
    kept.release(run)
    return hear(kept, Used)


@pytest.fixture(scope="module")
def net():
    made = Internet()
    made.serve()
    yield made
    made.close()


@pytest.fixture
def template():
    made = Template()
    yield made
    made.close()


@pytest.fixture
def start(net, tmp_path):
    started = []

    def begin(settings=None):
        with namespaces.entered(net.host):
            kept = keeper.start(settings or Settings(folder=tmp_path, most=8), FakeGroup())
        started.append(kept)
        return kept

    yield begin
    for kept in started:
        if not kept._group.removed:
            with namespaces.entered(net.host):
                kept.end()


def test_exactly_what_is_allowed_gets_through_and_the_rest_is_counted(start, template) -> None:
    kept = start()
    allowed = (
        Endpoint(OUTSIDE4[0], "tcp", PORTS[0]),
        Endpoint(OUTSIDE4[1], "udp", PORTS[1]),
        Endpoint(OUTSIDE6[0], "udp", PORTS[0]),
        Endpoint(OUTSIDE6[1], "tcp", PORTS[1]),
    )
    given = take(kept, template, endpoints=allowed)
    cells = [Endpoint(*cell) for cell in itertools.product((*OUTSIDE4, *OUTSIDE6), ("tcp", "udp"), PORTS)]

    def tries():
        began = time.monotonic()
        return [speak(each.address, each.protocol, each.port) for each in cells], time.monotonic() - began

    found, took_s = inside(template, given.namespace, tries)
    assert {cell: what == "ok" for cell, what in zip(cells, found, strict=True)} == {
        cell: cell in allowed for cell in cells
    }, list(zip(cells, found, strict=True))
    assert "timeout" not in found
    assert took_s < 2, "what is refused is refused at once"
    used = release(kept)
    assert {Endpoint(each.address, each.protocol, each.port) for each in used.refused} == set(cells) - set(allowed)
    assert {each.count for each in used.refused} == {1}
    assert used.connections == len(allowed)
    assert used.sent_bytes > 4 * 20
    assert used.received_bytes > 4 * 20
    assert used.refused_others == 0
