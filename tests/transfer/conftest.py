from __future__ import annotations

from pathlib import Path, PurePath

import pytest

from gossipcache.disk import OsDisk
from sim.storage.disk import SimDisk
from tests.transfer.samples import Shop


@pytest.fixture(params=["os", "sim"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Shop:
    """A shop on the real disk, and one on the simulated."""
    if request.param == "os":
        return Shop(OsDisk(), PurePath(tmp_path))
    return Shop(SimDisk(), PurePath("/home"))


@pytest.fixture
def os_shop(tmp_path: Path) -> Shop:
    """A shop on the real disk."""
    return Shop(OsDisk(), PurePath(tmp_path))
