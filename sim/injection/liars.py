"""Applies the lies of admitted nodes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio
from msgspec.structs import replace

from gossipcache.dht.membership.member import Member
from gossipcache.errors import GossipcacheError
from gossipcache.ids import Address, task_id_of
from gossipcache.link.channel import Channel
from gossipcache.link.connection import Connection, Terms, run_connection
from gossipcache.link.interface import Peer
from gossipcache.manifest import sign_manifest
from gossipcache.messages.batches import Contents, GetContents
from gossipcache.messages.records import ReadRecord, RecordAnswer, RecordEntry
from gossipcache.node.node import Node
from gossipcache.wire import MAX_MESSAGE_BYTES
from sim.faults import (
    BadSignature,
    CborBomb,
    EndlessPromise,
    ExpiredAnnouncement,
    FalseWitnesses,
    ForgedAnnouncements,
    ForgedIncarnation,
    ForgedSuspicion,
    GarbageFrames,
    LyingHave,
    LyingKeeper,
    LyingParent,
    MutePeer,
    OversizedMessage,
    ReplayedAnnouncement,
    SubstitutingKeeper,
    TruncatedPiece,
    WrongLength,
)
from sim.injection import gossiping, lying
from sim.injection.applying import Bites, Strike, applies, nothing
from sim.injection.forgery import forge_announcements

_PATIENCE_S = 20.0
"""How long a liar waits for its victim to hang up."""
_BOMBS = (
    b"\x81" * 60_000 + b"\x00",  # an array in an array in an array …
    b"\x9b\x7f" + b"\xff" * 7,  # an array of 2^63 items
    b"\x5b\x7f" + b"\xff" * 7,  # a byte string of 2^63
    b"\x9f" + b"\x00" * 60_000,  # an array without an end
    b"\xa2\x61t\x61x\x61t\x61y",  # a map with one key twice
    b"\xc2\x59\xea\x60" + b"\xff" * 60_000,  # a number of 480,000 bits
)


@applies(LyingParent)
async def _serve_wrong_bytes(strike: Strike, fault: LyingParent) -> Bites:
    liars, told = strike.world.witness.lies, [0]

    def lie(data: bytes) -> bytes:
        told[0] += 1
        return bytes((data[0] ^ 0x55,)) + data[1:]

    liars[fault.node] = lie
    unsay = _alter_contents(strike, fault.node, lie)

    def repent() -> None:
        liars.pop(fault.node, None)
        unsay()

    strike.ends(fault.for_s, repent)
    return lambda: told[0]


def _alter_contents(strike: Strike, name: str, lie: Callable[[bytes], bytes]) -> Callable[[], None]:
    """Has a node lie also where content travels in a reply; returns what ends that."""
    life = strike.life(name)
    if life is None:
        return lambda: None
    links: Any = life.node.services.links
    handlers = links._links._handlers._handlers
    honest = handlers[GetContents]

    async def answer(peer: Peer, question: GetContents) -> Contents:
        true = await honest(peer, question)
        return Contents(
            contents=tuple(
                replace(one, data=lie(one.data)) if one.data else one for one in true.contents
            )
        )

    handlers[GetContents] = answer
    return partial(handlers.__setitem__, GetContents, honest)


@applies(TruncatedPiece)
async def _truncate(strike: Strike, fault: TruncatedPiece) -> Bites:
    return _serve_through(strike, fault.node, fault.for_s, lying.Truncating)


@applies(WrongLength)
async def _shorten(strike: Strike, fault: WrongLength) -> Bites:
    return _serve_through(strike, fault.node, fault.for_s, lying.WrongLength)


@applies(LyingHave)
async def _boast(strike: Strike, fault: LyingHave) -> Bites:
    return _serve_through(strike, fault.node, fault.for_s, lying.Boasting)


@applies(MutePeer)
async def _say_nothing(strike: Strike, fault: MutePeer) -> Bites:
    return _serve_through(strike, fault.node, fault.for_s, lying.Mute)


@applies(EndlessPromise)
async def _promise(strike: Strike, fault: EndlessPromise) -> Bites:
    return _serve_through(strike, fault.node, fault.for_s, lying.Promising)


def _serve_through(
    strike: Strike,
    name: str,
    for_s: float,
    liar: Callable[[Channel, list[str]], lying.LyingChannel],
) -> Bites:
    life = strike.life(name)
    if life is None:
        return nothing
    lies: list[str] = []
    strike.ends(for_s, lying.served_through(life.node, liar, lies))
    return lambda: len(lies)


@applies(GarbageFrames)
async def _send_garbage(strike: Strike, fault: GarbageFrames) -> Bites:
    garbage = strike.world.streams.named(f"liar/{fault.node}").randbytes(4096)
    return await _provoke(strike, fault.node, fault.victim, partial(_send_raw, garbage))


@applies(CborBomb)
async def _send_bombs(strike: Strike, fault: CborBomb) -> Bites:
    bombs = [partial(_send_message, bomb) for bomb in _BOMBS]
    return await _provoke(strike, fault.node, fault.victim, *bombs)


@applies(OversizedMessage)
async def _send_too_much(strike: Strike, fault: OversizedMessage) -> Bites:
    sent = partial(_send_message, bytes(MAX_MESSAGE_BYTES + 1))
    return await _provoke(strike, fault.node, fault.victim, sent)


async def _send_raw(data: bytes, connection: Connection) -> None:
    await connection.stream.send_all(data)


async def _send_message(data: bytes, connection: Connection) -> None:
    await connection.send(data)


async def _provoke(
    strike: Strike,
    liar: str,
    victim: str,
    *provocations: Callable[[Connection], Awaitable[None]],
) -> Bites:
    """Opens a connection for each of `provocations`; bites those on which the victim hung up.
    A victim that does not is a violation."""
    if strike.life(liar) is None or strike.life(victim) is None:
        return nothing
    hung_up = 0
    for provocation in provocations:
        told = await strike.world.on(liar, partial(_told_to_go, strike, liar, victim, provocation))
        if not told and strike.life(victim) is not None and strike.life(liar) is not None:
            strike.world.report(f"{victim} goes on listening to {liar}, which sends nonsense")
        hung_up += told
    return lambda: hung_up


async def _told_to_go(
    strike: Strike,
    liar: str,
    victim: str,
    provocation: Callable[[Connection], Awaitable[None]],
    node: Node,
) -> bool:
    life, other = strike.world.machines[liar].life, strike.world.machines[victim]
    assert life is not None
    links: Any = node.services.links
    terms: Terms = links._links._terms

    async def body(connection: Connection) -> None:
        await provocation(connection)
        while True:
            await connection.receive()

    with trio.move_on_after(_PATIENCE_S) as patience:
        try:
            stream = await life.host.dial(Address(other.ip, 7100))
            await run_connection(stream, "dialler", terms, body)
        except (GossipcacheError, trio.EndOfChannel, OSError):
            pass
    return not patience.cancelled_caught


@applies(BadSignature)
async def _forge_signatures(strike: Strike, fault: BadSignature) -> Bites:
    world = strike.world
    victim = _victim(strike, fault.node, fault.victim)
    if victim is None:
        return nothing
    liar = world.machines[fault.node]
    third = next((name for name in world.up() if name not in (fault.node, fault.victim)), None)
    accusation = gossiping.death(liar, victim)
    if third is not None:
        accusation = gossiping.in_the_name_of(world.machines[third], accusation)
    before = _counted(strike, "gossip_forged")
    await gossiping.gossip(world, liar, (gossiping.readdressed(victim),), (accusation,))
    return lambda: _counted(strike, "gossip_forged") - before


@applies(ForgedSuspicion)
async def _slander(strike: Strike, fault: ForgedSuspicion) -> Bites:
    refuted = _counted(strike, "gossip_refutations", fault.victim)
    for _ in range(fault.times):
        victim = _victim(strike, fault.node, fault.victim)
        if victim is None:
            break
        liar = strike.world.machines[fault.node]
        await gossiping.gossip(strike.world, liar, (), (gossiping.death(liar, victim),))
        await trio.sleep(1.0)
    return lambda: _counted(strike, "gossip_refutations", fault.victim) - refuted


@applies(FalseWitnesses)
async def _call_witnesses(strike: Strike, fault: FalseWitnesses) -> Bites:
    world = strike.world
    victim = _victim(strike, fault.node, fault.victim)
    if victim is None:
        return nothing
    liar = world.machines[fault.node]
    others = [world.machines[n] for n in world.up() if n not in (fault.node, fault.victim)][:2]
    before = _counted(strike, "gossip_forged")
    said = gossiping.death(liar, victim)
    forged = tuple(gossiping.in_the_name_of(other, said) for other in others)
    once_said = tuple(gossiping.death(other, victim, before=True) for other in others)
    await gossiping.gossip(world, liar, (), forged)
    await gossiping.gossip(world, liar, (), once_said)
    return lambda: _counted(strike, "gossip_forged") - before


@applies(ForgedIncarnation)
async def _forge_incarnations(strike: Strike, fault: ForgedIncarnation) -> Bites:
    world = strike.world
    victim = _victim(strike, fault.node, fault.victim)
    me = _victim(strike, fault.node, fault.node)
    if victim is None or me is None:
        return nothing
    liar = world.machines[fault.node]
    record = gossiping.from_the_future(liar.identity, me)
    refuted = _counted(strike, "gossip_refutations", fault.node)
    world.witness.claims(me.node_id.hex(), me.incarnation + gossiping.FAR_AHEAD)
    await gossiping.gossip(world, liar, (record,), (gossiping.death(liar, victim, ahead=True),))
    return lambda: _counted(strike, "gossip_refutations", fault.node) - refuted


def _victim(strike: Strike, liar: str, victim: str) -> Member | None:
    """What the liar knows of its victim; None if one of them is not there."""
    if strike.life(liar) is None or victim not in strike.world.machines:
        return None
    return gossiping.seen_by(strike.world, liar, victim)


def _counted(strike: Strike, metric: str, name: str | None = None) -> int:
    """A counter of one running node, or of all together."""
    names = strike.world.up() if name is None else [name]
    lives = [strike.life(each) for each in names]
    return sum(int(life.node.metrics.value(metric)) for life in lives if life is not None)


@applies(ForgedAnnouncements)
async def _forge_announcements(strike: Strike, fault: ForgedAnnouncements) -> Bites:
    dropped = await forge_announcements(strike.world, fault.node, fault.victim, fault.cid)
    return lambda: dropped


@applies(ReplayedAnnouncement)
async def _replay_announcement(strike: Strike, fault: ReplayedAnnouncement) -> Bites:
    name = fault.node
    dropped = await forge_announcements(strike.world, name, name, fault.cid, only="replayed")
    return lambda: dropped


@applies(ExpiredAnnouncement)
async def _announce_late(strike: Strike, fault: ExpiredAnnouncement) -> Bites:
    name = fault.node
    dropped = await forge_announcements(strike.world, name, name, fault.cid, only="expired")
    return lambda: dropped


@applies(LyingKeeper)
async def _deny_records(strike: Strike, fault: LyingKeeper) -> Bites:
    def deny(_question: ReadRecord) -> RecordAnswer:
        return RecordAnswer(state="absent")

    return _answer_reads(strike, fault.node, fault.for_s, deny)


@applies(SubstitutingKeeper)
async def _substitute_record(strike: Strike, fault: SubstitutingKeeper) -> Bites:
    world, task_id = strike.world, task_id_of(fault.cid, "")
    held = (world.node(name).services.store.find(task_id) for name in world.up())
    stored = next((one for one in held if one is not None), None)
    if stored is None or fault.node not in world.machines:
        return nothing
    other = replace(stored.signed.manifest, digest="blake3:" + 64 * "0")
    signed = sign_manifest(other, world.machines[fault.node].identity)
    entry = RecordEntry(manifests=(signed.signed,))
    world.witness.contested((fault.cid, ""))

    def substitute(question: ReadRecord) -> RecordAnswer | None:
        if question.task_id != task_id:
            return None
        return RecordAnswer(state="held", entry=entry, settled=True)

    return _answer_reads(strike, fault.node, fault.for_s, substitute)


def _answer_reads(
    strike: Strike, name: str, for_s: float, lie: Callable[[ReadRecord], RecordAnswer | None]
) -> Bites:
    """Has a keeper answer reads of others by `lie`, and by the truth where that gives nothing."""
    life = strike.life(name)
    if life is None:
        return nothing
    links: Any = life.node.services.links
    handlers = links._links._handlers._handlers
    honest, lies = handlers.get(ReadRecord), [0]
    if honest is None:
        return nothing

    async def answer(peer: Peer, question: ReadRecord) -> RecordAnswer:
        lied = lie(question)
        lies[0] += lied is not None
        return lied or await honest(peer, question)

    handlers[ReadRecord] = answer

    def repent() -> None:
        handlers[ReadRecord] = honest

    strike.ends(for_s, repent)
    return lambda: lies[0]
