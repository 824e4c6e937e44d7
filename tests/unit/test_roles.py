"""Who gets which role through which socket, and which call needs which."""

from __future__ import annotations

import os
import socket

import grpc
import pytest

from plugind.api.accept import PEER_PREFIX, Callers, peer_of
from plugind.api.audit import AuditService
from plugind.api.governance import GovernanceService
from plugind.api.registry import RegistryService
from plugind.api.roles import AdminAdmission, DevAdmission, Role, RunAdmission, groups_of
from plugind.api.runtime import RuntimeService
from plugind.errors import NotAllowedError
from plugind.model import Caller
from plugind.planfiles import FileCeilings
from plugind_proto.v1 import audit_pb2, governance_pb2, registry_pb2, runtime_pb2

GROUPS = {901: Role.OPERATOR, 902: Role.APPROVER, 903: Role.ADMIN}
ADMIN = AdminAdmission(GROUPS)


def nobody_asks():
    raise AssertionError("groups do not matter here")


@pytest.mark.parametrize("uid", [0, 1000, 4294967294])
def test_the_run_socket_makes_everybody_a_caller_and_nobody_more(uid):
    assert RunAdmission().admit(Caller(uid, uid, 1), nobody_asks) == {Role.CALLER}


@pytest.mark.parametrize(
    ("gid", "groups", "roles"),
    [
        (901, [], {Role.OPERATOR}),
        (5, [901], {Role.OPERATOR}),
        (5, [1, 902, 7], {Role.APPROVER}),
        (5, [903], {Role.ADMIN}),
        (901, [902, 903], {Role.OPERATOR, Role.APPROVER, Role.ADMIN}),
    ],
)
def test_the_admin_socket_gives_the_roles_of_the_groups(gid, groups, roles):
    assert ADMIN.admit(Caller(1000, gid, 1), lambda: groups) == {Role.CALLER, *roles}


def test_on_the_admin_socket_root_has_every_role_and_strangers_stay_outside():
    assert ADMIN.admit(Caller(0, 0, 1), nobody_asks) == set(Role)
    with pytest.raises(NotAllowedError, match="plugind-operator"):
        ADMIN.admit(Caller(1000, 5, 1), lambda: [6, 7])


def test_a_group_that_does_not_exist_gives_nothing():
    assert AdminAdmission({}).admit(Caller(0, 0, 1), nobody_asks) == set(Role)
    with pytest.raises(NotAllowedError):
        AdminAdmission({}).admit(Caller(1, 901, 1), lambda: [901])


def test_a_development_daemon_is_for_its_owner_and_root():
    dev = DevAdmission(1000)
    assert dev.admit(Caller(1000, 1, 1), nobody_asks) == dev.admit(Caller(0, 0, 1), nobody_asks) == set(Role)
    with pytest.raises(NotAllowedError):
        dev.admit(Caller(1001, 1, 1), nobody_asks)


def test_the_kernel_tells_who_is_at_the_other_end():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = peer_of(ours)
        assert (peer.uid, peer.gid, peer.pid) == (os.getuid(), os.getgid(), os.getpid())
        assert set(groups_of(ours)) == set(os.getgroups())


# --- every call with every role ----------------------------------------------------------------------------------

NEEDED = {
    "Run": Role.CALLER,
    "Map": Role.CALLER,
    "RunFiles": Role.CALLER,
    "Session": Role.CALLER,
    "Cancel": Role.CALLER,
    "ListRuns": Role.CALLER,
    "Why": Role.CALLER,
    "List": Role.CALLER,
    "Get": Role.CALLER,
    "History": Role.CALLER,
    "Status": Role.CALLER,
    "Explain": Role.CALLER,
    "Source": Role.CALLER,
    "Submit": Role.CALLER,  # of generated code; test_synthesized.py has the rest
    "Activate": Role.OPERATOR,
    "Rollback": Role.OPERATOR,
    "Suspend": Role.OPERATOR,
    "Resume": Role.OPERATOR,
    "Kill": Role.OPERATOR,
    "LiftKill": Role.OPERATOR,
    "Quarantine": Role.OPERATOR,
    "ListQuarantine": Role.OPERATOR,
    "GetQuarantine": Role.OPERATOR,
    "ListAnomalies": Role.OPERATOR,
    "OpenIncident": Role.OPERATOR,
    "ListIncidents": Role.OPERATOR,
    "GetIncident": Role.OPERATOR,
    "CloseIncident": Role.OPERATOR,
    "Metrics": Role.OPERATOR,
    "Approve": Role.APPROVER,
    "Reject": Role.APPROVER,
    "Release": Role.APPROVER,
    "ReloadPolicy": Role.ADMIN,
    "Drill": Role.ADMIN,
}
AUDIT = ("Query", "Get", "Tail", "Verify", "Restore", "Impact")
SERVICES = {
    RuntimeService: runtime_pb2.DESCRIPTOR.services_by_name["Runtime"],
    RegistryService: registry_pb2.DESCRIPTOR.services_by_name["Registry"],
    GovernanceService: governance_pb2.DESCRIPTOR.services_by_name["Governance"],
    AuditService: audit_pb2.DESCRIPTOR.services_by_name["Audit"],
}
CALLS = [
    (service, method.name, Role.OPERATOR if service is AuditService else NEEDED[method.name])
    for service, described in SERVICES.items()
    for method in described.methods
]


class ReachedError(Exception):
    """The call got past the gate."""


class Refusals:
    def __init__(self):
        self.told = []

    async def refused(self, caller, call, role):
        self.told.append((caller.uid, call, role))


class Context:
    """What a servicer needs of gRPC's context."""

    def __init__(self, peer):
        self._peer = peer

    def peer(self):
        return self._peer

    def time_remaining(self):
        return None

    async def abort(self, code, details="", trailing_metadata=()):
        raise grpc.RpcError(code, details)


class Untouched:
    """Stands for everything behind the gate: any use of it means that the gate was passed."""

    def __getattr__(self, name):
        raise ReachedError(name)

    def __call__(self):
        raise ReachedError("itself")


def test_the_table_names_every_call_there_is():
    assert {name for _, name, _ in CALLS} == {*NEEDED, *AUDIT}


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("service,name,needed", CALLS, ids=lambda value: getattr(value, "__name__", str(value)))
async def test_each_call_needs_its_role_and_a_refusal_is_recorded(service, name, needed, role):
    callers, refusals = Callers(), Refusals()
    callers.enter("plugind-x", Caller(77, 77, 1, frozenset({role})))
    behind = [Untouched() for _ in range(12)][: service.__init__.__code__.co_argcount - 3]
    made = service(callers, refusals, *behind)
    method = next(each for each in SERVICES[service].methods if each.name == name)
    request = method.input_type._concrete_class()
    outcome = await attempt(getattr(made, name), request, Context(f"{PEER_PREFIX}plugind-x"))
    if role == needed:
        assert outcome is not grpc.StatusCode.PERMISSION_DENIED
        assert refusals.told == []
    else:
        assert outcome is grpc.StatusCode.PERMISSION_DENIED
        assert refusals.told == [(77, name, needed)]


async def attempt(method, request, context):
    try:
        answer = method(request, context)
        if hasattr(answer, "__anext__"):
            await anext(answer)
        else:
            await answer
    except grpc.RpcError as error:
        return error.args[0]
    return None


@pytest.mark.parametrize("peer", ["", "unix:", "unix-abstract:plugind-other", "ipv4:127.0.0.1:9"])
async def test_who_did_not_come_through_a_door_is_refused(peer):
    made = RuntimeService(Callers(), Refusals(), Untouched(), Untouched(), FileCeilings())
    assert (
        await attempt(made.ListRuns, runtime_pb2.ListRunsRequest(), Context(peer)) is grpc.StatusCode.PERMISSION_DENIED
    )
