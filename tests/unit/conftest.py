"""What several unit tests share."""

import tempfile
from pathlib import Path

import pytest

from tests.support.desk import Desk
from tests.support.plan_kernel import UNSYNCED


@pytest.fixture
async def desk(tmp_path):
    (tmp_path / "plugins").mkdir()
    made = Desk(tmp_path)
    yield made
    await made.ledger.close()
    made.catalog.close()


@pytest.fixture
def unsynced_path():
    """As tmp_path, on a file system where a sync costs nothing."""
    with tempfile.TemporaryDirectory(dir=UNSYNCED) as folder:
        yield Path(folder)
