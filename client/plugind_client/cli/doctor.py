"""doctor: what this machine has of what the jails need."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import typer

from plugind_client.cli import adapters
from plugind_client.cli.adapters import Machine, MachineCheck
from plugind_client.cli.problems import Exit
from plugind_client.cli.screen import note, print_json, table
from plugind_client.cli.settings import JsonFlag, SocketPath, examples, settled


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog=examples("plugindctl doctor", "plugindctl doctor --json | jq '.checks[] | select(.ok == false)'")
    )(doctor)


def doctor(context: typer.Context, as_json: JsonFlag = False, socket: SocketPath = None) -> None:
    """Check whether this machine has what the jails of each tier need.

    Needs no daemon; some facts take root to find out and are "?" without. Exit code 7 when a tier lacks something that
    it requires.
    """
    settings = settled(context, as_json, socket)
    machine = adapters.machine()
    show(machine, as_json=settings.as_json)
    raise typer.Exit(Exit.OK if able(machine) == machine.tiers else Exit.CHECK_FAILED)


def show(machine: Machine, *, as_json: bool) -> None:
    """Prints the facts; for people a summary follows on standard error."""
    if as_json:
        can_run = able(machine)
        print_json(
            {
                "ok": can_run == machine.tiers,
                "can_run": list(can_run),
                "checks": [dataclasses.asdict(check) for check in machine.checks],
            }
        )
        return
    rows = [
        (
            state(check),
            check.name,
            check.found,
            ", ".join(map(str, check.tiers)) or "-",
            "" if check.ok else check.remedy,
        )
        for check in machine.checks
    ]
    table(("", "what", "found", "tiers", "what to do"), rows)
    note(summary(machine))


def state(check: MachineCheck) -> str:
    """A check in one word. What no tier requires may be absent."""
    if check.ok is None:
        return "?"
    if check.ok:
        return "ok"
    return "MISSING" if check.tiers else "absent"


def able(machine: Machine) -> tuple[int, ...]:
    """The tiers that lack nothing. What is not known is not lacking."""
    return tuple(tier for tier in machine.tiers if not _lacking(machine, (tier,)))


def summary(machine: Machine) -> str:
    """Which tiers can run, what the others lack, and what is not known."""
    can = able(machine)
    cannot = tuple(tier for tier in machine.tiers if tier not in can)
    said = [f"{_tiers(can)} can run here" if can else "no tier can run here"]
    if cannot:
        lacking = _listed(_lacking(machine, cannot))
        said.append(f"{_tiers(cannot)} cannot, for lack of {lacking}" if can else f"for lack of {lacking}")
    unknown = [check.name for check in machine.checks if check.ok is None and check.tiers]
    if unknown:
        said.append(f"only root can find out about {_listed(unknown)}")
    return "; ".join(said)


def _lacking(machine: Machine, tiers: Sequence[int]) -> list[str]:
    return [check.name for check in machine.checks if check.ok is False and set(check.tiers) & set(tiers)]


def _tiers(tiers: Sequence[int]) -> str:
    return f"tier{'s' if len(tiers) > 1 else ''} {_listed([str(tier) for tier in tiers])}"


def _listed(words: Sequence[str]) -> str:
    """One; one and two; one, two and three."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
