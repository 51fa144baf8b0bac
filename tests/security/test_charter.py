"""Tickets that are old, over or revoked, and charters that are old or forged."""

from __future__ import annotations

from functools import partial

import trio
from msgspec import structs

from gossipcache.charter import RevokedNode, first_charter, sign_charter
from gossipcache.errors import NotPermitted, NotReady
from gossipcache.ids import task_id_of
from gossipcache.manifest import sign_tombstone
from gossipcache.messages.gossip import CharterNews
from gossipcache.messages.records import RecordEntry, RecordWritten, WriteRecord
from gossipcache.node.node import Node
from sim.whole.machine import Machine
from tests.node.cluster import forget
from tests.security.governed import CID, SIZE, Governed, governed

ALL = ["n0", "n1", "n2", "n3"]


async def with_fourth(cluster: Governed) -> Machine:
    """Three honest schedulers, and a fourth that is about to fall from grace."""
    await cluster.start(4)
    fourth = cluster.world.machines[cluster.honest.pop()]
    return fourth


async def restarted(cluster: Governed, name: str) -> None:
    await cluster.world.kill(name)
    await cluster.world.start(name)


def test_a_revoked_node_is_out_at_once_and_stays_out() -> None:
    async def test(cluster: Governed) -> None:
        fourth = await with_fourth(cluster)
        await cluster.world.import_content("n0", CID, SIZE)
        await cluster.world.export(fourth.name, CID)  # so that it has connections
        revoked = RevokedNode(fourth.identity.node_id, cluster.operator.last_serial)
        await cluster.decree("n0", revoked_nodes=(revoked,))
        assert cluster.states(fourth.name) == {"unknown"}
        assert cluster.metric("link_revoked") > 0
        await cluster.until_on_ring(["n0", "n1", "n2"])
        await restarted(cluster, fourth.name)  # with all of its disk
        await trio.sleep(30.0)
        assert cluster.states(fourth.name) == {"unknown"}
        # What was decreed outlives the nodes that heard of it.
        for name in ("n0", "n1", "n2"):
            await restarted(cluster, name)
        await cluster.until_on_ring(["n0", "n1", "n2"])
        assert cluster.numbers() == {1}
        assert cluster.states(fourth.name) == {"unknown"}

    governed(test)


def test_a_ticket_that_is_newer_than_the_revocation_admits_again() -> None:
    async def test(cluster: Governed) -> None:
        fourth = await with_fourth(cluster)
        revoked = RevokedNode(fourth.identity.node_id, cluster.operator.last_serial)
        await cluster.decree("n0", revoked_nodes=(revoked,))
        await cluster.until_on_ring(["n0", "n1", "n2"])
        cluster.operator.give(fourth, cluster.operator.ticket(fourth))
        await restarted(cluster, fourth.name)
        await cluster.until_on_ring(ALL)

    governed(test)


def test_a_revoked_serial_is_no_ticket() -> None:
    async def test(cluster: Governed) -> None:
        fourth = await with_fourth(cluster)
        await cluster.decree("n0", revoked_serials=(cluster.operator.last_serial,))
        await cluster.until_on_ring(["n0", "n1", "n2"])
        assert cluster.states(fourth.name) == {"unknown"}

    governed(test)


def test_an_older_ticket_does_not_give_back_what_a_newer_one_took() -> None:
    async def test(cluster: Governed) -> None:
        fourth = await with_fourth(cluster)
        old = fourth.config.ticket
        newer = cluster.operator.ticket(fourth, ("peer",))
        await cluster.world.on(fourth.name, partial(_show_ticket, newer))
        await cluster.until_on_ring(["n0", "n1", "n2"])
        cluster.operator.give(fourth, old)
        await restarted(cluster, fourth.name)
        await trio.sleep(30.0)
        assert cluster.states(fourth.name) == {"alive"}
        await cluster.until_on_ring(["n0", "n1", "n2"])

    governed(test)


async def _show_ticket(ticket: bytes, node: Node) -> None:
    node.take_ticket(ticket)


def test_a_ticket_ends_when_its_time_is_over_give_or_take_five_minutes() -> None:
    async def test(cluster: Governed) -> None:
        await cluster.start(3)
        fourth = cluster.operator.add_machine()
        cluster.operator.give(fourth, cluster.operator.ticket(fourth, lifetime_s=-250.0))
        await cluster.world.start(fourth.name)
        await cluster.until_on_ring(ALL)
        await trio.sleep(30.0)
        assert {len(ring) for ring in cluster.rings()} == {4}
        await trio.sleep(30.0)
        await cluster.until_on_ring(["n0", "n1", "n2"])
        assert cluster.states(fourth.name) == {"unknown"}

    governed(test, admission="ticket")


def test_a_ticket_for_later_admits_nobody_yet() -> None:
    async def test(cluster: Governed) -> None:
        await cluster.start(3)
        early = cluster.operator.add_machine()
        cluster.operator.give(early, cluster.operator.ticket(early, from_s=3600.0))
        await cluster.world.start(early.name)
        await trio.sleep(20.0)
        assert cluster.states(early.name) == {"unknown"}

    governed(test, admission="ticket")


def test_only_the_operator_writes_charters_and_old_ones_do_not_come_back() -> None:
    async def test(cluster: Governed) -> None:
        liar = await with_fourth(cluster)
        old = await cluster.decree("n0", delete_policy="publisher")
        await cluster.decree("n0", admission="ticket")
        made_up = first_charter(liar.cluster.cluster_id, "secret", "any")
        own = sign_charter(structs.replace(made_up, number=9), liar.identity)
        await cluster.tell(liar.name, CharterNews(charter=own))
        await cluster.tell(liar.name, CharterNews(charter=old))
        await trio.sleep(5.0)
        assert cluster.metric("charters_forged") == len(cluster.honest)
        assert cluster.numbers() == {2}

    governed(test)


# A keeper that is behind.


async def with_peer(cluster: Governed) -> Machine:
    """Three honest schedulers, which keep every task, and a peer that would like to delete."""
    await cluster.start(3)
    peer = cluster.operator.add_machine(("peer",))
    await cluster.world.start(peer.name)
    await cluster.world.wait_until(
        "the peer is a member", lambda: cluster.states(peer.name) == {"alive"}, within_s=30.0
    )
    return peer


async def deletion(cluster: Governed, liar: Machine, number: int) -> WriteRecord:
    record = await cluster.world.on(
        "n1", lambda node: node.services.records.read(task_id_of(CID, ""), timeout_s=10.0)
    )
    assert record is not None
    assert record.manifest is not None
    stone = sign_tombstone(record.manifest, liar.identity, policy_number=number, deleted_at=0)
    return WriteRecord(
        entry=RecordEntry(manifests=(record.manifest.signed,), tombstone=stone.signed)
    )


def test_a_keeper_that_is_behind_fetches_the_charter_before_it_judges() -> None:
    async def test(cluster: Governed) -> None:
        liar = await with_peer(cluster)
        await cluster.world.import_content("n0", CID, SIZE)
        charter = cluster.operator.charter(liar.cluster.cluster_id, delete_policy="publisher")
        for ahead in ("n0", "n1"):  # which have not told it yet
            cluster.world.node(ahead).services.charters.admission.enact(charter)
        assert cluster.numbers() == {0, 1}
        write = await deletion(cluster, liar, 1)
        answer = await cluster.ask(liar.name, "n2", write, RecordWritten)
        assert isinstance(answer, NotPermitted)
        assert cluster.numbers() == {1}

    governed(test)


def test_a_deletion_under_a_charter_that_nobody_has_is_not_judged() -> None:
    async def test(cluster: Governed) -> None:
        liar = await with_peer(cluster)
        await cluster.world.import_content("n0", CID, SIZE)
        write = await deletion(cluster, liar, 7)
        for honest in cluster.honest:
            answer = await cluster.ask(liar.name, honest, write, RecordWritten)
            assert isinstance(answer, NotReady)
        await cluster.world.export("n1", CID)

    governed(test)


def test_what_was_deleted_under_an_earlier_charter_stays_deleted() -> None:
    async def test(cluster: Governed) -> None:
        await cluster.start(4)
        await cluster.world.import_content("n0", CID, SIZE)
        await cluster.world.export("n3", CID)
        await cluster.world.kill("n3")
        await cluster.world.on("n1", lambda node: node.delete(forget(CID)))
        cluster.honest.remove("n3")
        await cluster.decree("n0", delete_policy="publisher")
        await cluster.world.start("n3")
        cluster.honest.append("n3")
        await cluster.world.wait_until(
            "the one that was away has dropped its copy",
            lambda: not cluster.world.node("n3").list_tasks(),
            within_s=60.0,
        )

    governed(test)
