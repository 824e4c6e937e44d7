"""All calls of the API over one registry, one ledger and the runs, by the names that the client uses for them."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from plugind_client.errors import NotFound
from plugind_client.memory.batches import map_all
from plugind_client.memory.impact import restore
from plugind_client.memory.incidents import Incidents
from plugind_client.memory.keys import Keys
from plugind_client.memory.ledger import Ledger, now_ms
from plugind_client.memory.registry import Registry
from plugind_client.memory.runs import Flight, Runs
from plugind_client.planfiles import digest
from plugind_proto.v1 import governance_pb2, monitor_pb2, runtime_pb2

POLICY: Final = hashlib.sha256(b"").hexdigest()
"""Digest of the policy: there is none."""


class Daemon:
    """Answers to messages, one lock around everything but the answers of a test."""

    def __init__(self) -> None:
        self.lock: Final = threading.RLock()
        self.ledger: Final = Ledger()
        self.registry: Final = Registry(self.ledger)
        self.runs: Final = Runs(self.registry, self.ledger, self.lock)
        self.incidents: Final = Incidents(self.registry, self.ledger)
        self._keys: Final = Keys()
        self._started_unix_ms = now_ms()
        registry, ledger, runs, incidents = self.registry, self.ledger, self.runs, self.incidents
        self._calls: Final[Mapping[str, Callable[[Any], Any]]] = {
            "runtime.Cancel": self._cancel,
            "runtime.ListRuns": lambda _: runs.running(),
            "runtime.Why": self._why,
            "registry.Submit": registry.submit,
            "registry.List": registry.list,
            "registry.Get": registry.get,
            "registry.Source": registry.source,
            "registry.History": registry.history,
            "governance.Approve": registry.approve,
            "governance.Activate": registry.activate,
            "governance.Reject": registry.reject,
            "governance.Rollback": registry.rollback,
            "governance.Suspend": lambda request: registry.hold("suspended", request),
            "governance.Resume": lambda request: registry.lift("suspended", request),
            "governance.Kill": self._kill,
            "governance.LiftKill": lambda request: registry.lift("killed", request),
            "governance.Status": self._status,
            "governance.Explain": runs.explain,
            "governance.ReloadPolicy": lambda _: governance_pb2.ReloadPolicyResponse(policy_sha256=POLICY),
            "governance.OpenIncident": incidents.open,
            "governance.ListIncidents": incidents.list,
            "governance.GetIncident": incidents.get,
            "governance.CloseIncident": incidents.close,
            "governance.Drill": incidents.drill,
            "governance.Metrics": lambda _: monitor_pb2.MetricsResponse(),
            "audit.Query": ledger.query,
            "audit.Get": ledger.get,
            "audit.Tail": ledger.tail,
            "audit.Verify": ledger.verify,
            "audit.Restore": restore,
            "audit.Impact": ledger.impact,
        }

    def answer(self, method: str, request: Any) -> Any:
        """The answer to one call. Raises the client's errors, as the real daemon's refusals become them."""
        if method == "runtime.Run":
            return self._keys.once(request.idempotency_key, request, self.runs.run)
        if method == "runtime.RunFiles":
            files = repr(sorted((path, digest(content)) for path, content in request.files.items())).encode()
            return self._keys.once(
                request.run.idempotency_key, request.run, lambda _: self.runs.run_files(request), files
            )
        if method == "runtime.Map":
            answer = functools.partial(map_all, self.runs)
            return self._keys.once(request.run.idempotency_key, request, answer)
        with self.lock:
            return self._calls[method](request)

    def _cancel(self, request: runtime_pb2.CancelRequest) -> runtime_pb2.CancelResponse:
        ended = self.runs.end("canceled", lambda flight: flight.run_id == request.run_id)
        return runtime_pb2.CancelResponse(found=bool(ended))

    def _why(self, _request: runtime_pb2.WhyRequest) -> runtime_pb2.WhyResponse:
        denial = self.runs.why()
        if denial is None:
            raise NotFound("NOT_FOUND", detail="no run was denied")
        return denial

    def _kill(self, request: governance_pb2.HoldRequest) -> governance_pb2.KillResponse:
        hold = self.registry.hold("killed", request)

        def met(flight: Flight) -> bool:
            return hold in self.registry.holds_of(flight.plugin, flight.version)

        return governance_pb2.KillResponse(hold=hold, ended_runs=self.runs.end("killed", met))

    def _status(self, _request: governance_pb2.StatusRequest) -> governance_pb2.StatusResponse:
        return governance_pb2.StatusResponse(
            daemon_version="in memory",
            mode="dev",
            started_unix_ms=self._started_unix_ms,
            runs_in_flight=len(self.runs),
            cgroup_driver="there is no jail",
            ledger_size=len(self.ledger),
            ledger_root=self.ledger.root().hex(),
            journal="there is no journal",
            policy_sha256=POLICY,
            policy_path="there is no policy",
            holds=self.registry.holds,
            plugins=len(self.registry.plugins),
        )
