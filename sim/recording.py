"""A run as a file: enough to play it again, or to play it with other faults.

    {"version": 1, "scenario": "owner-death", "seed": 7, "nodes": 5, "digest": "…",
     "violations": ["…"], "faults": [{"kind": "kill", "at_s": 0.54, "node": "n1"}]}

The faults stand in the order in which the scenario asks for them. One can be changed, moved to
another instant (`at_s`; it strikes then, or when it is asked for if that is later), or left out
(`null` in its place; what is asked for beyond the last is left out too). Without `faults` the
scenario plays its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from gossipcache.errors import UsageError
from sim.chronicle import Chronicle
from sim.faults import AnyFault
from sim.registry import Report, find, run

FOLDER = "sim-failures"
"""Where runs that fail are recorded, unless told otherwise."""


class Recording(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one run was."""

    version: Literal[1] = 1
    scenario: str
    seed: int
    nodes: Annotated[int, msgspec.Meta(ge=3, le=10_000)]
    digest: str = ""
    violations: list[str] = []
    faults: list[AnyFault | None] | None = None


def record(report: Report, folder: Path) -> Path:
    """Writes a run's file into `folder`."""
    recording = Recording(
        scenario=report.scenario,
        seed=report.seed,
        nodes=report.nodes,
        digest=report.digest,
        violations=report.violations,
        faults=msgspec.convert(report.schedule, list[AnyFault | None]),
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report.scenario}-{report.nodes}-nodes-seed-{report.seed}.json"
    write(recording, path)
    return path


def write(recording: Recording, path: Path) -> None:
    """Writes a run's file."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(recording), indent=2) + b"\n")


def read_recording(path: Path) -> Recording:
    """The run in a file. Raises `UsageError` that names what is wrong with it."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Recording)
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror})", "name a recorded run") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} is not a recorded run ({error})", "see docs/simulator.md for the format"
        ) from error


def replay(recording: Recording, chronicle: Chronicle | None = None) -> Report:
    """Plays a run again on the faults of its file."""
    return run(
        find(recording.scenario),
        recording.seed,
        recording.nodes,
        plan=recording.faults,
        chronicle=chronicle,
    )


def again(path: Path) -> str:
    """The line that replays a run's file."""
    return f"python -m sim replay {path}"


def smaller(path: Path) -> str:
    """The line that makes a failing run smaller."""
    return f"python -m sim shrink {path}"


def drawn(path: Path) -> str:
    """The line that draws a run on a page."""
    return f"python -m sim report {path}"
