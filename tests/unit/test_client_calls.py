"""The client against a real gRPC server on a real socket: what it sends, what it makes of the answers."""

import asyncio
import inspect
import json
import math
import os
import signal
import stat
import subprocess
import sys
import threading
import time

import grpc
import pytest

import plugind_client
from plugind_client import AsyncClient, Client, Limits, Permission
from plugind_client.channel import STATUS
from plugind_proto.v1 import common_pb2, governance_pb2, registry_pb2, runtime_pb2
from tests.support.fake_daemon import FakeDaemon, allowed, denied, ended


@pytest.fixture
def daemon(tmp_path):
    with FakeDaemon(str(tmp_path / "d.sock")) as daemon:
        yield daemon


class Awaited:
    """AsyncClient with each call awaited at once, so that one test serves both clients."""

    def __init__(self, socket):
        self._runner = asyncio.Runner()
        self._client = AsyncClient(socket)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._runner.run(self._client.close())
        self._runner.close()

    def __getattr__(self, name):
        async def call(*args, **kwargs):
            return await getattr(self._client, name)(*args, **kwargs)

        return lambda *args, **kwargs: self._runner.run(call(*args, **kwargs))


@pytest.fixture(params=[Client, Awaited], ids=["sync", "async"])
def client(daemon, request):
    with request.param(daemon.socket) as client:
        yield client


@pytest.fixture
def blocking(daemon):
    with Client(daemon.socket) as client:
        yield client


# --- run -----------------------------------------------------------------------------------------------------------


def test_run_sends_everything(daemon, client):
    client.run(
        "echo", {"ü": 1}, version="1.2.0", stage="durations", plan_id="p1", sensitivity="restricted", timeout_ms=250
    )
    assert daemon.last("RunRequest") == runtime_pb2.RunRequest(
        plugin="echo",
        version="1.2.0",
        input_json='{"ü":1}'.encode(),
        stage="durations",
        plan_id="p1",
        sensitivity="restricted",
        timeout_ms=250,
    )


def test_run_returns_everything(daemon, client):
    daemon.answers["p"] = allowed(
        b'{"a":[1]}',
        stdout="grün".encode()[:3],
        stderr=b"warned",
        violations=[common_pb2.Violation(kind="syscall", name="ptrace", count=2, detail="d")],
    )
    result = client.run("p", None)
    assert (result.ok, result.outcome, result.output, result.run_id, result.version) == (
        True,
        "ok",
        {"a": [1]},
        "r1",
        "1.0.0",
    )
    assert result.governance.as_dict() == {
        "plugin_id": "plug_1",
        "tier": "Tier 2",
        "permissions": ["file_read"],
        "execution_limit_ms": 5000,
        "audit_log": "log_7",
    }
    assert (result.audit_log, result.stdout, result.stderr) == ("log_7", "gr�", "warned")
    assert (result.usage.wall_ms, result.usage.cpu_ms, result.usage.memory_peak_bytes) == (12, 7, 4096)
    assert (result.violations[0].name, result.violations[0].count) == ("ptrace", 2)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        "",
        [],
        {},
        2**53 + 1,
        10**400,
        -0.1,
        1e308,
        "𝄞\u0000",
        {"a": {"b": [1, 2.5, None, "ü"]}},
        "x" * 6_000_000,
    ],
    ids=lambda value: repr(value)[:20],
)
def test_values_come_back_exactly(client, value):
    output = client.run("echo", value).output
    assert (output, type(output)) == (value, type(value))


def test_values_that_are_not_finite_are_left_to_the_daemon(client):
    assert math.isnan(client.run("echo", float("nan")).output)


def looped():
    value = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "payload",
    [{1, 2}, object(), b"bytes", looped(), {"a": "\ud800"}, {(1, 2): 3}],
    ids=["set", "object", "bytes", "looped", "surrogate", "tuple_as_key"],
)
def test_payload_that_json_cannot_say_is_refused_before_anything_is_sent(daemon, client, payload):
    with pytest.raises(plugind_client.InvalidRequest) as raised:
        client.run("echo", payload)
    assert raised.value.code == "PAYLOAD_NOT_JSON"
    assert raised.value.detail
    assert daemon.requests == []


@pytest.mark.parametrize(
    "name,version,sent",
    [
        ("a", None, ("a", "")),
        ("a@1.0.0", None, ("a", "1.0.0")),
        ("a", "1.0.0", ("a", "1.0.0")),
        ("a@1.0.0", "1.0.0", ("a", "1.0.0")),
        ("plug_1@1.2.0+try.ab", None, ("plug_1", "1.2.0+try.ab")),
    ],
)
def test_name_and_version(daemon, client, name, version, sent):
    client.execute(name, version=version)
    request = daemon.last("RunRequest")
    assert (request.plugin, request.version) == sent


@pytest.mark.parametrize("name,version", [("", None), ("@1.0.0", None), ("a@", None), ("a@1.0.0", "2.0.0")])
def test_bad_name_is_refused_before_anything_is_sent(daemon, client, name, version):
    with pytest.raises(plugind_client.InvalidRequest):
        client.run(name, None, version=version)
    assert daemon.requests == []


@pytest.mark.parametrize("wrong", [{"timeout_ms": -1}, {"timeout_ms": "soon"}, {"stage": 5}, {"plan_id": "\ud800"}])
def test_wrong_argument_is_an_invalid_request(client, wrong):
    with pytest.raises(plugind_client.InvalidRequest) as raised:
        client.run("echo", None, **wrong)
    assert raised.value.detail


def test_denial_carries_all_reasons(daemon, client):
    daemon.answers["p"] = denied("NOT_SIGNED", "STAGE_NOT_ALLOWED")
    with pytest.raises(plugind_client.Denied) as raised:
        client.run("p", None)
    assert [reason.code for reason in raised.value.reasons] == ["NOT_SIGNED", "STAGE_NOT_ALLOWED"]
    assert raised.value.reasons[0].remedy == "mend NOT_SIGNED"
    assert raised.value.audit_log == "log_7"


def test_execute_returns_what_run_raises(daemon, client):
    daemon.answers |= {"d": denied("BUSY"), "t": ended("timeout", "5000 ms")}
    assert client.execute("d").reasons[0].code == "BUSY"
    assert client.execute("t").outcome == "timeout"
    with pytest.raises(plugind_client.LimitExceeded):
        client.run("t", None)


def test_execute_sends_json_text_as_it_is(daemon, client):
    client.execute("echo", input_json=b' {"a": 1.0, "a": 1e2} ')
    assert daemon.last("RunRequest").input_json == b' {"a": 1.0, "a": 1e2} '


def test_failure_carries_the_plugins_exception(daemon, client):
    told = runtime_pb2.PluginError(type="KeyError", message="'x'", traceback="tb")
    daemon.answers["p"] = ended("failed", "raised", error=told)
    with pytest.raises(plugind_client.PluginFailed) as raised:
        client.run("p", None)
    assert (raised.value.type, raised.value.message, raised.value.traceback) == ("KeyError", "'x'", "tb")


@pytest.mark.parametrize("output", [b"", b"{", b"\xff", b"[" * 100_000])
def test_output_that_is_no_json_is_a_fault(daemon, client, output):
    daemon.answers["p"] = allowed(output)
    with pytest.raises(plugind_client.Fault) as raised:
        client.run("p", None)
    assert raised.value.code == "BAD_ANSWER"


# --- ending a run --------------------------------------------------------------------------------------------------


def test_ctrl_c_ends_the_run(daemon, blocking):
    client = blocking
    daemon.answers["slow"] = daemon.slow
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    interrupted = []

    def interrupt():
        while not daemon.requests:
            time.sleep(0.005)
        interrupted.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGALRM)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        client.run("slow", None)
    assert time.monotonic() - interrupted[0] < 1
    assert daemon.call_ended.wait(2)
    assert client.run("echo", 1).output == 1


def test_closing_ends_the_run_of_another_thread(daemon, blocking):
    client = blocking
    daemon.answers["slow"] = daemon.slow
    caught = []

    def wait():
        try:
            client.run("slow", None)
        except plugind_client.PlugindError as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not daemon.requests:
        time.sleep(0.01)
    client.close()
    thread.join(5)
    assert [type(error) for error in caught] == [plugind_client.Canceled]
    with pytest.raises(plugind_client.InvalidRequest):
        client.run("echo", None)


@pytest.mark.parametrize("method", ["run", "execute"])
async def test_canceling_the_task_ends_the_run(daemon, method):
    daemon.answers["slow"] = daemon.slow
    async with AsyncClient(daemon.socket) as client:
        task = asyncio.create_task(getattr(client, method)("slow", None))
        while not daemon.requests:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(daemon.call_ended.wait, 2)
        assert (await client.run("echo", 1)).output == 1


async def test_time_limit_of_the_callers_own_ends_the_run(daemon):
    daemon.answers["slow"] = daemon.slow
    async with AsyncClient(daemon.socket) as client:
        run = asyncio.create_task(client.run("slow", None))
        while not daemon.requests:  # of one that has not begun there is nothing to end
            await asyncio.sleep(0.005)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run, 0.1)
        assert await asyncio.to_thread(daemon.call_ended.wait, 10)


async def test_closing_ends_the_run_of_another_task(daemon):
    daemon.answers["slow"] = daemon.slow
    client = AsyncClient(daemon.socket)
    task = asyncio.create_task(client.run("slow", None))
    while not daemon.requests:
        await asyncio.sleep(0.005)
    await client.close()
    with pytest.raises(plugind_client.Canceled):
        await task
    with pytest.raises(plugind_client.InvalidRequest, match="accept"):
        await client.run("echo", None)


async def test_tasks_share_a_client(daemon):
    async with AsyncClient(daemon.socket) as client:
        results = await asyncio.gather(*(client.run("echo", number) for number in range(32)))
    assert [result.output for result in results] == list(range(32))


async def test_nothing_is_sent_before_it_is_awaited(daemon):
    async with AsyncClient(daemon.socket) as client:
        not_started = client.run("", {1, 2})
        with pytest.raises(plugind_client.InvalidRequest):
            await not_started
    assert daemon.requests == []


def test_run_has_a_deadline_only_when_the_caller_named_one(daemon, client):
    left = []
    daemon.answers["p"] = lambda _request, context: left.append(context.time_remaining()) or allowed()
    client.run("p", None)
    client.run("p", None, timeout_ms=5000)
    assert left[0] is None or left[0] > 1e6
    assert 5 < left[1] < 36


# --- when the call itself fails ------------------------------------------------------------------------------------


def test_no_daemon(tmp_path):
    with Client(tmp_path / "missing.sock") as client, pytest.raises(plugind_client.Unavailable) as raised:
        client.run("echo", None)
    assert raised.value.retryable
    assert str(raised.value) == "plugind cannot be reached."
    assert "missing.sock" in raised.value.detail


def test_path_that_no_socket_can_have(tmp_path, capfd):
    with Client(tmp_path / ("x" * 120)) as client, pytest.raises(plugind_client.Unavailable, match="reached") as raised:
        client.list()
    assert "expected a socket's path of at most 107 bytes" in raised.value.detail
    assert capfd.readouterr().err == ""


def test_daemon_that_comes_later_and_is_restarted(tmp_path):
    socket = str(tmp_path / "d.sock")
    with Client(socket) as client:
        for _ in range(2):
            with pytest.raises(plugind_client.Unavailable):
                client.run("echo", None)
            with FakeDaemon(socket):
                until = time.monotonic() + 5
                while True:
                    try:
                        assert client.run("echo", 1).output == 1
                        break
                    except plugind_client.Unavailable:
                        assert time.monotonic() < until
                        time.sleep(0.05)


def test_daemon_that_dies_in_a_run(tmp_path):
    with FakeDaemon(str(tmp_path / "d.sock")) as daemon, Client(daemon.socket) as client:
        daemon.answers["slow"] = lambda _request, _context: daemon.server.stop(0) and time.sleep(0.5)
        with pytest.raises((plugind_client.Unavailable, plugind_client.Canceled)):
            client.run("slow", None)


@pytest.mark.parametrize("name", ["a b.sock", "100%25.sock", "ü?x#y.sock"])
def test_any_path_will_do(tmp_path, name):
    socket = tmp_path / name
    with FakeDaemon(str(tmp_path / "d.sock")), Client(socket) as client:
        (tmp_path / "d.sock").rename(socket)
        assert stat.S_ISSOCK(socket.stat().st_mode)
        assert client.run("echo", 1).output == 1


def test_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with FakeDaemon(str(tmp_path / "d.sock")), Client("d.sock") as client:
        assert client.run("echo", 1).output == 1


def test_socket_from_the_environment(monkeypatch):
    monkeypatch.delenv("PLUGIND_SOCKET", raising=False)
    assert Client().socket == "/run/plugind/run/plugind.sock"
    monkeypatch.setenv("PLUGIND_SOCKET", "/x.sock")
    assert (Client().socket, Client("/y.sock").socket) == ("/x.sock", "/y.sock")


@pytest.mark.parametrize("status", [status for status in grpc.StatusCode if status is not grpc.StatusCode.OK])
def test_every_status_is_mapped(daemon, client, status):
    kind, code = STATUS[status]
    daemon.refusal = (status, "what happened", [])
    with pytest.raises(kind) as raised:
        client.list()
    assert raised.value.code == code
    assert status is grpc.StatusCode.CANCELLED or raised.value.detail == "what happened"
    assert raised.value.__suppress_context__


REASON = {"code": "INVALID_BUNDLE", "rule": "bundle", "expected": "", "actual": "member 3 is a link", "remedy": ""}


def test_reasons_of_a_refusal(daemon, client):
    daemon.refusal = (grpc.StatusCode.INVALID_ARGUMENT, "bad bundle", [REASON])
    with pytest.raises(plugind_client.InvalidRequest) as raised:
        client.submit(b"tar")
    assert [reason.actual for reason in raised.value.reasons] == ["member 3 is a link"]


def test_unavailable_with_reasons_is_a_denial(daemon, client):
    daemon.refusal = (grpc.StatusCode.UNAVAILABLE, "mount failed", [REASON | {"code": "ISOLATION_UNAVAILABLE"}])
    with pytest.raises(plugind_client.Denied) as raised:
        client.list()
    assert raised.value.code == "ISOLATION_UNAVAILABLE"


@pytest.mark.parametrize("garbage", [5, [5], [{"code": "X"}], {"code": "X"}])
def test_reasons_that_cannot_be_read_leave_the_status(daemon, client, garbage):
    daemon.refusal = (grpc.StatusCode.NOT_FOUND, "gone", garbage)
    with pytest.raises(plugind_client.NotFound) as raised:
        client.get("x")
    assert raised.value.reasons == ()


# --- the rest of the API -------------------------------------------------------------------------------------------


def test_runs_and_cancel(daemon, client):
    daemon.running.append(
        runtime_pb2.RunningRun(
            run_id="r9",
            plugin_id="plug_1",
            plugin="p",
            version="1.0.0",
            tier=2,
            stage="s",
            started_unix_ms=5,
            caller_uid=1000,
            state="running",
        )
    )
    (run,) = client.runs()
    assert (run.run_id, run.plugin, run.tier, run.started_unix_ms, run.caller_uid) == ("r9", "p", 2, 5, 1000)
    assert client.cancel("r9") is True
    assert client.cancel("r8") is False


def test_both_clients_have_the_same_methods_with_the_same_arguments():
    def methods(kind):
        return {
            name: str(inspect.signature(method)).partition(" -> ")[0]
            for name, method in inspect.getmembers(kind, callable)
            if not name.startswith("_") and name not in {"answer", "close"}
        }

    assert methods(Client) == methods(AsyncClient)
    assert methods(Client)["kill"] == "(target: 'str', reason: 'str')"
    assert [name for name in methods(Client) if not getattr(Client, name).__doc__] == []


def test_method_of_a_client_tells_its_arguments(blocking):
    assert inspect.signature(blocking.get).parameters.keys() == {"plugin"}
    assert blocking.get.__doc__.startswith("One plugin with all its versions")


def test_why_is_the_last_denial_or_nothing(daemon, client):
    assert client.why() is None
    reason = common_pb2.Reason(code="KILLED", rule="hold.killed", expected="e", actual="a", remedy="r")
    daemon.denial = runtime_pb2.WhyResponse(
        plugin="p",
        version="1.0.0",
        stage="s",
        sensitivity="internal",
        reasons=[reason],
        audit_log="log_3",
        at_unix_ms=9,
    )
    assert client.why() == plugind_client.Denial(
        "p", "1.0.0", "s", "internal", (plugind_client.Reason("KILLED", "hold.killed", "e", "a", "r"),), "log_3", 9
    )


CHANGE = {
    "revision": 7,
    "plugin_id": "plug_1",
    "plugin": "demo",
    "version": "1.0.0",
    "digest": "ab",
    "action": "approve",
    "state": "approved",
    "by_uid": 1000,
    "at_unix_ms": 5,
    "why": "read it",
    "detail_json": "{}",
}


def test_history(daemon, client, bundle):
    client.submit(bundle)
    daemon.changes += [registry_pb2.Change(**CHANGE), registry_pb2.Change(revision=8, action="kill")]
    assert [change.revision for change in client.history()] == [7, 8]
    assert client.history("plug_1") == [plugind_client.Change(**CHANGE)]
    with pytest.raises(plugind_client.NotFound):
        client.history("nothing")


def test_holds(daemon, client):
    daemon.killed = {"ended_runs": 3, "took_us": 41_000, "unconfirmed_runs": 1}
    killed = client.kill("all", "incident")
    assert killed == plugind_client.KillReport(plugind_client.Hold("killed", "all", "incident", 1000, 5), 3, 41_000, 1)
    assert client.suspend("demo@1.0.0", "maintenance").kind == "suspended"
    assert client.lift_kill("all", "over").by_uid == 1001
    assert client.resume("demo@1.0.0", "done").target == "demo@1.0.0"
    for lift in (client.lift_kill, client.resume):
        with pytest.raises(plugind_client.Conflict):
            lift("all", "again")
    assert [(each.target, each.reason) for each in daemon.requests[:3]] == [
        ("all", "incident"),
        ("demo@1.0.0", "maintenance"),
        ("all", "over"),
    ]


def test_approval_and_what_follows(daemon, client, bundle):
    client.submit(bundle)
    client.approve("demo", "1.0.0", tier=2, reason="r", as_declared=True, not_after_unix_ms=99)
    assert daemon.last("ApproveRequest").not_after_unix_ms == 99
    client.activate("demo", "1.0.0", reason="now")
    assert daemon.last("ActivateRequest").reason == "now"
    daemon.plugins["demo"].versions[0].state = "retired"
    assert client.rollback("demo", reason="slow").state == "active"
    assert client.reject("demo", "1.0.0", reason="wrong").approval is None
    assert (daemon.last("RollbackRequest").version, daemon.last("RejectRequest").reason) == ("", "wrong")
    with pytest.raises(plugind_client.Conflict):
        client.rollback("demo", "1.0.0", reason="slow")
    assert daemon.last("RollbackRequest").version == "1.0.0"


def test_version_has_its_holds_and_what_it_widens(daemon, client, bundle):
    client.submit(bundle)
    stored = daemon.plugins["demo"].versions[0]
    stored.holds.add(kind="killed", target="demo", reason="why", by_uid=5, at_unix_ms=6)
    stored.widens.append("stages: a is new")
    version = client.get("demo").version()
    assert version.holds == (plugind_client.Hold("killed", "demo", "why", 5, 6),)
    assert version.widens == ("stages: a is new",)


def test_status(daemon, client):
    daemon.condition.unavailable_tiers[1] = "no cgroups"
    daemon.condition.holds.add(kind="killed", target="all")
    found = client.status()
    assert (found.daemon_version, found.mode, found.runs_in_flight, found.plugins) == ("1.0", "production", 2, 3)
    assert (found.ledger_size, found.ledger_root, found.ledger_problem) == (41, "ab" * 32, "")
    assert (found.unavailable_tiers, found.holds[0].target) == ({1: "no cgroups"}, "all")


@pytest.mark.parametrize("plugin,version", [("demo@1.0.0", None), ("demo", "1.0.0")])
def test_explain_tells_every_check(daemon, client, plugin, version):
    reason = common_pb2.Reason(code="STAGE_NOT_ALLOWED", rule="stage")
    daemon.checks = [
        governance_pb2.Check(name="holds", ok=True),
        governance_pb2.Check(name="stage", ok=False, reasons=[reason]),
    ]
    found = client.explain(plugin, version=version, stage="s", sensitivity="public", timeout_ms=5)
    assert [(each.name, each.ok, [r.code for r in each.reasons]) for each in found] == [
        ("holds", True, []),
        ("stage", False, ["STAGE_NOT_ALLOWED"]),
    ]
    assert daemon.last("ExplainRequest") == governance_pb2.ExplainRequest(
        plugin="demo", version="1.0.0", stage="s", sensitivity="public", timeout_ms=5
    )


def test_policy_is_read_again(daemon, client):
    daemon.policy.append("q" * 64)
    assert client.reload_policy() == plugind_client.PolicyReload("q" * 64, changed=True)
    assert client.reload_policy() == plugind_client.PolicyReload("q" * 64, changed=False)


def test_registry_and_governance(daemon, client, bundle):
    submitted = client.submit(bundle, b"", development_public_keys=["PEM"])
    assert (submitted.plugin_id, submitted.name, submitted.version, submitted.tier) == ("plug_1", "demo", "1.0.0", 2)
    assert daemon.last("SubmitRequest").development_public_keys == ["PEM"]
    approved = client.approve(
        "demo",
        "1.0.0",
        tier=2,
        reason="why",
        stages=["s"],
        permissions=[Permission("file_read", '{"path": "x"}')],
        limits=Limits(wall_ms=5),
    )
    assert (approved.state, approved.approval.reason) == ("approved", "why")
    request = daemon.last("ApproveRequest")
    assert (request.as_declared, list(request.stages), request.limits.wall_ms) == (False, ["s"], 5)
    assert request.permissions[0].entry_json == '{"path": "x"}'
    assert client.activate("demo", "1.0.0").state == "active"
    (plugin,) = client.list()
    assert plugin == client.get("plug_1")
    assert (plugin.active_version, plugin.version().stages) == ("1.0.0", ("durations",))
    assert plugin.version("9.9.9") is None
    with pytest.raises(plugind_client.NotFound):
        client.get("nothing")


@pytest.fixture
def bundle():
    import io
    import tarfile

    text = json.dumps({"manifest": {"name": "demo", "version": "1.0.0", "stages": ["durations"]}}).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("plugin.json")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    return buffer.getvalue()


# --- processes and threads -----------------------------------------------------------------------------------------

FORKING = """
import multiprocessing, os, sys
from plugind_client import Client

client = Client(sys.argv[1])
assert client.run("echo", "parent").output == "parent"

def child(number):
    assert client.run("echo", number).output == number
    return client.run("echo", -number).output

def ends_like_a_program(number):
    pid = os.fork()
    if pid == 0:
        child(number)
        sys.exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

assert [ends_like_a_program(n) for n in range(20)] == [0] * 20
with multiprocessing.get_context("fork").Pool(4) as pool:
    assert pool.map(child, range(40)) == [-n for n in range(40)]
assert client.run("echo", "still").output == "still"
client.close()
print("done")
"""


@pytest.mark.slow
def test_forked_children_have_channels_of_their_own(daemon):
    """In a process of its own: this one holds the fake daemon's threads."""
    done = subprocess.run(
        [sys.executable, "-c", FORKING, daemon.socket],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


@pytest.mark.slow
def test_child_may_close_what_it_uses_and_let_go_of_the_rest(daemon):
    script = FORKING.split("def child", maxsplit=1)[0] + (
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    assert client.run('echo', 1).output == 1\n"
        "    client.close()\n"
        "    del client\n"
        "    import gc; gc.collect()\n"
        "    with Client(sys.argv[1]) as other: assert other.run('echo', 2).output == 2\n"
        "    sys.exit(7)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7\n"
        "assert client.run('echo', 3).output == 3\n"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", script, daemon.socket], timeout=60, check=True)


def test_fork_support_of_grpc_is_left_alone():
    code = "import os, plugind_client; plugind_client.Client; print('GRPC_ENABLE_FORK_SUPPORT' in os.environ)"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GRPC")}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment) == b"False\n"


def test_threads_share_a_client(daemon):
    with Client(daemon.socket) as client:
        seen = []
        threads = [threading.Thread(target=lambda n=n: seen.append(client.run("echo", n).output)) for n in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(seen) == list(range(32))


def test_errors_and_records_load_without_grpc():
    code = "import sys, plugind_client, plugind_client.errors; print('grpc' in sys.modules, 'google' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code]) == b"False False\n"


def test_everything_that_is_exported_is_there():
    assert [name for name in plugind_client.__all__ if not hasattr(plugind_client, name)] == []
    with pytest.raises(AttributeError, match="Nothing"):
        _ = plugind_client.Nothing
