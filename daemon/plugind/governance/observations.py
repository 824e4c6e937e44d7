"""What the monitor sees, and what it finds in it: values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from plugind.model import Mode, Outcome, Severity, Usage, Violation


@dataclass(frozen=True, slots=True)
class Observation:
    """One execution that has ended, or a denial, as the ledger tells of it: all that the monitor sees."""

    index: int
    """Of its OUTCOME or DENIED in the ledger."""
    intent: int
    """Of its INTENT, the run's log_N; -1: it never ran."""
    run: str
    plugin_id: str
    plugin: str
    version: str
    digest: str
    """Empty: of nothing that is known."""
    tier: int
    """-1: not known."""
    stage: str
    plan_id: str
    caller_uid: int
    mode: Mode
    at_unix_ms: int
    input_bytes: int = 0
    outcome: Outcome | None = None
    """None: it was denied."""
    detail: str = ""
    codes: tuple[str, ...] = ()
    """Of a denial."""
    usage: Usage = field(default_factory=Usage)
    output_bytes: int = 0
    violations: tuple[Violation, ...] = ()
    network: bool = False
    """Whether it was granted a network."""
    ahead: bool = False
    """Whether its instance had imported the plugin ahead."""
    beside: int = 0
    """Other runs at the same time, when it began or when it ended, whichever is more."""


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Something out of the ordinary that a version did, with the numbers that make it so."""

    trigger: str
    """What found it: "dangerous_syscall", "failures", …"""
    hard: bool
    """Whether one event is enough for quarantine; else it counts towards the circuit breaker."""
    severity: Severity
    expected: str
    actual: str
    numbers: Mapping[str, float]
    seen: Observation
    observed: bool = False
    """Whether the profile only observes: nothing comes of it."""
