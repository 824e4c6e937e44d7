"""These tests boot a container: `make test-systemd` runs them, and a plain `pytest` does not collect them.

In the virtual machine of `make test-vm`, which says so by PLUGIND_TEST_MACHINE=this, they drive the machine that they run on.
"""

import os
from pathlib import Path

import pytest

from tests.support.pace import stretched
from tests.systemd.container import Container
from tests.systemd.this_machine import ThisMachine

HERE = Path(__file__).parent
MOST_S = stretched(400)  # the first test waits for the installation too


def pytest_ignore_collect(collection_path, config):
    named = [(config.invocation_params.dir / arg.split("::")[0]).resolve() for arg in config.args]
    return None if any(path.is_relative_to(HERE) for path in named) else True


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("root")
            item.add_marker(pytest.mark.timeout(MOST_S))


@pytest.fixture(scope="session")
def machine():
    with ThisMachine() if os.environ.get("PLUGIND_TEST_MACHINE") == "this" else Container() as machine:
        yield machine
