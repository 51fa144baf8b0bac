"""Gossip of admitted nodes that lie: sealed with the cluster's secret, in order but untrue."""

from __future__ import annotations

import msgspec

from gossipcache.dht.membership.member import COUNTER_BITS, Member, accuse
from gossipcache.identity import Identity, Signed
from gossipcache.ids import Address
from gossipcache.messages.gossip import MEMBER_DOMAIN, Accusation, Gossip, MemberRecord
from gossipcache.wire import decode, encode
from sim.whole.machine import Machine
from sim.whole.world import World

FAR_AHEAD = 1000 << COUNTER_BITS
"""So many incarnations are 1,000 seconds of boot epochs."""


async def gossip(
    world: World,
    liar: Machine,
    records: tuple[Signed, ...] = (),
    accusations: tuple[Accusation, ...] = (),
) -> int:
    """Sends `records` and `accusations` from `liar` to every other node; how many were sent."""
    life, listen = liar.life, liar.config.listen
    assert life is not None
    assert listen is not None
    port = life.host.ports.get(listen.port)
    if port is None:
        return 0
    message = Gossip(
        cluster_id=liar.cluster.cluster_id,
        sender=liar.identity.node_id,
        records=records,
        accusations=accusations,
    )
    others = [machine for machine in world.machines.values() if machine is not liar]
    for other in others:
        sealed = liar.cluster.seal(encode(message), liar.rng.randbytes)
        try:
            port.datagrams.send_to(sealed, Address(other.ip, listen.port))
        except OSError:
            pass  # that one is down
    return len(others)


def seen_by(world: World, viewer: str, subject: str) -> Member | None:
    """What a node knows of another one."""
    membership = world.node(viewer).services.membership
    return membership.member(world.machines[subject].identity.node_id)


def death(
    liar: Machine, victim: Member, *, ahead: bool = False, before: bool = False
) -> Accusation:
    """`liar` swears that `victim` is dead: at the incarnation it has, at one far ahead, or at
    the one `before`."""
    incarnation = victim.incarnation + (FAR_AHEAD if ahead else 0) - before
    return accuse(liar.identity, liar.cluster.cluster_id, victim.node_id, incarnation, "dead")


def in_the_name_of(accuser: Machine, accusation: Accusation) -> Accusation:
    """The same words under the same signature, in the mouth of another."""
    return Accusation(
        accusation.subject,
        accusation.incarnation,
        accusation.verdict,
        accuser.identity.node_id,
        accusation.signature,
    )


def readdressed(victim: Member) -> Signed:
    """A newer record of `victim` with another address, under the signature of the old one."""
    payload = decode(victim.record.payload, MemberRecord)
    payload = msgspec.structs.replace(payload, incarnation=payload.incarnation + 1, host="10.7.7.7")
    return Signed(encode(payload), victim.record.key, victim.record.signature)


def from_the_future(identity: Identity, me: Member) -> Signed:
    """A liar's own record, at an incarnation far ahead."""
    payload = decode(me.record.payload, MemberRecord)
    payload = msgspec.structs.replace(payload, incarnation=payload.incarnation + FAR_AHEAD)
    return identity.sign(MEMBER_DOMAIN, encode(payload))
