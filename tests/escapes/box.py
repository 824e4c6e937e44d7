"""Runs attacks as plugins of one tier through a real daemon, and gives all that is known of how they went."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plugind.provenance import bundle
from plugind.provenance.keys import PrivateKey
from plugind_client import Client
from plugind_client.records import RunResult
from tests.escapes import plugin
from tests.support.daemon import Daemon
from tests.support.jail import descendants, groups_of_runs, living_instances
from tests.support.pace import stretched
from tests.support.plugins import attested


@dataclass(frozen=True)
class Ran:
    """A run that started: the answer to it, and its OUTCOME record in the audit."""

    result: RunResult
    record: dict[str, Any]

    @property
    def outcome(self) -> str:
        return self.result.outcome

    @property
    def tried(self) -> dict[str, int]:
        """What the audit names: system call → how often it was refused."""
        counts: Counter[str] = Counter()
        for each in self.record["violations"]:  # one for each argument that tells a call apart
            counts[each["name"]] += each["count"]
        return dict(counts)

    @property
    def said(self) -> str:
        """The details of all that was refused, as the audit has them."""
        return "; ".join(each["detail"] for each in self.record["violations"])

    @property
    def imported_ahead(self) -> bool:
        """Whether its instance had imported the plugin before the run came."""
        return bool(self.record["imported"] >= 0)

    @property
    def lines(self) -> list[str]:
        """What the attack printed."""
        return self.result.stdout.splitlines()

    def value(self) -> Any:
        """What the attack reported; fails where it could not report."""
        assert self.outcome == "ok", self.why()
        return self.result.output

    def assert_killed_for(self, call: str) -> None:
        """The whole run ended as a violation for this call, from which it never returned, and the audit names it."""
        assert self.outcome == "violation", self.why()
        assert self.tried.get(call) == 1, self.why()
        assert not [line for line in self.lines if line.startswith(f"got {call} ")], self.why()

    def why(self) -> str:
        """Everything, for the message of an assertion."""
        result = self.result
        return (
            f"{result.outcome} ({result.outcome_detail}) output {result.output!r:.500} error {result.error}"
            f" violations {result.violations} stdout {result.stdout[-500:]!r} stderr {result.stderr[-500:]!r}"
        )


@dataclass
class Box:
    """The attacks as plugins of a tier. Limits other than the tier's are another version of the plugin."""

    daemon: Daemon
    tier: int
    client: Client = field(init=False)
    _installed: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.client = self.daemon.client()

    def run(self, attack: str, *, limits: dict[str, int] | None = None, **arguments: Any) -> Ran:
        """Make the attack MODULE.FUNCTION."""
        return self.run_plugin(self._attacks(limits or {}), {"attack": attack, "arguments": arguments})

    def run_plugin(self, name: str, payload: Any) -> Ran:
        """Run a plugin of any kind, and fetch what the audit says of it."""
        return self.ran(self.client.execute(name, payload))

    def ran(self, result: RunResult) -> Ran:
        """A result with what the audit says of it, which has to be the same."""
        assert result.decision == "allow", result.reasons
        other = self.client.audit.get(result.audit_log).other
        assert other is not None
        assert (other.event, other.fields["outcome"]) == ("OUTCOME", result.outcome)
        assert other.fields["tier"] == self.tier
        said = [[each.kind, each.name, each.count, each.detail] for each in result.violations]
        assert [list(each.values()) for each in other.fields["violations"]] == said, "the caller and the audit differ"
        return Ran(result, other.fields)

    def together(self, *attacks: Callable[[], Ran]) -> list[Ran]:
        """Several runs at the same time."""
        with ThreadPoolExecutor(len(attacks)) as pool:
            return [future.result() for future in [pool.submit(each) for each in attacks]]

    def install(self, folder: Path) -> str:
        """Submit with the evidence that this tier needs, approve, activate; the plugin's name."""
        data = bundle.build(folder)
        manifest = bundle.read(data).manifest
        client = self.client
        keys = [PrivateKey.generate(), PrivateKey.generate()] if self.tier == 1 else []
        attestations = attested(data, *keys) if keys else b""
        pems = [key.public.to_pem().decode() for key in keys]
        submitted = client.submit(data, attestations, development_public_keys=pems)
        assert submitted.tier == self.tier
        client.approve(manifest.name, manifest.version, tier=self.tier, as_declared=True, reason="an attack")
        client.activate(manifest.name, manifest.version)
        return manifest.name

    def _attacks(self, limits: dict[str, int]) -> str:
        key = json.dumps(limits, sort_keys=True)
        with self._lock:
            if key not in self._installed:
                name = f"attacks_t{self.tier}_{len(self._installed)}"
                with tempfile.TemporaryDirectory() as parent:
                    self._installed[key] = self.install(plugin.write(Path(parent), name, limits))
            return self._installed[key]

    def instances(self) -> list[int]:
        """Processes of runs that are there and not dead; what waits to be used is no run's."""
        return living_instances(descendants(self.daemon.pids[0]))

    def left(self) -> list[int | Path]:
        """What is left of runs: processes and control groups.

        Of a run that began fresh nothing may be left when it is answered. An instance that was imported ahead is killed
        when its answer is complete, and another one may be importing: only these get a moment.
        """
        deadline = time.monotonic() + stretched(1)
        while True:
            found = [*self.instances(), *groups_of_runs(self.daemon.state)]
            if not found or any(map(_began_fresh, found)) or time.monotonic() >= deadline:
                return found
            time.sleep(0.005)


def _began_fresh(left: int | Path) -> bool:
    """Whether a process or control group of an instance was made for a run; the daemon names imports by what they are."""
    if isinstance(left, Path):
        return not left.name.startswith("import-")
    try:
        groups = Path(f"/proc/{left}/cgroup").read_text()
    except OSError:  # it has gone meanwhile
        return False
    return "/instances/" in groups and "/instances/import-" not in groups
