"""What the ledger says: one frozen record for each kind of event, written as one JSON object a line.

The ledger adds `index` and `time_unix_ms`. Digests are sha256 in hex; empty means there was nothing to digest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import ClassVar

from plugind.model import Limits, Reason, Usage, Violation


@dataclass(frozen=True, slots=True)
class Subject:
    """Who wanted what to run. What a lookup did not find stays empty; tier -1: none was found."""

    run: str
    caller_uid: int
    plugin_id: str
    plugin: str
    version: str
    digest: str
    tier: int
    stage: str
    plan_id: str
    sensitivity: str
    input_sha256: str
    input_bytes: int


@dataclass(frozen=True, slots=True)
class Intent:
    """It was allowed and is about to start. Its index is the run's log_N."""

    event: ClassVar[str] = "INTENT"
    subject: Subject
    permissions: tuple[str, ...]
    limits: Limits


@dataclass(frozen=True, slots=True)
class Denied:
    """It was refused, for all of these reasons, and never ran. `intent`: after that INTENT its jail could not be made."""

    event: ClassVar[str] = "DENIED"
    subject: Subject
    reasons: tuple[Reason, ...]
    intent: int = -1


@dataclass(frozen=True, slots=True)
class Ended:
    """How the run of the INTENT with index `intent` ended."""

    event: ClassVar[str] = "OUTCOME"
    intent: int
    run: str
    outcome: str
    detail: str = ""
    output_sha256: str = ""
    stdout_sha256: str = ""
    stderr_sha256: str = ""
    usage: Usage = field(default_factory=Usage)
    violations: tuple[Violation, ...] = ()


@dataclass(frozen=True, slots=True)
class Started:
    """The daemon opened the ledger. Every INTENT before this record has its OUTCOME before it."""

    event: ClassVar[str] = "START"
    mode: str
    closed_as_unknown: int = 0
    cut_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Stopped:
    """The daemon ended in order."""

    event: ClassVar[str] = "STOP"
    reason: str


Record = Intent | Denied | Ended | Started | Stopped


def line(index: int, time_unix_ms: int, record: Record) -> bytes:
    """The record as its line, newline included. ASCII only, so no byte of it is ever NUL."""
    fields: dict[str, object] = {"index": index, "time_unix_ms": time_unix_ms, "event": record.event}
    for name, value in dataclasses.asdict(record).items():
        if name == "subject":
            fields.update(value)
        else:
            fields[name] = value
    return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"


def sha256(data: bytes) -> str:
    """Digest of a payload, or the empty string where there is none."""
    return hashlib.sha256(data).hexdigest() if data else ""
