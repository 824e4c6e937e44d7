"""A daemon for all integration tests of a module."""

import pytest

from tests.support.daemon import Daemon


@pytest.fixture(scope="module")
def daemon():
    with Daemon() as running:
        yield running
