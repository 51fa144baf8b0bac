"""The demonstration is the main job on real processes: three nodes, one killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_demo(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gossipcache", "--format", "json", "demo", "--size", "9MiB"],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["identical"] is True
    assert result["size"] == 9 * 2**20
    assert "SIGKILL" in done.stderr
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
