"""Applies what befalls packets and connections."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial

import trio

from sim.faults import network as faults
from sim.injection.applying import Bites, Strike, applies, nothing
from sim.injection.nodes import kill
from sim.network.fabric import SimHost
from sim.network.impairment import Burst, Impairment

_SHORT_QUEUE_S = 0.05
_STRANGER = "10.8.0.1"
_REQUEST = b"GET /gossipcache HTTP/1.1\r\nX-Slowly: " + b"a" * 4096


def _impair(strike: Strike, for_s: float, *impairments: Impairment) -> Bites:
    """Links are worse for a while; bites the packets that the impairments changed."""
    fabric = strike.world.fabric
    for each in impairments:
        fabric.impair(each)
        strike.ends(for_s, partial(fabric.repair, each))
    return lambda: sum(each.bit for each in impairments)


def _both_ways(strike: Strike, name: str, there: Impairment) -> tuple[Impairment, Impairment]:
    """`there` on all that a node sends, and the same on all that is sent to it."""
    ips = strike.ips(name)
    return replace(there, sources=ips), replace(there, targets=ips)


def _cut(strike: Strike, island: tuple[str, ...]) -> tuple[Impairment, Impairment]:
    outside = [name for name in strike.world.machines if name not in island]
    inner, outer = strike.ips(*island), strike.ips(*outside)
    return Impairment(inner, outer, loss=1.0), Impairment(outer, inner, loss=1.0)


@applies(faults.Partition)
async def _partition(strike: Strike, fault: faults.Partition) -> Bites:
    out, back = _cut(strike, fault.island)
    return _impair(strike, fault.for_s, out, *(() if fault.one_way else (back,)))


@applies(faults.PartialPartition)
async def _partition_partly(strike: Strike, fault: faults.PartialPartition) -> Bites:
    one, other = strike.ips(fault.one), strike.ips(fault.other)
    cuts = Impairment(one, other, loss=1.0), Impairment(other, one, loss=1.0)
    return _impair(strike, fault.for_s, *cuts)


@applies(faults.FlappingPartition)
async def _flap(strike: Strike, fault: faults.FlappingPartition) -> Bites:
    cuts = _cut(strike, fault.island)[: 1 if fault.one_way else 2]

    def set_cut(is_cut: bool) -> None:
        for each in cuts:
            each.is_cut = is_cut
        strike.world.fabric.retry_stalled()

    for turn in range(int(fault.for_s / fault.every_s)):
        strike.begins((turn + 0.5) * fault.every_s, partial(set_cut, False))
        strike.begins((turn + 1.0) * fault.every_s, partial(set_cut, True))
    return _impair(strike, fault.for_s, *cuts)


@applies(faults.Isolation)
async def _isolate(strike: Strike, fault: faults.Isolation) -> Bites:
    return _impair(strike, fault.for_s, *_cut(strike, (fault.node,)))


@applies(faults.DatagramsBlocked)
async def _block_datagrams(strike: Strike, fault: faults.DatagramsBlocked) -> Bites:
    wall = Impairment(loss=1.0, carrier="datagram")
    return _impair(strike, fault.for_s, *_both_ways(strike, fault.node, wall))


@applies(faults.StreamsBlocked)
async def _block_streams(strike: Strike, fault: faults.StreamsBlocked) -> Bites:
    wall = Impairment(loss=1.0, carrier="stream")
    return _impair(strike, fault.for_s, *_both_ways(strike, fault.node, wall))


@applies(faults.Loss)
async def _lose(strike: Strike, fault: faults.Loss) -> Bites:
    everywhere = Impairment(loss=fault.probability, carrier=fault.carrier)
    if not fault.nodes:
        return _impair(strike, fault.for_s, everywhere)
    ips = strike.ips(*fault.nodes)
    out, back = replace(everywhere, sources=ips), replace(everywhere, targets=ips)
    return _impair(strike, fault.for_s, out, back)


@applies(faults.BurstyLoss)
async def _lose_in_bursts(strike: Strike, fault: faults.BurstyLoss) -> Bites:
    burst = Burst(fault.enter, fault.exit, fault.loss)
    return _impair(strike, fault.for_s, Impairment(burst=burst))


@applies(faults.Duplication)
async def _duplicate(strike: Strike, fault: faults.Duplication) -> Bites:
    return _impair(strike, fault.for_s, Impairment(duplication=fault.probability))


@applies(faults.Reordering)
async def _reorder(strike: Strike, fault: faults.Reordering) -> Bites:
    held = Impairment(carrier="datagram", reordering=fault.probability, jitter_s=fault.seconds)
    return _impair(strike, fault.for_s, held)


@applies(faults.Replay)
async def _replay(strike: Strike, fault: faults.Replay) -> Bites:
    caught = Impairment(
        sources=strike.ips(fault.node), duplication=fault.probability, echo_s=fault.after_s
    )
    return _impair(strike, fault.for_s, caught)


@applies(faults.Corruption)
async def _corrupt(strike: Strike, fault: faults.Corruption) -> Bites:
    return _impair(strike, fault.for_s, Impairment(corruption=fault.probability))


@applies(faults.Delay)
async def _delay(strike: Strike, fault: faults.Delay) -> Bites:
    slow = Impairment(delay_s=fault.seconds)
    return _impair(strike, fault.for_s, *_both_ways(strike, fault.node, slow))


@applies(faults.Jitter)
async def _jitter(strike: Strike, fault: faults.Jitter) -> Bites:
    uneven = Impairment(jitter_s=fault.seconds)
    return _impair(strike, fault.for_s, *_both_ways(strike, fault.node, uneven))


@applies(faults.BandwidthCap)
async def _cap(strike: Strike, fault: faults.BandwidthCap) -> Bites:
    shaped = Impairment(
        sources=strike.ips(fault.node), bytes_per_s=fault.bytes_per_s, queue_s=_SHORT_QUEUE_S
    )
    return _impair(strike, fault.for_s, shaped)


@applies(faults.Bufferbloat)
async def _bloat(strike: Strike, fault: faults.Bufferbloat) -> Bites:
    shaped = Impairment(sources=strike.ips(fault.node), bytes_per_s=fault.bytes_per_s)
    return _impair(strike, fault.for_s, shaped)


@applies(faults.MtuBlackHole)
async def _swallow_large(strike: Strike, fault: faults.MtuBlackHole) -> Bites:
    hole = Impairment(mtu_bytes=fault.mtu_bytes)
    return _impair(strike, fault.for_s, *_both_ways(strike, fault.node, hole))


@applies(faults.HalfOpen)
async def _forget_connections(strike: Strike, fault: faults.HalfOpen) -> Bites:
    life = strike.life(fault.node)
    swallowed = [stream.forget() for stream in (life.host.streams if life is not None else ())]
    return lambda: sum(each() for each in swallowed)


@applies(faults.Reset)
async def _reset(strike: Strike, fault: faults.Reset) -> Bites:
    life = strike.life(fault.node)
    if life is None:
        return nothing
    host, before = life.host, life.host.resets_done
    host.resets_due += fault.count

    def spare() -> None:
        host.resets_due = 0

    strike.ends(fault.for_s, spare)
    return lambda: host.resets_done - before


@applies(faults.SlowLoris)
async def _trickle(strike: Strike, fault: faults.SlowLoris) -> Bites:
    world = strike.world
    if fault.node not in world.machines:
        return nothing
    stranger = world.fabric.hosts.get(_STRANGER) or world.fabric.host(_STRANGER)
    ended: list[int] = []
    for _ in range(fault.connections):
        world.spawn(_trickle_once, strike, fault, stranger, ended)
    return lambda: len(ended)


async def _trickle_once(
    strike: Strike, fault: faults.SlowLoris, stranger: SimHost, ended: list[int]
) -> None:
    """One connection of a stranger; `ended` grows when the node has had enough of it."""
    address = strike.world.machines[fault.node].config.listen
    assert address is not None
    with trio.move_on_after(fault.for_s), suppress(OSError):
        async with await stranger.dial(address) as stream:
            try:
                for at in range(len(_REQUEST)):
                    await stream.send_all(_REQUEST[at : at + 1])
                    await trio.sleep(1.0)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                ended.append(1)


@applies(faults.FullBacklog)
async def _fill_backlog(strike: Strike, fault: faults.FullBacklog) -> Bites:
    life = strike.life(fault.node)
    if life is None:
        return nothing
    host, before = life.host, life.host.dials_dropped
    host.backlog_is_full = True

    def drain() -> None:
        host.backlog_is_full = False

    strike.ends(fault.for_s, drain)
    return lambda: host.dials_dropped - before


@applies(faults.AddressChange)
async def _move(strike: Strike, fault: faults.AddressChange) -> Bites:
    if strike.life(fault.node) is None:
        return nothing
    bites = await kill(strike.world, fault.node)
    strike.world.move(fault.node)
    await strike.world.start(fault.node)
    return bites
