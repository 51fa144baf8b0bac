from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipcache.link.bulk import frame_header
from gossipcache.link.frames import (
    Forward,
    FrameError,
    FrameLimits,
    FrameScanner,
    MessageReceived,
    PieceBegins,
    mask_over,
)
from gossipcache.link.piece import parse_piece_prefix, piece_prefix
from gossipcache.wire import MAX_MESSAGE_BYTES

OPENING = b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n"
LIMIT = MAX_MESSAGE_BYTES


def frame(payload: bytes, first: int = 0x82, mask: bytes = b"") -> bytes:
    header = bytearray(frame_header(len(payload)))
    header[0] = first
    if mask:
        header[1] |= 0x80
    return bytes(header) + mask + (mask_over(payload, mask) if mask else payload)


def piece(request_id: int, data: bytes) -> bytes:
    return frame(cbor2.dumps(["piece", request_id, data]))


def scanner(*, pieces: bool = True, masked: bool = False) -> FrameScanner:
    found = FrameScanner(pieces=pieces, masked=masked, limits=FrameLimits())
    found.feed(OPENING)
    assert found.next_event(0.0) == Forward(OPENING)
    return found


@dataclass
class Scanned:
    forwarded: bytearray = field(default_factory=bytearray)
    messages: list[bytes] = field(default_factory=list)
    pieces: list[tuple[int, int, bytes]] = field(default_factory=list)
    """Each as (id, messages before it, its bytes)."""


def scan(found: FrameScanner, chunks: list[bytes]) -> Scanned:
    """All that comes of `chunks`."""
    scanned, body, head = Scanned(), bytearray(), None
    for chunk in chunks:
        found.feed(chunk)
        while True:
            if found.body_left:
                body += found.take_body()
                if found.body_left:
                    break
            if head is not None:
                scanned.pieces.append((head.request_id, len(scanned.messages), bytes(body)))
                head = None
                body.clear()
            event = found.next_event(0.0)
            if event is None:
                break
            match event:
                case Forward(data):
                    scanned.forwarded += data
                case MessageReceived(data):
                    scanned.messages.append(data)
                case PieceBegins():
                    head = event
    return scanned


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in at}), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(
    st.lists(st.binary(max_size=300), max_size=8),
    st.lists(st.integers(0, 2**20), max_size=30),
    st.integers(1, 2**40),
)
def test_however_the_bytes_are_cut_messages_and_pieces_are_found(
    messages: list[bytes], places: list[int], request_id: int
) -> None:
    body, ping = bytes(range(256)) * 265, frame(b"ping", 0x89)
    before = b"".join(frame(message) for message in messages)
    after = frame(b"a", 0x02) + ping + frame(b"b", 0x80)
    scanned = scan(scanner(), cut(before + piece(request_id, body) + after, places))
    assert scanned.messages == [*messages, b"ab"]
    assert scanned.forwarded == ping
    assert scanned.pieces == [(request_id, len(messages), body)]


@given(
    st.lists(st.binary(max_size=300), max_size=8),
    st.lists(st.integers(0, 2**12), max_size=30),
    st.binary(min_size=4, max_size=4),
)
def test_masks_are_taken_off_messages_and_left_on_what_is_passed_on(
    messages: list[bytes], places: list[int], mask: bytes
) -> None:
    ping = frame(b"ping", 0x89, mask)
    sent = b"".join(frame(message, mask=mask) + ping for message in messages)
    scanned = scan(scanner(masked=True), cut(sent, places))
    assert scanned.messages == messages
    assert scanned.forwarded == ping * len(messages)


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**20))
def test_the_prefix_is_what_any_cbor_library_writes(request_id: int, size: int) -> None:
    prefix = piece_prefix(request_id, size)
    assert prefix + bytes(size) == cbor2.dumps(["piece", request_id, bytes(size)])
    assert parse_piece_prefix(prefix) == (request_id, size, len(prefix))
    assert all(parse_piece_prefix(prefix[:count]) is None for count in range(len(prefix)))


@given(st.binary(max_size=30))
def test_a_prefix_is_canonical_or_refused(data: bytes) -> None:
    try:
        found = parse_piece_prefix(b"\x83\x65piece" + data)
    except ValueError:
        return
    if found is not None:
        canonical = piece_prefix(found.request_id, found.size)
        assert canonical == (b"\x83\x65piece" + data)[: found.prefix_size]


BIG = bytes(LIMIT + 1)
BAD = {
    "reserved_bits": frame(b"x", 0xC2),
    "length": bytes((0x82, 126)) + (5).to_bytes(2, "big"),
    "mask": frame(b"x", mask=b"mask"),
    "too_large": frame(BIG, mask=b"mask"),
    "piece": frame(BIG),
    "control_frame": frame(bytes(126), 0x89),
    "text": frame(b"text", 0x81),
    "opcode": frame(b"", 0x83),
    "sequence": frame(b"", 0x80),
    "fragments": frame(b"", 0x02) + frame(b"", 0x00) * 64,
    "ping_flood": frame(b"", 0x89) * 101,
}


@pytest.mark.parametrize("reason", BAD)
def test_what_breaks_the_rules_is_named(reason: str) -> None:
    with pytest.raises(FrameError) as caught:
        scan(scanner(), [BAD[reason]])
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "bad",
    [
        frame(piece_prefix(1, LIMIT) + bytes(LIMIT + 1)),
        frame(b"\x83\x65piece\x18\x01" + b"\x5a" + LIMIT.to_bytes(4, "big") + bytes(LIMIT)),
        frame(b"\x82" + bytes(LIMIT + 9)),
        frame(piece_prefix(1, LIMIT) + bytes(LIMIT), first=0x02),
    ],
    ids=["other length", "long form", "other array", "in fragments"],
)
def test_a_large_frame_is_a_whole_well_formed_piece_or_refused(bad: bytes) -> None:
    with pytest.raises(FrameError):
        scan(scanner(), [bad])


def test_a_dialler_must_mask() -> None:
    with pytest.raises(FrameError) as caught:
        scan(scanner(masked=True), [frame(b"x")])
    assert caught.value.reason == "mask"


@pytest.mark.parametrize("reason", ["text", "mask", "control_frame"])
def test_a_frame_is_refused_by_its_header_alone(reason: str) -> None:
    with pytest.raises(FrameError):
        scan(scanner(), [BAD[reason][:-1]])


def test_where_no_pieces_may_come_a_large_frame_is_refused_by_its_header_alone() -> None:
    with pytest.raises(FrameError, match="bytes"):
        scan(scanner(pieces=False), [piece(1, BIG)[:10]])


def test_fragments_count_together_against_the_size_limit() -> None:
    parts = frame(bytes(40_000), 0x02) + frame(bytes(40_000), 0x80)
    with pytest.raises(FrameError, match="size limit"):
        scan(scanner(), [parts])


def test_an_endless_opening_is_refused() -> None:
    found = FrameScanner(pieces=True, masked=False, limits=FrameLimits())
    found.feed(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 2000)
    with pytest.raises(FrameError, match="head"):
        found.next_event(0.0)


def test_a_half_message_has_a_deadline_that_pings_do_not_extend() -> None:
    found = scanner()
    assert found.next_timeout() is None
    scan(found, [frame(b"part", 0x02), frame(b"", 0x89)])
    assert found.next_timeout() == 10.0
    found.handle_timeout(9.9)
    with pytest.raises(FrameError) as caught:
        found.handle_timeout(10.0)
    assert caught.value.reason == "slow"


def test_a_whole_message_ends_the_deadline() -> None:
    found = scanner()
    scan(found, [frame(b"part", 0x02), frame(b"end", 0x80)])
    assert found.next_timeout() is None


def test_a_fast_remote_is_slowed_down() -> None:
    found = scanner()
    for _ in range(2):
        scan(found, [frame(b"x") * 15_000])
        pause_s = found.pause_s(45_000, now=0.0)
    assert pause_s == pytest.approx(10_000 / 20_000, rel=0.01)


def test_an_event_is_comparable() -> None:
    found = scanner()
    found.feed(piece(7, BIG))
    assert found.next_event(0.0) == PieceBegins(7, LIMIT + 1)
