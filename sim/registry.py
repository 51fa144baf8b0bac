"""The scenarios by name, what a run of one reports, and how one is run.

A scenario knows its driver: what builds the world that its body plays in. `sim.whole.scenario`
drives whole nodes on Trio; `sim.bare.scenario` drives cores as callbacks, for thousands of nodes.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from gossipcache.errors import UsageError
from sim.chronicle import Chronicle
from sim.errors import told
from sim.faults import AnyFault

DEFAULT_LIMIT_S = 900.0


@dataclass(slots=True)
class Report:
    """A run: the last line of `--json`. Fields are only ever added."""

    scenario: str
    seed: int
    nodes: int
    digest: str = ""
    events: int = 0
    virtual_s: float = 0.0
    wall_s: float = 0.0
    violations: list[str] = field(default_factory=list)
    faults: dict[str, dict[str, int]] = field(default_factory=dict)
    vacuous: bool = False
    metrics: dict[str, float] = field(default_factory=dict)
    schedule: list[Any] = field(default_factory=list)


Plan = Sequence[AnyFault | None]
"""The faults of a run in the order in which the scenario asks for them. One that is None, and
all that the scenario asks for beyond the last, are left out."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a run that is only played for one violation may end."""

    at: Callable[[str], bool] = lambda violation: False
    """Told each violation, without its instant; the run ends when this is true."""
    after_s: float = math.inf
    """Virtual seconds after which it ends in any case, as at the scenario's own limit."""


WHOLE = Cut()
"""Not cut short."""


@dataclass(slots=True)
class Drive:
    """One run to be driven: its report to fill, where to log events, the faults to play instead
    of the scenario's own (None: as the scenario says), and where to stop."""

    report: Report
    log: TextIO | None = None
    plan: Plan | None = None
    cut: Cut = WHOLE
    chronicle: Chronicle | None = None
    """Told what happens, if a report is made of the run."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A story with a name."""

    name: str
    summary: str
    nodes: int
    drive: Callable[[Drive], None]
    """Plays the story and fills the report in."""


_log = logging.getLogger(__name__)
_SCENARIOS: dict[str, Scenario] = {}


def register(name: str, nodes: int, story: str | None, drive: Callable[[Drive], None]) -> Scenario:
    """Adds a scenario; the first line of its `story` is the summary. Raises `ValueError` if there
    is one of that name."""
    if name in _SCENARIOS:
        raise ValueError(f"two scenarios are called {name!r}")
    summary = (story or "").strip().splitlines()[0]
    _SCENARIOS[name] = Scenario(name, summary, nodes, drive)
    return _SCENARIOS[name]


def scenarios() -> dict[str, Scenario]:
    """All scenarios by name, sorted."""
    import sim.scenarios  # noqa: F401  (registers them; they import this module)

    return dict(sorted(_SCENARIOS.items()))


def find(name: str) -> Scenario:
    """The scenario `name`. Raises `UsageError`."""
    known = scenarios()
    if name not in known:
        raise UsageError(f"no scenario {name!r}", f"one of: {', '.join(known)}")
    return known[name]


def run(
    played: Scenario,
    seed: int,
    nodes: int | None = None,
    log: TextIO | None = None,
    plan: Plan | None = None,
    cut: Cut = WHOLE,
    chronicle: Chronicle | None = None,
) -> Report:
    """Runs a scenario from a seed; with a `plan` on its faults instead of the scenario's own.

    An exception that ends the run is one more violation; its traceback is logged. Raises
    `UsageError` if the plan has faults that the driver does not know.
    """
    report = Report(played.name, seed, nodes or played.nodes)
    started = time.perf_counter()
    try:
        played.drive(Drive(report, log, plan, cut, chronicle))
    except UsageError:
        raise
    except Exception as error:
        _log.exception("the run of %s from seed %d broke off", played.name, seed)
        report.violations.append(f"the run broke off: {told(error)}")
    report.wall_s = round(time.perf_counter() - started, 3)
    return report
