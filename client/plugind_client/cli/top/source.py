"""The daemon as `top` talks to it: one look at everything, and what its keys do. Every call has a deadline."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from plugind_client import calls, running
from plugind_client.cli.top.reading import Anomaly, Figure, Lack, Metrics, Reading
from plugind_client.client import Client
from plugind_client.errors import PlugindError
from plugind_client.method import Call
from plugind_proto.v1 import governance_pb2, monitor_pb2

Result = TypeVar("Result")

LOOK_S = 5.0
"""A daemon that takes longer is told of as one that does not answer."""
_NEWEST = monitor_pb2.ListAnomaliesRequest(limit=50)
_UNABLE = frozenset({"UNSUPPORTED", "NOT_ALLOWED"})
"""Codes of what this daemon, or our role, does not give: the rest of a look goes on."""


class Daemon(Protocol):
    """What `top` needs. Everything but `look` raises PlugindError."""

    socket: str

    def look(self) -> Reading:
        """Everything that one frame shows; what is not told says why."""
        ...

    def cancel(self, run_id: str) -> str:
        """End one run. What came of it, for people."""
        ...

    def kill(self, target: str, reason: str) -> str:
        """The kill switch. What came of it, for people."""
        ...

    def lift(self, target: str, reason: str) -> str:
        """Lift a kill. What came of it, for people."""
        ...

    def quarantine(self, target: str, reason: str) -> str:
        """Put a version into quarantine. What came of it, for people."""
        ...

    def close(self) -> None:
        """Calls in flight end at once."""


class Source:
    """A Daemon behind a client."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.socket = client.socket
        self._lacks: dict[str, Lack] = {}
        """By call. A refusal is recorded in the audit: who looks every second asks for it once."""

    def look(self) -> Reading:
        """See Daemon."""
        now = Reading(time.monotonic(), time.time_ns() // 10**6)
        try:
            status, runs = self._or_lack(calls.status()), self._answer(running.runs())
            return dataclasses.replace(
                now,
                status=status,
                runs=tuple(runs),
                metrics=self._or_lack(Call("governance.Metrics", monitor_pb2.MetricsRequest(), metrics)),
                anomalies=self._or_lack(Call("governance.ListAnomalies", _NEWEST, anomalies)),
            )
        except PlugindError as error:
            self._lacks.clear()  # what comes back may be another daemon
            lack = Lack("the daemon could not be asked")
            return dataclasses.replace(now, status=lack, metrics=lack, anomalies=lack, error=error)

    def cancel(self, run_id: str) -> str:
        """See Daemon."""
        found = self._client.cancel(run_id)
        return f"{run_id}: {'canceled' if found else 'no such run is in flight any more'}"

    def kill(self, target: str, reason: str) -> str:
        """See Daemon."""
        done = self._client.kill(target, reason)
        if done.unconfirmed_runs:
            return (
                f"{done.hold.target}: killed, but {done.unconfirmed_runs} may still have processes: look at the machine"
            )
        ran = (
            f"{_runs(done.ended_runs)} ended in {done.took_us / 1000:.1f} ms"
            if done.ended_runs
            else "nothing of it ran"
        )
        return f"{done.hold.target}: killed; {ran}"

    def lift(self, target: str, reason: str) -> str:
        """See Daemon."""
        return f"{self._client.lift_kill(target, reason).target}: not killed any more"

    def quarantine(self, target: str, reason: str) -> str:
        """See Daemon."""
        request = governance_pb2.HoldRequest(target=target, reason=reason)
        made: Call[str] = Call("governance.Quarantine", request, quarantined)
        return self._client.answer(lambda: made)

    def close(self) -> None:
        """See Daemon."""
        self._client.close()

    def _answer(self, made: Call[Result]) -> Result:
        return self._client.answer(lambda: dataclasses.replace(made, deadline_s=LOOK_S))

    def _or_lack(self, made: Call[Result]) -> Result | Lack:
        if lack := self._lacks.get(made.method):
            return lack
        try:
            return self._answer(made)
        except PlugindError as error:
            if error.code not in _UNABLE:
                raise
            lack = self._lacks[made.method] = Lack(joined(str(error), error.detail))
            return lack


def joined(sentence: str, *details: str) -> str:
    """A sentence with what is to be said of it in particular, in one."""
    return ": ".join((sentence.rstrip("."), *filter(None, details)))


def metrics(answer: monitor_pb2.MetricsResponse) -> Metrics:
    """Samples by their names."""
    found: dict[str, list[Figure]] = {}
    for metric in answer.metrics:
        for sample in filter(lambda each: math.isfinite(each.value), metric.samples):
            found.setdefault(sample.name, []).append(Figure(dict(sample.labels), sample.value))
    return Metrics({name: tuple(figures) for name, figures in found.items()})


def anomalies(answer: monitor_pb2.ListAnomaliesResponse) -> tuple[Anomaly, ...]:
    """Newest first."""
    names = [field.name for field in dataclasses.fields(Anomaly)]
    build: Callable[..., Anomaly] = Anomaly
    return tuple(build(**{name: getattr(each, name) for name in names}) for each in answer.anomalies)


def quarantined(answer: monitor_pb2.QuarantinedVersion) -> str:
    """What came of it."""
    what = f"{answer.plugin}@{answer.version}" if answer.plugin else answer.hold.target
    more = f", {answer.incident}" if answer.incident else ""
    return f"{what}: in quarantine; {_runs(answer.ended_runs)} ended{more}"


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"
