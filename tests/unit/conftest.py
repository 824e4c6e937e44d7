"""What several unit tests share."""

import pytest

from tests.support.desk import Desk


@pytest.fixture
async def desk(tmp_path):
    (tmp_path / "plugins").mkdir()
    made = Desk(tmp_path)
    yield made
    await made.ledger.close()
    made.catalog.close()
