"""FakeClient and AsyncFakeClient: the interface of the real clients, their records and their errors, without a daemon."""

import asyncio
import inspect
import json
import math
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from plugind.provenance import bundle
from plugind_client import (
    AsyncClient,
    Canceled,
    Client,
    Conflict,
    Denied,
    InvalidRequest,
    Killed,
    LimitExceeded,
    NotFound,
    OutputInvalid,
    Permission,
    PlugindError,
    PluginFailed,
    RunResult,
    Unavailable,
    errors,
)
from plugind_client.testing import AsyncFakeClient, FakeCall, FakeClient, Scripted
from tests.support import plugins

EXAMPLES = Path(__file__).parents[2] / "client/examples/plugins"
SCRIPT = {name for name in vars(Scripted) if not name.startswith("_")} | {"calls"}
PAIRS = pytest.mark.parametrize("real,fake", [(Client, FakeClient), (AsyncClient, AsyncFakeClient)])


def public(thing):
    return {name for name in dir(thing) if not name.startswith("_")}


# --- the interface -------------------------------------------------------------------------------------------------


@PAIRS
def test_fake_has_every_public_name_of_the_real_client_and_beside_them_its_script(real, fake, tmp_path):
    made, real_one = fake(), real(tmp_path / "nobody.sock")
    assert public(real_one) | SCRIPT == public(made)
    assert not public(real_one) & SCRIPT


@PAIRS
def test_fake_has_the_signatures_of_the_real_client(real, fake):
    methods = [name for name in public(real) if callable(getattr(real, name))]
    assert len(methods) >= 22
    for name in [
        *methods,
        *(name for name in ("__enter__", "__exit__", "__aenter__", "__aexit__") if hasattr(real, name)),
    ]:
        ours, theirs = getattr(fake, name), getattr(real, name)
        assert inspect.signature(ours) == inspect.signature(theirs), name
        assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(theirs), name


def test_fake_audit_is_the_real_class_over_a_ledger_in_memory(tmp_path):
    assert type(FakeClient().audit) is type(Client(tmp_path / "nobody.sock").audit)
    assert inspect.signature(FakeClient.audit.fget) == inspect.signature(Client.audit.fget)


def test_fake_loads_no_grpc():
    script = "import sys\nfrom plugind_client.testing import FakeClient\nFakeClient({'a': 1}).run('a', {})\n"
    script += "print(sorted({name.partition('.')[0] for name in sys.modules} & {'grpc', 'plugind', 'asyncio'}))"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"


# --- answers -------------------------------------------------------------------------------------------------------


def test_function_gets_the_payload_as_the_jail_would_see_it_and_its_value_is_the_output():
    fake = FakeClient({"sum": lambda payload: {"total": sum(payload), "kind": type(payload).__name__}})
    result = fake.run("sum", (1, 2))
    assert type(result) is RunResult
    assert (result.output, result.ok, result.outcome, result.version) == (
        {"total": 3, "kind": "list"},
        True,
        "ok",
        "1.0.0",
    )
    assert result.governance.as_dict() == {
        "plugin_id": "plug_1",
        "tier": "Tier 2",
        "permissions": [],
        "execution_limit_ms": 5000,
        "audit_log": "log_0",
    }


def test_value_is_the_output_and_nobody_can_change_it_afterwards():
    fake = FakeClient({"echo": {"a": [1]}})
    fake.run("echo", {}).output["a"].append(2)
    assert fake.run("plug_1", {}).output == {"a": [1]}


def test_calls_are_recorded_with_all_arguments():
    fake = FakeClient({"echo": lambda payload: payload})
    payload = {"a": [1]}
    fake.run("echo@1.0.0", payload, stage="durations", timeout_ms=70)
    payload["a"].append(2)
    fake.list()
    assert fake.calls[0].method == "run"
    told = fake.calls[0].arguments
    assert {name: told[name] for name in ("name", "payload", "stage", "timeout_ms", "plan_id", "version")} == {
        "name": "echo@1.0.0",
        "payload": {"a": [1]},
        "stage": "durations",
        "timeout_ms": 70,
        "plan_id": None,
        "version": None,
    }
    assert fake.calls[1] == FakeCall("list", {})


def test_each_run_takes_the_next_answer_and_the_last_one_stays():
    fake = FakeClient()
    fake.answers("x", Denied("BUSY"), ValueError("bad"), 7)
    with pytest.raises(Denied) as busy:
        fake.run("x", {})
    assert busy.value.retryable
    with pytest.raises(PluginFailed):
        fake.run("x", {})
    assert [fake.run("x", {}).output for _ in range(3)] == [7, 7, 7]


@pytest.mark.parametrize("answer", [ValueError("bad"), ValueError, lambda payload: int("bad")])
def test_exception_is_what_the_plugin_raised(answer):
    fake = FakeClient({"x": answer})
    with pytest.raises(PluginFailed) as raised:
        fake.run("x", {})
    assert (raised.value.type, raised.value.code, raised.value.retryable) == ("ValueError", "failed", False)
    assert raised.value.audit_log == "log_0"
    result = fake.execute("x", {})
    assert (result.outcome, result.error.type, result.output) == ("failed", "ValueError", None)
    assert "runs.py" not in raised.value.traceback


@pytest.mark.parametrize("code", errors.DENIALS)
def test_denies_with_every_code(code):
    fake = FakeClient()
    fake.denies("x", code, "BUSY")
    with pytest.raises(Denied) as denied:
        fake.run("x", {}, stage="durations", sensitivity="public")
    assert (denied.value.code, str(denied.value)) == (code, errors.DENIALS[code])
    assert [reason.code for reason in denied.value.reasons] == [code, "BUSY"]
    assert fake.execute("x", {}).decision == "deny"
    why = fake.why()
    assert (why.plugin, why.version, why.reasons) == ("x", "1.0.0", denied.value.reasons)
    assert why.audit_log == "log_1"


@pytest.mark.parametrize("outcome", errors.OUTCOMES)
def test_ends_with_every_outcome(outcome):
    fake = FakeClient()
    fake.ends("x", outcome, "as the test says")
    with pytest.raises(errors.BY_OUTCOME[outcome]) as ended:
        fake.run("x", {})
    assert (ended.value.code, ended.value.detail) == (outcome, "as the test says")
    assert pickle.loads(pickle.dumps(ended.value)).result == ended.value.result


def test_unavailable_until_it_comes_back():
    fake = FakeClient({"x": 1})
    fake.goes_away()
    with pytest.raises(Unavailable, match=r"plugind cannot be reached\."):
        fake.run("x", {})
    fake.goes_away("NO_ANSWER")
    with pytest.raises(Unavailable) as slow:
        fake.status()
    assert (slow.value.code, slow.value.retryable) == ("NO_ANSWER", True)
    fake.comes_back()
    assert fake.run("x", {}).output == 1
    assert [call.method for call in fake.calls] == ["run", "status", "run"]


def test_error_of_a_call_fails_that_call_and_the_end_of_its_run_is_not_known():
    fake = FakeClient()
    fake.answers("x", Unavailable("UNAVAILABLE"), 1)
    with pytest.raises(Unavailable):
        fake.run("x", {})
    assert fake.run("x", {}).output == 1
    assert [record.fields["outcome"] for record in fake.audit.query(events=["OUTCOME"]).records] == ["ok", "unknown"]


def test_what_is_no_json_is_refused_where_the_real_thing_refuses_it():
    fake = FakeClient({"gives": {1, 2}, "nan": math.nan, "echo": lambda payload: payload})
    with pytest.raises(InvalidRequest) as refused:
        fake.run("echo", {1, 2})
    assert (refused.value.code, fake.calls) == ("PAYLOAD_NOT_JSON", [])
    for name in ("gives", "nan"):
        with pytest.raises(OutputInvalid):
            fake.run(name, {})
    with pytest.raises(Denied) as denied:
        fake.run("echo", math.inf)
    assert denied.value.code == "INPUT_INVALID"


@pytest.mark.parametrize("wrong", [("nobody", None), ("x@2.0.0", None), ("x", "2.0.0")])
def test_nobody_knows_what_was_given_no_answer(wrong):
    name, version = wrong
    with pytest.raises(Denied) as denied:
        FakeClient({"x": 1}).run(name, {}, version=version)
    assert denied.value.code == "PLUGIN_NOT_FOUND"


@pytest.mark.parametrize(
    "mistake,kind",
    [
        (lambda fake: fake.denies("x", "NO_SUCH_CODE"), ValueError),
        (lambda fake: fake.denies("x"), ValueError),
        (lambda fake: fake.ends("x", "ok"), ValueError),
        (lambda fake: fake.answers("x"), TypeError),
        (lambda fake: fake.run(), TypeError),
        (lambda fake: fake.run("x", {}, stag="s"), TypeError),
    ],
)
def test_mistake_of_a_test_is_told_at_once(mistake, kind):
    with pytest.raises(kind):
        mistake(FakeClient())


def test_closed_client_answers_no_more():
    with FakeClient({"x": 1}) as fake:
        pass
    with pytest.raises(InvalidRequest):
        fake.run("x", {})


# --- the registry --------------------------------------------------------------------------------------------------


def submitted(fake, tmp_path, version="1.0.0", **given):
    data = plugins.built(tmp_path, "pp", version, **given)
    return data, fake.submit(data)


def test_way_of_a_bundle_from_submission_to_a_run(tmp_path):
    fake = FakeClient()
    data = bundle.build(EXAMPLES / "cost_breakdown")
    handed_in = fake.submit(data)
    assert (handed_in.name, handed_in.version, handed_in.tier, handed_in.state) == (
        "cost_breakdown",
        "1.2.0",
        2,
        "submitted",
    )
    assert fake.submit(data) == handed_in
    stored = fake.get("cost_breakdown").version("1.2.0")
    read = bundle.read(data).manifest
    assert (stored.digest, stored.stages, stored.limits.wall_ms) == (handed_in.digest, read.stages, read.limits.wall_ms)
    denied = fake.execute("cost_breakdown@1.2.0", {}, stage="durations")
    assert [reason.code for reason in denied.reasons] == ["NOT_APPROVED"]
    with pytest.raises(Conflict):
        fake.activate("cost_breakdown", "1.2.0")
    fake.approve("cost_breakdown", "1.2.0", tier=2, as_declared=True, reason="read it")
    assert fake.activate("plug_1", "1.2.0").state == "active"
    with pytest.raises(AssertionError, match="gave no answer"):
        fake.run("cost_breakdown", {}, stage="durations")
    fake.answers("cost_breakdown@1.2.0", 5)
    assert fake.run("cost_breakdown", {}, stage="durations").output == 5
    assert fake.execute("cost_breakdown", {}, stage="other").reasons[0].code == "STAGE_NOT_ALLOWED"
    assert [change.action for change in fake.history("cost_breakdown")] == ["submit", "approve", "activate"]


def test_versions_follow_and_go_back(tmp_path):
    fake = FakeClient()
    for version in ("1.0.0", "1.1.0"):
        submitted(fake, tmp_path, version)
        fake.approve("pp", version, tier=2, stages=["*"], permissions=[Permission("file_read")], reason="r")
        fake.activate("pp", version)
    assert [each.state for each in fake.get("pp").versions] == ["retired", "active"]
    with pytest.raises(Conflict):
        fake.activate("pp", "1.0.0")
    assert fake.rollback("pp", reason="slow").version == "1.0.0"
    assert fake.get("pp").active_version == "1.0.0"
    assert fake.reject("pp", "1.0.0", reason="wrong").approval is None
    assert fake.get("pp").active_version == ""
    assert fake.execute("pp", {}).reasons[0].code == "NOT_APPROVED"


def test_refusals_are_the_real_ones(tmp_path):
    fake = FakeClient()
    submitted(fake, tmp_path)
    for refused, kind in [
        (lambda: fake.get("nobody"), NotFound),
        (lambda: fake.history("nobody"), NotFound),
        (lambda: fake.approve("pp", "9.9.9", tier=2, reason="r"), NotFound),
        (lambda: fake.approve("pp", "1.0.0", tier=1, as_declared=True, reason="r"), Conflict),
        (lambda: fake.approve("pp", "1.0.0", tier=2, as_declared=True, reason=" "), InvalidRequest),
        (lambda: fake.rollback("pp", reason="r"), Conflict),
        (lambda: fake.suspend("nobody", "r"), NotFound),
        (lambda: fake.resume("pp", "r"), Conflict),
        (lambda: fake.lift_kill("all", "r"), Conflict),
        (lambda: fake.kill("all", ""), InvalidRequest),
        (lambda: fake.submit(b"no tar"), InvalidRequest),
        (lambda: fake.submit(plugins.built(tmp_path / "other", "pp", code=plugins.ECHO + "#")), Conflict),
        (lambda: fake.audit.get("log_99"), NotFound),
        (lambda: fake.audit.get("99"), InvalidRequest),
        (lambda: fake.audit.get("log_0", "no payload"), InvalidRequest),
        (lambda: fake.audit.query(limit=1001), InvalidRequest),
    ]:
        with pytest.raises(kind):
            refused()
    with pytest.raises(InvalidRequest) as invalid:
        fake.submit(b"")
    assert invalid.value.reasons[0].code == "INVALID_BUNDLE"


@pytest.mark.parametrize("target", ["all", "x", "plug_1", "x@1.0.0", "digest"])
def test_holds_deny_until_they_are_lifted(target):
    fake = FakeClient({"x": 1})
    target = f"sha256:{fake.get('x').versions[0].digest}" if target == "digest" else target
    assert fake.kill(target, "now").ended_runs == 0
    if target != "all":
        fake.suspend(target, "wait")
    assert fake.execute("x", {}).reasons[0].code == "KILLED"
    assert {hold.kind for hold in fake.get("x").versions[0].holds} >= {"killed"}
    assert len(fake.status().holds) == (1 if target == "all" else 2)
    fake.lift_kill(target, "over")
    if target != "all":
        assert fake.execute("x", {}).reasons[0].code == "SUSPENDED"
        fake.resume(target, "over")
    assert fake.run("x", {}).output == 1


@pytest.mark.parametrize(
    "end,kind", [(lambda fake: fake.cancel("run_1"), Canceled), (lambda fake: fake.kill("x", "now"), Killed)]
)
def test_run_in_flight_is_seen_and_can_be_ended(end, kind):
    started, go_on = threading.Event(), threading.Event()

    def slow(payload):
        started.set()
        assert go_on.wait(20)
        return payload

    fake = FakeClient({"x": slow})
    assert not fake.cancel("run_1")
    caught = []

    def call():
        try:
            fake.run("x", {})
        except PlugindError as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert started.wait(20)
    assert [(run.run_id, run.plugin, run.state) for run in fake.runs()] == [("run_1", "x", "running")]
    ended = end(fake)
    assert ended is True or ended.ended_runs == 1
    go_on.set()
    thread.join(20)
    assert [type(error) for error in caught] == [kind]
    assert (fake.runs(), fake.status().runs_in_flight) == ([], 0)


def test_explain_tells_what_a_run_would_meet():
    fake = FakeClient({"x": 1})
    assert all(check.ok for check in fake.explain("x"))
    fake.suspend("x", "wait")
    assert [check.reasons[0].code for check in fake.explain("x", stage="s") if not check.ok] == ["SUSPENDED"]
    assert fake.explain("nobody")[0].reasons[0].code == "PLUGIN_NOT_FOUND"
    assert fake.why() is None


def test_status_and_policy_answer():
    status = FakeClient({"x": 1}).status()
    assert (status.plugins, status.ledger_size, status.launcher_problem) == (1, 0, "")
    assert FakeClient().reload_policy().changed is False


# --- the audit -----------------------------------------------------------------------------------------------------


def test_audit_has_every_run_with_its_payloads_and_holds():
    fake = FakeClient({"x": lambda payload: payload})
    result = fake.run("x", {"a": 1}, plan_id="plan_7")
    fake.execute("nobody", {})
    page = fake.audit.query()
    assert [record.event for record in page.records] == ["DENIED", "OUTCOME", "INTENT"]
    found = fake.audit.get(result.audit_log, "output")
    assert (found.record.event, found.other.event, json.loads(found.payload)) == ("INTENT", "OUTCOME", {"a": 1})
    assert fake.audit.get("log_1", "input").payload == b'{"a":1}'
    assert [record.index for record in fake.audit.query(plan_id="plan_7", outcome="ok", plugin="plug_1").records] == [1]
    assert [record.index for record in fake.audit.tail(newest=2)] == [1, 2]
    seen = [(record.index, record.leaf_hash) for record in fake.audit.tail()]
    report = fake.audit.verify(seen)
    assert (report.holds, report.records, report.root) == (True, 3, page.root)
    assert not fake.audit.verify([(0, "00" * 32)]).holds
    assert fake.calls[-1].method == "audit.verify"


def test_root_is_that_of_the_real_tree():
    from plugind.audit import merkle

    fake = FakeClient({"x": 1})
    for count in range(1, 9):
        fake.execute("nobody", {})
        leaves = [merkle.leaf_hash(record.line) for record in fake.audit.tail()]
        assert fake.audit.verify().root == merkle.root_of(leaves).hex(), count


# --- asyncio -------------------------------------------------------------------------------------------------------


async def test_async_fake_is_awaited():
    async with AsyncFakeClient({"x": lambda payload: payload + 1}) as fake:
        results = await asyncio.gather(*(fake.run("x", number) for number in range(5)))
        assert [result.output for result in results] == [1, 2, 3, 4, 5]
        fake.ends("x", "timeout")
        with pytest.raises(LimitExceeded):
            await fake.run("x", 1)
        assert len(await fake.list()) == 1
    with pytest.raises(InvalidRequest):
        await fake.status()


# --- modules -------------------------------------------------------------------------------------------------------

GENERATED = "def total(a: float, b: float = 2.0) -> float:\n    raise AssertionError('a fake runs no code')\n"


def test_generated_code_is_a_module_whose_calls_the_test_answers():
    fake = FakeClient()
    module = fake.load_source(GENERATED, name="sums")
    assert str(inspect.signature(module.total)) == "(a: 'float', b: 'float' = 2.0) -> 'float'"
    fake.answers(f"sums@{module.__version__}", lambda call: sum(call["arguments"].values()))
    assert module.total(1.0, b=5.0) == 6.0
    assert getattr(module, "nope", None) is None
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'a'"):
        module.total()
    loaded = fake.load("sums")
    assert (loaded.__version__, dir(loaded)) == (module.__version__, ["total"])
    fake.answers(f"sums@{module.__version__}", ZeroDivisionError("float division by zero"))
    with pytest.raises(ZeroDivisionError, match="float division by zero"):
        loaded.total(1.0)


def test_a_killed_module_is_denied_as_the_daemon_would():
    fake = FakeClient()
    fake.load_source(GENERATED, name="sums")
    fake.kill("sums", "wrong")
    with pytest.raises(Denied) as caught:
        fake.load("sums")
    assert caught.value.code == "KILLED"
