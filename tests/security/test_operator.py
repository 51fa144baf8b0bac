"""An admitted member that turns bad, in a cluster whose operator gives tickets: what it says and
does takes nothing from others. Nodes are real; time and network are simulated."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from msgspec import structs

from gossipcache.config import Role
from gossipcache.dht.membership.member import Member, Profile, accuse
from gossipcache.errors import Conflict, GossipcacheError, NotPermitted
from gossipcache.identity import Identity, Signed
from gossipcache.ids import Address, task_id_of
from gossipcache.manifest import SignedManifest, SignedTombstone, sign_manifest, sign_tombstone
from gossipcache.messages.gossip import SyncPush, Verdict
from gossipcache.messages.holding import DropTask, TaskDropped
from gossipcache.messages.records import (
    CommitRecord,
    PushRecords,
    RecordEntry,
    RecordsTaken,
    RecordWritten,
    WriteRecord,
)
from sim.whole.machine import Machine
from tests.node.cluster import forget
from tests.security.governed import CID, SIZE, Governed, governed

SCHEDULER: tuple[Role, ...] = ("peer", "scheduler")


async def with_liar(cluster: Governed, roles: tuple[Role, ...] = SCHEDULER) -> Machine:
    """Three honest schedulers, and an admitted member that they all see."""
    await cluster.start(3)
    liar = cluster.operator.add_machine(roles)
    await cluster.world.start(liar.name)
    await cluster.world.wait_until(
        "the liar is a member", lambda: cluster.states(liar.name) == {"alive"}, within_s=30.0
    )
    on_ring = [liar.name] if "scheduler" in roles else []
    await cluster.until_on_ring([*cluster.honest, *on_ring])
    return liar


def seen(cluster: Governed, name: str, by: str = "n1") -> Member:
    member = cluster.world.node(by).services.membership.member(cluster.node_id(name))
    assert member is not None
    return member


def accusation_of(
    liar: Machine, victim: Member, verdict: Verdict, accuser: bytes = b""
) -> SyncPush:
    made = accuse(
        liar.identity, liar.cluster.cluster_id, victim.node_id, victim.incarnation, verdict
    )
    if accuser:
        made = structs.replace(made, accuser=accuser)
    return SyncPush(records=(), accusations=(made,))


# Killing, impersonating, re-addressing.


@pytest.mark.parametrize("verdict", ["suspect", "dead"])
def test_it_kills_nobody_however_often_it_accuses(verdict: Verdict) -> None:
    async def test(cluster: Governed) -> None:
        liar = await with_liar(cluster)
        states: set[str] = set()
        for _ in range(30):
            await cluster.tell(liar.name, accusation_of(liar, seen(cluster, "n0"), verdict))
            for _ in range(5):
                await trio.sleep(0.1)
                states |= cluster.states("n0")
        await trio.sleep(20.0)
        assert "dead" not in states
        assert cluster.states("n0") == {"alive"}

    governed(test)


def test_it_accuses_in_nobody_elses_name() -> None:
    async def test(cluster: Governed) -> None:
        liar = await with_liar(cluster)
        for other in ("n1", "n2"):
            push = accusation_of(liar, seen(cluster, "n0"), "dead", cluster.node_id(other))
            await cluster.tell(liar.name, push)
        await trio.sleep(2.0)
        assert cluster.metric("gossip_forged") >= 2
        assert cluster.states("n0") == {"alive"}

    governed(test)


def test_it_re_addresses_nobody() -> None:
    async def test(cluster: Governed) -> None:
        liar = await with_liar(cluster)
        victim = seen(cluster, "n0")
        profile = Profile(liar.cluster.cluster_id, "n0", Address(liar.ip, 9), victim.roles)
        newer = profile.sign(liar.identity, victim.incarnation + 1, "active").record
        records = (
            Signed(newer.payload, victim.public_key, newer.signature),
            Signed(newer.payload, victim.public_key, victim.record.signature),
            victim.record,
        )
        await cluster.tell(liar.name, SyncPush(records=records, accusations=()))
        await trio.sleep(2.0)
        assert {seen(cluster, "n0", by).address for by in cluster.honest} == {victim.address}
        assert cluster.states("n0") == {"alive"}

    governed(test)


def test_the_ticket_of_another_admits_nobody() -> None:
    async def test(cluster: Governed) -> None:
        await cluster.start(3)
        thief = cluster.operator.add_machine(None)
        cluster.operator.give(thief, cluster.world.machines["n0"].config.ticket)
        await cluster.world.start(thief.name)
        await trio.sleep(20.0)
        assert cluster.states(thief.name) == {"unknown"}
        assert cluster.metric("link_handshake_failed_integrity") > 0

    governed(test)


# Places on the ring.


@pytest.mark.parametrize("roles", [None, ("peer",)])
def test_keys_without_a_scheduler_ticket_stand_on_nobodys_ring(
    roles: tuple[Role, ...] | None,
) -> None:
    async def test(cluster: Governed) -> None:
        await cluster.start(3)
        minted = [cluster.operator.add_machine(roles) for _ in range(3)]
        for machine in minted:
            machine.config = replace(machine.config, roles=frozenset(SCHEDULER))
            await cluster.world.start(machine.name)
        await cluster.world.wait_until(
            "the keys are members",
            lambda: all(cluster.states(machine.name) == {"alive"} for machine in minted),
            within_s=30.0,
        )
        await trio.sleep(20.0)
        await cluster.until_on_ring(cluster.honest)

    governed(test)


def test_where_tickets_are_needed_the_secret_alone_admits_nobody() -> None:
    async def test(cluster: Governed) -> None:
        await cluster.start(3)
        stranger = cluster.operator.add_machine(None)
        await cluster.world.start(stranger.name)
        await trio.sleep(20.0)
        assert cluster.states(stranger.name) == {"unknown"}
        assert cluster.metric("link_handshake_failed_not_permitted") > 0

    governed(test, admission="ticket")


def test_one_that_is_no_scheduler_keeps_no_records_for_others() -> None:
    async def test(cluster: Governed) -> None:
        liar = await with_liar(cluster, ("peer",))
        await cluster.world.import_content("n0", CID, SIZE)
        record = await genuine_record(cluster)
        entry = RecordEntry(manifests=(record.signed,))
        for message in (PushRecords(entries=(entry,)), CommitRecord(entry=entry)):
            answer = await cluster.ask(liar.name, "n0", message, RecordsTaken)
            assert isinstance(answer, NotPermitted)

    governed(test)


def test_keys_that_it_mints_do_not_accuse() -> None:
    async def test(cluster: Governed) -> None:
        liar = await with_liar(cluster)
        minted = [Identity(bytes([number]) * 32) for number in range(1, 6)]
        profile = Profile(liar.cluster.cluster_id, "x", Address(liar.ip, 9), frozenset(("peer",)))
        records = tuple(profile.sign(each, 1, "active").record for each in minted)
        states: set[str] = set()
        for _ in range(20):
            victim = seen(cluster, "n0")
            accusations = tuple(
                accuse(each, liar.cluster.cluster_id, victim.node_id, victim.incarnation, "dead")
                for each in minted
            )
            await cluster.tell(liar.name, SyncPush(records=records, accusations=accusations))
            await trio.sleep(0.2)
            states |= cluster.states("n0")
        assert states == {"alive"}
        assert cluster.metric("members_unadmitted") > 0

    governed(test, admission="ticket")


# Tasks of others.


async def genuine_record(cluster: Governed) -> SignedManifest:
    record = await cluster.world.on(
        "n1", lambda node: node.services.records.read(task_id_of(CID, ""), timeout_s=10.0)
    )
    assert record is not None
    assert record.manifest is not None
    return record.manifest


def test_it_replaces_no_task_of_another() -> None:
    async def test(cluster: Governed) -> None:
        liar = await with_liar(cluster)
        await cluster.world.import_content("n0", CID, SIZE)
        genuine = await genuine_record(cluster)
        for generation in (genuine.manifest.generation, genuine.manifest.generation + 1):
            other = structs.replace(
                genuine.manifest, generation=generation, digest="blake3:" + "0" * 64
            )
            entry = RecordEntry(manifests=(sign_manifest(other, liar.identity).signed,))
            for honest in cluster.honest:
                write = WriteRecord(entry=entry)
                answer = await cluster.ask(liar.name, honest, write, RecordWritten)
                assert isinstance(answer, Conflict) or is_not_keeper(answer)
                for message in (PushRecords(entries=(entry,)), CommitRecord(entry=entry)):
                    await cluster.ask(liar.name, honest, message, RecordsTaken)
        assert (await genuine_record(cluster)).name == genuine.name
        await cluster.world.export("n2", CID)

    governed(test)


def is_not_keeper(answer: object) -> bool:
    return isinstance(answer, RecordWritten) and answer.outcome == "not_keeper"


def tombstones(
    genuine: SignedManifest, liar: Machine, numbers: tuple[int, ...]
) -> list[SignedTombstone]:
    """The liar's deletions of the task: of its true manifest, and of one that the liar signed,
    each under several charters."""
    own = sign_manifest(genuine.manifest, liar.identity)
    return [
        sign_tombstone(dead, liar.identity, policy_number=number, deleted_at=0)
        for dead in (genuine, own)
        for number in numbers
    ]


async def try_to_delete(cluster: Governed, liar: Machine, numbers: tuple[int, ...]) -> None:
    """All ways in which a member could bring its own deletions to keepers and holders."""
    for stone in tombstones(await genuine_record(cluster), liar, numbers):
        entry = RecordEntry(manifests=(stone.manifest.signed,), tombstone=stone.signed)
        drop = DropTask(tombstone=stone.signed, manifest=stone.manifest.signed)
        for honest in cluster.honest:
            for message in (PushRecords(entries=(entry,)), CommitRecord(entry=entry)):
                await cluster.ask(liar.name, honest, message, RecordsTaken)
            answer = await cluster.ask(liar.name, honest, WriteRecord(entry=entry), RecordWritten)
            assert isinstance(answer, GossipcacheError) or is_not_keeper(answer)
            await cluster.ask(liar.name, honest, drop, TaskDropped)
    held = cluster.world.node("n0").list_tasks()
    assert [task.cid for task in held] == [CID]


async def still_there(cluster: Governed, liar: Machine) -> None:
    """The task stands, and the one who would like to delete it may not."""
    assert (await genuine_record(cluster)).publisher == cluster.node_id("n0")
    with pytest.raises(NotPermitted):
        await cluster.world.on(liar.name, lambda node: node.delete(forget(CID)))
    await cluster.world.export("n2", CID)


@pytest.mark.parametrize("roles", [("peer",), SCHEDULER])
def test_it_deletes_nothing_of_others_under_the_publisher_policy(roles: tuple[Role, ...]) -> None:
    async def test(cluster: Governed) -> None:
        liar = await with_liar(cluster, roles)
        await cluster.decree("n0", delete_policy="publisher")
        await cluster.world.import_content("n0", CID, SIZE)
        await cluster.world.wait_until(
            "the liar has heard of it",
            lambda: cluster.world.node(liar.name).services.charters.admission.number == 1,
            within_s=30.0,
        )
        # 0: it acts as if it had not heard of the charter; 7: as if there were another one.
        await try_to_delete(cluster, liar, (0, 1, 7))
        await still_there(cluster, liar)
        await cluster.world.on("n0", lambda node: node.delete(forget(CID)))

    governed(test)


@pytest.mark.parametrize("generation", [1, 2])
def test_what_it_says_to_remember_deletes_nothing_of_others(generation: int) -> None:
    """It tells two new keepers of a deletion that never was, before they hear of the task."""

    async def test(cluster: Governed) -> None:
        liar = await with_liar(cluster, ("peer",))
        await cluster.decree("n0", delete_policy="publisher")
        await cluster.world.import_content("n0", CID, SIZE)
        other = structs.replace((await genuine_record(cluster)).manifest, generation=generation)
        stone = sign_tombstone(
            sign_manifest(other, liar.identity), liar.identity, policy_number=1, deleted_at=0
        )
        cluster.world.node(liar.name).services.store.remember_tombstone(stone)
        for name in ("n1", "n2"):
            await cluster.world.kill(name)
            cluster.world.wipe(name)
        for name in ("n1", "n2"):
            await cluster.world.start(name)
        await cluster.until_on_ring(cluster.honest)
        await trio.sleep(20.0)
        assert (await genuine_record(cluster)).publisher == cluster.node_id("n0")
        await cluster.world.export("n2", CID)

    governed(test)
