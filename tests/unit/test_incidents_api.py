"""The calls about incidents, over a real database, registry and ledger."""

from __future__ import annotations

import asyncio
import json

import grpc
import pytest

from plugind.api.accept import PEER_PREFIX, Callers
from plugind.api.governance import GovernanceService
from plugind.api.incidents import about_version
from plugind.casefile import Casefile
from plugind.drill import Drill
from plugind.errors import NotFoundError
from plugind.governance.database import Database
from plugind.governance.incidents import NOTHING, About, Incidents
from plugind.governance.killswitch import Killed
from plugind.model import Caller, Hold
from plugind.trail import Trail
from plugind_proto.v1 import monitor_pb2
from tests.support.desk import Desk
from tests.support.findings import anomaly, observation


class Refused(Exception):  # noqa: N818 - what gRPC's abort raises
    """The call was aborted."""


class Context:
    def peer(self):
        return f"{PEER_PREFIX}plugind-x"

    def time_remaining(self):
        return None

    async def abort(self, code, details="", trailing_metadata=()):
        raise Refused(code, details)


class Counter(Desk):
    """A desk with the service that people talk to."""

    def __init__(self, folder):
        super().__init__(folder)
        callers = Callers()
        callers.enter("plugind-x", Caller(42, 42, 1, frozenset({"caller", "operator", "admin"})))
        self.database = Database(folder / "monitor.db")
        self.incidents = Incidents(self.database, Trail(self.ledger).incident, print)
        self.found = []
        casefile = Casefile(
            *(self.catalog, folder / "ledger", lambda: self.ledger.size, self.incidents),
            lambda digest, limit: self.found,
        )
        drill = Drill(self.catalog, self.runner, self.incidents, self.release, lambda: "observe")
        self.service = GovernanceService(
            *(callers, self, self.catalog, self.runner, self.kills, self, self.incidents, casefile, drill),
            *(None, None, None),  # metrics, quarantine, monitor: not what this is about
        )

    async def refused(self, caller, call, role):
        raise AssertionError(call)

    async def release(self, digest, why):
        raise AssertionError("nothing is held")

    async def ask(self, name, request):
        return await getattr(self.service, name)(request, Context())


@pytest.fixture
async def counter(tmp_path):
    (tmp_path / "plugins").mkdir()
    made = Counter(tmp_path)
    yield made
    await made.ledger.close()
    made.catalog.close()
    made.database.close()


async def opened(counter, **fields):
    given = {"title": "sums are wrong", "severity": "high", "target": "echo@1.0.0"}
    return await counter.ask("OpenIncident", monitor_pb2.OpenIncidentRequest(**given | fields))


async def test_one_is_opened_listed_shown_and_closed_by_who_calls(counter):
    record = counter.install()
    made = await opened(counter)
    assert (made.id, made.state, made.opened_by_uid, made.plugin, made.digest) == (
        *("incident_1", "open", 42, "echo"),
        record.digest,
    )
    await counter.run(plan_id="plan-1")
    listed = await counter.ask("ListIncidents", monitor_pb2.ListIncidentsRequest())
    assert [each.id for each in listed.incidents] == ["incident_1"]
    closing = monitor_pb2.CloseIncidentRequest(id=made.id, reason="mended")
    closed = await counter.ask("CloseIncident", closing)
    assert (closed.state, closed.closed_by_uid, closed.closing) == ("closed", 42, "mended")
    counter.found = [anomaly(seen=observation(digest=record.digest), numbers={"value": 140.0})]
    case = await counter.ask("GetIncident", monitor_pb2.GetIncidentRequest(id=made.id))
    kinds = [each.kind for each in case.timeline]
    assert sorted(kinds) == ["activated", "anomaly", "approved", "closed", "opened", "run", "submitted"]
    assert list(case.incident.plans) == ["plan-1"]
    assert dict(case.anomalies[0].numbers) == {"value": 140.0}
    assert case.anomalies[0].audit_log == "log_4"
    assert not (await counter.ask("ListIncidents", monitor_pb2.ListIncidentsRequest())).incidents
    assert len((await counter.ask("ListIncidents", monitor_pb2.ListIncidentsRequest(all=True))).incidents) == 1


@pytest.mark.parametrize(
    "call,request_,code",
    [
        ("OpenIncident", monitor_pb2.OpenIncidentRequest(severity="low"), "INVALID_ARGUMENT"),
        ("OpenIncident", monitor_pb2.OpenIncidentRequest(title="a\x1b[2J", severity="low"), "INVALID_ARGUMENT"),
        ("OpenIncident", monitor_pb2.OpenIncidentRequest(title="t", severity="awful"), "INVALID_ARGUMENT"),
        ("OpenIncident", monitor_pb2.OpenIncidentRequest(title="t", severity="low", target="ghost"), "NOT_FOUND"),
        ("GetIncident", monitor_pb2.GetIncidentRequest(id="1"), "INVALID_ARGUMENT"),
        ("GetIncident", monitor_pb2.GetIncidentRequest(id="incident_9"), "NOT_FOUND"),
        ("CloseIncident", monitor_pb2.CloseIncidentRequest(id="incident_9", reason="r"), "NOT_FOUND"),
        ("CloseIncident", monitor_pb2.CloseIncidentRequest(id="incident_9"), "INVALID_ARGUMENT"),
    ],
)
async def test_what_cannot_be_understood_is_refused(counter, call, request_, code):
    with pytest.raises(Refused) as refused:
        await counter.ask(call, request_)
    assert refused.value.args[0] is grpc.StatusCode[code]
    assert counter.incidents.list(closed=True) == []


async def test_what_is_closed_stays_closed(counter):
    made = await opened(counter, target="")
    closing = monitor_pb2.CloseIncidentRequest(id=made.id, reason="r")
    await counter.ask("CloseIncident", closing)
    with pytest.raises(Refused) as refused:
        await counter.ask("CloseIncident", closing)
    assert refused.value.args[0] is grpc.StatusCode.FAILED_PRECONDITION


async def test_every_form_of_target_finds_its_version(counter):
    record = counter.install()
    version = About("plug_1", "echo", "1.0.0", record.digest)
    for target in ("echo@1.0.0", "plug_1@1.0.0", record.digest, f"sha256:{record.digest}"):
        assert about_version(counter.catalog, target) == version
    assert about_version(counter.catalog, "plug_1") == About("plug_1", "echo")
    assert about_version(counter.catalog, "all") == NOTHING
    assert about_version(counter.catalog, "ab" * 32) == About(digest="ab" * 32)
    with pytest.raises(NotFoundError):
        about_version(counter.catalog, "echo@9.9.9")


async def test_a_kill_is_noted_and_a_damaged_database_does_not_keep_it_from_being_told(counter):
    record = counter.install()
    killed = Killed(Hold("killed", "echo@1.0.0", "wrong", 42, 5), 3, 900, 0)
    await counter.service.note_kill(killed)
    (made,) = await asyncio.to_thread(counter.incidents.list)
    assert (made.about.digest, made.cause, made.opened_by_uid) == (record.digest, "kill", 42)
    counter.database.close()
    await counter.service.note_kill(killed)
    counter.database = Database(counter.folder / "monitor.db")


async def test_a_drill_tells_its_steps_and_is_refused_without_a_reason(counter):
    answer = counter.service.Drill(monitor_pb2.DrillRequest(reason="monthly"), Context())
    steps = [(step.step, step.ok) async for step in answer]
    assert steps[:2] == [("submitted", True), ("started", True)]
    assert steps[-1] == ("cleaned", True)
    with pytest.raises(Refused) as refused:
        await anext(counter.service.Drill(monitor_pb2.DrillRequest(), Context()))
    assert refused.value.args[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_opening_and_closing_are_in_the_ledger_with_what_they_are_about(counter):
    record = counter.install()
    made = await opened(counter)
    await counter.ask("CloseIncident", monitor_pb2.CloseIncidentRequest(id=made.id, reason="mended"))
    found = counter.service._casefile.records(record.digest)
    told = [(entry.fields["action"], entry.fields["by_uid"], entry.fields["why"]) for entry in found]
    assert told == [("incident_close", 42, "mended"), ("incident_open", 42, "sums are wrong")]
    assert json.loads(found[0].fields["detail"]) == {"incident": "incident_1", "severity": "high", "cause": "hand"}
