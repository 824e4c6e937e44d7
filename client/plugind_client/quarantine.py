"""The calls about quarantine, and what the monitor found. They need the admin socket.

Source: SPEC.md, "Quarantine".
"""

from __future__ import annotations

from collections.abc import Sequence

from plugind_client import wire_findings
from plugind_client.findings import Anomaly, QuarantineCase, QuarantinedVersion, Release
from plugind_client.incidents import CASE_S
from plugind_client.method import Call, Method
from plugind_client.requests import message
from plugind_proto.v1 import governance_pb2, monitor_pb2


def quarantine(target: str, reason: str) -> Call[QuarantinedVersion]:
    """Puts a version (NAME@VERSION, plug_N@VERSION or a sha256) into quarantine; what runs of it has ended then.

    Raises:
        NotFound, InvalidRequest, NotAllowed: as the words say.
        Denied: the ledger cannot be written; the version is held all the same until the daemon is started again.
    """
    request = message(governance_pb2.HoldRequest, target=target, reason=reason)
    return Call("governance.Quarantine", request, wire_findings.quarantined)


def quarantined() -> Call[list[QuarantinedVersion]]:
    """What is in quarantine, and what is on probation after it.

    Raises:
        NotAllowed: as the word says.
    """
    return Call("governance.ListQuarantine", monitor_pb2.ListQuarantineRequest(), wire_findings.quarantine_list)


def quarantine_case(target: str) -> Call[QuarantineCase]:
    """One of them with its evidence.

    Raises:
        NotFound, Conflict (it is in neither), InvalidRequest, NotAllowed: as the words say.
    """
    request = message(monitor_pb2.GetQuarantineRequest, target=target)
    return Call("governance.GetQuarantine", request, wire_findings.quarantine_case, CASE_S)


def release(target: str, reason: str, stages: Sequence[str]) -> Call[Release]:
    """One approver's word for letting a version out, into these stages while it is on probation.

    Raises:
        NotFound, Conflict (it is not in quarantine), InvalidRequest, NotAllowed: as the words say.
        Denied: the ledger cannot be written, and nothing has changed.
    """
    request = message(monitor_pb2.ReleaseRequest, target=target, reason=reason, stages=list(stages))
    return Call("governance.Release", request, wire_findings.release)


def begin_anew(target: str, reason: str) -> Call[Release]:
    """For an author who tries his own plugin on a development daemon: it begins as if it had never run.

    Raises:
        NotFound, InvalidRequest, NotAllowed (this is no development daemon): as the words say.
    """
    request = message(monitor_pb2.ReleaseRequest, target=target, reason=reason, trying=True)
    return Call("governance.Release", request, wire_findings.release)


def anomalies(plugin: str | None = None, *, limit: int = 100) -> Call[list[Anomaly]]:
    """What the monitor found out of the ordinary, newest first: of one plugin, or of all.

    Raises:
        NotFound, NotAllowed: as the words say.
    """
    request = message(monitor_pb2.ListAnomaliesRequest, plugin=plugin, limit=limit)
    return Call("governance.ListAnomalies", request, wire_findings.anomalies)


class QuarantineCalls:
    """The methods that both clients have. What each does is told by the function of its name."""

    quarantine = Method(quarantine)
    quarantined = Method(quarantined)
    quarantine_case = Method(quarantine_case)
    release = Method(release)
    begin_anew = Method(begin_anew)
    anomalies = Method(anomalies)
