"""Map and Session over the real daemon, through the client: values, errors, limits, and what the audit keeps of them."""

import hashlib
import json
import math
import struct
import time
from array import array

import pytest

from plugind_client import Columns, Denied, InvalidRequest, LimitExceeded, OutputInvalid, PluginFailed
from plugind_client.errors import Conflict
from tests.support import plugins

pytestmark = [pytest.mark.root, pytest.mark.alone]

FUNCTIONS = """
import math
calls = 0

def scale(x: float, by: float = 2.0) -> float:
    return x * by

def invert(x: float) -> float:
    return 1.0 / x

def label(x: float, name: str):
    return f"{name}: {x}"

def count():
    global calls
    calls += 1
    return calls

def spin():
    while True:
        pass

def bomb():
    return bytearray(10**9)[0]

def odd():
    return {1, 2}

def say(text: str):
    print(text)
    return text
"""
COUNTING = """
calls = 0
def run(payload, context):
    global calls
    calls += 1
    if payload == "raise":
        raise ValueError("as asked")
    return {"payload": payload, "calls": calls, "stage": context.stage, "plan": context.plan_id}
"""
ROWS = 10_000


@pytest.fixture(scope="module")
def client(daemon, tmp_path_factory):
    made = daemon.client()
    made.load_source(FUNCTIONS, name="functions")
    folder = plugins.folder(
        tmp_path_factory.mktemp("plugins"),
        "counting",
        code=COUNTING,
        stages=("durations",),
        input_schema={"type": ["string", "integer"]},
    )
    daemon.install(folder)
    return made


def call(function, **arguments):
    return {"function": function, "arguments": arguments}


def last_outcome(client):
    """The newest OUTCOME."""
    return next(each for each in client.audit.query(limit=5).records if each.event == "OUTCOME")


# --- Map -------------------------------------------------------------------------------------------------------------


def test_payloads_go_to_one_instance_in_their_order(client):
    result = client.map("counting", ["a", "b", 3], stage="durations", plan_id="p-1")
    assert result.outputs == [
        {"payload": payload, "calls": number, "stage": "durations", "plan": "p-1"}
        for number, payload in enumerate(["a", "b", 3], 1)
    ]
    assert (result.outcome, result.errors) == ("ok", {})


def test_an_item_that_fails_is_that_items_error(client):
    result = client.map("counting", ["a", "raise", 2.5, "b"], stage="durations")
    assert [result[0]["calls"], result[3]["calls"]] == [1, 3]
    assert sorted(result.errors) == [1, 2]
    with pytest.raises(PluginFailed) as raised:
        result[1]
    assert (raised.value.type, raised.value.message) == ("ValueError", "as asked")
    with pytest.raises(Denied) as refused:
        result[2]
    assert refused.value.code == "INPUT_INVALID"
    with pytest.raises(PluginFailed):
        _ = result.outputs


def test_ten_thousand_rows_of_six_columns_in_one_go(client):
    x = array("d", (math.sin(row) for row in range(ROWS)))
    result = client.map("functions", [Columns("scale", {"x": x, "by": float(by)}) for by in range(6)])
    for by, column in enumerate(result):
        assert column.values == array("d", (value * by for value in x))
        assert column.errors == {}
    assert result.outcome == "ok"


def test_every_bit_of_a_double_goes_there_and_back(client):
    patterns = [0, 1, 1 << 63, 0x7FF0 << 48, 0xFFF0 << 48, 0x7FF8 << 48, 0x3FF0 << 48, 2**63 - 1]
    x = array("d", struct.pack(f"<{len(patterns)}Q", *patterns))
    (column,) = client.map("functions", [Columns("scale", {"x": x, "by": 1.0})])
    wanted = array("d", (value * 1.0 for value in x))
    assert [struct.pack("<d", got)[6:] for got in column.values] == [struct.pack("<d", each)[6:] for each in wanted]
    finite = [row for row, value in enumerate(x) if not math.isnan(value)]
    assert [struct.pack("<d", column.values[row]) for row in finite] == [struct.pack("<d", x[row]) for row in finite]


def test_rows_that_fail_are_told_and_the_others_have_their_values(client):
    (column,) = client.map("functions", [Columns("invert", {"x": [1.0, 0.0, 4.0]})])
    assert (column[0], column[2]) == (1.0, 0.25)
    assert sorted(column.errors) == [1]
    with pytest.raises(PluginFailed) as raised:
        column[1]
    assert raised.value.type == "ZeroDivisionError"


def test_columns_that_are_no_floats(client):
    (column,) = client.map("functions", [Columns("label", {"x": [1, 2], "name": "n"})])
    assert list(column) == ["n: 1", "n: 2"]


def test_what_is_no_output_is_that_items_error(client):
    result = client.map("functions", [call("odd"), call("count")])
    assert isinstance(result.errors[0], OutputInvalid)
    assert result[1] == 1


def test_a_map_in_which_nothing_may_run_is_denied(client):
    with pytest.raises(Denied) as denied:
        client.map("counting", [1.5, None], stage="durations")
    assert denied.value.code == "INPUT_INVALID"
    with pytest.raises(Denied) as stage:
        client.map("counting", ["a"], stage="other")
    assert stage.value.code == "STAGE_NOT_ALLOWED"
    with pytest.raises(InvalidRequest):
        client.map("counting", [])


def test_the_limits_of_a_map_are_those_of_one_run(client):
    with pytest.raises(LimitExceeded) as timeout:
        client.map("functions", [call("count"), call("spin")], timeout_ms=300)
    assert timeout.value.code == "timeout"
    with pytest.raises(LimitExceeded) as memory:
        client.map("functions", [call("bomb")])
    assert memory.value.code == "out_of_memory"
    with pytest.raises(Denied) as size:
        client.map("functions", [Columns("scale", {"x": array("d", bytes(9 * 1024 * 1024))})])
    assert size.value.code == "INPUT_TOO_LARGE"


def test_the_audit_keeps_what_the_plugin_got_and_gave(client):
    client.map("functions", [call("scale", x=1.5), {"function": "scale", "arguments": {"x": "secret"}}])
    entry = last_outcome(client)
    record = entry.fields
    assert (record["mode"], record["items"], record["items_failed"]) == ("map", 2, 1)
    content = client.audit.get(entry.log_id, "input").payload
    assert hashlib.sha256(content).hexdigest() == record["input_sha256"]
    head, _, parts = content.partition(b"\n")
    assert json.loads(head)["items"][1] == {"refused": True}
    assert json.loads(parts) == call("scale", x=1.5)
    assert client.audit.verify().holds


# --- Session ---------------------------------------------------------------------------------------------------------


def test_a_session_is_one_instance_and_one_execution(client):
    with client.session("counting", stage="durations", plan_id="p-2") as session:
        assert [session.call(text)["calls"] for text in ("a", "b")] == [1, 2]
        with pytest.raises(PluginFailed, match="failed"):
            session.call("raise")
        with pytest.raises(Denied):
            session.call(None)
        assert session.call("c") == {"payload": "c", "calls": 4, "stage": "durations", "plan": "p-2"}
        result = session.close()
    assert (result.outcome, result.answered, result.why) == ("ok", 4, "closed")
    entry = last_outcome(client)
    record = entry.fields
    transcript = client.audit.get(entry.log_id, "output").payload
    assert record["mode"] == "session"
    assert record["output_sha256"] == result.frames_sha256 == hashlib.sha256(transcript).hexdigest()
    assert transcript.startswith(b'< 3\n"a"\nV ')
    assert transcript.count(b"\nE ") == 1


def test_many_inputs_ahead_of_their_answers(client):
    with client.session("functions") as session:
        given = [call("scale", x=float(x)) if x % 3 else call("invert", x=0.0) for x in range(1, 500)]
        results = session.call_many(given)
        assert [each for each in results if not isinstance(each, PluginFailed)] == [
            2.0 * x for x in range(1, 500) if x % 3
        ]
        assert {each.type for each in results if isinstance(each, PluginFailed)} == {"ZeroDivisionError"}
        assert session.call(call("count")) == 1
        assert session.close().answered == 500


def test_two_sessions_share_nothing(client):
    with client.session("functions") as one, client.session("functions") as two:
        assert [one.call(call("count")), one.call(call("count")), two.call(call("count"))] == [1, 2, 1]


def test_a_limit_ends_a_session_and_names_itself(client):
    with client.session("functions", timeout_ms=300) as session:
        assert session.call(call("count")) == 1
        with pytest.raises(LimitExceeded) as timeout:
            session.call(call("spin"))
        assert timeout.value.code == "timeout"
        assert "300 ms for one input" in timeout.value.detail
        with pytest.raises(LimitExceeded):
            session.call(call("count"))
    with client.session("functions") as session, pytest.raises(LimitExceeded) as memory:
        session.call(call("bomb"))
    assert memory.value.code == "out_of_memory"


def test_the_time_of_an_input_is_not_that_of_the_session(client):
    with client.session("functions", timeout_ms=400) as session:
        for number in range(1, 5):
            time.sleep(0.15)
            assert session.call(call("count")) == number
        assert session.close().outcome == "ok"


def test_a_large_input_and_a_large_output(client):
    text = "x" * 1_000_000
    with client.session("functions") as session:
        assert session.call(call("label", x=1.0, name=text)) == f"{text}: 1.0"
        assert session.call(call("count")) == 1


def test_leaving_by_an_exception_ends_the_instance(client):
    with pytest.raises(RuntimeError, match="ours"), client.session("functions") as session:
        session.call(call("count"))
        raise RuntimeError("ours")
    deadline = time.monotonic() + 5
    while client.runs() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert client.runs() == []
    entry = last_outcome(client)
    record = entry.fields
    assert record["outcome"] == "canceled"


def test_what_it_prints_is_kept(client):
    with client.session("functions") as session:
        session.call(call("say", text="one"))
        session.call(call("say", text="two"))
        assert session.close().stdout == "one\ntwo\n"


# --- idempotency keys ------------------------------------------------------------------------------------------------


def test_a_key_gives_the_same_answer_and_runs_once(client):
    first = client.run("counting", "a", stage="durations", idempotency_key="k-1")
    again = client.run("counting", "a", stage="durations", idempotency_key="k-1")
    assert (again.run_id, again.audit_log, again.output) == (first.run_id, first.audit_log, first.output)
    assert client.run("counting", "a", stage="durations").run_id != first.run_id
    with pytest.raises(Conflict):
        client.run("counting", "b", stage="durations", idempotency_key="k-1")
    mapped = client.map("functions", [call("count")], idempotency_key="k-2")
    assert client.map("functions", [call("count")], idempotency_key="k-2").run_id == mapped.run_id
    with pytest.raises(InvalidRequest):
        client.run("counting", "a", stage="durations", idempotency_key="a b")
