"""Announcements that no keeper may use: each is wrong in one way."""

from __future__ import annotations

from functools import partial

from gossipcache.identity import Identity, Signed
from gossipcache.ids import NodeId, task_id_of
from gossipcache.messages.announcements import Announce, AnnounceReply, DropReason
from gossipcache.node.node import Node
from gossipcache.schedule.announcement import AnnouncementBatch, Held, sign_batch
from sim.kernel.entropy import WALL_EPOCH_S
from sim.whole.world import World

ANSWER_TIMEOUT_S = 5.0
LIFETIME_S = 300
LONG_AGO_S = 7 * 24 * 3600
HIGH_SEQUENCE = 1 << 62


async def forge_announcements(
    world: World, liar: str, victim: str, cid: str, *, only: DropReason | None = None
) -> int:
    """The node on `liar` sends each of the task's keepers one batch of each kind (or of one);
    how many were dropped. One that is not dropped for its own reason is a violation."""
    owner, replicas = await world.owner_of(liar, cid)
    dropped = 0
    for keeper in [name for name in (owner, *replicas) if name != liar]:
        node_id = world.machines[keeper].identity.node_id
        for reason, batch in _forgeries(world, liar, victim, cid):
            if only not in (None, reason):
                continue
            reply = await world.on(liar, partial(_send, node_id, batch))
            dropped += reply.dropped is not None
            if reply.dropped != reason:
                world.report(f"{keeper} judged a batch {reply.dropped} that is {reason}")
    return dropped


async def _send(keeper: NodeId, batch: Signed, node: Node) -> AnnounceReply:
    links = node.services.links
    return await links.request(keeper, Announce(batch=batch), AnnounceReply, ANSWER_TIMEOUT_S)


def _forgeries(world: World, liar: str, victim: str, cid: str) -> list[tuple[DropReason, Signed]]:
    cluster_id = world.machines[liar].cluster.cluster_id
    task_id = task_id_of(cid, "")
    now = int(WALL_EPOCH_S + world.clock.now)
    held = Held(task_id, bytes(32), 1, 1)

    def batch(
        signer: Identity,
        *,
        sequence: int = HIGH_SEQUENCE,
        issued_at: int = now,
        cluster_id: bytes = cluster_id,
        withdraws: bool = False,
    ) -> Signed:
        return sign_batch(
            AnnouncementBatch(
                cluster_id=cluster_id,
                sequence=sequence,
                issued_at=issued_at,
                expires_at=issued_at + LIFETIME_S,
                fresh=False,
                held=() if withdraws else (held,),
                withdrawn=(task_id,) if withdraws else (),
            ),
            signer,
        )

    own, other = world.machines[liar].identity, world.machines[victim].identity
    genuine = batch(other, withdraws=True)
    return [
        ("forged", genuine),  # the victim's own words, in another's mouth
        ("altered", Signed(genuine.payload, own.public_key, genuine.signature)),
        ("replayed", batch(own, sequence=0)),
        ("expired", batch(own, issued_at=now - LONG_AGO_S)),
        ("foreign", batch(own, cluster_id=bytes(len(cluster_id)))),
    ]
