"""doctor: what this machine has of what the jails need, which tiers can run here, and what to do for the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import typer

from plugind_client.cli import adapters
from plugind_client.cli.adapters import Machine, MachineCheck
from plugind_client.cli.problems import Exit
from plugind_client.cli.screen import note, paragraph, print_json, show_lines
from plugind_client.cli.settings import JsonFlag, Settings, SocketPath, examples, settled

_STYLES = {"ok": "green", "?": "cyan", "absent": "yellow", "MISSING": "red"}
_INDENT = 28
"""Where what was found begins: a state, a name, and space between them."""


@dataclass(frozen=True, slots=True)
class Word:
    """What a daemon says of the tiers: its launcher is root, and refuses them. `problem`: it could not be asked."""

    socket: str
    problem: str = ""
    refused: dict[int, str] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a tier can run here: runs, refused, or unknown, for `names`; `why` is the daemon's own reason."""

    tier: int
    state: str
    names: tuple[str, ...] = ()
    why: str = ""
    by_daemon: bool = False


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        epilog=examples(
            "plugindctl doctor",
            "plugindctl doctor --json | jq '.checks[] | select(.ok == false)'",
        )
    )(doctor)


def doctor(context: typer.Context, as_json: JsonFlag = False, socket: SocketPath = None) -> None:
    """Check whether this machine has what each tier's jails need.

    Needs no daemon; some facts take root to find out and are "?" without. Where a daemon answers, its launcher has
    found them out, and what it says of the tiers counts. Exit code 7 when a tier is refused.
    """
    settings = settled(context, as_json, socket)
    machine = adapters.machine()  # it forks, which does not go well once gRPC is loaded
    raise typer.Exit(report(machine, settings))


def report(machine: Machine, settings: Settings) -> Exit:
    """Tell everything about a machine, and what the daemon says of it."""
    if not settings.as_json:
        show_lines(facts(machine))  # a daemon that hangs keeps nobody from seeing them
    word = ask(settings)
    said = verdicts(machine, word)
    if settings.as_json:
        print_json(as_object(machine, said, word))
    else:
        show_lines(conclusions(machine, said))
        if word is not None and word.problem:
            note(f"the daemon at {word.socket} says nothing of it: {word.problem}")
    return Exit.CHECK_FAILED if any(verdict.state == "refused" for verdict in said) else Exit.OK


def ask(settings: Settings) -> Word | None:
    """What the daemon says; None where there is none and nobody named its socket."""
    from plugind_client.errors import PlugindError, Unavailable

    try:
        with settings.client() as client:
            status = client.status()
    except PlugindError as error:
        if isinstance(error, Unavailable) and not settings.socket:
            return None
        return Word(settings.asked, " ".join(filter(None, (str(error), error.detail))))
    return Word(settings.asked, status.launcher_problem, dict(status.unavailable_tiers))


# --- judging ----------------------------------------------------------------------------------------------------------


def verdicts(machine: Machine, word: Word | None = None) -> list[Verdict]:
    """One a tier. What is not known is not lacking, but it is said."""
    return [_verdict(machine, tier, word) for tier in machine.tiers]


def _verdict(machine: Machine, tier: int, word: Word | None) -> Verdict:
    if word is not None and not word.problem:
        why = word.refused.get(tier, "")
        return Verdict(tier, "refused" if why else "runs", why=why, by_daemon=True)
    needed = [check for check in machine.checks if tier in check.tiers]
    lacking = tuple(check.name for check in needed if check.ok is False)
    if lacking:
        return Verdict(tier, "refused", lacking)
    unknown = tuple(check.name for check in needed if check.ok is None)
    return Verdict(tier, "unknown" if unknown else "runs", unknown)


def state(check: MachineCheck) -> str:
    """A check in one word. What no tier requires may be absent."""
    if check.ok is None:
        return "?"
    if check.ok:
        return "ok"
    return "MISSING" if check.tiers else "absent"


def as_object(machine: Machine, said: Sequence[Verdict], word: Word | None) -> dict[str, object]:
    """All of it, for programs."""
    return {
        "ok": all(verdict.state != "refused" for verdict in said),
        "can_run": [verdict.tier for verdict in said if verdict.state != "refused"],
        "tiers": [
            dataclasses.asdict(verdict) | {"tight": list(machine.tight.get(verdict.tier, ()))} for verdict in said
        ],
        "checks": [dataclasses.asdict(check) for check in machine.checks],
        "daemon": dataclasses.asdict(word) if word else None,
    }


# --- for people -------------------------------------------------------------------------------------------------------


def facts(machine: Machine) -> Iterator[tuple[str, str]]:
    """Pairs of a line and its style: facts, grouped by the tiers that need them; last what no tier needs."""
    groups = sorted({check.tiers for check in machine.checks}, key=lambda tiers: (-len(tiers), tiers))
    for tiers in groups:
        yield (f"needed by {_tiers(tiers)}" if tiers else "good to have"), "bold"
        for check in machine.checks:
            if check.tiers == tiers:
                yield from _fact(check)
        yield "", ""


def _fact(check: MachineCheck) -> Iterator[tuple[str, str]]:
    word = state(check)
    for line in paragraph(check.found, f"  {word:<9}{check.name:<17}", " " * _INDENT):
        yield line, _STYLES[word] if word != "ok" else ""
    if word == "absent":
        for label, text in (("instead: ", check.instead), ("to get it: ", check.remedy)):
            if text:
                yield from ((line, "") for line in paragraph(text, " " * _INDENT + label, " " * _INDENT + "  "))
        if check.command:
            yield " " * _INDENT + "  " + check.command, ""


def conclusions(machine: Machine, said: Sequence[Verdict]) -> Iterator[tuple[str, str]]:
    """What follows for each tier, and what to do."""
    for verdict in said:
        for line in paragraph(_in_words(verdict), "", "  "):
            yield line, {"runs": "green", "refused": "red", "unknown": "cyan"}[verdict.state]
        for text in machine.tight.get(verdict.tier, ()):
            yield from ((line, "yellow") for line in paragraph(text, "  but ", "  "))
    yield from _to_do(machine, said)


def _in_words(verdict: Verdict) -> str:
    tier = f"Tier {verdict.tier}"
    if verdict.state == "runs":
        return f"{tier} can run" + (": so says the daemon" if verdict.by_daemon else "")
    if verdict.state == "unknown":
        return f"{tier} can run, as far as can be seen without root"
    return f"{tier} is refused: " + (verdict.why or f"it needs {_listed(verdict.names)}")


def _to_do(machine: Machine, said: Sequence[Verdict]) -> Iterator[tuple[str, str]]:
    refused = {verdict.tier for verdict in said if verdict.state == "refused"}
    unknown = {name for verdict in said if verdict.state == "unknown" for name in verdict.names}
    mend = [check for check in machine.checks if check.ok is False and refused & set(check.tiers)]
    if mend or unknown:
        yield "", ""
        yield "what to do", "bold"
    for check in mend:
        yield from ((line, "") for line in paragraph(check.remedy, f"  {check.name}: ", "    "))
        if check.command:
            yield f"    {check.command}", ""  # in one line: it is there to be copied
    if unknown:
        names = [check.name for check in machine.checks if check.name in unknown]
        yield from ((line, "") for line in paragraph(_listed(names), "  only root can find out about ", "    "))
        yield '    sudo "$(command -v plugindctl)" doctor', ""


def _tiers(tiers: Sequence[int]) -> str:
    return f"tier{'s' if len(tiers) > 1 else ''} {_listed([str(tier) for tier in tiers])}"


def _listed(words: Sequence[str]) -> str:
    """One; one and two; one, two and three."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
