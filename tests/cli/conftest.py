"""Commands run in this process against a served fake node, and what they printed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gossipcache.cli import main
from gossipcache.home import Home
from tests.fakes.served import Served, served


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.out.count("\n") == 1, "one JSON object and nothing else on stdout"
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        return json.loads(self.err.splitlines()[-1])["error"]


Run = Callable[..., Outcome]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def run(home: Home, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `gossipcache --home HOME …`."""
    monkeypatch.delenv("GOSSIPCACHE_HOME", raising=False)

    def run(*arguments: str) -> Outcome:
        capfd.readouterr()
        code = main(["--home", str(home.path), *arguments])
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return run


@pytest.fixture
def fake(home: Home) -> Iterator[Served]:
    with served(home) as running:
        yield running
