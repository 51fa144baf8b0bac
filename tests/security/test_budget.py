"""A member that sends void signatures, to keep others busy, is soon not listened to."""

from __future__ import annotations

from functools import partial

import trio

from gossipcache.budget import BURST_CHECKS, CHECKS_PER_S, VOID_COST
from gossipcache.dht.membership.effects import SendDatagram
from gossipcache.errors import Busy
from gossipcache.identity import Signed
from gossipcache.ids import Address
from gossipcache.messages.gossip import Gossip, LinkPing, LinkPong, SyncPush
from gossipcache.messages.records import PushRecords, RecordEntry, RecordsTaken
from gossipcache.node.node import Node
from sim.whole.machine import Machine
from sim.whole.world import PORT
from tests.security.governed import CID, SIZE, Governed, governed

VOIDS = BURST_CHECKS // VOID_COST
"""How many void signatures empty a purse."""


async def with_liar(cluster: Governed) -> Machine:
    await cluster.start(3)
    liar = cluster.operator.add_machine()
    await cluster.world.start(liar.name)
    await cluster.until_on_ring([*cluster.honest, liar.name])
    return liar


def void(liar: Machine, count: int, start: int = 0) -> tuple[Signed, ...]:
    """Statements of any kind, each another one, with a signature of nothing."""
    key = liar.identity.public_key
    return tuple(Signed(b"%d" % (start + number), key, bytes(64)) for number in range(count))


async def send(datagram: SendDatagram, node: Node) -> None:
    node.services.membership._act([datagram])
    await trio.sleep(0.001)


def test_void_records_are_soon_not_looked_at() -> None:
    async def test(cluster: Governed) -> None:
        liar = await with_liar(cluster)
        before = cluster.metric("gossip_forged")
        for page in range(20):
            push = SyncPush(records=void(liar, 100, 100 * page), accusations=())
            await cluster.tell(liar.name, push, ["n0"])
        assert isinstance(await cluster.ask(liar.name, "n0", LinkPing(), LinkPong), Busy)
        checked = cluster.metric("gossip_forged") - before
        assert VOIDS <= checked < VOIDS + 2 * CHECKS_PER_S / VOID_COST
        # Others are heard, and so is the liar once it has kept quiet for long enough.
        assert isinstance(await cluster.ask("n1", "n0", LinkPing(), LinkPong), LinkPong)
        await trio.sleep(20.0)
        assert isinstance(await cluster.ask(liar.name, "n0", LinkPing(), LinkPong), LinkPong)
        await cluster.until_on_ring([*cluster.honest, liar.name])

    governed(test)


def test_the_same_goes_for_datagrams() -> None:
    async def test(cluster: Governed) -> None:
        liar = await with_liar(cluster)
        before = cluster.metric("gossip_forged")
        for page in range(VOIDS):
            gossip = Gossip(
                cluster_id=liar.cluster.cluster_id,
                sender=liar.identity.node_id,
                records=void(liar, 3, 3 * page),
            )
            datagram = SendDatagram(Address(cluster.world.machines["n0"].ip, PORT), gossip)
            await cluster.world.on(liar.name, partial(send, datagram))
        await trio.sleep(0.5)
        checked = cluster.metric("gossip_forged") - before
        assert VOIDS <= checked < 2 * VOIDS
        assert cluster.metric("gossip_unchecked") > 0
        await trio.sleep(20.0)
        await cluster.until_on_ring([*cluster.honest, liar.name])

    governed(test)


def test_void_entries_of_records_are_paid_for_as_well() -> None:
    async def test(cluster: Governed) -> None:
        liar = await with_liar(cluster)
        await cluster.world.import_content("n0", CID, SIZE)
        entries = tuple(RecordEntry(manifests=(one,)) for one in void(liar, 60))
        for _ in range(VOIDS // 60 + 1):
            await cluster.ask(liar.name, "n1", PushRecords(entries=entries), RecordsTaken)
        answer = await cluster.ask(liar.name, "n1", PushRecords(entries=entries), RecordsTaken)
        assert isinstance(answer, Busy)
        await cluster.world.export("n2", CID)

    governed(test)
