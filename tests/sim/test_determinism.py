"""Where one seed gave two runs, the event at which they part is named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sim.commands.determinism import first_difference

EQUAL = '{"t": 0.5, "kind": "datagram", "where": "a>b", "size": 3, "bytes": "0102"}\n'
OTHER = EQUAL.replace("0102", "0304")

# A scenario that depends on the order of a set of strings; a process of the simulator finds it
# there before it runs anything.
PLANTED = '''
from sim.whole.scenario import Stage, scenario

@scenario("set-order", nodes=3)
async def set_order(stage: Stage) -> None:
    """Records the names of the nodes in the order of a set, which is that of their hashes."""
    stage.world.trace.record("begin", "first")
    for name in {f"n{number}" for number in range(50)}:
        stage.world.trace.record("name", name, b"x")
'''


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ([EQUAL, OTHER], [EQUAL, EQUAL], "event 2 is"),
        ([EQUAL], [EQUAL, EQUAL], "none: the run is over"),
        ([OTHER], [EQUAL], "0.500000000 s: datagram a>b, 3 bytes with the digest 0304"),
    ],
)
def test_the_first_difference_of_two_traces(one: list[str], other: list[str], told: str) -> None:
    assert told in (first_difference(one, other) or "")


def test_equal_traces_do_not_part() -> None:
    assert first_difference([EQUAL, OTHER], [EQUAL, OTHER]) is None


def test_a_set_whose_order_matters_is_found(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(PLANTED)
    (tmp_path / "sitecustomize.py").write_text("import planted")
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "sim",
            "check-determinism",
            "--scenario",
            "set-order",
            "--seeds",
            "1",
        ],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1, ended.stderr
    assert "set-order seed 1: " in ended.stdout
    assert " != " in ended.stdout
    assert "event 2 is" in ended.stdout
    assert "0.000000000 s: name n" in ended.stdout
