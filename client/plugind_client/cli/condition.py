"""status and why: how the daemon is, and why it did not run something."""

from __future__ import annotations

import dataclasses

import typer

from plugind_client.cli import words
from plugind_client.cli.problems import Exit, found_by
from plugind_client.cli.screen import note, one_line, print_json, table
from plugind_client.cli.settings import JsonFlag, SocketPath, examples, settled
from plugind_client.records import Denial, Status


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(epilog=examples("plugindctl status", "plugindctl status --json | jq .ledger_size"))(status)
    app.command(epilog=examples("plugindctl why", "plugindctl why --json | jq -r .reasons[].remedy"))(why)


def status(context: typer.Context, as_json: JsonFlag = False, socket: SocketPath = None) -> None:
    """Show how the daemon is, and what is held.

    Exit code 7 when something is wrong: the launcher is away, the ledger cannot be written, a tier cannot run here.
    """
    settings = settled(context, as_json, socket)
    with settings.client() as client:
        found = client.status()
    wrong = problems(found)
    if settings.as_json:
        print_json({"ok": not wrong} | dataclasses.asdict(found))
    else:
        table(("plugind", found.daemon_version), _rows(found))
        for problem in wrong:
            note(f"wrong: {problem}")
    raise typer.Exit(Exit.CHECK_FAILED if wrong else Exit.OK)


def problems(found: Status) -> list[str]:
    """What is wrong, one sentence each."""
    said = [("launcher", found.launcher_problem), ("ledger", found.ledger_problem), ("monitor", found.monitor_problem)]
    tiers = [(f"Tier {tier}", why) for tier, why in found.unavailable_tiers.items()]
    return [f"{what}: {problem}" for what, problem in (*said, *tiers) if problem]


def _rows(found: Status) -> list[tuple[str, str]]:
    return [
        ("mode", found.mode),
        ("since", words.moment(found.started_unix_ms)),
        ("plugins", f"{found.plugins}, runs in flight {found.runs_in_flight}"),
        ("launcher", found.launcher_problem or f"there, cgroups {found.cgroup_driver}"),
        *((f"tier {tier}", f"cannot run here: {why}") for tier, why in found.unavailable_tiers.items()),
        ("ledger", f"{found.ledger_problem or 'writable'}, {found.ledger_size} records, root {found.ledger_root}"),
        ("monitor", found.monitor_problem or "sees what runs"),
        ("journal", found.journal),
        ("policy", f"{found.policy_path}, sha256 {found.policy_sha256}"),
        *((hold.kind, words.hold(hold)) for hold in found.holds),
    ]


def why(context: typer.Context, as_json: JsonFlag = False, socket: SocketPath = None) -> None:
    """Tell why your last denied run was denied, and what mends it.

    What to do is on lines of its own, to copy.
    """
    settings = settled(context, as_json, socket)
    with settings.client() as client:
        denial = client.why()
    if settings.as_json:
        print_json(dataclasses.asdict(denial) if denial else None)
    elif denial is None:
        note("no run of yours was denied since plugind was started")
    else:
        _show(denial)


def _show(denial: Denial) -> None:
    what = f"{denial.plugin} {denial.version}".rstrip()
    stage = f" for stage {denial.stage}" if denial.stage else ""
    record = f"audit record {denial.audit_log}" if denial.audit_log else "no audit record"
    print(one_line(f"{what}{stage} was denied {words.moment(denial.at_unix_ms)} ({record})"))
    for reason in denial.reasons:
        print(one_line(f"  {found_by(reason)}"))
    remedies = list(dict.fromkeys(reason.remedy for reason in denial.reasons if reason.remedy))
    if remedies:
        print("what to do:")
    for remedy in remedies:
        print(one_line(remedy))
