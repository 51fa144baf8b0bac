"""Applies what an admitted node does that wants more than it may: votes, tasks, the cluster."""

from __future__ import annotations

from functools import partial
from typing import Any

import trio
from msgspec.structs import replace

from gossipcache.charter import first_charter, sign_charter
from gossipcache.dht.membership.member import Profile, accuse
from gossipcache.dht.records.standing import standing_manifest
from gossipcache.errors import GossipcacheError
from gossipcache.identity import SEED_BYTES, Identity
from gossipcache.ids import NodeId, task_id_of
from gossipcache.manifest import SignedManifest, sign_manifest, sign_tombstone
from gossipcache.messages.gossip import CharterNews, SyncPush
from gossipcache.messages.holding import DropTask, TaskDropped
from gossipcache.messages.records import (
    CommitRecord,
    PushRecords,
    RecordEntry,
    RecordsTaken,
    RecordWritten,
    WriteRecord,
)
from gossipcache.node.node import Node
from gossipcache.wire import Message
from sim.faults import ForgedCharter, ForgedDeletion, MintedKeys, RivalManifest, UsurpingKeeper
from sim.injection import gossiping
from sim.injection.applying import Bites, Strike, applies, nothing
from sim.kernel.entropy import WALL_EPOCH_S
from sim.whole.machine import Machine

ANSWER_TIMEOUT_S = 5.0
_AHEAD = 4
_ATTEMPTS, _AGAIN_S = 250, 0.02
FAR_NUMBER = 1 << 40
"""Of a charter that nobody has."""

Request = tuple[Message, type[Message]]


@applies(MintedKeys)
async def _mint(strike: Strike, fault: MintedKeys) -> Bites:
    world = strike.world
    if strike.life(fault.node) is None or fault.victim not in world.machines:
        return nothing
    liar = world.machines[fault.node]
    victim = gossiping.seen_by(world, fault.node, fault.victim)
    me = gossiping.seen_by(world, fault.node, fault.node)
    if victim is None or me is None:
        return nothing
    random = world.streams.named(f"liar/{fault.node}")
    keys = [Identity(random.randbytes(SEED_BYTES)) for _ in range(fault.keys)]
    cluster_id = liar.cluster.cluster_id
    profile = Profile(cluster_id, "minted", me.address, frozenset(("peer", "scheduler")))
    push = SyncPush(
        records=tuple(profile.sign(key, 1, "active").record for key in keys),
        accusations=tuple(
            accuse(key, cluster_id, victim.node_id, victim.incarnation, "dead") for key in keys
        ),
    )
    before = _counted(strike, "members_unadmitted")
    for target in _others(strike, liar):
        await world.on(fault.node, partial(_tell, target, push))
    return lambda: _counted(strike, "members_unadmitted") - before


@applies(RivalManifest)
async def _rival(strike: Strike, fault: RivalManifest) -> Bites:
    genuine = await _record(strike, fault.node, fault.cid)
    if genuine is None:
        return nothing
    liar = strike.world.machines[fault.node]
    entries = []
    for later in (0, 1):
        other = replace(
            genuine.manifest,
            generation=genuine.manifest.generation + later,
            digest="blake3:" + "0" * 64,
        )
        entries.append(RecordEntry(manifests=(sign_manifest(other, liar.identity).signed,)))
    requests = [each for entry in entries for each in _writings(entry)]
    return await _request_all(strike, liar, requests)


@applies(UsurpingKeeper)
async def _usurp(strike: Strike, fault: UsurpingKeeper) -> Bites:
    genuine = await _record(strike, fault.node, fault.cid)
    life = strike.life(fault.node)
    if genuine is None or life is None or fault.victim not in strike.world.machines:
        return nothing
    generation = genuine.manifest.generation + _AHEAD
    other = replace(genuine.manifest, generation=generation, digest="blake3:" + "0" * 64)
    signed = sign_manifest(other, strike.world.machines[fault.node].identity)
    lie = standing_manifest(signed)
    keeper: Any = life.node.services.records._keeper
    keeper._core.absorb(lie, WALL_EPOCH_S, vouched=True)
    target = strike.world.machines[fault.victim].identity.node_id
    push = PushRecords(entries=(lie.entry,))
    for _ in range(_ATTEMPTS):
        if await strike.world.on(fault.node, partial(_ask, target, push, RecordsTaken)):
            return lambda: 1
        await trio.sleep(_AGAIN_S)
    return nothing


@applies(ForgedDeletion)
async def _delete(strike: Strike, fault: ForgedDeletion) -> Bites:
    genuine = await _record(strike, fault.node, fault.cid)
    if genuine is None:
        return nothing
    liar = strike.world.machines[fault.node]
    own = sign_manifest(genuine.manifest, liar.identity)
    present = strike.world.node(fault.node).services.charters.admission.number
    requests: list[Request] = []
    for dead in (genuine, own):
        for number in sorted({0, present, FAR_NUMBER}):
            stone = sign_tombstone(dead, liar.identity, policy_number=number, deleted_at=0)
            entry = RecordEntry(manifests=(dead.signed,), tombstone=stone.signed)
            drop = DropTask(tombstone=stone.signed, manifest=dead.signed)
            requests += [*_writings(entry), (drop, TaskDropped)]
    return await _request_all(strike, liar, requests)


@applies(ForgedCharter)
async def _decree(strike: Strike, fault: ForgedCharter) -> Bites:
    world = strike.world
    if strike.life(fault.node) is None:
        return nothing
    liar = world.machines[fault.node]
    made_up = replace(first_charter(liar.cluster.cluster_id, "secret", "any"), number=FAR_NUMBER)
    news = CharterNews(charter=sign_charter(made_up, liar.identity))
    before = _counted(strike, "charters_forged")
    for target in _others(strike, liar):
        await world.on(fault.node, partial(_tell, target, news))
    return lambda: _counted(strike, "charters_forged") - before


def _counted(strike: Strike, metric: str) -> int:
    lives = [strike.life(name) for name in strike.world.up()]
    return sum(int(life.node.metrics.value(metric)) for life in lives if life is not None)


def _writings(entry: RecordEntry) -> list[Request]:
    """The ways to bring an entry to a keeper."""
    return [
        (WriteRecord(entry=entry), RecordWritten),
        (PushRecords(entries=(entry,)), RecordsTaken),
        (CommitRecord(entry=entry), RecordsTaken),
    ]


async def _request_all(strike: Strike, liar: Machine, requests: list[Request]) -> Bites:
    """Sends them to all others; bites those that were turned down."""
    refused = 0
    for target in _others(strike, liar):
        for message, reply in requests:
            refused += not await strike.world.on(liar.name, partial(_ask, target, message, reply))
    return lambda: refused


def _others(strike: Strike, liar: Machine) -> list[NodeId]:
    machines = strike.world.machines
    return [machines[name].identity.node_id for name in strike.world.up() if name != liar.name]


async def _record(strike: Strike, name: str, cid: str) -> SignedManifest | None:
    if strike.life(name) is None:
        return None
    task_id = task_id_of(cid, "")
    record = await strike.world.on(
        name, lambda node: node.services.records.read(task_id, timeout_s=ANSWER_TIMEOUT_S)
    )
    return None if record is None else record.manifest


async def _tell(target: NodeId, message: Message, node: Node) -> None:
    await node.services.links.notify(target, message)


async def _ask(target: NodeId, message: Message, reply: type[Message], node: Node) -> bool:
    """Whether the target does what it is asked."""
    try:
        answer = await node.services.links.request(target, message, reply, ANSWER_TIMEOUT_S)
    except GossipcacheError:
        return False
    return not isinstance(answer, RecordsTaken) or answer.count > 0
