"""incident list, show, open and close: what happened, and who says that it is over."""

from __future__ import annotations

import dataclasses
import errno
import os
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from plugind_client.cli import words
from plugind_client.cli.incident_page import page
from plugind_client.cli.problems import CommandError, Exit
from plugind_client.cli.screen import note, one_line, print_json, table
from plugind_client.cli.settings import AdminSocketPath, JsonFlag, Settings, SocketPath, examples, settled
from plugind_client.findings import Incident, IncidentCase, TimelineEntry

IncidentId = Annotated[str, typer.Argument(metavar="incident_N", help="As `incident list` names it.")]
_PAGE_MODE = 0o600
"""What a page tells is for operators; whoever wants it elsewhere copies it."""


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    incident = typer.Typer(no_args_is_help=True, help="See what went wrong with plugins, and say when it is over.")
    incident.command(
        name="list",
        epilog=examples("plugindctl incident list", "plugindctl incident list --all --json | jq -r .[].id"),
    )(list_incidents)
    incident.command(
        epilog=examples(
            "plugindctl incident show incident_3",
            "plugindctl incident show incident_3 --html incident_3.html",
            "plugindctl incident show incident_3 --json | jq .timeline",
        )
    )(show)
    incident.command(
        name="open",
        epilog=examples(
            'plugindctl incident open "the totals of plan 7 are wrong" --severity high --about cost_rollup@1.2.0'
        ),
    )(open_one)
    incident.command(epilog=examples('plugindctl incident close incident_3 --reason "mended in 1.2.1"'))(close)
    app.add_typer(incident, name="incident")


def list_incidents(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Closed ones too.")] = False,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """List the open incidents, the newest first."""
    settings = settled(context, as_json, socket, admin_socket)
    with settings.admin_client() as client:
        found = client.incidents(closed=everything)
    if settings.as_json:
        print_json([dataclasses.asdict(each) for each in found])
    elif not found:
        note("there are no incidents" if everything else "no incident is open")
    else:
        headings = ("id", "severity", "state", "opened", "about", "title")
        table(headings, [_line(each) for each in found])


def _line(incident: Incident) -> tuple[str, ...]:
    return (
        incident.id,
        incident.severity,
        incident.state,
        words.moment(incident.opened_unix_ms),
        incident.label or "-",
        incident.title,
    )


def show(
    context: typer.Context,
    incident_id: IncidentId,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write it as one page that can be printed.", show_default=False),
    ] = None,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """Show an incident with all that is known of the version it is about, the oldest first."""
    settings = settled(context, as_json, socket, admin_socket)
    with settings.admin_client() as client:
        case = client.incident(incident_id)
    if html is not None:
        _write(html, page(case, time.time_ns() // 1_000_000))
        note(f"{case.incident.id} is in {html}")
    if settings.as_json:
        print_json(dataclasses.asdict(case))
    elif html is None:
        _show(case)


def _show(case: IncidentCase) -> None:
    # Headings go out as they are, so the id may be one, which is the daemon's, and the title not.
    table(("incident", case.incident.id), _facts(case.incident))
    print()
    table(("time (UTC)", "what", "told", "by", "plan", "record"), [_entry(each) for each in case.timeline])
    if case.anomalies:
        print()
        table(words.ANOMALY, map(words.anomaly, case.anomalies))
    note("`plugindctl audit verify` checks the records, `plugindctl audit show log_N` shows one")


def _facts(incident: Incident) -> list[tuple[str, str]]:
    closed = f"{words.moment(incident.closed_unix_ms)} by uid {words.person(incident.closed_by_uid)}"
    return [
        ("title", incident.title),
        ("severity", incident.severity),
        ("state", incident.state),
        ("about", incident.label or "no version in particular"),
        ("sha256", incident.digest or "-"),
        ("cause", incident.cause),
        ("opened", f"{words.moment(incident.opened_unix_ms)} by uid {words.person(incident.opened_by_uid)}"),
        *(() if incident.is_open else (("closed", f"{closed}: {incident.closing}"),)),
        ("plans", ", ".join(incident.plans) or "none"),
    ]


def _entry(entry: TimelineEntry) -> tuple[str, ...]:
    return (
        words.instant(entry.at_unix_ms),
        entry.kind,
        entry.text,
        words.person(entry.by_uid),
        entry.plan_id,
        entry.audit_log,
    )


def _write(path: Path, text: str) -> None:
    """The whole page or, whatever happens, what was there before."""
    folder = path.parent
    if path.is_dir():
        raise CommandError(Exit.USAGE, f"--html: expected a file, got the folder {path}")
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    if path.is_symlink() or (path.exists() and not path.is_file()):
        path.write_text(text, encoding="utf-8")  # /dev/stdout and its like are not to be replaced
        return
    descriptor, made = tempfile.mkstemp(dir=folder, prefix=f".{path.name}.")
    try:
        with open(descriptor, "w", encoding="utf-8") as stream:  # noqa: PTH123 - of a descriptor
            stream.write(text)
            os.fchmod(stream.fileno(), _PAGE_MODE)
        Path(made).replace(path)
    except BaseException:
        Path(made).unlink(missing_ok=True)
        raise


def open_one(
    context: typer.Context,
    title: Annotated[str, typer.Argument(metavar="TITLE", help="What you saw, in one sentence.")],
    severity: Annotated[
        str, typer.Option(metavar="LEVEL", help="low, medium, high or critical.", show_default=False)
    ] = "",
    about: Annotated[
        str, typer.Option(metavar="TARGET", help="NAME, NAME@V, plug_N, plug_N@V or a sha256.", show_default=False)
    ] = "",
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """Open an incident that you saw."""
    settings = settled(context, as_json, socket, admin_socket)
    if not severity:
        raise CommandError(Exit.USAGE, "expected how bad it is: --severity low|medium|high|critical")
    with settings.admin_client() as client:
        opened = client.open_incident(title, severity, target=about or None)
    _tell(settings, opened, f"{opened.id} is open; `plugindctl incident close {opened.id} --reason TEXT` closes it")


def close(
    context: typer.Context,
    incident_id: IncidentId,
    reason: words.Reason = None,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """Close an incident: say why it is over. Holds stay in force until they are lifted."""
    settings = settled(context, as_json, socket, admin_socket)
    why = words.reason(reason)
    with settings.admin_client() as client:
        closed = client.close_incident(incident_id, why)
    _tell(settings, closed, f"{closed.id} is closed: {closed.closing}")


def _tell(settings: Settings, incident: Incident, said: str) -> None:
    if settings.as_json:
        print_json(dataclasses.asdict(incident))
    else:
        note(one_line(said))
