"""Client library of plugind: runs plugins in the daemon's jail and tells exactly how it went.

    from plugind_client import Client

    with Client() as client:
        result = client.run("cost_breakdown", payload, stage="durations")
        print(result.output, result.audit_log)

`Client` is loaded when it is first used: gRPC takes a tenth of a second, which errors and records do not need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from plugind_client.errors import (
    Canceled,
    Conflict,
    Denied,
    Fault,
    InvalidRequest,
    Killed,
    LimitExceeded,
    NotAllowed,
    NotFound,
    OutputInvalid,
    PlugindError,
    PluginFailed,
    Unavailable,
    Violated,
)
from plugind_client.records import (
    Approval,
    Governance,
    Limits,
    Permission,
    Plugin,
    PluginException,
    PluginVersion,
    Reason,
    RunningRun,
    RunResult,
    Submission,
    Usage,
    Violation,
)

if TYPE_CHECKING:
    from plugind_client.client import Client

__all__ = [
    "Approval",
    "Canceled",
    "Client",
    "Conflict",
    "Denied",
    "Fault",
    "Governance",
    "InvalidRequest",
    "Killed",
    "LimitExceeded",
    "Limits",
    "NotAllowed",
    "NotFound",
    "OutputInvalid",
    "Permission",
    "Plugin",
    "PluginException",
    "PluginFailed",
    "PluginVersion",
    "PlugindError",
    "Reason",
    "RunResult",
    "RunningRun",
    "Submission",
    "Unavailable",
    "Usage",
    "Violated",
    "Violation",
]


def __getattr__(name: str) -> object:
    """PEP 562: `Client` on first use."""
    if name == "Client":
        from plugind_client.client import Client  # noqa: PLC0415 - see the module's docstring

        return Client
    raise AttributeError(f"module 'plugind_client' has no attribute {name!r}")
