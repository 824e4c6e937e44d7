"""Fixtures of the tests with real networks."""

from __future__ import annotations

import pytest

from plugind.sandbox.network import keeper, namespaces
from plugind.sandbox.network.words import Settings
from tests.support.internet import Internet, Template
from tests.support.networks import FakeGroup


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
def start_keeper(net, tmp_path):
    started = []

    def begin(settings=None):
        with namespaces.entered(net.host):
            kept = keeper.start(settings or Settings(folder=tmp_path, most=8), FakeGroup())
        started.append(kept)
        return kept

    yield begin
    for kept in started:
        if not kept.process.group.removed:
            with namespaces.entered(net.host):
                kept.end()
