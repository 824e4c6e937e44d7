"""Who may run what: tests that need root are marked, and never skipped silently."""

import gc
import os
from pathlib import Path

import pytest
from hypothesis import settings


def _start_grpc_without_fork_support():
    """Tests of the jail fork a launcher from this process, in which others use gRPC: with fork support its threads
    would come back in the child, which closes their descriptors, and abort it. The product forks before it imports
    gRPC. Only here: a program that a test starts is to find what its user would.
    """
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"
    import grpc

    grpc.insecure_channel("unix:/nonexistent").close()  # the variable is read when the first channel is made
    del os.environ["GRPC_ENABLE_FORK_SUPPORT"]


_start_grpc_without_fork_support()

NEED_ROOT = ("system", "escapes", "corpus", "soak")
IN_CI = os.environ.get("CI") == "true"

# `make test` may run as root in a user's checkout: no .hypothesis/ that belongs to root.
settings.register_profile("plugind", database=None, deadline=None)
settings.register_profile("quick", settings.get_profile("plugind"), max_examples=20)
settings.load_profile("plugind")


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        folder = item.path.relative_to(here).parts[0]
        if folder in NEED_ROOT:
            item.add_marker("root")
        if folder == "corpus":
            item.add_marker("alone")  # it keeps all CPUs busy by itself
        if folder == "soak":
            item.add_marker("slow")
            item.add_marker(pytest.mark.timeout(0))


def pytest_collection_finish(session):
    # Thousands of tests stay until the end: not to be looked at again whenever garbage is collected: a tenth of the CPU time.
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item):
    if item.get_closest_marker("root") and os.geteuid() != 0:
        if IN_CI:
            pytest.fail("needs root, and in CI a test may not be skipped for lack of it", pytrace=False)
        pytest.skip("NEEDS ROOT: `make test` runs it")


def pytest_terminal_summary(terminalreporter):
    skipped = [report for report in terminalreporter.stats.get("skipped", ()) if "NEEDS ROOT" in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(
            f"NOT TESTED: {len(skipped)} tests need root; `make test` runs them", red=True, bold=True
        )
