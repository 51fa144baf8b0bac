"""Contract: the length of a message by rule is that of its encoding."""

from __future__ import annotations

import random
from typing import Any

import pytest
from msgspec import Struct

from gossipcache.identity import Signed
from gossipcache.messages import gossip, records
from gossipcache.wire import Message, encode
from sim.bare.length import length_of

SIGNED = Signed(bytes(100), bytes(32), bytes(64))
ACCUSED = gossip.Accusation(bytes(16), 2**62, "suspect", bytes(16), bytes(64))
NEWS: dict[str, Any] = {"cluster_id": bytes(8), "sender": bytes(16)}
TARGET: dict[str, Any] = {"target": bytes(16)}
PROBE: dict[str, Any] = {"incarnation": 1, "view": bytes(8)}

MESSAGES = [
    gossip.Gossip(**NEWS),
    gossip.Gossip(**NEWS, records=(SIGNED,) * 30, accusations=(ACCUSED,) * 24),
    gossip.Ping(**NEWS, **TARGET, **PROBE, sequence=0),
    gossip.Ping(**NEWS, **TARGET, **PROBE, sequence=2**32 - 1, records=(SIGNED,)),
    gossip.PingRequest(**NEWS, **TARGET, sequence=24),
    gossip.Ack(**NEWS, sequence=255, differs=True),
    gossip.Nack(**NEWS, sequence=256),
    gossip.LinkPing(),
    gossip.LinkPong(),
    gossip.SyncOpen(cluster_id=bytes(8), digest=bytes(16), record=SIGNED),
    gossip.SyncOpened(equal=True, record=Signed(bytes(23), bytes(32), bytes(64))),
    gossip.SyncRange(
        start=b"", end=bytes(16), entries=(gossip.SyncEntry(bytes(16), 2**40, "alive"),) * 300
    ),
    gossip.SyncDiff(
        until=bytes(16), records=(SIGNED,), accusations=(ACCUSED,), wanted=(bytes(16),) * 70
    ),
    gossip.SyncPush(records=(SIGNED,) * 2, accusations=()),
    gossip.AskCharter(),
    gossip.CharterHeld(charter=None),
    gossip.CharterHeld(charter=SIGNED),
    gossip.CharterNews(charter=SIGNED),
]

ENTRY = records.RecordEntry(manifests=(SIGNED,))
OTHERS = [
    records.ReadRecord(task_id=bytes(32)),
    records.RecordAnswer(state="held", entry=ENTRY, settled=True),
    records.RecordAnswer(state="not_keeper", keepers=(bytes(16),) * 3),
    records.RecordAnswer(state="held", entry=ENTRY, introductions=(SIGNED,) * 3),
    records.CompareShared(epoch=bytes(16), digest=bytes(16), graves=300),
    records.SharedCompared(epoch=bytes(16), equal=False, graves=0, recovering_ms=10_000),
    records.PushRecords(entries=(ENTRY,) * 30),
    records.RecordsTaken(count=30),
]


@pytest.mark.parametrize(
    "message", [*MESSAGES, *OTHERS], ids=lambda message: type(message).__name__
)
def test_the_rule_gives_the_encodings_length(message: Struct) -> None:
    assert length_of(message) == len(encode(message))


def test_every_message_of_the_membership_is_held_to_its_rule() -> None:
    kinds = {kind for kind in vars(gossip).values() if isinstance(kind, type)}
    messages = {kind for kind in kinds if issubclass(kind, Message)} - {Message}
    assert {type(message) for message in MESSAGES} == messages


def test_integers_of_every_size() -> None:
    rng = random.Random(1)
    for bits in range(64):
        ping = gossip.Ping(
            **NEWS, **TARGET, sequence=0, view=bytes(8), incarnation=rng.getrandbits(bits)
        )
        assert length_of(ping) == len(encode(ping))
