"""The documents that are made from the code say what the code says."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from gossipcache.settings import load_settings

ROOT = Path(__file__).resolve().parent.parent


def test_protocol_document_is_up_to_date() -> None:
    check = [sys.executable, "docs/generate.py", "--check"]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_counter_is_described_and_every_described_one_is_there() -> None:
    counted = {name for path in (ROOT / "gossipcache").rglob("*.py") for name in counters(path)}
    text = (ROOT / "docs" / "metrics.md").read_text()
    assert counted == set(re.findall(r"^\| `(.+?)` \|", text, re.MULTILINE))


def test_the_limits_named_are_settings() -> None:
    text = (ROOT / "docs" / "limits.md").read_text()
    named = set(re.findall(r"^\| `(.+?)` \|", text, re.MULTILINE))
    known = {setting.key for setting in load_settings({}, {}, "", "")}
    assert named
    assert named <= known
    (example,) = re.findall(r"```toml\n(.+?)```", text, re.DOTALL)
    assert load_settings({}, {}, example, "config.toml")["transfer.upload_rate"] == 100 * 2**20


def counters(path: Path) -> Iterator[str]:
    """The names that `path` counts under; `…` where a part is known only at run time."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("metrics.count"):
            name = node.args[0]
            parts = name.values if isinstance(name, ast.JoinedStr) else [name]
            yield "".join(str(p.value) if isinstance(p, ast.Constant) else "…" for p in parts)
