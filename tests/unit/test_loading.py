"""load_source over real gRPC: a module whose functions look and fail as if they had been imported."""

import builtins
import importlib.util
import inspect
import json
import math

import grpc
import pytest

from plugind.provenance import bundle
from plugind.sandbox.inside.functions import describe
from plugind_client import AsyncClient, Client, Conflict, Denied, InvalidSource, LimitExceeded, NotAllowed, PluginFailed
from plugind_client.loading import original_of
from plugind_client.pools import IDLE_MS
from plugind_proto.v1 import governance_pb2, runtime_pb2
from tests.support.fake_daemon import FakeDaemon, allowed, denied, ended

TEXT = '''"""Margins of a plan."""
import math

def margin(income_eur: float, cost_eur: float = 0.0, *, factor: float = math.tau) -> float:
    """Income less cost."""
    return (income_eur - cost_eur) * factor

def share(part, whole, **notes): return part / whole
def _hidden(): return 1
'''


@pytest.fixture
def daemon(tmp_path):
    with FakeDaemon(str(tmp_path / "d.sock"), runs_synthesized=True) as daemon:
        yield daemon


@pytest.fixture
def client(daemon):
    with Client(daemon.socket) as client:
        yield client


@pytest.fixture
def module(client):
    return client.load_source(TEXT, name="margins", stage="premortem")


def imported(tmp_path):
    path = tmp_path / "margins.py"
    path.write_text(TEXT)
    spec = importlib.util.spec_from_file_location("margins", path)
    real = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(real)
    return real


# --- the module ------------------------------------------------------------------------------------------------------


def test_module_looks_like_an_imported_one(module, tmp_path):
    real = imported(tmp_path)
    assert inspect.ismodule(module)
    assert (module.__name__, module.__doc__) == ("margins", real.__doc__)
    assert dir(module) == ["margin", "share"]
    assert dict(inspect.getmembers(module, inspect.isfunction)).keys() == {"margin", "share"}
    assert getattr(module, "nope", None) is None
    assert getattr(module, "_hidden", None) is None
    assert getattr(module, "math", None) is None
    with pytest.raises(AttributeError, match="module 'margins' has no attribute 'nope'"):
        module.nope  # noqa: B018
    for name in dir(module):
        mine, theirs = getattr(module, name), getattr(real, name)
        assert (mine.__name__, mine.__qualname__, mine.__module__) == (name, name, "margins")
        assert mine.__doc__ == theirs.__doc__
        assert list(inspect.signature(mine).parameters) == list(inspect.signature(theirs).parameters)
        assert [p.kind for p in inspect.signature(mine).parameters.values()] == [
            p.kind for p in inspect.signature(theirs).parameters.values()
        ]
    assert str(inspect.signature(module.margin)) == (
        "(income_eur: 'float', cost_eur: 'float' = 0.0, *, factor: 'float' = math.tau) -> 'float'"
    )
    assert module.margin.__annotations__["return"] == "float"


def test_what_is_submitted_is_a_bundle_of_generated_code(module, daemon):
    found = bundle.read(daemon.last("SubmitRequest").bundle)
    manifest = found.manifest
    assert (manifest.name, manifest.origin, manifest.interface) == ("margins", "synthesized", "functions")
    assert (manifest.stages, manifest.permissions, manifest.version) == (("premortem",), (), module.__version__)
    assert found.files["margins.py"].decode() == TEXT


def sent(daemon, kind):
    return [request for request in daemon.requests if isinstance(request, kind)]


def test_call_is_one_input_with_what_was_given(module, daemon):
    daemon.answers["margins"] = allowed(b"12.5")
    assert module.margin(1.0, cost_eur=2) == 12.5
    runs = sent(daemon, runtime_pb2.RunRequest)
    assert len(runs) == 1
    assert (runs[0].plugin, runs[0].version, runs[0].stage) == ("margins", module.__version__, "premortem")
    assert json.loads(runs[0].input_json) == {"function": "margin", "arguments": {"income_eur": 1.0, "cost_eur": 2}}
    module.share(1, 2, note="x")
    given = json.loads(daemon.last("RunRequest").input_json)["arguments"]
    assert given == {"part": 1, "whole": 2, "note": "x"}


def test_everything_named_goes_with_every_session(client, daemon):
    module = client.load_source(TEXT, name="margins", plan_id="p1", sensitivity="public", timeout_ms=250)
    daemon.answers["margins"] = allowed(b"1")
    module.share(1, 2)
    asked = daemon.last("SessionOpen")
    told = asked.run
    assert (told.plan_id, told.sensitivity, told.timeout_ms, told.stage) == ("p1", "public", 250, "")
    assert asked.idle_ms == IDLE_MS


def test_non_finite_floats_pass(module, daemon):
    daemon.answers["margins"] = lambda request, _: allowed(
        json.dumps(json.loads(request.input_json)["arguments"]["part"]).encode()
    )
    assert module.share(float("inf"), 1) == math.inf
    assert module.share(-math.inf, 1) == -math.inf
    assert math.isnan(module.share(float("nan"), 1))


# --- what is raised --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda module: module.margin(),
        lambda module: module.margin(1, 2, 3),
        lambda module: module.margin(1, income_eur=2),
        lambda module: module.margin(1, nope=2),
        lambda module: module.share(1, note=2),
    ],
)
def test_arguments_that_do_not_fit_are_pythons_own_error_and_nothing_is_sent(module, daemon, tmp_path, call):
    with pytest.raises(TypeError) as theirs:
        call(imported(tmp_path))
    with pytest.raises(TypeError) as mine:
        call(module)
    assert str(mine.value) == str(theirs.value)
    assert not [request for request in daemon.requests if isinstance(request, runtime_pb2.RunRequest)]


RAISED = [
    ZeroDivisionError("division by zero"),
    ValueError("expected a share, got 7"),
    OverflowError(34, "Numerical result out of range"),
    KeyError("rate"),
    KeyError(("a", 1)),
    IndexError("list index out of range"),
    TypeError("unsupported operand"),
    ArithmeticError(),
    RuntimeError("ünïcode\nlines"),
    RecursionError("maximum recursion depth exceeded"),
    FileNotFoundError(2, "No such file or directory", "rates.csv"),
    AssertionError(),
]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_builtin_exception_comes_back_as_itself(module, daemon, error):
    told = describe(error)
    daemon.answers["margins"] = ended("failed", error=runtime_pb2.PluginError(**told))
    with pytest.raises(type(error)) as raised:
        module.share(1, 0)
    assert type(raised.value) is type(error)
    assert str(raised.value) == str(error)
    assert isinstance(raised.value.__cause__, PluginFailed)
    assert raised.value.__cause__.audit_log == "log_7"


@pytest.mark.parametrize("kind", ["NapkinError", "SystemExit", "KeyboardInterrupt", "print", "object", "", "Denied"])
def test_any_other_type_is_plugin_failed(module, daemon, kind):
    daemon.answers["margins"] = ended("failed", error=runtime_pb2.PluginError(type=kind, message="m"))
    with pytest.raises(PluginFailed) as raised:
        module.share(1, 0)
    assert (raised.value.type, raised.value.message) == (kind, "m")


def test_no_builtin_exception_is_made_with_another_message():
    kinds = [kind for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, BaseException)]
    assert len(kinds) > 60
    for kind in kinds:
        for message in ("m", "", "'m'", "(1, 2)", "[]", "__import__('os')"):
            made = original_of(kind.__name__, message)
            assert made is None or (isinstance(made, Exception) and str(made) == message)


def test_other_ends_are_raised_as_run_raises_them(module, daemon):
    daemon.answers["margins"] = denied("INPUT_INVALID")
    with pytest.raises(Denied) as refused:
        module.share("a", 2)
    assert refused.value.code == "INPUT_INVALID"
    daemon.answers["margins"] = ended("timeout")
    with pytest.raises(LimitExceeded):
        module.share(1, 2)


# --- loading ---------------------------------------------------------------------------------------------------------


def test_path_and_text_are_told_apart(client, daemon, tmp_path):
    path = tmp_path / "calculations.py"
    path.write_text(TEXT)
    names = [client.load_source(given).__name__ for given in (path, str(path), TEXT, "def f(): return 1")]
    assert names[0] == names[1]
    assert names[0].startswith("calculations_")
    assert names[0].removeprefix("calculations_") == names[2].removeprefix("generated_")
    assert len(set(names[1:])) == 3
    with pytest.raises(FileNotFoundError):
        client.load_source("missing.py")


def test_same_source_again_is_the_same_version(client, daemon):
    versions = [client.load_source(text, name="margins").__version__ for text in (TEXT, TEXT, TEXT + "\n")]
    assert versions[0] == versions[1] != versions[2]
    assert len(daemon.plugins["margins"].versions) == 2


@pytest.mark.parametrize("text", ["x\0.py", "\ud800.py"])
def test_line_that_can_be_no_path_is_refused_and_nothing_is_sent(client, daemon, text):
    with pytest.raises(InvalidSource) as raised:
        client.load_source(text)
    assert raised.value.detail.startswith(f"{text!a}: expected Python source or the path of a file, got")
    assert daemon.requests == []


def test_source_that_is_none_is_told_with_its_place_before_anything_is_sent(client, daemon, tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("def f(:\n")
    with pytest.raises(InvalidSource) as raised:
        client.load_source(path)
    assert raised.value.detail == f"{path}:1:7: expected Python source, got invalid syntax"
    assert daemon.requests == []


def test_what_nobody_approved_is_denied_with_every_reason(client, daemon):
    daemon.runs_synthesized = False
    daemon.checks = [
        governance_pb2.Check(name="caller", ok=True),
        governance_pb2.Check(name="approval", ok=False, reasons=denied("NOT_APPROVED").reasons),
        governance_pb2.Check(name="stage", ok=False, reasons=denied("STAGE_NOT_ALLOWED").reasons),
    ]
    with pytest.raises(Denied) as raised:
        client.load_source(TEXT, name="margins", stage="setup")
    assert raised.value.code == "NOT_APPROVED"
    assert [reason.code for reason in raised.value.reasons] == ["NOT_APPROVED", "STAGE_NOT_ALLOWED"]
    assert "mend NOT_APPROVED" in raised.value.detail
    asked = daemon.last("ExplainRequest")
    assert (asked.plugin, asked.stage) == ("margins", "setup")


def test_what_somebody_approved_is_activated(client, daemon):
    daemon.runs_synthesized = False
    version = client.load_source(TEXT, name="margins").__version__
    assert daemon.plugins["margins"].active_version == ""
    client.approve("margins", version, tier=2, as_declared=True, reason="read")
    client.load_source(TEXT, name="margins")
    assert daemon.plugins["margins"].active_version == version


@pytest.mark.parametrize(
    "status,kind",
    [(grpc.StatusCode.PERMISSION_DENIED, NotAllowed), (grpc.StatusCode.FAILED_PRECONDITION, Conflict)],
)
def test_refused_submission_is_raised(client, daemon, status, kind):
    daemon.refusal = (status, "no", None)
    with pytest.raises(kind):
        client.load_source(TEXT)


async def test_async_client_gives_functions_to_await(daemon):
    async with AsyncClient(daemon.socket) as client:
        module = await client.load_source(TEXT, name="margins", stage="premortem")
        daemon.answers["margins"] = allowed(b"0.5")
        assert await module.share(1, whole=2) == 0.5
        daemon.answers["margins"] = ended("failed", error=runtime_pb2.PluginError(**describe(KeyError("a"))))
        with pytest.raises(KeyError, match=r"^'a'$"):
            await module.share(1, 2)
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'whole'"):
            module.share(1)


def test_load_gives_the_module_of_a_plugin_that_is_there(client, daemon):
    version = client.load_source(TEXT, name="margins").__version__
    daemon.sources["margins"] = TEXT.encode()
    daemon.answers["margins"] = allowed(b"3")
    module = client.load("margins", stage="premortem")
    assert (dir(module), module.__version__, module.margin(1)) == (["margin", "share"], version, 3)
    asked = daemon.last("SessionOpen").run
    assert (asked.plugin, asked.version, asked.stage) == ("margins", version, "premortem")
    assert daemon.last("ExplainRequest").stage == "premortem"
    assert client.load(f"margins@{version}").__version__ == version


def test_load_of_what_may_not_run_is_denied_and_of_odd_functions_told(client, daemon):
    client.load_source(TEXT, name="margins")
    daemon.sources["margins"] = b"def f(*values): ..."
    with pytest.raises(InvalidSource) as odd:
        client.load("margins")
    assert odd.value.detail.startswith("margins@0.0.0+try.")
    daemon.checks = [governance_pb2.Check(name="plugin", ok=False, reasons=denied("PLUGIN_NOT_FOUND").reasons)]
    with pytest.raises(Denied) as raised:
        client.load("missing")
    assert raised.value.code == "PLUGIN_NOT_FOUND"


async def test_async_load(daemon):
    async with AsyncClient(daemon.socket) as client:
        await client.load_source(TEXT, name="margins")
        daemon.sources["margins"] = TEXT.encode()
        daemon.answers["margins"] = allowed(b"3")
        module = await client.load("margins")
        assert await module.margin(1) == 3
