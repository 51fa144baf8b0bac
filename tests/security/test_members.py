"""An admitted member that turns bad: its lies are dropped and counted, nobody stops or follows."""

from __future__ import annotations

import socket
import time

import pytest
import trio

from gossipcache.cluster import LOOPBACK
from gossipcache.errors import NotReady
from gossipcache.identity import Identity, Signed
from gossipcache.ids import Address, task_id_of
from gossipcache.messages.announcements import Announce, AnnounceReply, Heartbeat, HeartbeatReply
from gossipcache.messages.gossip import SyncPush
from gossipcache.schedule.announcement import (
    MAX_STATEMENT_BYTES,
    AnnouncementBatch,
    Held,
    LeaseHeartbeat,
    sign_batch,
    sign_heartbeat,
)
from tests.processes.cluster import LIMIT_S
from tests.security.attacker import gossip, join, linked, member_record, shoot
from tests.security.conftest import Target

TASK = task_id_of("precious", "")
HOSTS = ["", "\0", "127.0.0.1\0", "..", "x" * 45, "é" * 20, "nonexistent.invalid", "fe80::1%lo"]


def key(number: int) -> Identity:
    return Identity(number.to_bytes(32, "big"))


@pytest.mark.parametrize("host", HOSTS)
def test_a_member_at_an_impossible_address_stops_nobody(target: Target, host: str) -> None:
    liar = key(1)
    record = member_record(liar, Address(host, 1))
    before = target.victim.metric("gossip_forged")

    async def push() -> None:
        async with linked(liar, target.victim) as (pool, victim):
            await pool.notify(victim, SyncPush(records=(record,), accusations=()))
            # Requests and notices of one link are taken in order.
            with pytest.raises(NotReady):
                await pool.request(victim, Announce(batch=announced(liar, 1)), AnnounceReply, 5.0)

    shoot(target.victim, gossip(liar, record))
    trio.run(push)
    assert target.victim.metric("gossip_forged") == before + 2
    target.victim.expect_members(2)


def test_a_name_that_drives_a_terminal_is_refused(target: Target) -> None:
    liar = key(2)
    before = target.victim.metric("gossip_forged")
    for name in ("\x1b[2J", "two\nlines", "\u202e"):
        shoot(target.victim, gossip(liar, member_record(liar, Address("127.0.0.1", 9), name)))
    assert target.victim.metric("gossip_forged") == before + 3
    target.victim.expect_members(2)


def announced(
    signer: Identity,
    sequence: int,
    *,
    cluster_id: bytes = LOOPBACK.cluster_id,
    age_s: int = 0,
) -> Signed:
    now = int(time.time()) - age_s
    held = Held(TASK, bytes(32), 1, 1)
    batch = AnnouncementBatch(
        cluster_id=cluster_id, sequence=sequence, issued_at=now, expires_at=now + 60,
        fresh=False, held=(held,), withdrawn=(),
    )  # fmt: skip
    return sign_batch(batch, signer)


def altered(signed: Signed) -> Signed:
    return Signed(signed.payload[:-1] + b"\x00", signed.key, signed.signature)


def test_bad_announcements_are_dropped_and_counted(target: Target) -> None:
    liar = key(3)
    bad = {
        "forged": announced(key(4), 10),
        "altered": altered(announced(liar, 10)),
        "replayed": announced(liar, 5),
        "expired": announced(liar, 10, age_s=7200),
        "foreign": announced(liar, 10, cluster_id=b"another!"),
        "oversized": Signed(bytes(MAX_STATEMENT_BYTES + 1), liar.public_key, bytes(64)),
    }
    before = {reason: target.victim.metric(f"announcements_dropped_{reason}") for reason in bad}

    async def attack() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
            mute.bind(("127.0.0.1", 0))
            async with linked(liar, target.victim) as (pool, victim):
                await join(pool, victim, liar, Address(*mute.getsockname()))
                good = await pool.request(
                    victim, Announce(batch=announced(liar, 5)), AnnounceReply, LIMIT_S
                )
                assert good.dropped is None
                for reason, signed in bad.items():
                    reply = await pool.request(
                        victim, Announce(batch=signed), AnnounceReply, LIMIT_S
                    )
                    assert reply.dropped == reason
                beat = LeaseHeartbeat(
                    cluster_id=LOOPBACK.cluster_id, sequence=5, issued_at=int(time.time()),
                    expires_at=int(time.time()) + 60, entries=1, set_digest=bytes(16),
                )  # fmt: skip
                replayed = await pool.request(
                    victim, Heartbeat(statement=sign_heartbeat(beat, liar)), HeartbeatReply, LIMIT_S
                )
                assert replayed.dropped == "replayed"

    trio.run(attack)
    for reason in bad:
        count = target.victim.metric(f"announcements_dropped_{reason}") - before[reason]
        assert count == (2 if reason == "replayed" else 1)
    # It announced another manifest than the record's, so it is no holder in anyone's eyes.
    holders = {holder["node"] for holder in target.friend.stat("precious")["holders"]}
    assert liar.node_id.hex() not in holders
