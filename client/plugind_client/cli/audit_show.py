"""A record of the ledger for people: in one line, with all that it says, and `audit show`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from plugind_client.cli import words
from plugind_client.cli.problems import CommandError, Exit
from plugind_client.cli.screen import note, print_json, table, visible
from plugind_client.cli.settings import AdminSocketPath, JsonFlag, SocketPath, settled

PAYLOADS: Final = ("input", "output", "stdout", "stderr")
_OF_A_FILE: Final = ("file:", "replaced:")
HEADINGS: Final = ("id", "time (UTC)", "event", "plugin", "stage", "plan", "what")


def show(
    context: typer.Context,
    log_id: Annotated[str, typer.Argument(metavar="log_N", help="Either half of a run shows the other too.")],
    payload: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Print this payload: input output stdout stderr, or file:PATH or replaced:PATH of a plan.",
            show_default=False,
        ),
    ] = "",
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """Show a record with its other half and what became of files that it wrote, or one of its payloads.

    file:PATH is what this record says of that file of the plan: an INTENT what the run was given, an OUTCOME what it
    wrote, a RESTORE what was put back; replaced:PATH is what was there before.
    """
    settings = settled(context, as_json, socket, admin_socket)
    if payload and payload not in PAYLOADS and not payload.startswith(_OF_A_FILE):
        expected = f"{', '.join(PAYLOADS)}, file:PATH or replaced:PATH"
        raise CommandError(Exit.USAGE, f"--payload: expected one of {expected}, got {payload!r}")
    with settings.admin_client() as client:
        found = client.audit.get(log_id, payload)
    if payload:
        _print_payload(found.payload)
        return
    halves = [found.record] if found.other is None else [found.record, found.other]
    halves.sort(key=lambda record: record.index)
    if settings.as_json:
        print_json(
            {
                "record": as_json_object(found.record.fields),
                "other": as_json_object(found.other.fields) if found.other else None,
                "later": [as_json_object(each.fields) for each in found.later],
                "leaf_hash": found.record.leaf_hash,
            }
        )
        return
    for number, record in enumerate((*halves, *found.later)):
        if number:
            print()
        table((record.log_id, record.event), [*_details(record.fields), ("leaf hash", record.leaf_hash)])
    if found.other is None and found.record.event == "INTENT":
        note(f"{log_id} has no outcome yet")


def row(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """A record in one line, as HEADINGS says."""
    name = fields.get("plugin") or fields.get("plugin_id") or ""
    version = fields.get("version")
    return (
        f"log_{fields['index']}",
        words.instant(fields["time_unix_ms"]),
        str(fields["event"]),
        f"{name}@{version}" if name and version else str(name),
        str(fields.get("stage", "")),
        str(fields.get("plan_id", "")),
        _what(fields),
    )


def _what(fields: Mapping[str, Any]) -> str:  # noqa: PLR0911 - one for each event
    match fields["event"]:
        case "OUTCOME":
            detail = f": {fields['detail']}" if fields.get("detail") else ""
            return f"{fields['outcome']} (log_{fields['intent']}){_count(', wrote', fields)}{detail}"
        case "DENIED":
            codes = dict.fromkeys(str(reason["code"]) for reason in fields["reasons"])
            return ", ".join(codes)
        case "INTENT":
            permissions = ", ".join(fields["permissions"]) or "no permissions"
            return f"Tier {fields['tier']}, {permissions}{_count(', given', fields)}"
        case "COMMITTED" | "UNDONE" | "RESTORE":
            return _of_a_plan(fields)
        case "CHANGE":
            return f"{fields['action']} by uid {fields['by_uid']}: {fields['why']}"
        case "REFUSED":
            return f"{fields['call']} by uid {fields['by_uid']}, which needs the role {fields['role_needed']}"
        case "ANOMALY":
            only = ", only observed" if fields["observed"] else ""
            return f"{fields['trigger']} ({fields['severity']}{only}): {fields['actual']}"
        case "START":
            return f"{fields['mode']}, {fields['closed_as_unknown']} open runs closed as unknown"
        case _:
            return str(fields.get("reason", ""))


def _of_a_plan(fields: Mapping[str, Any]) -> str:
    match fields["event"]:
        case "COMMITTED":
            return f"{words.files(fields['files'])} of log_{fields['intent']} in {fields['plan_dir']}"
        case "UNDONE":
            return f"nothing of log_{fields['intent']} in {fields['plan_dir']}: {fields['why']}"
        case _:
            forced = ", forced" if fields["forced"] else ""
            return f"of log_{fields['of']} by uid {fields['by_uid']}{forced}{_count(',', fields)}: {fields['why']}"


def _count(said: str, fields: Mapping[str, Any]) -> str:
    """How many files it tells of; empty: none."""
    return f"{said} {words.files(len(fields['files']))}" if fields.get("files") else ""


def _details(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a record says, a line for each thing; what is empty is left out."""
    rows = [("time", f"{words.instant(fields['time_unix_ms'])} UTC")]
    for name, value in fields.items():
        payload, _, part = name.rpartition("_")
        if name in {"index", "time_unix_ms", "event", "check"} or (payload in PAYLOADS and part != "sha256"):
            continue
        if payload in PAYLOADS:
            if value:
                rows.append((payload, f"{fields[f'{payload}_bytes']} bytes, sha256 {value}"))
        elif name in {"intent", "tier"} and value == -1:
            continue
        elif name == "files" and isinstance(value, list):
            rows += [_file(str(fields["event"]), each) for each in value]
        elif name == "reasons":
            rows += [("reason", _reason(reason)) for reason in value]
        elif value not in ("", [], {}):
            rows.append((name.replace("_", " "), _shown(name, value)))
    return rows


def _shown(name: str, value: Any) -> str:
    if name in {"intent", "of"}:
        return f"log_{value}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(each if isinstance(each, str) else json.dumps(each) for each in value)
    return str(value)


def _file(event: str, file: Mapping[str, Any]) -> tuple[str, str]:
    """A file of a plan: what was given, written or put back, and what that replaced."""
    content, replaced = file["content"], file.get("replaced")
    if not content["sha256"]:
        return "removed", f"{file['path']}, {_stored(replaced or content)}"
    text = f"{file['path']}, {_stored(content)}"
    if replaced and replaced["sha256"]:
        text += f"; replaced {_stored(replaced)}"
    return {"INTENT": "given", "RESTORE": "put back"}.get(event, "written"), text


def _stored(stored: Mapping[str, Any]) -> str:
    return f"{stored['bytes']} bytes, sha256 {stored['sha256']}"


def _reason(reason: Mapping[str, str]) -> str:
    text = f"{reason['code']} ({reason['rule']})"
    if reason.get("expected"):
        text += f": expected {reason['expected']}, got {reason.get('actual', '')}"
    return text + (f"; what to do: {reason['remedy']}" if reason.get("remedy") else "")


def as_json_object(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The record for a script: its id first, without what only the ledger's own file needs."""
    return {"id": f"log_{fields['index']}", **{name: value for name, value in fields.items() if name != "check"}}


def _print_payload(data: bytes) -> None:
    """As it is into a pipe or file, escaped onto a terminal."""
    if sys.stdout.isatty():
        print(visible(data.decode(errors="backslashreplace")))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
