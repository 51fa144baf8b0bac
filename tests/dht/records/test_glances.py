"""Two keepers find out by datagrams whether they have the same."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, cast

import msgspec
import pytest
import trio
from trio.testing import MockClock

from gossipcache.charter import Deletion
from gossipcache.cluster import LOOPBACK
from gossipcache.config import RecordConfig
from gossipcache.dht.records.glances import TIMEOUT_S, Glances
from gossipcache.dht.records.replication import ReplicationCore
from gossipcache.dht.records.standing import standing_manifest
from gossipcache.dht.ring import Ring
from gossipcache.env import Env
from gossipcache.ids import NodeId
from gossipcache.messages.glances import AskGlance, Glance
from gossipcache.wire import Message
from tests.dht.records.harness import EPOCH_S, identity, manifest

NUMBERS = (1, 2, 3)
RING = Ring(identity(number).node_id for number in NUMBERS)


class Air:
    """Carries all whispers at once; `alter` may change what is said, or swallow it."""

    def __init__(self) -> None:
        self.hearers: dict[NodeId, dict[type, Callable[[Any], None]]] = {}
        self.said: list[tuple[NodeId, Message]] = []
        self.alter: Callable[[Message], Message | None] = lambda message: message

    def say(self, node: NodeId, message: Message) -> None:
        altered = self.alter(message)
        if altered is not None:
            self.said.append((node, altered))
            self.hearers[node][type(altered)](altered)


class Keeper:
    """One keeper's glances, with itself as its whispers, its graves and its recall."""

    def __init__(self, air: Air, number: int, ring: Ring = RING) -> None:
        self.air = air
        self.me = identity(number)
        self.node_id = self.me.node_id
        air.hearers[self.node_id] = {}
        nothing: Any = None
        rng = random.Random(number)
        env = Env(nothing, nothing, nothing, lambda: EPOCH_S, rng.randbytes, rng)
        self.core = ReplicationCore(self.node_id, ring, RecordConfig(), Deletion, 0.0)
        self.glances = Glances(env, self.me, LOOPBACK, self)
        self.remembered, self.asked = 0, 0
        self.glances.look_at(self.core, cast(Any, self), cast(Any, self))

    @property
    def sum(self) -> int:
        """What it remembers of deletions, as `Graves` tells it."""
        return self.remembered

    def has_asked(self, _node: NodeId, graves: int) -> bool:
        """As `Recall` knows it."""
        return graves == self.asked

    def whisper(self, node: NodeId, message: Message) -> None:
        self.air.say(node, message)

    def hear(self, kind: type, handler: Callable[[Any], None]) -> None:
        self.air.hearers[self.node_id][kind] = handler

    def scheduler_key(self, node: NodeId) -> bytes | None:
        keys = {identity(number).node_id: identity(number).public_key for number in NUMBERS}
        return keys.get(node)

    def hold(self, cid: str) -> None:
        self.core.absorb(standing_manifest(manifest(cid)), EPOCH_S)
        self.count(self.core.ring)

    def count(self, ring: Ring) -> None:
        for _ in self.core.views.fill(self.core.views.on(ring)):
            pass

    async def count_shared(self, node: NodeId) -> None:
        """As `Exchange` does it."""
        self.count(self.core.ring_with(node))

    def waits_for(self, other: Keeper) -> bool:
        return other.node_id in self.core.settling.waiting()


def two() -> tuple[Air, Keeper, Keeper]:
    air = Air()
    return air, Keeper(air, 1), Keeper(air, 2)


async def test_three_datagrams_settle_both(autojump_clock: MockClock) -> None:
    air, one, other = two()
    assert await one.glances.has_same(other.node_id)
    assert not one.waits_for(other)
    assert not other.waits_for(one)
    assert [type(message) for _, message in air.said] == [AskGlance, Glance, Glance]


async def test_who_waits_for_nothing_asks_for_no_confirmation(autojump_clock: MockClock) -> None:
    air, one, other = two()
    other.core.settling.give_up()
    assert await one.glances.has_same(other.node_id)
    assert not one.waits_for(other)
    assert [type(message) for _, message in air.said] == [AskGlance, Glance]


async def test_equal_entries_are_seen_and_different_ones_too(autojump_clock: MockClock) -> None:
    _, one, other = two()
    one.hold("a")
    assert not await one.glances.has_same(other.node_id)
    assert one.waits_for(other)
    assert other.waits_for(one)
    other.hold("a")
    assert await one.glances.has_same(other.node_id)
    assert not other.waits_for(one)


async def test_who_remembers_deletions_is_asked_for_them_first(
    autojump_clock: MockClock,
) -> None:
    _, one, other = two()
    other.remembered = 7
    assert not await one.glances.has_same(other.node_id)
    assert one.waits_for(other)
    one.asked = 7
    assert await one.glances.has_same(other.node_id)
    assert not other.waits_for(one)


async def test_a_lost_question_is_asked_again_and_a_mute_keeper_left_alone(
    autojump_clock: MockClock,
) -> None:
    air, one, other = two()
    lost: list[Message] = []

    def lose_first(message: Message) -> Message | None:
        lost.append(message)
        return None if len(lost) == 1 else message

    air.alter = lose_first
    assert await one.glances.has_same(other.node_id)
    air.alter = lambda _message: None
    assert await one.glances.has_same(other.node_id) is None
    assert await one.glances.has_same(other.node_id) is False
    assert trio.current_time() < 2


async def test_a_late_answer_counts_and_the_next_one_is_waited_for(
    autojump_clock: MockClock,
) -> None:
    air, one, other = two()
    on_the_way: list[Message] = []
    late_s = 1.0

    def delay(message: Message) -> Message | None:
        if isinstance(message, Glance) and message.nonce is not None:
            on_the_way.append(message)
            return None
        return message

    async def deliver() -> None:
        while True:
            await trio.sleep(0.05)
            while on_the_way:
                answer = on_the_way.pop(0)
                nursery.start_soon(arrive, answer)

    async def arrive(answer: Message) -> None:
        await trio.sleep(late_s)
        air.hearers[one.node_id][type(answer)](answer)

    air.alter = delay
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliver)
        assert await one.glances.has_same(other.node_id) is None
        await trio.sleep(late_s)
        assert not one.waits_for(other)
        assert not other.waits_for(one)
        assert await one.glances.has_same(other.node_id)
        nursery.cancel_scope.cancel()


async def test_what_a_newcomer_shares_is_counted_before_it_is_answered(
    autojump_clock: MockClock,
) -> None:
    air = Air()
    before = Ring(identity(number).node_id for number in (1, 2))
    keeper, newcomer = Keeper(air, 1, before), Keeper(air, 3, before)
    keeper.hold("a")
    newcomer.hold("a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.glances.answer_late, keeper.count_shared)
        assert await newcomer.glances.has_same(keeper.node_id)
        assert trio.current_time() < TIMEOUT_S
        nursery.cancel_scope.cancel()
    assert not newcomer.waits_for(keeper)
    assert newcomer.node_id in keeper.core.settling.expects(0.0)


@pytest.mark.parametrize(
    "change",
    [
        {"sender": identity(3).node_id},
        {"signature": bytes(64)},
        {"epoch": bytes(16)},
        {"echo": bytes(16)},
    ],
    ids=["another's name", "no signature", "another ring", "another's number"],
)
async def test_nobody_speaks_for_another(autojump_clock: MockClock, change: dict[str, Any]) -> None:
    air, one, other = two()

    def forge(message: Message) -> Message:
        return (
            msgspec.structs.replace(message, **change) if isinstance(message, Glance) else message
        )

    air.alter = forge
    assert not await one.glances.has_same(other.node_id)
    assert one.waits_for(other)
    assert other.waits_for(one)


async def test_what_was_said_before_counts_for_nothing(autojump_clock: MockClock) -> None:
    air, one, other = two()
    await one.glances.has_same(other.node_id)
    spoken = [(node, message) for node, message in air.said if isinstance(message, Glance)]
    for keeper in (one, other):
        ring = keeper.core.ring
        keeper.core.set_ring(ring.with_members([keeper.node_id]), 1.0)
        keeper.core.set_ring(ring, 2.0)
    for node, message in spoken:
        air.say(node, message)
    assert one.waits_for(other)
    assert other.waits_for(one)


async def test_who_is_no_scheduler_is_told_nothing(autojump_clock: MockClock) -> None:
    air, one, _ = two()
    air.say(one.node_id, AskGlance(sender=identity(9).node_id, nonce=bytes(16)))
    assert len(air.said) == 1
