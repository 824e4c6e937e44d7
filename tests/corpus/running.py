"""Puts specimens into a daemon, runs them as their headers say, and keeps what came of it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from plugind_client import Client, PlugindError
from plugind_client.records import RunResult
from tests.corpus import building, tampering
from tests.corpus.loader import Specimen
from tests.support.daemon import Daemon
from tests.support.pace import stretched

AT_ONCE = 4
OPEN_MS = 100
"""Of the profiles that the corpus runs with: for so long an open breaker lets nothing start."""
_PAUSE_S = stretched(OPEN_MS / 1000 + 0.02)
MOST_ATTEMPTS = 120
"""So many runs a specimen gets until it has to be in quarantine by way of the breaker."""


@dataclass
class History:
    """What came of one specimen."""

    specimen: Specimen
    digest: str = ""
    results: list[RunResult] = field(default_factory=list)
    """Of the runs that its header asks for, and that were let through."""
    held_back: list[RunResult] = field(default_factory=list)
    """Denied by a hold or by the breaker."""
    refused: PlugindError | None = None
    """Why it was not even taken, or not approved."""

    def codes(self) -> set[str]:
        """Of all that was said when it was refused or denied."""
        said = [*self.results, *self.held_back]
        reasons = [*(self.refused.reasons if self.refused else ()), *(each for one in said for each in one.reasons)]
        return {each.code for each in reasons} | ({self.refused.code} if self.refused else set())

    def told(self) -> str:
        """The same in words."""
        refused = [f"{self.refused.code}: {self.refused.detail}"] if self.refused else []
        reasons = [str(each) for result in self.results for each in result.reasons]
        return "\n".join([*refused, *reasons])


def run_all(daemon: Daemon, specimens: Iterable[Specimen]) -> dict[str, History]:
    """All of them, a few at a time; by name. Those that take what they can get come first, alone among themselves."""
    histories: dict[str, History] = {}
    given = list(specimens)
    noisy = [each for each in given if not each.benign and each.runs == 1]
    steady = [each for each in given if each not in noisy]
    client = daemon.client()
    for group in (noisy, steady):
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for history in pool.map(lambda each: run_one(daemon, client, each), group):
                histories[history.specimen.name] = history
    return histories


def run_one(daemon: Daemon, client: Client, specimen: Specimen) -> History:
    """One specimen's whole life: handed in, approved, run as often as its header says, or until it is held."""
    history = History(specimen)
    try:
        history.digest = _install(daemon, client, specimen)
    except PlugindError as error:
        history.refused = error
        return history
    for run in range(specimen.runs):
        if specimen.quarantine and quarantined(client, history.digest):
            break
        if specimen.quarantine == "held" and history.held_back:
            break  # it was found, so soon on an idle machine and later on a busy one, where everything varies
        _attempt(client, history, run)
    if specimen.quarantine == "breaker":
        _until_quarantined(client, history)
    return history


def quarantined(client: Client, digest: str) -> bool:
    """Whether these bytes are in quarantine."""
    target = f"sha256:{digest}"
    return any(each.kind == "quarantined" and each.target == target for each in client.status().holds)


def comes_to_be_quarantined(client: Client, digest: str, *, seconds: float = 5.0) -> bool:
    """The same, soon: the monitor reads the ledger behind the runs."""
    deadline = time.monotonic() + stretched(seconds)
    while not (found := quarantined(client, digest)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def _install(daemon: Daemon, client: Client, specimen: Specimen) -> str:
    data = building.built(specimen)
    tamper = tampering.BY_NAME.get(specimen.tamper)
    if tamper is None:
        digest = building.submit(client, specimen, data)
        building.approve(client, specimen)
        return digest
    return tamper(daemon, client, specimen, data)


def _attempt(client: Client, history: History, run: int) -> None:
    """One run. Where the breaker holds it back its caller waits, and comes again."""
    specimen = history.specimen
    for _ in range(MOST_ATTEMPTS):
        result = client.execute(
            specimen.name,
            specimen.payload(run),
            stage=specimen.stage or None,
            sensitivity=specimen.sensitivity or None,
        )
        if result.decision == "allow" or specimen.expected == "blocked":
            history.results.append(result)
            return
        history.held_back.append(result)
        if "QUARANTINED" in {reason.code for reason in result.reasons}:
            return
        time.sleep(_PAUSE_S)


def _until_quarantined(client: Client, history: History) -> None:
    """Go on as its caller would, until a probe has shown what it is."""
    for run in range(history.specimen.runs, history.specimen.runs + MOST_ATTEMPTS):
        if quarantined(client, history.digest):
            return
        _attempt(client, history, run)
