"""Ten thousand trials of every plan, call by call: a quarter of a million calls into the jail, each with this process's figure."""

import json
import time

import pytest

from tests.support.daemon import Daemon
from tests.support.napkin_plans import EACH
from tests.support.planexe_example import napkin


@pytest.fixture(scope="module")
def daemon():
    with Daemon() as running:
        yield running


@pytest.mark.parametrize("folder,calculations", EACH)
def test_ten_thousand_trials_call_by_call_are_those_of_this_process(daemon, folder, calculations):
    plan = napkin.read(folder)
    assert plan.trials == 10_000
    module = daemon.client().load_source(calculations, stage="premortem")
    started = time.monotonic()
    by_call = napkin.run_by_call(plan, module)
    print(f"{folder.name}: {10_000 * len(plan.units)} calls at most in {time.monotonic() - started:.1f} s")
    assert json.dumps(by_call) == json.dumps(napkin.run_in_process(plan, calculations))
