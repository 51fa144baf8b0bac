"""Messages as bytes: one way to write each, and nothing else is read."""

from __future__ import annotations

from typing import Any

import cbor2
import msgspec
import pytest

from gossipcache.errors import ProtocolError
from gossipcache.identity import Signed
from gossipcache.messages.gossip import Accusation, Ack, Gossip, Ping, SyncEntry, SyncOpen
from gossipcache.wire import Message, decode, encode

RECORD = Signed(b"payload", b"k" * 32, b"s" * 64)
ACCUSATION = Accusation(b"n" * 16, 2**60, "suspect", b"m" * 16, b"s" * 64)
PING = Ping(
    cluster_id=b"cluster!",
    sender=b"n" * 16,
    records=(RECORD,),
    accusations=(ACCUSATION,),
    sequence=7,
    target=b"m" * 16,
    incarnation=2**60,
    view=b"12345678",
)
OPEN = SyncOpen(cluster_id=b"cluster!", digest=b"d" * 16, record=RECORD, charter=300)


class Holds(Message, frozen=True, kw_only=True, tag="holds"):
    """Holds a map, whose keys are in no order that its class could tell."""

    later: dict[str, int]
    e: int = 0


MESSAGES: list[msgspec.Struct] = [
    PING, OPEN, RECORD, SyncEntry(b"n" * 16, 5, "dead"), Holds(later={"long": 1, "a": 2}),
]  # fmt: skip


def plain(message: msgspec.Struct) -> Any:
    return msgspec.to_builtins(message, builtin_types=(bytes,))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_is_its_canonical_cbor(message: msgspec.Struct) -> None:
    data = encode(message)
    assert data == cbor2.dumps(plain(message), canonical=True)
    assert decode(data, type(message)) == message


def test_what_has_a_default_may_be_left_out() -> None:
    data = cbor2.dumps({"c": b"cluster!", "q": 1, "s": b"n" * 16, "t": "k"}, canonical=True)
    assert decode(data, Ack) == Ack(cluster_id=b"cluster!", sender=b"n" * 16, sequence=1)


GOSSIP = {"t": "g", "c": b"cluster!", "s": b"n" * 16}
VOID = {
    "keys out of order": cbor2.dumps(GOSSIP),
    "a longer form of a length": cbor2.dumps(GOSSIP, canonical=True).replace(
        b"\x48cluster!", b"\x58\x08cluster!"
    ),
    "an unknown key": cbor2.dumps(GOSSIP | {"z": 1}, canonical=True),
    "no sender": cbor2.dumps({"t": "g", "c": b"cluster!"}, canonical=True),
    "a trailing byte": cbor2.dumps(GOSSIP, canonical=True) + b"\0",
    "text for bytes": cbor2.dumps(GOSSIP | {"s": "bm5ubm5ubm5ubm5ubm5ubg=="}, canonical=True),
}


@pytest.mark.parametrize("what", VOID)
def test_nothing_else_is_read(what: str) -> None:
    with pytest.raises(ProtocolError):
        decode(VOID[what], Gossip)


@pytest.mark.parametrize("sequence", [1.0, True], ids=["a float", "a boolean"])
def test_a_number_is_an_integer(sequence: object) -> None:
    said = {"c": b"cluster!", "q": sequence, "s": b"n" * 16, "t": "k"}
    for canonical in (True, False):
        with pytest.raises(ProtocolError):
            decode(cbor2.dumps(said, canonical=canonical), Ack)
