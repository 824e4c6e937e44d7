"""Showing how a run went: as the JSON object of the contract, or for people."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

from plugind_client.cli import learned as learning
from plugind_client.cli import words
from plugind_client.cli.problems import REMEDY_OF_OUTCOME, told
from plugind_client.cli.screen import note, print_json, table, visible
from plugind_client.planrecords import PlanFile
from plugind_client.records import PluginException, RunResult

_MIB = 1024 * 1024
_OF_A_FILE = ("path", "sha256", "bytes", "replaced_sha256", "replaced_bytes")


def as_object(result: RunResult) -> dict[str, Any]:
    """The object of `run --json`: these keys, always all of them, and `files` where there are any.

    Source: SPEC.md, "Commands".
    """
    files = [{name: getattr(each, name) for name in _OF_A_FILE} for each in result.files]
    return {
        "decision": result.decision,
        "reasons": [dataclasses.asdict(reason) for reason in result.reasons],
        "governance": result.governance.as_dict(),
        "outcome": result.outcome or None,
        "output": result.output,
        "usage": dataclasses.asdict(result.usage),
        "violations": [dataclasses.asdict(violation) for violation in result.violations],
        "stdout": result.stdout,
        "stderr": result.stderr,
        **({"files": files} if files else {}),
    }


def show(name: str, result: RunResult, *, as_json: bool, learned: bool = False) -> None:
    """Prints a run. For people the output goes to standard output and everything else to standard error."""
    if as_json:
        print_json(as_object(result) | (learning.as_object(result.opened) if learned else {}))
        return
    if result.ok:
        print(visible(json.dumps(result.output, ensure_ascii=False, indent=2)))
        sys.stdout.flush()
    _captured("stdout", result.stdout)
    _captured("stderr", result.stderr)
    if result.decision != "allow":
        _denial(name, result)
    else:
        _ending(name, result)
    if learned and result.decision == "allow":
        learning.show(result.opened)


def _written(file: PlanFile) -> tuple[str, ...]:
    before = f"{words.size(file.replaced_bytes)}, sha256 {file.replaced_sha256}"
    return file.path, words.size(file.bytes), file.sha256, before if file.replaced_sha256 else "nothing"


def _captured(stream: str, text: str) -> None:
    for line in text.splitlines():
        note(f"{stream} | {line}")


def _raised(error: PluginException) -> str:
    """What was raised, once: Python's traceback ends with it, another one may not."""
    last = f"{error.type}: {error.message}"
    frames = error.traceback.rstrip("\n")
    return frames if frames.endswith(last) else f"{frames}\n{last}".lstrip("\n")


def _label(name: str, result: RunResult) -> str:
    """The version is unknown where no such plugin is."""
    return f"{name} {result.version}".rstrip()


def _denial(name: str, result: RunResult) -> None:
    record = f"audit record {result.audit_log}" if result.audit_log else "no audit record"
    note(f"{_label(name, result)}: denied, nothing ran ({record})")
    for reason in result.reasons:
        for line in told(reason):
            note(f"  {line}")


def _ending(name: str, result: RunResult) -> None:
    if result.error:
        _captured("raised", _raised(result.error))
    if result.violations:
        rows = [(v.kind, v.name, str(v.count), v.detail) for v in result.violations]
        table(("refused", "name", "times", "detail"), rows, stream=sys.stderr)
    if result.files:
        table(("written", "size", "sha256", "replaced"), map(_written, result.files), stream=sys.stderr)
    note(f"{_label(name, result)}: {result.outcome}" + (f": {result.outcome_detail}" if result.outcome_detail else ""))
    if result.violations and all(each.kind == "file" for each in result.violations):
        note("  what to do: write only regular files that a [[permissions.file_write]] means, or ask for more there")
    elif result.outcome in REMEDY_OF_OUTCOME:
        note(f"  what to do: {REMEDY_OF_OUTCOME[result.outcome]}")
    governance, usage = result.governance, result.usage
    used = f"used {usage.wall_ms} ms, {usage.cpu_ms} ms CPU"
    if usage.memory_peak_bytes:
        used += f", {usage.memory_peak_bytes / _MIB:.1f} MiB"
    permissions = ", ".join(governance.permissions) or "no permissions"
    note(
        f"{governance.plugin_id}, {governance.tier}, {permissions}, limit {governance.execution_limit_ms} ms; {used};"
        f" audit record {governance.audit_log}"
    )
