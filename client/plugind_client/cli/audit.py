"""audit list, show, tail and verify: what was decided and what ran, and whether the ledger still says so."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from plugind_client.cli import audit_show, undoing
from plugind_client.cli.problems import CommandError, Exit
from plugind_client.cli.screen import note, one_line, print_json, table, visible
from plugind_client.cli.settings import AdminSocketPath, JsonFlag, Settings, SocketPath, examples, settled
from plugind_client.cli.words import Since, moment_ms

if TYPE_CHECKING:
    from plugind_client.audit import Audit, AuditReport
    from plugind_client.client import Client

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
    undoing.register(audit)
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
            "plugindctl audit show log_4002 --payload replaced:cost.json",
            "plugindctl audit show log_4001 --json",
        )
    )(audit_show.show)
    audit.command(epilog=examples("plugindctl audit tail", "plugindctl audit tail --from log_1 --json"))(tail)
    audit.command(
        epilog=examples(
            "plugindctl audit verify", "plugindctl audit verify --no-journal", "plugindctl audit verify --state DIR"
        )
    )(verify)
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
            help="START STOP INTENT OUTCOME DENIED COMMITTED UNDONE RESTORE CHANGE REFUSED ANOMALY; repeatable.",
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
        print_json([audit_show.as_json_object(record.fields) for record in records])
        return
    if not records:
        note("there are no such records")
        return
    table(audit_show.HEADINGS, [audit_show.row(record.fields) for record in records])


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
                print(visible(json.dumps(audit_show.as_json_object(record.fields))), flush=True)
            else:
                print(one_line("  ".join(cell for cell in audit_show.row(record.fields) if cell)), flush=True)


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


def _index(log_id: str) -> int:
    number = log_id.removeprefix("log_")
    if not number.isascii() or not number.isdigit():
        raise CommandError(Exit.USAGE, f"expected an id like log_4001, got {log_id!r}")
    return int(number)
