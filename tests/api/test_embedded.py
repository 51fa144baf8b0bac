"""Nodes inside this program, and the documented example."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gossipcache import open_node
from gossipcache.errors import HomeInUse, NotPermitted

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "library.py"


async def test_a_node_without_network_keeps_files(tmp_path: Path) -> None:
    async with open_node(tmp_path / "home") as cache:
        imported = await cache.import_bytes(b"kept", "x")
        assert imported.record_copies == 1
    async with open_node(tmp_path / "home") as cache:
        assert await cache.read("x", 0, 10) == b"kept"


async def test_one_home_one_node(tmp_path: Path) -> None:
    async with open_node(tmp_path / "home"):
        with pytest.raises(HomeInUse):
            async with open_node(tmp_path / "home"):
                pytest.fail("two nodes on one home")


async def test_errors_inside_the_block_come_out_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_node(tmp_path / "home"):
            _ = 1 / 0


async def test_a_network_is_not_faced_without_a_secret(tmp_path: Path) -> None:
    with pytest.raises(NotPermitted):
        async with open_node(tmp_path / "home", listen="0.0.0.0:0"):
            pytest.fail("listens without a secret")


def test_the_documented_example_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "gone everywhere"
    assert done.stderr == ""
