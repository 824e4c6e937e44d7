"""Generated code that nobody has looked at: it waits, unless a rule of the policy lets it run, which is recorded."""

import json

import grpc
import pytest

from plugind.api.accept import PEER_PREFIX, Callers
from plugind.api.registry import RegistryService
from plugind.catalog import Catalog
from plugind.errors import AuditUnavailableError, NotAllowedError
from plugind.model import POLICY_UID, Hold
from plugind.policy import synthesized
from plugind.policy.rules import Policy, Synthesized
from plugind.provenance import bundle, staticcheck
from plugind.provenance.evidence import Trust
from plugind.provenance.keys import PrivateKey
from plugind.registry.database import Registry
from plugind.registry.store import Store
from plugind_client.cli import words
from plugind_proto.v1 import registry_pb2
from tests.support.plugins import CALLER, ECHO, approval, attested, built, program

READ = '[[permissions.file_read]]\npath = "wbs.json"\n'
IMPORTS = "import math, json as j\nfrom collections.abc import Mapping\ndef run(p, c):\n    import re\n    return p\n"


def opened(tmp_path, on_change=lambda change: None, **named):
    registry = Registry(tmp_path / "registry.db", on_change, print)
    return Catalog(registry, Store(tmp_path / "store"), trust=Trust(), **named)


@pytest.fixture
def catalog(tmp_path):
    made = opened(tmp_path)
    yield made
    made.close()


def generated(tmp_path, name="echo", version="1.0.0", **named):
    parent = tmp_path / str(len(list(tmp_path.iterdir())))
    return built(parent, name, version, **({"origin": "synthesized"} | named))


def handed_in(catalog, data, rule=True):
    return catalog.submit(data, b"", [], by_uid=7, synthesized_runs=rule)


def test_rule_approves_and_activates_and_is_named_in_the_history(tmp_path, catalog):
    record = handed_in(catalog, generated(tmp_path, code=IMPORTS))
    assert (record.state, record.approval.tier, record.approval.by_uid) == ("active", 2, POLICY_UID)
    assert record.approval.permissions == ()
    assert record.approval.reason == (
        "by the rule synthesized.run_unapproved_tier2: asks for no permission, static check passed; "
        "imports collections.abc, json, math, re"
    )
    changes = catalog.history("echo")
    assert [(each.action, each.by_uid) for each in changes] == [
        ("submit", 7),
        ("approve", POLICY_UID),
        ("activate", POLICY_UID),
    ]
    assert {each.why for each in changes[1:]} == {record.approval.reason}
    assert json.loads(changes[1].detail)["by_uid"] == POLICY_UID
    assert words.person(changes[1].by_uid) == "- (the policy)"


def test_same_bytes_again_change_nothing(tmp_path, catalog):
    data = generated(tmp_path)
    first = handed_in(catalog, data)
    assert handed_in(catalog, data) == first
    assert len(catalog.history("echo")) == 3


@pytest.mark.parametrize(
    "rule,development,state",
    [
        (False, False, "submitted"),
        (False, True, "submitted"),
        (None, False, "submitted"),
        (None, True, "active"),
        (True, False, "active"),
    ],
)
def test_rule_that_is_not_said_holds_in_a_development_daemon_only(tmp_path, rule, development, state):
    catalog = opened(tmp_path, development=development)
    assert handed_in(catalog, generated(tmp_path), rule).state == state
    catalog.close()


def test_nothing_runs_by_the_rule_unless_it_is_asked_for(tmp_path):
    catalog = opened(tmp_path, development=True)
    assert catalog.submit(generated(tmp_path), b"", [], by_uid=7).state == "submitted"
    catalog.close()


@pytest.mark.parametrize(
    "given",
    [
        {"origin": "authored"},
        {"origin": "adapted", "extra": 'adapted_from = "plug_12@1.0.0"\n'},
        {"extra": READ},
        {"code": "#" + "x" * staticcheck.MAX_BYTES + "\ndef run(p, c): return p\n"},
    ],
    ids=["authored", "adapted", "permissions", "long"],
)
def test_everything_else_waits_for_a_person(tmp_path, catalog, given):
    record = handed_in(catalog, generated(tmp_path, **given))
    assert (record.state, record.approval) == ("submitted", None)
    assert [each.action for each in catalog.history("echo")] == ["submit"]


def test_programs_wait_for_a_person_and_no_caller_hands_one_in(tmp_path, catalog):
    folder = program(tmp_path, "tool", "#!/usr/bin/python3\n")
    toml = folder / "plugin.toml"
    toml.write_text(toml.read_text().replace('"authored"', '"synthesized"').replace("bin/tool", "tool.py"))
    (folder / "bin/tool").rename(folder / "tool.py")  # by their names all files could pass
    data = bundle.build(folder)
    with pytest.raises(NotAllowedError, match="it is a program, and only Python source is looked at"):
        by_a_caller(catalog, data)
    record = handed_in(catalog, data)
    assert (record.state, record.approval) == ("submitted", None)
    assert "it is a program" in synthesized.objection(record, [record], [])


def test_name_of_a_plugin_that_people_wrote_cannot_be_taken_over(tmp_path, catalog):
    handed_in(catalog, generated(tmp_path, origin="authored"))
    assert handed_in(catalog, generated(tmp_path, version="2.0.0")).state == "submitted"


@pytest.mark.parametrize(
    "decide",
    [
        lambda catalog: catalog.reject("echo", "1.0.0", by_uid=7, why="wrong sums"),
        lambda catalog: catalog.approve("echo", "1.0.0", approval(), approvers=1),
        lambda catalog: catalog.approve("echo", "1.0.0", approval(), approvers=2),
        lambda catalog: catalog.holds.set(Hold("suspended", "echo", "slow", 7, 1)),
    ],
    ids=["reject", "approve", "vote", "suspend"],
)
@pytest.mark.parametrize("version", ["1.0.0", "1.0.1"])
def test_what_a_person_has_decided_about_is_the_persons(tmp_path, catalog, decide, version):
    handed_in(catalog, generated(tmp_path))
    decide(catalog)
    before = {each.manifest.version: each.state for each in catalog.plugin("echo").versions}
    record = handed_in(catalog, generated(tmp_path, version=version))
    assert record.state == before.get(version, "submitted")
    assert {each.by_uid for each in catalog.history("echo")[-1:]} != {POLICY_UID}


def test_later_source_retires_the_earlier_and_the_earlier_may_come_back(tmp_path, catalog):
    first = generated(tmp_path, version="0.0.0+try.00000001")
    handed_in(catalog, first)
    handed_in(catalog, generated(tmp_path, version="0.0.0+try.00000002"))
    assert handed_in(catalog, first).state == "active"
    states = {each.manifest.version: each.state for each in catalog.plugin("echo").versions}
    assert states == {"0.0.0+try.00000001": "active", "0.0.0+try.00000002": "retired"}
    assert {each.by_uid for each in catalog.history("echo")} == {7, POLICY_UID}


def test_older_version_does_not_replace_a_later_one(tmp_path, catalog):
    handed_in(catalog, generated(tmp_path, version="2.0.0"))
    assert handed_in(catalog, generated(tmp_path, version="1.0.0")).state == "submitted"


def test_without_a_record_of_it_nothing_runs(tmp_path):
    def refuse(change):
        if change.by_uid == POLICY_UID:
            raise AuditUnavailableError("disk full")

    catalog = opened(tmp_path, refuse)
    with pytest.raises(AuditUnavailableError):
        handed_in(catalog, generated(tmp_path))
    assert catalog.version("echo", "1.0.0").state == "submitted"
    catalog.close()


# --- the check -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "files,problem",
    [
        ({"a.py": b"x = (\n"}, "a.py:1:5: expected Python source, got '(' was never closed"),
        ({"a.py": b"x = 1\0"}, "a.py"),
        ({"a.py": b"\xff"}, "a.py"),
        ({"a.py": b"-" * 100_000 + b"1"}, "a.py"),
        ({"a.py": b"x" + b".a" * 60_000}, "a.py: cannot be parsed: RecursionError"),
        ({"a.py": b"{" * staticcheck.MAX_BRACES, "b.py": b"{"}, "expected at most 10000 braces in Python source, got 10001"),
        ({"a.py": b"#" * staticcheck.MAX_BYTES, "b.py": b"#"}, "expected at most 131072 bytes of Python source, got 131073"),
        ({"a.so": b""}, "a.so: expected Python source, JSON and TOML only, and no programs"),
    ],
)  # fmt: skip
def test_what_does_not_pass(files, problem):
    found = staticcheck.look(files)
    assert found.problem.startswith(problem)
    assert found.imports == ()


def test_program_does_not_pass():
    assert staticcheck.look({"a.py": b""}).problem == ""
    assert "no programs" in staticcheck.look({"a.py": b""}, {"a.py"}).problem


def test_imports_are_listed_wherever_they_stand():
    code = b"import os.path\nfrom . import own\nfrom ..x import y\nif 0:\n  class C:\n    import socket\n"
    assert staticcheck.look({"a.py": code, "b.py": b"import math"}).imports == (".", "..x", "math", "os.path", "socket")


def test_reason_stays_short():
    assert synthesized.reason(()).endswith("; imports nothing")
    assert synthesized.reason(tuple(f"m{number}" for number in range(500))).endswith("m19 and 480 more")


# --- handed in by a caller ---------------------------------------------------------------------------------------------


def by_a_caller(catalog, data, rule=True, uid=7, attestations=b""):
    return catalog.submit(data, attestations, [], by_uid=uid, synthesized_runs=rule, generated_only=True)


def test_a_caller_hands_in_what_runs_at_once_and_its_next_version(tmp_path, catalog):
    first = generated(tmp_path)
    assert by_a_caller(catalog, first).state == "active"
    assert by_a_caller(catalog, generated(tmp_path, version="2.0.0")).state == "active"
    assert by_a_caller(catalog, first, uid=8).submitted_by_uid == 7, "the same bytes again change nothing"


@pytest.mark.parametrize("rule", [False, None])
def test_without_the_rule_a_caller_hands_in_nothing(tmp_path, catalog, rule):
    with pytest.raises(NotAllowedError, match="expected role operator, or a policy with synthesized"):
        by_a_caller(catalog, b"not even looked at", rule)
    assert catalog.plugins() == []


@pytest.mark.parametrize(
    ("named", "why"),
    [
        ({"origin": "authored"}, 'its origin is "authored"'),
        ({"extra": READ}, "asks for permissions"),
        ({"code": f"{ECHO}#{'x' * staticcheck.MAX_BYTES}"}, "bytes of Python source"),
    ],
)
def test_a_caller_hands_in_nothing_else(tmp_path, catalog, named, why):
    with pytest.raises(NotAllowedError, match=why):
        by_a_caller(catalog, generated(tmp_path, **named))
    assert catalog.plugins() == []


def test_a_caller_brings_no_attestations(tmp_path, catalog):
    data = generated(tmp_path)
    with pytest.raises(NotAllowedError, match="attestations or keys"):
        by_a_caller(catalog, data, attestations=attested(data, PrivateKey.generate()))


def test_a_caller_takes_no_name_that_is_somebody_elses(tmp_path, catalog):
    handed_in(catalog, generated(tmp_path, "written", origin="authored"), rule=False)
    with pytest.raises(NotAllowedError, match="not generated throughout"):
        by_a_caller(catalog, generated(tmp_path, "written", "2.0.0"))
    by_a_caller(catalog, generated(tmp_path, "theirs"), uid=8)
    with pytest.raises(NotAllowedError, match="somebody else has handed in"):
        by_a_caller(catalog, generated(tmp_path, "theirs", "2.0.0"))
    by_a_caller(catalog, generated(tmp_path, "looked_at"))
    catalog.reject("looked_at", "1.0.0", by_uid=9, why="a person looked")
    with pytest.raises(NotAllowedError, match="a person has decided"):
        by_a_caller(catalog, generated(tmp_path, "looked_at", "2.0.0"))
    assert {plugin.name: len(plugin.versions) for plugin in catalog.plugins()} == {
        "written": 1,
        "theirs": 1,
        "looked_at": 1,
    }


async def test_a_caller_that_is_refused_is_recorded(tmp_path, catalog):
    told = []

    class Refusals:
        async def refused(self, caller, call, role):
            told.append((caller.uid, call, role))

    policy = Policy(synthesized=Synthesized(run_unapproved_tier2=True))
    callers = Callers()
    callers.enter("plugind-x", CALLER)
    service = RegistryService(callers, Refusals(), catalog, lambda: policy)

    class Context:
        def peer(self):
            return f"{PEER_PREFIX}plugind-x"

        def time_remaining(self):
            return None

        async def abort(self, code, details="", trailing_metadata=()):
            raise grpc.RpcError(code, details)

    fine = registry_pb2.SubmitRequest(bundle=generated(tmp_path))
    assert (await service.Submit(fine, Context())).state == "active"
    assert told == []
    with pytest.raises(grpc.RpcError) as refused:
        await service.Submit(
            registry_pb2.SubmitRequest(bundle=generated(tmp_path, "other", origin="authored")), Context()
        )
    assert refused.value.args[0] is grpc.StatusCode.PERMISSION_DENIED
    assert told == [(CALLER.uid, "Submit", "operator")]
