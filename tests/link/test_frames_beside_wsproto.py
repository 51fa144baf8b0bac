"""What the scanner makes of a connection is what wsproto makes of it, however it is cut."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import cbor2
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong
from wsproto.utilities import RemoteProtocolError

from gossipcache.link.bulk import message_frame
from gossipcache.link.frames import Forward, FrameError, FrameLimits, FrameScanner
from tests.link.test_frames import OPENING, scan

PIECE_BYTES = 70_000
Step = tuple[str, bytes | list[bytes]]
parts = st.lists(st.binary(max_size=200), min_size=1, max_size=5)
small = st.binary(max_size=100)
step = st.one_of(
    st.tuples(st.just("message"), parts),
    st.tuples(st.just("ping"), small),
    st.tuples(st.just("pong"), small),
    st.tuples(st.just("piece"), small),
)


def piece_message(number: int, seed: bytes) -> bytes:
    message: bytes = cbor2.dumps(["piece", number, random.Random(seed).randbytes(PIECE_BYTES)])
    return message


def sent_by_wsproto(steps: Sequence[Step], pings_between: bool) -> bytes:
    """The server's bytes: messages in fragments, with control frames between the fragments."""
    server, sent = Connection(ConnectionType.SERVER), bytearray()
    for number, (kind, content) in enumerate(steps):
        if isinstance(content, list):
            for place, part in enumerate(content):
                last = place == len(content) - 1
                sent += server.send(BytesMessage(part, message_finished=last))
                if pings_between:
                    sent += server.send(Ping(b"between"))
        elif kind == "piece":
            sent += server.send(BytesMessage(piece_message(number, content)))
        else:
            sent += server.send(Ping(content) if kind == "ping" else Pong(content))
    return bytes(sent + server.send(CloseConnection(1000, "done")))


def read_by_wsproto(data: bytes) -> list[tuple[str, bytes]]:
    """What a client takes from `data`, whole messages at once."""
    client, read = Connection(ConnectionType.CLIENT), []
    client.receive_data(data)
    message = b""
    for event in client.events():
        if isinstance(event, BytesMessage):
            message += bytes(event.data)
            if event.message_finished:
                read.append(("message", message))
                message = b""
        else:
            read.append(described(event))
    return read


def described(event: Event) -> tuple[str, bytes]:
    if isinstance(event, CloseConnection):
        return "close", (event.reason or "").encode()
    assert isinstance(event, Ping | Pong)
    return type(event).__name__.lower(), bytes(event.payload)


def opened(limits: FrameLimits) -> FrameScanner:
    scanner = FrameScanner(pieces=True, masked=False, limits=limits)
    scanner.feed(OPENING)
    assert scanner.next_event(0.0) == Forward(OPENING)
    return scanner


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(
    st.lists(step, max_size=6),
    st.lists(st.integers(0, 2**20), max_size=40),
    st.booleans(),
)
def test_messages_pieces_and_control_frames_are_those_that_wsproto_reads(
    steps: list[Step], places: list[int], pings_between: bool
) -> None:
    data = sent_by_wsproto(steps, pings_between)
    scanned = scan(opened(FrameLimits()), cut(data, places))
    whole = read_by_wsproto(data)
    messages = [content for kind, content in whole if kind == "message"]
    assert scanned.messages == [one for one in messages if len(one) < PIECE_BYTES]
    pieces = [cbor2.dumps(["piece", number, body]) for number, _, body in scanned.pieces]
    assert pieces == [one for one in messages if len(one) >= PIECE_BYTES]
    controls = [one for one in whole if one[0] != "message"]
    assert read_by_wsproto(bytes(scanned.forwarded)) == controls


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=8))
def test_noise_is_refused_or_read_as_wsproto_reads_it(noise: bytes, places: list[int]) -> None:
    try:
        scanned = scan(opened(FrameLimits()), cut(noise, places))
    except FrameError:
        return
    try:
        whole = read_by_wsproto(noise)
    except RemoteProtocolError:  # in a control frame, which the library judges
        return
    if not any(kind == "close" for kind, _ in whole):  # as it also calls what it refuses
        assert scanned.messages == [content for kind, content in whole if kind == "message"]
        controls = [one for one in whole if one[0] != "message"]
        assert read_by_wsproto(bytes(scanned.forwarded)) == controls
    assert not scanned.pieces


@given(st.lists(step, min_size=1, max_size=4), st.data())
def test_a_changed_byte_never_makes_more_of_a_stream(
    steps: list[Step], data: st.DataObject
) -> None:
    sent = bytearray(sent_by_wsproto(steps, pings_between=False))
    place = data.draw(st.integers(0, len(sent) - 1))
    sent[place] ^= data.draw(st.integers(1, 255))
    try:
        scanned = scan(opened(FrameLimits()), [bytes(sent)])
    except FrameError:
        return
    bodies = [body for _, _, body in scanned.pieces]
    assert len(b"".join([scanned.forwarded, *scanned.messages, *bodies])) <= len(sent)


@given(
    st.one_of(small, st.just(bytes(126)), st.just(b"long" * 20_000)),
    st.binary(min_size=4, max_size=4),
)
def test_wsproto_reads_our_frames(message: bytes, mask: bytes) -> None:
    for side, frame in (
        (ConnectionType.CLIENT, message_frame(message)),
        (ConnectionType.SERVER, message_frame(message, mask)),
    ):
        reader = Connection(side)
        reader.receive_data(frame)
        parts = [event for event in reader.events() if isinstance(event, BytesMessage)]
        assert b"".join(bytes(part.data) for part in parts) == message
        assert parts[-1].message_finished
