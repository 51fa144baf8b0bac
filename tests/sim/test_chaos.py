"""Storms are drawn from the seed, are plans that can be replayed, and know every kind."""

from __future__ import annotations

import msgspec

from sim.chaos.draws import DRAWS
from sim.faults import (
    KINDS,
    AnyFault,
    ForgedCharter,
    ForgedDeletion,
    MintedKeys,
    RivalManifest,
    UsurpingKeeper,
)
from sim.registry import find, run

WITH_AN_OPERATOR = {ForgedCharter, ForgedDeletion, MintedKeys, RivalManifest}
"""They say nothing in a cluster without an operator; `malicious-member` plays them."""

TOLD_FOR_GOOD = {UsurpingKeeper}
"""Where it is believed by one, nobody can tell who lies until a user names the content, so that no
storm could ask for each task in the end; `liar-beside-empty-keeper` plays it."""


def test_there_is_a_draw_of_every_kind() -> None:
    assert set(DRAWS) == set(KINDS.values()) - WITH_AN_OPERATOR - TOLD_FOR_GOOD
    assert len(DRAWS) >= 50


def test_a_storm_played_by_its_schedule_is_the_same_storm() -> None:
    storm = run(find("fault-crash-loop"), seed=2)
    plan = msgspec.convert(storm.schedule, list[AnyFault | None])
    assert run(find("fault-crash-loop"), seed=2, plan=plan).digest == storm.digest
    calm = run(find("fault-crash-loop"), seed=2, plan=[None])
    assert (calm.faults, calm.violations) == ({}, [])
