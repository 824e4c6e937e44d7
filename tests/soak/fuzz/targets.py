"""All fuzz targets."""

from __future__ import annotations

from tests.soak.fuzz.batches import BATCHES
from tests.soak.fuzz.launcher_side import LAUNCHER_SIDE
from tests.soak.fuzz.names import NAMES
from tests.soak.fuzz.parsers import PARSERS

TARGETS = {target.name: target for target in (*PARSERS, *BATCHES, *NAMES, *LAUNCHER_SIDE)}
