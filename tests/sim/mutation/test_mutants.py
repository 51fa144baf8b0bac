"""Mutants fit the code as it is, and planted ones are found."""

from __future__ import annotations

import pytest

from sim.mutation.catalogue import MUTANTS
from sim.mutation.hunt import hunt_all, innocent
from sim.mutation.mutant import Mutant, MutantError, plant
from sim.registry import scenarios

SOME = ("expired-announcement-counts", "piece-not-verified", "tombstone-loses")


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=list(MUTANTS))
def test_a_mutant_fits_the_code(mutant: Mutant) -> None:
    source = mutant.path.read_text()
    patched = mutant.patched(source)
    assert patched != source
    compile(patched, str(mutant.path), "exec")
    assert set(mutant.scenarios) <= set(scenarios())


def test_there_are_many() -> None:
    assert len(MUTANTS) >= 40
    assert len({(mutant.module, mutant.old) for mutant in MUTANTS.values()}) == len(MUTANTS)


def test_planted_bugs_are_found_and_only_they() -> None:
    hunts = list(hunt_all([MUTANTS[name] for name in SOME], range(1, 2), jobs=1))
    assert [hunt.mutant.name for hunt in hunts if hunt.found is not None] == list(SOME)
    assert all(hunt.seeds == 1 for hunt in hunts)
    assert [outcome.violation for outcome in innocent(hunts, jobs=1)] == [None] * len(SOME)


def test_what_finds_a_planted_bug_is_made_smaller() -> None:
    (hunt,) = hunt_all([MUTANTS["tombstone-loses"]], [1], jobs=1, shrink_s=2.0)
    assert hunt.found is not None
    less = hunt.found.shrinkage
    assert less is not None
    assert 0 < less.after <= less.before
    assert less.runs > 1


def test_what_is_loaded_cannot_be_mutated_any_more() -> None:
    with pytest.raises(MutantError, match="loaded already"):
        plant(MUTANTS["piece-not-verified"])


def test_a_patch_that_fits_nowhere_or_twice_is_refused() -> None:
    mutant = MUTANTS["piece-not-verified"]
    for source in ("", 2 * mutant.old):
        with pytest.raises(MutantError):
            mutant.patched(source)
