"""Storms of faults drawn from the seed: by theme, of all kinds, and of each kind alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from sim.chaos.draws import DRAWS
from sim.chaos.storm import storm
from sim.faults import (
    KINDS,
    DiskFault,
    Fault,
    Kill,
    LiarFault,
    NetworkFault,
    NodeFault,
    Restart,
    SubstitutingKeeper,
    TimeFault,
)
from sim.registry import register
from sim.whole.scenario import Stage, play, scenario

NODES = 7
STRIKES = 8
GAP_S = 5.0
CALM_S = 20.0
ALONE_S = 6.0
_FEW_KINDS = 8

_DAMAGE: tuple[type[Fault], ...] = get_args(DiskFault)
# Some lies make sense in a cluster with an operator only: `malicious-member` plays them.
_LIES = tuple(kind for kind in get_args(LiarFault) if kind in DRAWS)
# Few users of a storm ask for the one task that a keeper substitutes: it is played alone.
_DRAWN = [kind for kind in DRAWS if kind is not SubstitutingKeeper]


@scenario("chaos-nodes", nodes=NODES)
async def chaos_nodes(stage: Stage) -> None:
    """Processes and machines fail under load in every way, and clocks go wrong; then all heals."""
    await _storm_of(stage, (*get_args(NodeFault), *get_args(TimeFault)))


@scenario("chaos-network", nodes=NODES)
async def chaos_network(stage: Stage) -> None:
    """The network fails under load in every way, and nodes die in it; then all heals."""
    await _storm_of(stage, (*get_args(NetworkFault), Kill, Restart))


@scenario("chaos-disk", nodes=NODES)
async def chaos_disk(stage: Stage) -> None:
    """One disk is bad, others fill up and fail, and nodes die; then all heals."""
    await _storm_of(stage, (*_DAMAGE, Kill, Restart))


@scenario("chaos-liars", nodes=NODES)
async def chaos_liars(stage: Stage) -> None:
    """An admitted node lies in every way while others die; the honest stay well."""
    lies = [kind for kind in _LIES if kind in _DRAWN]
    await _storm_of(stage, (*lies, Kill, Restart))


@scenario("chaos", nodes=NODES)
async def chaos(stage: Stage) -> None:
    """Faults of a few kinds that the seed enables, of all themes (swarm testing); all heals."""
    rng = stage.world.streams.named("chaos/kinds")
    # A liar and a bad disk together are two faulty keepers of three.
    spared = _LIES if rng.random() < 0.5 else _DAMAGE
    kinds = [kind for kind in _DRAWN if kind not in spared]
    await _storm_of(stage, rng.sample(kinds, _FEW_KINDS))


async def _storm_of(stage: Stage, kinds: Sequence[type[Fault]]) -> None:
    """Strikes of `kinds`, as the seed has it."""
    rng = stage.world.streams.named("chaos/kinds")
    await storm(stage, rng.choices(kinds, k=STRIKES), gap_s=GAP_S, calm_s=CALM_S)


def _register_alone(name: str, kind: type[Fault]) -> None:
    """The scenario `fault-KIND`."""

    async def alone(stage: Stage) -> None:
        await storm(
            stage, [Kill, Restart] if kind is Restart else [kind], gap_s=1.0, calm_s=ALONE_S
        )

    story = f"{(kind.__doc__ or '').splitlines()[0].rstrip(',;:')} … and all is well after it."
    register(f"fault-{name}", 3, story, lambda drive: play(alone, drive))


for _name, _kind in KINDS.items():
    if _kind in DRAWS:
        _register_alone(_name, _kind)
