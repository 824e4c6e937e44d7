"""Generated code loaded into a real daemon gives what it gives in this process: values, errors, signatures."""

import importlib.util
import inspect
import json
import math
import random
import subprocess
import sys
from pathlib import Path

import pytest

from plugind_client import Client, Conflict, Denied, LimitExceeded, PluginFailed
from tests.support.daemon import Daemon

pytestmark = pytest.mark.root

MODULES = sorted((Path(__file__).parents[1] / "data/napkin").glob("*/calculations.py"))

RAISING = '''"""Functions that fail, each in its way."""
import math

class NapkinError(Exception):
    pass

def divide(a: float, b: float) -> float:
    return a / b

def lookup(name: str):
    return {"eur": 1.0}[name]

def grow(x: float, times: int = 1000):
    return math.exp(x * times)

def root(x: float) -> float:
    return math.sqrt(x)

def own():
    raise NapkinError("of its own")

def leave():
    raise SystemExit(3)

def same(value=None, *, scale: float = math.inf, **others):
    return [value, scale, others]

def spin():
    while True:
        pass
'''


def imported(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.parent.name)
def test_values_are_those_of_this_process(daemon, path):
    real = imported(path)
    loaded = daemon.client().load_source(path, name=f"napkin_{path.parent.name}", stage="premortem")
    assert dir(loaded) == sorted(name for name, _ in inspect.getmembers(real, inspect.isfunction))
    chance = random.Random(path.parent.name)
    special = [0.0, -0.0, 1, 10**15 + 1, 1e308, -1e-300, math.inf, -math.inf, math.nan]
    for name in dir(loaded):
        mine, theirs = getattr(loaded, name), getattr(real, name)
        count = len(inspect.signature(mine).parameters)
        for _ in range(6):
            given = [chance.choice([*special, chance.uniform(-1e6, 1e6)]) for _ in range(count)]
            got, expected = mine(*given), theirs(*given)
            assert type(got) is type(expected)
            assert repr(got) == repr(expected)  # NaN is not equal to itself, and -0.0 is to 0.0


@pytest.fixture(scope="module")
def raising(daemon, tmp_path_factory):
    path = tmp_path_factory.mktemp("raising") / "raising.py"
    path.write_text(RAISING)
    return imported(path), daemon.client().load_source(RAISING, name="raising", timeout_ms=1500)


@pytest.mark.parametrize(
    "call",
    [
        lambda module: module.divide(1.0, 0.0),
        lambda module: module.lookup("usd"),
        lambda module: module.grow(1.0),
        lambda module: module.root(x=-1.0),
        lambda module: module.divide(1.0),
        lambda module: module.divide(1.0, 2.0, c=3),
    ],
)
def test_errors_are_those_of_this_process(raising, call):
    real, loaded = raising
    with pytest.raises(Exception) as theirs:
        call(real)
    with pytest.raises(Exception) as mine:
        call(loaded)
    assert type(mine.value) is type(theirs.value)
    assert str(mine.value) == str(theirs.value)


def test_other_failures_are_the_clients_own(raising):
    _, loaded = raising
    with pytest.raises(PluginFailed) as own:
        loaded.own()
    assert (own.value.type, own.value.message) == ("NapkinError", "of its own")
    with pytest.raises(PluginFailed) as left:
        loaded.leave()
    assert left.value.type == "SystemExit"
    with pytest.raises(LimitExceeded) as spun:
        loaded.spin()
    assert spun.value.code in {"timeout", "cpu_exceeded"}
    with pytest.raises(Denied) as wrong:
        loaded.divide("1", 2)
    assert wrong.value.code == "INPUT_INVALID"
    assert "/arguments/a" in wrong.value.detail


def test_defaults_are_the_jails(raising):
    real, loaded = raising
    assert loaded.same() == real.same() == [None, math.inf, {}]
    assert loaded.same([1, "ü"], scale=-1, more={"a": None}) == [[1, "ü"], -1, {"more": {"a": None}}]


def test_history_and_audit_name_the_rule(daemon, raising):
    client = daemon.client()
    changes = client.history("raising")
    assert [change.action for change in changes] == ["submit", "approve", "activate"]
    assert [change.by_uid == 2**32 - 1 for change in changes] == [False, True, True]
    assert changes[1].why.endswith("imports math")
    assert client.get("raising").version().approval.tier == 2
    shown = daemon.command("history", "raising").stdout
    assert "the policy" in shown
    assert "synthesized.run_unapproved_tier2" in shown
    recorded = [json.loads(line) for line in daemon.state.glob("ledger/*.jsonl").__next__().read_text().splitlines()]
    activated = [each for each in recorded if each["event"] == "CHANGE" and each["plugin"] == "raising"][-1]
    assert (activated["action"], activated["by_uid"], activated["why"]) == ("activate", 2**32 - 1, changes[2].why)


AS_A_CALLER = """
import json, os, sys
from plugind_client import Client, NotAllowed  # before: the interpreter may live where only root can read
import encodings.idna, plugind_client.streams
os.setgroups([]), os.setgid(65534), os.setuid(65534)
with Client(sys.argv[1]) as client:
    module = client.load_source("def double(x: float) -> float:\\n    return 2 * x\\n")
    told = [module.double(21.0)]
    try:
        client.load_source("def f():\\n    return 1\\n", name="taken")
    except NotAllowed as error:
        told.append(error.detail)
print(json.dumps(told))
"""


def test_in_production_a_caller_of_the_run_socket_loads_code_where_the_policy_says_so(tmp_path):
    """PlanExe's own process: no group of plugind's, no admin socket, somebody else's uid."""
    policy = tmp_path / "policy.toml"
    shipped = (Path(__file__).parents[2] / "profiles/policy.toml").read_text()
    policy.write_text(shipped.replace("# run_unapproved_tier2 = false", "run_unapproved_tier2 = true"))
    (tmp_path / "plugind.toml").write_text(f'policy = "{policy}"\n')
    tmp_path.chmod(0o755)
    with Daemon("--config", str(tmp_path / "plugind.toml"), production=True) as daemon:
        admin = Client(daemon.admin_socket)
        admin.load_source("def f():\n    return 2\n", name="taken")
        done = subprocess.run(
            [sys.executable, "-c", AS_A_CALLER, daemon.socket], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        value, refused = json.loads(done.stdout)
        assert value == 42.0
        assert "somebody else has handed in a plugin of this name" in refused
        records = admin.audit.query(limit=50).records
        admin.close()
    assert [each.fields["by_uid"] for each in records if each.event == "REFUSED"] == [65534]
    assert {each.fields["caller_uid"] for each in records if each.event == "OUTCOME"} == {65534}


def test_loaded_again_it_is_the_same_version_and_edited_another(daemon, raising):
    client = daemon.client()
    again = client.load_source(RAISING, name="raising")
    assert again.__version__ == raising[1].__version__
    edited = client.load_source(RAISING.replace("of its own", "edited"), name="edited")
    with pytest.raises(PluginFailed) as own:
        edited.own()
    assert own.value.message == "edited"


def test_without_the_rule_it_is_in_quarantine_until_a_person_approves_and_releases(tmp_path):
    policy = tmp_path / "policy.toml"
    shipped = (Path(__file__).parents[2] / "profiles/policy.toml").read_text()
    shipped = shipped.replace("# run_unapproved_tier2 = false", "run_unapproved_tier2 = false")
    policy.write_text(shipped.replace("approvers = 2  ", "approvers = 1  "))
    config = tmp_path / "plugind.toml"
    config.write_text(f'policy = "{policy}"\n')
    tmp_path.chmod(0o755)
    with Daemon("--config", str(config)) as held:
        client = held.client()
        with pytest.raises(Denied) as raised:
            client.load_source(RAISING, name="raising")
        assert raised.value.code == "NOT_APPROVED"
        unapproved, quarantined = raised.value.reasons
        assert unapproved.remedy.startswith("plugindctl approve raising@0.0.0+try.")
        assert (quarantined.code, quarantined.rule) == ("QUARANTINED", "hold.quarantined")
        assert "generated code starts in quarantine" in quarantined.actual
        version = client.get("raising").version()
        assert (version.state, version.origin) == ("submitted", "synthesized")
        approved = held.command("approve", f"raising@{version.version}", "--as-declared", "--reason", "read")
        assert approved.returncode == 0, approved.stderr
        client.activate("raising", version.version)
        call = {"function": "divide", "arguments": {"a": 1, "b": 4}}
        assert [each.code for each in client.execute("raising", call).reasons] == ["QUARANTINED"]
        tried = client.execute("raising", call, trial=True)
        assert (tried.outcome, tried.output) == ("ok", 0.25), tried
        of_a_plan = client.execute("raising", call, trial=True, plan_id="garden")
        assert {each.rule for each in of_a_plan.reasons} == {"quarantine.trial", "hold.quarantined"}
        assert client.release("raising@" + version.version, "read, and tried", ["*"]).released
        assert client.load_source(RAISING, name="raising").divide(1, 4) == 0.25
        assert client.get("raising").version().state == "active"


def test_new_from_leaves_a_folder_that_try_runs_as_it_is_and_edited(daemon, tmp_path):
    path = tmp_path / "calculations.py"
    path.write_text("def margin(income: float, cost: float = 0.5) -> float:\n    return income - cost\n")
    made = daemon.command("new", "margins_of_a_file", "--from", path, "--dir", tmp_path)
    assert made.returncode == 0, made.stderr
    folder = tmp_path / "margins_of_a_file"
    for expected in (0.5, 0.75):
        tried = daemon.command("try", folder, "--json")
        assert tried.returncode == 0, tried.stderr
        assert json.loads(tried.stdout)["output"] == expected
        code = folder / "margins_of_a_file.py"
        code.write_text(code.read_text().replace("= 0.5", "= 0.25"))


def test_load_gives_any_plugin_of_functions(daemon):
    examples = Path(__file__).parents[2] / "client/examples/plugins"
    daemon.install(examples / "napkin_calculations")
    daemon.install(examples / "cost_breakdown")
    real = imported(examples / "napkin_calculations/calculations.py")
    client = daemon.client()
    module = client.load("napkin_calculations", stage="premortem")
    assert dir(module) == sorted(name for name, _ in inspect.getmembers(real, inspect.isfunction))
    assert module.total_cost_eur(100, contingency_share=0.1) == real.total_cost_eur(100, 0.1)
    with pytest.raises(ZeroDivisionError, match=r"^division by zero$"):
        module.cost_per_visitor_eur(1, 0)
    with pytest.raises(Conflict):
        client.load("cost_breakdown", stage="durations")
    with pytest.raises(Denied) as raised:
        client.load("no_such_plugin")
    assert raised.value.code == "PLUGIN_NOT_FOUND"
    with pytest.raises(Denied) as raised:
        client.load("napkin_calculations", stage="setup")
    assert "STAGE_NOT_ALLOWED" in {reason.code for reason in raised.value.reasons}
