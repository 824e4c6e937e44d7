"""audit list, show, tail and verify: what was decided and what ran, and whether the ledger still says so."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from plugind_client.cli import undoing
from plugind_client.cli.problems import CommandError, Exit
from plugind_client.cli.screen import note, one_line, print_json, table, visible
from plugind_client.cli.settings import AdminSocketPath, JsonFlag, Settings, SocketPath, examples, settled
from plugind_client.cli.words import Since, moment_ms

if TYPE_CHECKING:
    from plugind_client.audit import Audit, AuditReport
    from plugind_client.client import Client

PAYLOADS: Final = ("input", "output", "stdout", "stderr")
HEADINGS: Final = ("id", "time (UTC)", "event", "plugin", "stage", "plan", "what")
_MOST_SEEN: Final = 500_000
"""Records of the journal that are compared at one time, the newest."""

PluginOption = Annotated[str, typer.Option("--plugin", metavar="PLUGIN", help="Name or id.", show_default=False)]
StateDir = Annotated[
    Path | None,
    typer.Option("--state", metavar="DIR", help="Check this state folder, without a daemon.", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    audit = typer.Typer(no_args_is_help=True, help="See what was decided and what ran, check the records, undo.")
    audit.command(
        name="list",
        epilog=examples(
            "plugindctl audit list",
            "plugindctl audit list --plugin cost_breakdown --event DENIED --since 2h",
            "plugindctl audit list --outcome timeout --json | jq -r .[].id",
        ),
    )(list_records)
    audit.command(
        epilog=examples(
            "plugindctl audit show log_4001",
            "plugindctl audit show log_4001 --payload input",
            "plugindctl audit show log_4001 --json",
        )
    )(show)
    audit.command(epilog=examples("plugindctl audit tail", "plugindctl audit tail --from log_1 --json"))(tail)
    audit.command(
        epilog=examples(
            "plugindctl audit verify", "plugindctl audit verify --no-journal", "plugindctl audit verify --state DIR"
        )
    )(verify)
    undoing.register(audit)
    app.add_typer(audit, name="audit")


@contextlib.contextmanager
def _audit(settings: Settings) -> Any:
    client: Client
    with settings.admin_client() as client:
        yield client.audit


def list_records(
    context: typer.Context,
    plugin: PluginOption = "",
    event: Annotated[
        list[str] | None,
        typer.Option(
            "--event",
            help="INTENT OUTCOME DENIED RESTORE COMMITTED UNDONE CHANGE REFUSED ANOMALY START STOP; repeatable.",
            show_default=False,
        ),
    ] = None,
    outcome: Annotated[str, typer.Option(help="Only runs that ended so, such as timeout.", show_default=False)] = "",
    plan: Annotated[str, typer.Option(help="Only runs for this plan.", show_default=False)] = "",
    since: Since = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="At most so many.")] = 50,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """List the newest records, the newest last."""
    settings = settled(context, as_json, socket, admin_socket)
    with _audit(settings) as audit:
        page = audit.query(
            plugin=plugin,
            events=[each.upper() for each in event or ()],
            outcome=outcome,
            plan_id=plan,
            since_unix_ms=moment_ms(since) if since else 0,
            limit=limit,
        )
    records = list(reversed(page.records))
    if settings.as_json:
        print_json([_as_json(record.fields) for record in records])
        return
    if not records:
        note("there are no such records")
        return
    table(HEADINGS, [row(record.fields) for record in records])


def show(
    context: typer.Context,
    log_id: Annotated[str, typer.Argument(metavar="log_N", help="Either half of a run shows the other too.")],
    payload: Annotated[
        str, typer.Option(metavar="NAME", help="Print this payload: input output stdout stderr.", show_default=False)
    ] = "",
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """Show a record with its other half, or one of its payloads."""
    settings = settled(context, as_json, socket, admin_socket)
    if payload and payload not in PAYLOADS:
        raise CommandError(Exit.USAGE, f"--payload: expected one of {', '.join(PAYLOADS)}, got {payload!r}")
    with _audit(settings) as audit:
        found = audit.get(log_id, payload)
    if payload:
        _print_payload(found.payload)
        return
    halves = [found.record] if found.other is None else [found.record, found.other]
    halves.sort(key=lambda record: record.index)
    if settings.as_json:
        print_json(
            {
                "record": _as_json(found.record.fields),
                "other": _as_json(found.other.fields) if found.other else None,
                "leaf_hash": found.record.leaf_hash,
            }
        )
        return
    for number, record in enumerate(halves):
        if number:
            print()
        table((record.log_id, record.event), [*_details(record.fields), ("leaf hash", record.leaf_hash)])
    if found.other is None and found.record.event == "INTENT":
        note(f"{log_id} has no outcome yet")


def tail(
    context: typer.Context,
    start: Annotated[
        str, typer.Option("--from", metavar="log_N", help="Begin here, not with the newest ten.", show_default=False)
    ] = "",
    count: Annotated[int, typer.Option("--lines", "-n", min=0, help="Begin with so many.")] = 10,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """Show records as they come, until Ctrl-C. With --json one object a line."""
    settings = settled(context, as_json, socket, admin_socket)
    first = _index(start) if start else 0
    with _audit(settings) as audit:
        for record in audit.tail(first, newest=0 if start else count, new_only=not start and not count):
            if settings.as_json:
                print(visible(json.dumps(_as_json(record.fields))), flush=True)
            else:
                print(one_line("  ".join(cell for cell in row(record.fields) if cell)), flush=True)


def verify(
    context: typer.Context,
    journal: Annotated[
        bool | None,
        typer.Option("--journal/--no-journal", help="Compare with the systemd journal.", show_default="where it is"),
    ] = None,
    state: StateDir = None,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """Check the whole ledger: records, Merkle root, runs without an end, payloads, and the journal.

    Exit code 7 when something does not hold.
    """
    settings = settled(context, as_json, socket, admin_socket)
    if state is not None:
        report, told = _verify_offline(state, journal)
    else:
        with _audit(settings) as audit:
            report, told = _verify_online(audit, journal)
    if settings.as_json:
        print_json({"ok": report.holds, **dataclasses.asdict(report), "notes": [*report.notes, *told]})
    else:
        _print_report(report, told)
    if not report.holds:
        raise typer.Exit(Exit.CHECK_FAILED)


def _verify_online(audit: Audit, journal: bool | None) -> tuple[AuditReport, list[str]]:
    page = audit.query(limit=1)
    seen, told = _seen(journal, page.origin, page.daemon_uid)
    return audit.verify(seen), told


def _verify_offline(state: Path, journal: bool | None) -> tuple[AuditReport, list[str]]:
    """Without a daemon: the daemon's own code, here."""
    from plugind.audit import checkpoint
    from plugind.audit.verify import verify as verify_files
    from plugind.errors import StateError
    from plugind_client.audit import AuditFinding, AuditReport

    directory = state / "ledger"
    if not directory.is_dir():
        raise CommandError(Exit.USAGE, f"--state: expected a state folder with a ledger in it, got {state}")
    try:
        known = checkpoint.read(directory)
    except StateError:
        known = None  # the check below tells
    seen, told = _seen(journal, known.origin if known else "", directory.stat().st_uid)
    report = verify_files(directory, seen)
    fields = {each.name: getattr(report, each.name) for each in dataclasses.fields(report)}
    findings = tuple(AuditFinding(**dataclasses.asdict(each)) for each in report.findings)
    return AuditReport(**fields | {"root": report.root.hex(), "findings": findings}), told


def _seen(wanted: bool | None, origin: str, uid: int) -> tuple[list[tuple[int, str]] | None, list[str]]:
    """What the journal has of this ledger, or None and why not."""
    if wanted is False or not origin:
        return None, ["not compared with the journal"]
    try:
        from plugind.audit.journal import seen

        found = [*seen(origin, uid)]
    except (ImportError, OSError) as error:
        if wanted:
            raise CommandError(Exit.CHECK_FAILED, f"--journal: the journal cannot be read: {error}") from None
        return None, [f"not compared with the journal, which cannot be read: {error}"]
    if not found and not wanted:
        return None, ["not compared with the journal: it has no record of this ledger, or none that you may read"]
    told = [f"only the newest {_MOST_SEEN} records of the journal were compared"] if len(found) > _MOST_SEEN else []
    return found[-_MOST_SEEN:], told


def _print_report(report: AuditReport, told: Iterable[str]) -> None:
    rows = [
        ("records", f"{report.records} in {report.segments} segments, {report.checkpoint_size} under the checkpoint"),
        ("root", report.root),
        ("open runs", str(len(report.open_intents))),
        ("payloads", f"{report.payloads}, {report.payload_bytes} bytes"),
        ("journal", f"{report.journal_records} records compared" if report.journal_records else "not compared"),
    ]
    table(("ledger", report.origin or "unknown"), rows)
    for text in (*report.notes, *told):
        note(f"note: {text}")
    if report.holds:
        print("ok: everything holds")
        return
    print()
    place = [f"{each.segment}:{each.line}" if each.line else each.segment for each in report.findings]
    rows_found = [
        (where, each.log_id, each.expected, each.got) for where, each in zip(place, report.findings, strict=True)
    ]
    table(("where", "record", "expected", "got"), rows_found)
    note(f"plugindctl: {len(report.findings)} things do not hold")


def row(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """A record in one line, as HEADINGS says."""
    name = fields.get("plugin") or fields.get("plugin_id") or ""
    version = fields.get("version")
    return (
        f"log_{fields['index']}",
        _time(fields["time_unix_ms"]),
        str(fields["event"]),
        f"{name}@{version}" if name and version else str(name),
        str(fields.get("stage", "")),
        str(fields.get("plan_id", "")),
        _what(fields),
    )


def _what(fields: Mapping[str, Any]) -> str:  # noqa: C901, PLR0911 - one for each event
    match fields["event"]:
        case "OUTCOME":
            detail = f": {fields['detail']}" if fields.get("detail") else ""
            return f"{fields['outcome']} (log_{fields['intent']}){detail}"
        case "DENIED":
            codes = dict.fromkeys(str(reason["code"]) for reason in fields["reasons"])
            return ", ".join(codes)
        case "INTENT":
            return f"Tier {fields['tier']}, {', '.join(fields['permissions']) or 'no permissions'}"
        case "CHANGE":
            return f"{fields['action']} by uid {fields['by_uid']}: {fields['why']}"
        case "REFUSED":
            return f"{fields['call']} by uid {fields['by_uid']}, which needs the role {fields['role_needed']}"
        case "ANOMALY":
            only = ", only observed" if fields["observed"] else ""
            return f"{fields['trigger']} ({fields['severity']}{only}): {fields['actual']}"
        case "RESTORE":
            return f"of log_{fields['of']} by uid {fields['by_uid']}: {fields['why']}"
        case "COMMITTED":
            return f"{fields['files']} files (log_{fields['intent']})"
        case "UNDONE":
            return f"no file (log_{fields['intent']}): {fields['why']}"
        case "START":
            return f"{fields['mode']}, {fields['closed_as_unknown']} open runs closed as unknown"
        case _:
            return str(fields.get("reason", ""))


def _details(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a record says, a line for each thing; what is empty is left out."""
    rows = [("time", f"{_time(fields['time_unix_ms'])} UTC")]
    for name, value in fields.items():
        payload, _, part = name.rpartition("_")
        if name in {"index", "time_unix_ms", "event", "check"} or (payload in PAYLOADS and part != "sha256"):
            continue
        if payload in PAYLOADS:
            if value:
                rows.append((payload, f"{fields[f'{payload}_bytes']} bytes, sha256 {value}"))
        elif name in {"intent", "tier"} and value == -1:
            continue
        elif name == "reasons":
            rows += [("reason", _reason(reason)) for reason in value]
        elif value not in ("", [], {}):
            rows.append((name.replace("_", " "), _shown(name, value)))
    return rows


def _shown(name: str, value: Any) -> str:
    if name in {"intent", "of"}:
        return f"log_{value}"
    if name == "files" and isinstance(value, list):
        return ", ".join(map(_file, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(each if isinstance(each, str) else json.dumps(each) for each in value)
    return str(value)


def _file(file: Mapping[str, Any]) -> str:
    """A file that was read, or put there in place of another."""
    content = file["content"]
    now = f"{content['bytes']} bytes, sha256 {content['sha256']}" if content["sha256"] else "removed"
    if "replaced" not in file:
        return f"{file['path']} ({now})"
    was = f"{file['replaced']['bytes']} bytes" if file["replaced"]["sha256"] else "no file"
    return f"{file['path']} ({now}; before: {was})"


def _reason(reason: Mapping[str, str]) -> str:
    text = f"{reason['code']} ({reason['rule']})"
    if reason.get("expected"):
        text += f": expected {reason['expected']}, got {reason.get('actual', '')}"
    return text + (f"; what to do: {reason['remedy']}" if reason.get("remedy") else "")


def _as_json(fields: Mapping[str, Any]) -> dict[str, Any]:
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


def _time(unix_ms: int) -> str:
    moment = datetime.datetime.fromtimestamp(unix_ms / 1000, datetime.UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S.") + f"{unix_ms % 1000:03}"


def _index(log_id: str) -> int:
    number = log_id.removeprefix("log_")
    if not number.isascii() or not number.isdigit():
        raise CommandError(Exit.USAGE, f"expected an id like log_4001, got {log_id!r}")
    return int(number)
