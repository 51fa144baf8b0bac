"""Failures that runs once showed are kept as files, and do not come back."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.recording import read_recording, replay

EXAMPLES = sorted((Path(__file__).parents[2] / "sim" / "examples").glob("*.json"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_what_once_failed_holds(file: Path) -> None:
    recording = read_recording(file)
    assert recording.violations
    assert replay(recording).violations == []


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_each_has_its_page(file: Path) -> None:
    page = file.with_suffix(".html").read_text()
    assert all(violation in page for violation in read_recording(file).violations)
