"""Plans with generated calculations for tests: the example's own, and PlanExe's four where their data is."""

import os
from pathlib import Path

import pytest

from tests.support.planexe_example import DATA, ROOT

SHARED = os.environ.get("PLUGIND_SHARED_DATA") or str(ROOT.parent / "shared/data")
NAPKIN = Path(SHARED) / "napkin"
PLANEXE = sorted(path.parent.name for path in (ROOT / "tests/data/napkin").glob("*/calculations.py"))
ABSENT = f"PlanExe's data is not at {SHARED}: set PLUGIND_SHARED_DATA to test with it"

published = pytest.mark.skipif(not NAPKIN.is_dir(), reason=ABSENT)
"""For tests of what only PlanExe's data can show."""
EACH_OF_PLANEXE = [
    pytest.param(NAPKIN / name, ROOT / "tests/data/napkin" / name / "calculations.py", id=name, marks=published)
    for name in PLANEXE
]
EACH = [pytest.param(DATA / "napkin", DATA / "napkin/calculations.py", id="night_bus"), *EACH_OF_PLANEXE]
"""Folder of the plan's files, and its calculations."""
