"""Client library of plugind: runs plugins in the daemon's jail and tells exactly how it went.

    from plugind_client import Client

    with Client() as client:
        result = client.run("cost_breakdown", payload, stage="durations")
        print(result.output, result.audit_log)

`AsyncClient` has the same methods, to be awaited. Both are loaded when they are first used: gRPC takes a tenth of a
second, which errors and records do not need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from plugind_client.records import (
    Approval,
    Change,
    Check,
    Denial,
    Governance,
    Hold,
    KillReport,
    Limits,
    Permission,
    Plugin,
    PluginException,
    PluginSource,
    PluginVersion,
    PolicyReload,
    Reason,
    RunningRun,
    RunResult,
    Status,
    Submission,
    Usage,
    Violation,
)
from plugind_client.results import ColumnResult, MapResult, SessionResult

if TYPE_CHECKING:
    from plugind_client.aio import AsyncClient
    from plugind_client.client import Client

__all__ = [
    "Approval",
    "AsyncClient",
    "Canceled",
    "Change",
    "Check",
    "Client",
    "ColumnResult",
    "Columns",
    "Conflict",
    "Denial",
    "Denied",
    "Fault",
    "Governance",
    "Hold",
    "InvalidRequest",
    "InvalidSource",
    "KillReport",
    "Killed",
    "LimitExceeded",
    "Limits",
    "MapResult",
    "NotAllowed",
    "NotFound",
    "OutputInvalid",
    "Permission",
    "Plugin",
    "PluginException",
    "PluginFailed",
    "PluginSource",
    "PluginVersion",
    "PlugindError",
    "PolicyReload",
    "Reason",
    "RunResult",
    "RunningRun",
    "SessionOver",
    "SessionResult",
    "Status",
    "Submission",
    "Unavailable",
    "Usage",
    "Violated",
    "Violation",
]


def __getattr__(name: str) -> object:
    """PEP 562: the clients on first use."""
    if name == "Client":
        from plugind_client.client import Client  # noqa: PLC0415 - see the module's docstring

        return Client
    if name == "AsyncClient":
        from plugind_client.aio import AsyncClient  # noqa: PLC0415

        return AsyncClient
    raise AttributeError(f"module 'plugind_client' has no attribute {name!r}")
