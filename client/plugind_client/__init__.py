"""Client library of plugind: runs plugins in the daemon's jail and tells exactly how it went.

    from plugind_client import Client

    with Client() as client:
        result = client.run("cost_breakdown", payload, stage="durations")
        print(result.output, result.audit_log)

`AsyncClient` has the same methods, to be awaited. Both are loaded when they are first used: gRPC takes a tenth of a
second, which errors and records do not need. Many inputs go to one instance with `map`, or in a `session`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from plugind_client.columns import Columns
from plugind_client.errors import (
    Canceled,
    Conflict,
    Denied,
    Fault,
    InvalidRequest,
    InvalidSource,
    Killed,
    LimitExceeded,
    NotAllowed,
    NotFound,
    OutputInvalid,
    PlugindError,
    PluginFailed,
    SessionOver,
    Unavailable,
    Violated,
)
from plugind_client.findings import Anomaly, DrillStep, Incident, IncidentCase, TimelineEntry
from plugind_client.records import (
    Approval,
    Change,
    Check,
    Denial,
    Governance,
    Hold,
    KillReport,
    Limits,
    Metric,
    MetricsReport,
    Opening,
    Permission,
    PlanFile,
    Plugin,
    PluginException,
    PluginSource,
    PluginVersion,
    PolicyReload,
    Reason,
    RunningRun,
    RunResult,
    Sample,
    Status,
    Submission,
    Usage,
    Violation,
)
from plugind_client.results import ColumnResult, MapResult, SessionResult

if TYPE_CHECKING:
    from plugind_client.aio import AsyncClient
    from plugind_client.aiosession import AsyncSession
    from plugind_client.client import Client
    from plugind_client.loading import PluginModule
    from plugind_client.session import Session

__all__ = [
    "Anomaly",
    "Approval",
    "AsyncClient",
    "AsyncSession",
    "Canceled",
    "Change",
    "Check",
    "Client",
    "ColumnResult",
    "Columns",
    "Conflict",
    "Denial",
    "Denied",
    "DrillStep",
    "Fault",
    "Governance",
    "Hold",
    "Incident",
    "IncidentCase",
    "InvalidRequest",
    "InvalidSource",
    "KillReport",
    "Killed",
    "LimitExceeded",
    "Limits",
    "MapResult",
    "Metric",
    "MetricsReport",
    "NotAllowed",
    "NotFound",
    "Opening",
    "OutputInvalid",
    "Permission",
    "PlanFile",
    "Plugin",
    "PluginException",
    "PluginFailed",
    "PluginModule",
    "PluginSource",
    "PluginVersion",
    "PlugindError",
    "PolicyReload",
    "Reason",
    "RunResult",
    "RunningRun",
    "Sample",
    "Session",
    "SessionOver",
    "SessionResult",
    "Status",
    "Submission",
    "TimelineEntry",
    "Unavailable",
    "Usage",
    "Violated",
    "Violation",
]


_LATER: Final = {
    "AsyncClient": "plugind_client.aio",
    "AsyncSession": "plugind_client.aiosession",
    "Client": "plugind_client.client",
    "PluginModule": "plugind_client.loading",
    "Session": "plugind_client.session",
}


def __getattr__(name: str) -> object:
    """PEP 562: the clients, and what they give to talk to, on first use."""
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'plugind_client' has no attribute {name!r}")
