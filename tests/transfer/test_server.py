from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gossipcache.errors import NodeUnreachable
from gossipcache.ids import NodeId
from gossipcache.manifest import SignedManifest
from gossipcache.messages.pieces import (
    MAX_REQUESTS_AT_ONCE,
    Cancel,
    GetPages,
    Have,
    OpenTask,
    Page,
    PieceQueued,
    PieceRefused,
    RequestPiece,
    TaskOpened,
    TaskRefused,
)
from gossipcache.requests import LimitsChange
from gossipcache.transfer import server
from gossipcache.transfer.bitmap import have_messages, to_bitmap
from gossipcache.transfer.offering import FIRST_OFFERS
from gossipcache.transfer.server import OPEN_TIMEOUT_S
from gossipcache.transfer.slots import AT_ONCE
from gossipcache.transfer.upload import IDLE_TIMEOUT_S
from gossipcache.wire import Message
from tests.fakes.channels import ChannelBoard, FakeChannel, PieceArrived, Wire, channel_pair
from tests.transfer.samples import PIECE, PUBLISHER, TASK, content_of, manifest_for, tree_of
from tests.transfer.swarm_nodes import SwarmNode

CONTENT = content_of(10 * PIECE + 1)
SIGNED = manifest_for(CONTENT)
CHILD = NodeId(b"c" * 16)
WIRE = Wire(piece_s=20.0)


@pytest.fixture
def parent(nursery: trio.Nursery) -> SwarmNode:
    return SwarmNode(ChannelBoard(nursery), "p")


@asynccontextmanager
async def serving(
    parent: SwarmNode, wire: Wire | None = None, *, child: NodeId = CHILD
) -> AsyncIterator[FakeChannel]:
    """A channel that `parent` serves; the child's end."""
    child_end, parent_end = channel_pair(child, parent.node_id, wire)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parent.server.serve, parent_end)
        yield child_end
        await child_end.aclose()


def open_task(signed: SignedManifest = SIGNED, *, follow: bool = False) -> OpenTask:
    return OpenTask(task_id=signed.task_id, manifest_name=signed.name, follow=follow)


def request(request_id: int, index: int) -> RequestPiece:
    return RequestPiece(request_id=request_id, index=index)


async def opened(channel: FakeChannel, *, follow: bool = False) -> Any:
    await channel.send(open_task(follow=follow))
    return await channel.receive()


async def piece_from(channel: FakeChannel) -> list[PieceQueued]:
    """Receives until a piece is there; what was said of the line before it."""
    said: list[PieceQueued] = []
    while isinstance(message := await channel.receive(), PieceQueued):
        said.append(message)
    assert isinstance(message, PieceArrived)
    return said


async def is_cut_off(channel: FakeChannel) -> bool:
    """Whether the parent ended the channel, after whatever it had still to say."""
    with trio.fail_after(1000):
        try:
            while True:
                await channel.receive()
        except (trio.EndOfChannel, NodeUnreachable):
            return True


async def test_serves_the_pieces_asked_for_in_order(parent: SwarmNode) -> None:
    parent.shop.keep(CONTENT)
    async with serving(parent) as channel:
        assert await opened(channel) == TaskOpened(complete=True)
        buffers = [bytearray(1), bytearray(PIECE)]
        channel.expect(1, memoryview(buffers[0]))
        channel.expect(2, memoryview(buffers[1]))
        await channel.send(request(1, 10))
        await channel.send(request(2, 3))
        assert await channel.receive() == PieceArrived(1, 1)
        assert await channel.receive() == PieceArrived(2, PIECE)
    assert b"".join(buffers) == CONTENT[-1:] + CONTENT[3 * PIECE : 4 * PIECE]
    assert parent.metrics.value("piece_bytes_sent") == PIECE + 1


async def test_serves_the_pages_of_the_digest_tree(parent: SwarmNode) -> None:
    parent.shop.keep(CONTENT)
    async with serving(parent) as channel:
        await opened(channel)
        await channel.send(GetPages(level=0, first=0, count=1))
        page = tree_of(CONTENT).page(0, 0)
        assert await channel.receive() == Page(level=0, index=0, data=page)


async def test_refuses_a_task_it_has_not_got_and_another_manifest_of_one_it_has(
    parent: SwarmNode,
) -> None:
    async with serving(parent) as channel:
        assert await opened(channel) == TaskRefused(code="not_found")
        assert await is_cut_off(channel)
    parent.shop.keep(CONTENT)
    async with serving(parent) as channel:
        await channel.send(open_task(manifest_for(CONTENT, generation=2)))
        assert await channel.receive() == TaskRefused(code="not_found")


async def test_a_partial_holder_tells_and_serves_what_it_gets_at_once(
    parent: SwarmNode, autojump_clock: MockClock
) -> None:
    parent.store.begin(SIGNED, tree_of(CONTENT))
    parent.shop.download(CONTENT, SIGNED, [0, 9])
    stored = parent.store.find(TASK)
    assert stored is not None
    parent.downloader.arrivals.begin(TASK, stored.have)
    async with serving(parent) as channel:
        assert await opened(channel, follow=True) == TaskOpened(complete=False)
        have = await channel.receive()
        assert have == Have(first=0, bits=b"\x80\x40")
        parent.downloader.arrivals.add(TASK, 4)
        assert await channel.receive() == Have(first=0, bits=b"\x08")
        buffer = bytearray(PIECE)
        channel.expect(1, memoryview(buffer))
        await channel.send(request(1, 4))
        assert await channel.receive() == PieceArrived(1, PIECE)


async def test_a_child_that_waits_for_nothing_hears_of_each_piece_at_once(
    parent: SwarmNode, autojump_clock: MockClock
) -> None:
    parent.store.begin(SIGNED, tree_of(CONTENT))
    stored = parent.store.find(TASK)
    assert stored is not None
    arrivals = parent.downloader.arrivals
    arrivals.begin(TASK, stored.have)
    async with serving(parent) as channel:
        assert await opened(channel, follow=True) == TaskOpened(complete=False)
        started = trio.current_time()
        parent.shop.download(CONTENT, SIGNED, [3, 4, 5])
        for index in (3, 4, 5):
            arrivals.add(TASK, index)
            assert _pieces(await channel.receive()) == 1 << index
        assert trio.current_time() == started


async def test_refuses_a_piece_it_has_not_got(parent: SwarmNode) -> None:
    parent.store.begin(SIGNED, tree_of(CONTENT))
    async with serving(parent) as channel:
        await opened(channel)
        await channel.send(request(7, 4))
        assert await channel.receive() == PieceRefused(request_id=7, code="not_found")


async def test_a_deletion_ends_the_service_with_a_word(parent: SwarmNode) -> None:
    parent.shop.keep(CONTENT)
    async with serving(parent) as channel:
        await opened(channel)
        parent.store.remove(TASK)
        await channel.send(request(1, 4))
        assert await channel.receive() == TaskRefused(code="not_found")
        assert await is_cut_off(channel)


async def test_a_cancelled_request_is_not_served(
    parent: SwarmNode, autojump_clock: MockClock
) -> None:
    parent.shop.keep(CONTENT)
    async with serving(parent, Wire(piece_s=1.0)) as channel:
        await opened(channel)
        buffers = {request_id: bytearray(PIECE) for request_id in (1, 2, 3)}
        for request_id, buffer in buffers.items():
            channel.expect(request_id, memoryview(buffer))
            await channel.send(request(request_id, request_id))
        await channel.send(Cancel(request_id=2))
        assert await channel.receive() == PieceArrived(1, PIECE)
        assert await channel.receive() == PieceArrived(3, PIECE)


async def test_a_changed_linked_file_is_not_served(parent: SwarmNode) -> None:
    path = parent.shop.write_source("mine", CONTENT)
    parent.shop.keep_linked(path)
    stored = parent.store.find(TASK)
    assert stored is not None
    async with serving(parent) as channel:
        assert await opened_as(channel, stored.signed) == TaskOpened(complete=True)
        file = parent.shop.disk.open(path, "write")
        file.write_at(0, b"changed")
        file.close()
        await channel.send(request(1, 0))
        assert await channel.receive() == PieceRefused(request_id=1, code="not_found")


async def opened_as(channel: FakeChannel, signed: SignedManifest) -> Any:
    await channel.send(open_task(signed))
    return await channel.receive()


@pytest.mark.parametrize(
    "message",
    [
        request(1, 11),
        open_task(),
        GetPages(level=1, first=0, count=1),
        GetPages(level=0, first=0, count=2),
        TaskOpened(complete=True),
        Have(first=8, bits=b"\xff"),
    ],
    ids=lambda message: type(message).__name__,
)
async def test_a_child_outside_the_protocol_is_cut_off(parent: SwarmNode, message: Message) -> None:
    parent.shop.keep(CONTENT)
    async with serving(parent) as channel:
        await opened(channel)
        await channel.send(message)
        assert await is_cut_off(channel)
    assert parent.metrics.value("piece_protocol_errors") == 1


async def test_a_channel_must_begin_with_open_task(parent: SwarmNode) -> None:
    async with serving(parent) as channel:
        await channel.send(request(1, 0))
        assert await is_cut_off(channel)
    assert parent.metrics.value("piece_protocol_errors") == 1


async def test_too_many_requests_at_once_are_outside_the_protocol(
    parent: SwarmNode, autojump_clock: MockClock
) -> None:
    parent.shop.keep(CONTENT)
    async with serving(parent, Wire(piece_s=1.0)) as channel:
        await opened(channel)
        await channel.send(request(1, 0))
        await wait_all_tasks_blocked()
        for request_id in range(2, MAX_REQUESTS_AT_ONCE + 3):
            await channel.send(request(request_id, 0))
        await wait_all_tasks_blocked()
        assert parent.metrics.value("piece_protocol_errors") == 1


@pytest.mark.parametrize(("opens", "limit_s"), [(False, OPEN_TIMEOUT_S), (True, IDLE_TIMEOUT_S)])
async def test_an_idle_channel_is_closed(
    parent: SwarmNode, autojump_clock: MockClock, opens: bool, limit_s: float
) -> None:
    parent.shop.keep(CONTENT)
    async with serving(parent) as channel:
        if opens:
            await opened(channel)
        before = trio.current_time()
        assert await is_cut_off(channel)
        assert trio.current_time() - before == pytest.approx(limit_s)


async def test_each_request_begins_the_idle_time_anew(
    parent: SwarmNode, autojump_clock: MockClock
) -> None:
    parent.shop.keep(CONTENT)
    async with serving(parent) as channel:
        await opened(channel)
        for request_id in (1, 2, 3):
            await trio.sleep(0.9 * IDLE_TIMEOUT_S)
            channel.expect(request_id, memoryview(bytearray(PIECE)))
            await channel.send(request(request_id, 0))
            assert await channel.receive() == PieceArrived(request_id, PIECE)
        before = trio.current_time()
        assert await is_cut_off(channel)
        assert trio.current_time() - before == pytest.approx(IDLE_TIMEOUT_S)


async def test_a_child_that_waits_on_another_channel_is_not_idle(
    parent: SwarmNode, autojump_clock: MockClock
) -> None:
    parent.shop.keep(CONTENT)
    async with serving(parent) as idle, serving(parent, WIRE) as busy:
        await opened(idle)
        await opened(busy)
        began = trio.current_time()
        for request_id in range(1, 20):
            busy.expect(request_id, memoryview(bytearray(PIECE)))
            await busy.send(request(request_id, 0))
        for request_id in range(1, 20):
            assert await busy.receive() == PieceArrived(request_id, PIECE)
        assert trio.current_time() - began > IDLE_TIMEOUT_S
        idle.expect(1, memoryview(bytearray(PIECE)))
        await idle.send(request(1, 0))
        assert await idle.receive() == PieceArrived(1, PIECE)


async def test_a_slow_piece_is_not_idleness(parent: SwarmNode, autojump_clock: MockClock) -> None:
    parent.shop.keep(CONTENT)
    count = 20
    async with serving(parent, Wire(piece_s=IDLE_TIMEOUT_S / (count - 1))) as channel:
        await opened(channel)
        for request_id in range(1, count + 1):
            channel.expect(request_id, memoryview(bytearray(PIECE)))
            await channel.send(request(request_id, 0))
        for request_id in range(1, count + 1):
            assert await channel.receive() == PieceArrived(request_id, PIECE)


async def test_a_child_that_reads_nothing_loses_its_channel(
    parent: SwarmNode, autojump_clock: MockClock
) -> None:
    parent.shop.keep(CONTENT)
    wire = Wire()
    async with serving(parent, wire) as channel:
        await opened(channel)
        wire.frozen = True
        await channel.send(request(1, 0))
        await trio.sleep(parent.config.piece_timeout_s + 10)
        assert await is_cut_off(channel)


@pytest.mark.parametrize(("limit", "at_once"), [(2, 2), (64, AT_ONCE)])
async def test_uploads_beyond_the_limit_and_beyond_a_few_queue(
    nursery: trio.Nursery, autojump_clock: MockClock, limit: int, at_once: int
) -> None:
    parent = SwarmNode(ChannelBoard(nursery), "p")
    parent.shop.keep(CONTENT)
    wire = Wire(piece_s=1.0)
    parent.limits.change(LimitsChange(max_uploads=limit))
    done = []

    async def fetch(channel: FakeChannel) -> None:
        await opened(channel)
        channel.expect(1, memoryview(bytearray(PIECE)))
        await channel.send(request(1, 0))
        await piece_from(channel)
        done.append(trio.current_time())
        await channel.aclose()

    before = trio.current_time()
    async with trio.open_nursery() as children:
        for _ in range(at_once + 1):
            child_end, parent_end = channel_pair(CHILD, parent.node_id, wire)
            nursery.start_soon(parent.server.serve, parent_end)
            children.start_soon(fetch, child_end)
    assert [round(at - before) for at in done] == [1] * at_once + [2]


async def test_children_take_turns_however_many_channels_they_open(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    parent = SwarmNode(ChannelBoard(nursery), "p")
    parent.shop.keep(CONTENT)
    parent.limits.change(LimitsChange(max_uploads=1))
    done: list[NodeId] = []

    async def fetch(child: NodeId) -> None:
        child_end, parent_end = channel_pair(child, parent.node_id, Wire(piece_s=1.0))
        nursery.start_soon(parent.server.serve, parent_end)
        await opened(child_end)
        child_end.expect(1, memoryview(bytearray(PIECE)))
        await child_end.send(request(1, 0))
        await piece_from(child_end)
        done.append(child)
        await child_end.aclose()

    modest = NodeId(b"d" * 16)
    async with trio.open_nursery() as children:
        for _ in range(6):
            children.start_soon(fetch, CHILD)
        await wait_all_tasks_blocked()
        children.start_soon(fetch, modest)
    assert done.index(modest) <= 2, "behind one that was under way, and one that had its turn"


async def test_children_in_line_are_told_how_long_and_when_their_turn_has_come(
    parent: SwarmNode, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    parent.shop.keep(CONTENT)
    parent.limits.change(LimitsChange(max_uploads=1))
    said: dict[str, list[tuple[int, int]]] = {}

    async def fetch(name: str) -> None:
        child_end, parent_end = channel_pair(NodeId(name.encode() * 16), parent.node_id, WIRE)
        nursery.start_soon(parent.server.serve, parent_end)
        await opened(child_end)
        child_end.expect(1, memoryview(bytearray(PIECE)))
        await child_end.send(request(1, 0))
        began = trio.current_time()
        while isinstance(message := await child_end.receive(), PieceQueued):
            at = round(trio.current_time() - began)
            said.setdefault(name, []).append((at, round(message.wait_ms / 1000)))
        assert message == PieceArrived(1, PIECE)
        await child_end.aclose()

    async with trio.open_nursery() as children:
        for name in "abcd":
            children.start_soon(fetch, name)
            await wait_all_tasks_blocked()
    assert "a" not in said, "it began at once"
    assert said["c"][-1] == (40, 0)
    assert said["d"][-1] == (60, 0)
    after_first = [(at, wait_s) for at, wait_s in said["d"] if at > 20]
    assert all(at + wait_s == 60 for at, wait_s in after_first), "once it knows what a piece takes"
    assert len(said["d"]) < 20


async def test_who_cancels_a_request_keeps_its_place_for_another(
    parent: SwarmNode, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    parent.shop.keep(CONTENT)
    parent.limits.change(LimitsChange(max_uploads=1))
    arrived: list[str] = []

    async def fetch(name: str, *, changes: bool) -> None:
        child_end, parent_end = channel_pair(NodeId(name.encode() * 16), parent.node_id, WIRE)
        nursery.start_soon(parent.server.serve, parent_end)
        await opened(child_end)
        await child_end.send(request(1, 0))
        if changes:
            await trio.sleep(5.0)
            await child_end.send(Cancel(request_id=1))
            await child_end.send(request(2, 7))
        child_end.expect(2 if changes else 1, memoryview(bytearray(PIECE)))
        await piece_from(child_end)
        arrived.append(name)
        await child_end.aclose()

    async with trio.open_nursery() as children:
        for name in "abc":
            children.start_soon(partial(fetch, name, changes=name == "b"))
            await wait_all_tasks_blocked()
    assert arrived == ["a", "b", "c"]


async def test_more_children_than_a_parent_keeps_in_mind_are_told_when_to_come_back(
    parent: SwarmNode, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(server, "MAX_CHANNELS", 1)
    parent.shop.keep(CONTENT)
    async with serving(parent) as first:
        await opened(first)
        async with serving(parent) as second:
            refused = await opened(second)
            assert isinstance(refused, TaskRefused)
            assert (refused.code, refused.retry_after_ms) == ("busy", 1000)
            assert await is_cut_off(second)
        await first.send(request(1, 0))
        first.expect(1, memoryview(bytearray(PIECE)))
        assert await first.receive() == PieceArrived(1, PIECE)
    async with serving(parent) as third:
        assert await opened(third) == TaskOpened(complete=True)


async def test_children_with_many_channels_make_room_for_others(
    parent: SwarmNode, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(server, "MAX_CHANNELS", 4)
    parent.shop.keep(CONTENT)
    async with AsyncExitStack() as stack:
        greedy = []
        for _ in range(4):
            greedy.append(await stack.enter_async_context(serving(parent)))
            await opened(greedy[-1])
        for number in range(2):
            other = serving(parent, child=NodeId(bytes([number]) * 16))
            channel = await stack.enter_async_context(other)
            assert await opened(channel) == TaskOpened(complete=True)
            assert await is_cut_off(greedy[number])
        third = await stack.enter_async_context(serving(parent, child=NodeId(b"3" * 16)))
        assert isinstance(await opened(third), TaskRefused), "nobody has many any more"
        greedy[3].expect(1, memoryview(bytearray(PIECE)))
        await greedy[3].send(request(1, 0))
        assert await greedy[3].receive() == PieceArrived(1, PIECE)


def test_a_bitmap_is_told_by_slices_without_the_empty_ends() -> None:
    total = 8 * 70_000
    pieces = 1 << 9 | 1 << (total - 1)
    messages = list(have_messages(pieces, total))
    assert [(message.first, len(message.bits)) for message in messages] == [(8, 1), (total - 8, 1)]
    told = 0
    for message in messages:
        told |= to_bitmap(message.bits) << message.first
    assert told == pieces
    assert list(have_messages(0, total)) == []


async def test_two_children_are_told_of_different_pieces_first(parent: SwarmNode) -> None:
    parent.shop.keep(CONTENT)
    other = NodeId(b"d" * 16)
    async with serving(parent) as first, serving(parent, child=other) as second:
        await first.send(open_task(follow=True))
        assert await first.receive() == TaskOpened(complete=True, offers=True)
        told = _pieces(await first.receive())
        await second.send(open_task(follow=True))
        assert await second.receive() == TaskOpened(complete=True, offers=True)
        heard = _pieces(await second.receive())
        assert heard.bit_count() == told.bit_count() == FIRST_OFFERS
        assert not heard & told
        asked = [index for index in range(11) if heard >> index & 1]
        for request_id, index in enumerate(asked, start=1):
            await second.send(request(request_id, index))
            second.expect(request_id, memoryview(bytearray(PIECE)))
        messages = [await second.receive() for _ in range(FIRST_OFFERS + 1)]
        (news,) = [message for message in messages if isinstance(message, Have)]
        assert not _pieces(news) & heard


async def test_a_child_with_other_givers_hears_of_what_these_have_not_given(
    parent: SwarmNode,
) -> None:
    parent.shop.keep(CONTENT)
    async with serving(parent) as channel:
        await opened(channel, follow=True)
        told = _pieces(await channel.receive())
        given = told | 1 << next(index for index in range(11) if not told >> index & 1)
        for message in have_messages(given, 11):
            await channel.send(message)
        news = _pieces(await channel.receive())
        assert news
        assert not news & given


async def test_a_publisher_offers_the_first_pieces_first(nursery: trio.Nursery) -> None:
    publisher = SwarmNode(ChannelBoard(nursery), "p", node_id=PUBLISHER.node_id)
    publisher.shop.keep(CONTENT)
    async with serving(publisher) as channel:
        await channel.send(open_task(follow=True))
        assert await channel.receive() == TaskOpened(complete=True, offers=True)
        assert _pieces(await channel.receive()) == (1 << FIRST_OFFERS) - 1


def _pieces(message: Message | PieceArrived) -> int:
    assert isinstance(message, Have)
    return to_bitmap(message.bits) << message.first
