"""Safety: what is looked at while a world lives, at each change of a view and ten times a
virtual second. `witness` sees what is done to disks and sent; here the nodes are looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import trio

from gossipcache.ids import task_id_of
from gossipcache.node.node import Node
from sim.whole.machine import Incarnation
from sim.whole.witness import Task
from sim.whole.world import PORT, World

WATCH_INTERVAL_S = 0.1
SAMPLE = tuple(task_id_of(f"sample {number}", "") for number in range(64))
"""Tasks whose keepers are compared between nodes."""
STREAMS_BASE, STREAMS_PER_MACHINE = 128, 16
"""Strangers, who are let in up to a number; and with each other machine the control connections
and the piece channels of a few downloads."""
MAX_QUEUED = 512
"""Datagrams that wait to be read."""
GOSSIP_WINDOW_S = 10.0
MAX_GOSSIP_BYTES_PER_S = 40_000
"""Of one node, over the window; a quiet one sends some hundred, a joining one some thousand."""


@dataclass(eq=False)
class _Watched:
    """One process, and what was seen of it."""

    life: Incarnation
    complete: dict[Task, None] = field(default_factory=dict)
    gossip_bytes: int = 0
    gossip_since: float = 0.0
    gossip_bytes_per_s: float = 0.0
    told: set[str] = field(default_factory=set)


async def watch(world: World) -> None:
    """Until cancelled: views only go forward and claim nothing that was not claimed; a deleted
    task stays away; the last complete copy stays; queues, streams and gossip are bounded."""
    watched: dict[Incarnation, _Watched] = {}
    async with trio.open_nursery() as nursery:
        while True:
            for life in _running(world):
                if life not in watched:
                    watched[life] = _Watched(life, gossip_since=world.clock.now)
                    nursery.start_soon(_watch_view, world, life)
            _check_deleted(world)
            _check_copies(world, watched.values())
            for each in watched.values():
                if not each.life.is_ending:
                    _check_bounds(world, each)
            await trio.sleep(WATCH_INTERVAL_S)


def _running(world: World) -> list[Incarnation]:
    lives = [world.machines[name].life for name in world.up()]
    return [life for life in lives if life is not None and life.started.is_set()]


# Views.


async def _watch_view(world: World, life: Incarnation) -> None:
    membership = life.node.services.membership
    seen, epoch = -1, b""
    while True:
        seen = await membership.wait_change(seen)
        if life.is_ending:
            return
        _check_view(world, life)
        ring = membership.ring
        if ring.epoch != epoch:
            epoch = ring.epoch
            keepers = tuple(ring.keepers(task_id, 3) for task_id in SAMPLE)
            world.witness.rings(life.process.name, epoch.hex(), keepers)


def _check_view(world: World, life: Incarnation) -> None:
    viewer, witness = life.process.name, world.witness
    for view in life.node.members():
        if world.chronicle is not None:
            world.chronicle.viewed(world.clock.now, viewer, view.name, view.state)
        news = witness.sees(life, viewer, view)
        if not news or view.incarnation <= witness.claims(view.id, 0):
            continue
        lives = _lives_of(world, view.id)
        # One that is dead by now may have claimed more than was ever looked at.
        if not all(each.started.is_set() and not each.is_ending for each in lives):
            continue
        mine = max((_own_incarnation(each) for each in lives), default=0)
        if view.incarnation > witness.claims(view.id, mine):
            world.report(f"on {viewer} {view.name} has an incarnation it never claimed")


def _lives_of(world: World, node_id: str) -> list[Incarnation]:
    """The last processes with this key: one, unless the key was copied."""
    machines = [m for m in world.machines.values() if m.identity.node_id.hex() == node_id]
    return [machine.life for machine in machines if machine.life is not None]


def _own_incarnation(life: Incarnation) -> int:
    me = life.node.services.membership.member(life.node.node_id)
    return me.incarnation if me is not None else 0


# Tasks.


def _check_deleted(world: World) -> None:
    for (cid, tag), confirmed in world.witness.model.deleted.items():
        for name in [each for each in world.up() if each in confirmed]:
            life = world.machines[name].life
            if life is None or not life.started.is_set():
                continue
            if any((task.cid, task.tag) == (cid, tag) for task in life.node.list_tasks()):
                world.report(f"{name} shows {cid!r} again, which it had dropped")
                confirmed.discard(name)


def _check_copies(world: World, watched: Iterable[_Watched]) -> None:
    """Of an acknowledged task the last complete copy is not dropped by the node that has it.
    What stands on the disk of a node that is down counts as a copy."""
    last = {each.life.process.name: each for each in watched}
    dropped: list[tuple[str, Task]] = []
    for name, each in last.items():
        if not each.life.is_ending:
            now = _complete(each.life.node)
            if each.life.disk.is_sound:
                dropped += [(name, task) for task in each.complete if task not in now]
            each.complete = now
    for name, task in dropped:
        elsewhere = any(task in each.complete for each in last.values())
        if task in world.witness.model.acknowledged and not elsewhere:
            world.report(f"{name} dropped the last complete copy of {task[0]!r}")


def _complete(node: Node) -> dict[Task, None]:
    tasks = [stored for stored in node.services.store.tasks() if stored.complete]
    return {(each.signed.manifest.cid, each.signed.manifest.tag): None for each in tasks}


# Bounds.


def _check_bounds(world: World, each: _Watched) -> None:
    node, host = each.life.node, each.life.host
    machines = len(world.machines)
    port = host.ports.get(PORT)
    bounds = {
        "open streams": (len(host.streams), STREAMS_BASE + STREAMS_PER_MACHINE * machines),
        "members": (len(node.services.membership.members()), machines),
        "unread datagrams": (port.inbox.queued if port is not None else 0, MAX_QUEUED),
        "gossip bytes a second": (_gossip_rate(world, each), MAX_GOSSIP_BYTES_PER_S),
    }
    for what, (found, bound) in bounds.items():
        if found > bound and what not in each.told:
            each.told.add(what)
            world.report(f"{each.life.process.name} has {found:.0f} {what}, more than {bound}")


def _gossip_rate(world: World, each: _Watched) -> float:
    """What a node sent in datagrams, on the average of the last window that is over."""
    passed_s = world.clock.now - each.gossip_since
    if passed_s >= GOSSIP_WINDOW_S:
        sent = int(each.life.node.metrics.value("datagram_bytes_sent"))
        each.gossip_bytes_per_s = (sent - each.gossip_bytes) / passed_s
        each.gossip_bytes, each.gossip_since = sent, world.clock.now
        peak = "most gossip bytes/s"
        world.metrics[peak] = max(world.metrics.get(peak, 0.0), round(each.gossip_bytes_per_s))
    return each.gossip_bytes_per_s
