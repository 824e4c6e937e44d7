"""quarantine add, list, show and release: what must not run because of what it did, and how it comes out."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Annotated

import typer

from plugind_client.cli import words
from plugind_client.cli.problems import CommandError, Exit
from plugind_client.cli.screen import note, print_json, table
from plugind_client.cli.settings import AdminSocketPath, JsonFlag, SocketPath, examples, settled
from plugind_client.findings import QuarantineCase, QuarantinedVersion

Version = Annotated[str, typer.Argument(metavar="PLUGIN@V", help="NAME@V, plug_N@V or a sha256.")]
_EVIDENCE_MODE = 0o600


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(
        no_args_is_help=True, help="See what is in quarantine and why, put a version there, let it out."
    )
    group.command(name="list", epilog=examples("plugindctl quarantine list"))(list_versions)
    group.command(
        epilog=examples(
            "plugindctl quarantine show cost_rollup@1.2.0",
            "plugindctl quarantine show cost_rollup@1.2.0 --export evidence.tar.gz",
        )
    )(show)
    group.command(epilog=examples('plugindctl quarantine add cost_rollup@1.2.0 --reason "reads too much"'))(add)
    group.command(
        epilog=examples('plugindctl quarantine release cost_rollup@1.2.0 --stage durations --reason "false alarm"')
    )(release)
    app.add_typer(group, name="quarantine")


def list_versions(
    context: typer.Context,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """List what is in quarantine, and what is on probation after it."""
    settings = settled(context, as_json, socket, admin_socket)
    with settings.admin_client() as client:
        found = client.quarantined()
    if settings.as_json:
        print_json([dataclasses.asdict(each) for each in found])
    elif not found:
        note("nothing is in quarantine or on probation")
    else:
        table(("version", "state", "since", "incident", "why"), [_line(each) for each in found])


def _line(each: QuarantinedVersion) -> tuple[str, ...]:
    since = words.moment(each.hold.at_unix_ms) if each.hold else "-"
    return (each.label, each.state, since, each.incident or "-", _why(each))


def _why(each: QuarantinedVersion) -> str:
    if each.hold:
        return each.hold.reason
    return f"{each.probation_runs_left} good runs to go, in {', '.join(each.probation_stages)}"


def show(
    context: typer.Context,
    version: Version,
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="FILE", help="Write all evidence into a .tar.gz.", show_default=False),
    ] = None,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """Show why a version is in quarantine: what was found, with the numbers, and what is known of its runs."""
    settings = settled(context, as_json, socket, admin_socket)
    with settings.admin_client() as client:
        case = client.quarantine_case(version)
    if export is not None:
        _export(export, case)
        note(f"the evidence about {case.version.label} is in {export}")
    if settings.as_json:
        print_json(_as_json(case))
    elif export is None:
        _show(case)


def _as_json(case: QuarantineCase) -> dict[str, object]:
    fields = dataclasses.asdict(case)
    fields["statistics"] = json.loads(fields.pop("statistics_json"))
    fields["records"] = [json.loads(each) for each in fields.pop("records_json")]
    return fields


def _show(case: QuarantineCase) -> None:
    version = case.version
    facts = [
        ("state", version.state),
        ("sha256", version.digest),
        ("why", _why(version)),
        ("incident", version.incident or "-"),
        ("released by", ", ".join(map(words.person, version.released_by_uids)) or "nobody so far"),
        ("approvers needed", str(version.approvers_needed)),
        *((name, str(value)) for name, value in json.loads(case.statistics_json).items()),
        ("records", f"{len(case.records_json)} of the ledger"),
    ]
    table((version.label, ""), facts)
    if case.anomalies:
        print()
        table(words.ANOMALY, map(words.anomaly, case.anomalies))
    if version.hold:
        note(f"to let it out: `plugindctl quarantine release {version.label} --stage S --reason TEXT`")


def _export(path: Path, case: QuarantineCase) -> None:
    """Never over something that is there. Raises CommandError, OSError."""
    files = {
        "version.json": json.dumps(dataclasses.asdict(case.version), indent=1),
        "anomalies.json": json.dumps([dataclasses.asdict(each) for each in case.anomalies], indent=1),
        "statistics.json": case.statistics_json,
        "records.jsonl": "".join(f"{each}\n" for each in case.records_json),
        "history.json": json.dumps([dataclasses.asdict(each) for each in case.history], indent=1),
        "README.txt": _README.format(label=case.version.label, digest=case.version.digest),
    }
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _EVIDENCE_MODE)
    except FileExistsError:
        raise CommandError(Exit.USAGE, f"--export {path}: expected a file that is not there yet") from None
    with os.fdopen(descriptor, "wb") as stream, tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"evidence/{name}")
            data = text.encode("utf-8", "surrogatepass")
            member.size, member.mode = len(data), 0o600
            archive.addfile(member, io.BytesIO(data))


_README = """Evidence about {label}, sha256 {digest}.

records.jsonl has records of plugind's ledger as they stand there, one a line, the newest first: digests of inputs and
outputs, resource use, what the jail refused. The leaf of each in the ledger's Merkle tree is sha256(0x00 + line).
On the machine: plugindctl audit verify checks the ledger, plugindctl audit show log_N shows one record.
"""


def add(
    context: typer.Context,
    version: Version,
    reason: words.Reason = None,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """Put a version into quarantine: what runs of it ends, and nothing of it starts until it is released."""
    settings = settled(context, as_json, socket, admin_socket)
    why = words.reason(reason)
    with settings.admin_client() as client:
        put = client.quarantine(version, why)
    if settings.as_json:
        print_json(dataclasses.asdict(put))
        return
    runs = f"{put.ended_runs} run{'' if put.ended_runs == 1 else 's'} of it ended"
    note(f"{put.label}: in quarantine, {runs}; {put.incident or 'no incident'}")


def release(
    context: typer.Context,
    version: Version,
    reason: words.Reason = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(metavar="S", help="A stage it may run in while on probation; repeatable.", show_default=False),
    ] = None,
    as_json: JsonFlag = False,
    socket: SocketPath = None,
    admin_socket: AdminSocketPath = None,
) -> None:
    """Say, as an approver, that a version may come out of quarantine, and into which stages.

    It is out when as many people as the policy asks for have said the same; then it is on probation.
    """
    settings = settled(context, as_json, socket, admin_socket)
    why = words.reason(reason)
    if not stage:
        raise CommandError(Exit.USAGE, "name the stages that it may run in while on probation, with --stage S")
    with settings.admin_client() as client:
        done = client.release(version, why, stage)
    if settings.as_json:
        print_json(dataclasses.asdict(done))
        return
    label, found = done.version.label, done.version
    if not done.released:
        voices = f"{len(found.released_by_uids)} of {found.approvers_needed} approvers"
        note(f"{label}: your word is recorded ({voices}); it stays in quarantine until another says the same")
    elif found.state == "probation":
        note(
            f"{label}: released, on probation in {', '.join(found.probation_stages)}"
            f" ({found.probation_runs_left} runs to go)"
        )
    else:
        note(f"{label}: released")
