"""The monitor, and all who act on what it finds: quarantine, kill switch, incidents, drills. How the front has them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from plugind.audit.ledger import Ledger
from plugind.casefile import Casefile
from plugind.catalog import Catalog
from plugind.config import log
from plugind.drill import Drill
from plugind.errors import PlugindError
from plugind.governance.database import Database
from plugind.governance.incidents import Incidents
from plugind.governance.killswitch import KillSwitch
from plugind.governance.monitor import Monitor
from plugind.governance.observations import Anomaly
from plugind.governance.quarantine import Quarantine
from plugind.metrics.counts import Metrics
from plugind.model import POLICY_UID, SEVERITIES, MonitorMode, Profile, Severity
from plugind.parking import Parking
from plugind.run import Runner
from plugind.trail import Trail
from plugind.watch import Actions, Watch, thresholds

COUNT_S: Final = 2.0
"""So often open incidents are counted."""


class Monitoring:
    """Made before the runner, which asks it, and started after it, on which it acts."""

    def __init__(
        self,
        database: Path,
        ledger_directory: Path,
        profiles: Mapping[int, Profile],
        catalog: Catalog,
        ledger: Ledger,
        trail: Trail,
        *,
        only_observe: bool,
    ) -> None:
        """Two connections: what is said of an incident must not make a run wait for what is known of its version."""
        self._directory = ledger_directory
        self._catalog = catalog
        self._ledger = ledger
        self._databases = (Database(database), Database(database))
        held_to = thresholds(profiles, catalog.quarantines.probation, only_observe=only_observe)
        self._mode: MonitorMode = "observe" if only_observe else profiles[2].monitor.mode
        self.monitor = Monitor(self._databases[0], held_to, os.cpu_count() or 1)
        self.incidents = Incidents(self._databases[1], trail.incident, log)
        self.watch = Watch(self.monitor, ledger, ledger_directory, catalog, profiles)
        self.metrics = Metrics()
        self.open_incidents: Mapping[Severity, int] = dict.fromkeys(SEVERITIES, 0)

    async def start(self, runner: Runner, parking: Parking) -> None:
        """From here on what versions do has consequences; what no monitor has seen yet is looked at first."""
        holds, metrics = self._catalog.holds, self.metrics
        reach = (runner.flights, parking, holds.announce)
        self.kill_switch = KillSwitch(holds.set, *reach)
        self.quarantine = Quarantine(KillSwitch(self._catalog.quarantines.put, *reach))
        self.casefile = Casefile(
            *(self._catalog, self._directory, lambda: self._ledger.size, self.incidents),
            lambda digest, limit: self.monitor.anomalies(digest=digest, limit=limit),
        )
        tell = (metrics.anomaly, metrics.quarantined, metrics.committed)
        await self.watch.start(Actions(self.quarantine.put, self._note_anomaly, *tell))
        self.drill = Drill(self._catalog, runner, self.incidents, self._release_drill, lambda: self._mode)
        try:
            await self.drill.sweep()
        except PlugindError as error:
            log(f"what an earlier drill left could not be cleaned up: {error}")

    async def count_incidents(self) -> None:
        """How many are open, for the metrics, which must not wait for a file; until canceled."""
        while True:
            with contextlib.suppress(PlugindError):  # the monitor is lost then, and says so
                found = Counter(each.severity for each in await asyncio.to_thread(self.incidents.list))
                self.open_incidents = {severity: found[severity] for severity in SEVERITIES}
            await asyncio.sleep(COUNT_S)

    def close(self) -> None:
        """Close the databases."""
        for database in self._databases:
            database.close()

    async def _note_anomaly(self, anomaly: Anomaly) -> None:
        now_ms = time.time_ns() // 1_000_000
        await asyncio.to_thread(self.incidents.about_quarantine, anomaly, now_ms)

    async def _release_drill(self, digest: str, why: str) -> None:
        now_ms = time.time_ns() // 1_000_000
        lift = self._catalog.holds.lift
        await asyncio.to_thread(lift, "quarantined", f"sha256:{digest}", by_uid=POLICY_UID, at_unix_ms=now_ms, why=why)
