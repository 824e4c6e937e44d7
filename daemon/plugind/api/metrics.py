"""What is counted and measured, over the API: the same as on the metrics socket."""

from __future__ import annotations

from typing import Protocol

from plugind.api.accept import Callers
from plugind.api.calls import Refusals, call
from plugind.api.roles import Role
from plugind.metrics.counts import Metrics
from plugind.model import Caller
from plugind_proto.v1 import monitor_pb2


class _Service(Protocol):
    callers: Callers
    refusals: Refusals
    metrics: Metrics


class MetricsCalls:
    """The call Metrics of plugind.v1.Governance, for a service that has `metrics`."""

    @call(Role.OPERATOR)
    async def Metrics(  # noqa: N802
        self: _Service, request: monitor_pb2.MetricsRequest, caller: Caller
    ) -> monitor_pb2.MetricsResponse:
        """Everything, as messages and in Prometheus' text format."""
        del request, caller
        return monitor_pb2.MetricsResponse(
            metrics=[
                monitor_pb2.Metric(
                    name=family.name + ("_total" if family.type == "counter" else ""),  # as in the text
                    help=family.documentation,
                    kind=family.type,
                    samples=[
                        monitor_pb2.Sample(name=sample.name, labels=sample.labels, value=sample.value)
                        for sample in family.samples
                    ],
                )
                for family in self.metrics.registry.collect()
            ],
            text=self.metrics.text().decode(),
        )
