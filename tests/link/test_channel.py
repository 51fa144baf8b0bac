from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import cbor2
import pytest
import trio
from trio_websocket import WebSocketConnection, wrap_client_stream, wrap_server_stream

from gossipcache.cluster import LOOPBACK
from gossipcache.disk import OsDisk
from gossipcache.env import ByteStream, DiskFile, Network, Port
from gossipcache.errors import NodeUnreachable, ProtocolError
from gossipcache.identity import Identity
from gossipcache.ids import Address
from gossipcache.link.connection import RESOURCE
from gossipcache.link.handshake import Credentials, Established, Handshake, Send
from gossipcache.link.interface import PieceChannel
from gossipcache.link.tls import TlsStream
from gossipcache.messages.pieces import Have, RequestPiece, TaskOpened
from gossipcache.network import TrioNetwork
from gossipcache.wire import encode
from tests.link.harness import LOCALHOST, LinkNode, dial, env_over, make_node, open_to_all, serving
from tests.link.memory import MemoryNetwork

PIECE = 300_000
CONTENT = bytes(range(251)) * 4000
NONCE = b"n" * 32


@pytest.fixture
def file(tmp_path: Path) -> DiskFile:
    path = tmp_path / "content"
    path.write_bytes(CONTENT)
    return OsDisk().open(path, "read")


def serve_pieces(node: LinkNode, file: DiskFile, size: int = PIECE) -> None:
    """The node answers `RequestPiece` with `size` bytes, and a `Have` after each piece."""

    async def serve(channel: PieceChannel) -> None:
        while True:
            request = await channel.receive()
            assert isinstance(request, RequestPiece)
            await channel.send_piece(request.request_id, file, request.index * size, size)
            await channel.send(Have(first=0, bits=b"\x80"))

    node.pool.handle_channels(serve)


def never_told() -> None:
    raise AssertionError("no piece is to arrive")


async def fetch(channel: PieceChannel, request_id: int, index: int, size: int = PIECE) -> bytes:
    buffer = bytearray(size)
    arrived = trio.Event()
    channel.expect(request_id, memoryview(buffer), arrived.set)
    await channel.send(RequestPiece(request_id=request_id, index=index))
    assert await channel.receive() == Have(first=0, bits=b"\x80")
    assert arrived.is_set()
    return bytes(buffer)


@pytest.mark.parametrize("size", [1, 100, 65_518, 65_519, 65_520, 65_536, PIECE])
async def test_pieces_of_any_size_arrive_in_order_with_messages(file: DiskFile, size: int) -> None:
    parent, child = make_node(1), make_node(2)
    serve_pieces(parent, file, size)
    async with serving(parent, child):
        channel = await child.pool.open_channel(parent.node_id)
        for index in range(3):
            got = await fetch(channel, index + 1, index, size)
            assert got == CONTENT[index * size :][:size]
        assert channel.received_bytes > 3 * size
        await channel.aclose()


async def test_requests_are_pipelined(file: DiskFile) -> None:
    parent, child = make_node(1), make_node(2)
    serve_pieces(parent, file)
    async with serving(parent, child):
        channel = await child.pool.open_channel(parent.node_id)
        buffers = [bytearray(PIECE) for _ in range(3)]
        arrived: list[int] = []
        for index, buffer in enumerate(buffers):
            channel.expect(index + 1, memoryview(buffer), partial(arrived.append, index))
            await channel.send(RequestPiece(request_id=index + 1, index=index))
        for _ in buffers:
            assert isinstance(await channel.receive(), Have)
        assert arrived == [0, 1, 2]
        assert b"".join(buffers) == CONTENT[: 3 * PIECE]


async def test_what_is_posted_goes_at_once_or_by_the_next_flush_and_in_order() -> None:
    network = MemoryNetwork()
    for env, at_once in ((None, True), (env_over(network), False)):
        parent, child = make_node(1, env=env), make_node(2, env=env)
        asked: list[int] = []
        done = trio.Event()

        async def serve(
            channel: PieceChannel, asked: list[int] = asked, done: trio.Event = done
        ) -> None:
            while len(asked) < 4:
                request = await channel.receive()
                assert isinstance(request, RequestPiece)
                asked.append(request.request_id)
            done.set()

        parent.pool.handle_channels(serve)
        async with serving(parent, child, network=None if env is None else network):
            channel = await child.pool.open_channel(parent.node_id)
            for request_id in (1, 2):
                message = RequestPiece(request_id=request_id, index=0)
                assert channel.post(message) is at_once
            await channel.send(RequestPiece(request_id=3, index=0))
            channel.post(RequestPiece(request_id=4, index=0))
            await channel.flush()
            with trio.fail_after(5):
                await done.wait()
        assert asked == [1, 2, 3, 4]


async def test_what_is_posted_on_a_channel_that_ended_is_told_by_the_flush() -> None:
    parent, child = make_node(1), make_node(2)

    async def serve(channel: PieceChannel) -> None:
        return

    parent.pool.handle_channels(serve)
    async with serving(parent, child):
        channel = await child.pool.open_channel(parent.node_id)
        with pytest.raises(trio.EndOfChannel):
            await channel.receive()
        assert not channel.post(RequestPiece(request_id=1, index=0))
        with pytest.raises(NodeUnreachable):
            await channel.flush()


async def test_a_forgotten_piece_is_discarded_and_the_channel_lives(file: DiskFile) -> None:
    parent, child = make_node(1), make_node(2)
    serve_pieces(parent, file)
    async with serving(parent, child):
        channel = await child.pool.open_channel(parent.node_id)
        for size in (PIECE, PIECE, PIECE):
            buffer = bytearray(size)
            channel.expect(1, memoryview(buffer), never_told)
            await channel.send(RequestPiece(request_id=1, index=0))
            channel.forget(1)
            assert isinstance(await channel.receive(), Have)
            assert buffer == bytes(size)
        assert await fetch(channel, 2, 1) == CONTENT[PIECE : 2 * PIECE]


async def test_a_piece_forgotten_half_way_writes_no_more_to_its_buffer() -> None:
    network = MemoryNetwork()
    env = env_over(network)
    parent, child = make_node(1, env=env), make_node(2, env=env)
    rest, half = trio.Event(), trio.Event()

    class SlowFile:
        def read_at(self, offset: int, count: int) -> bytes:
            return b"x" * count

    async def serve(channel: PieceChannel) -> None:
        request = await channel.receive()
        assert isinstance(request, RequestPiece)
        stream = network.streams[-1][1]
        whole = stream.send_file

        async def in_halves(file: DiskFile, offset: int, count: int, head: bytes = b"") -> None:
            await whole(file, offset, count // 2, head)
            half.set()
            await rest.wait()
            await whole(file, offset, count - count // 2)

        stream.send_file = in_halves  # type: ignore[method-assign]
        await channel.send_piece(request.request_id, cast(DiskFile, SlowFile()), 0, PIECE)
        await channel.send(TaskOpened(complete=True))
        await trio.sleep_forever()

    parent.pool.handle_channels(serve)
    async with serving(parent, child, network=network):
        channel = await child.pool.open_channel(parent.node_id)
        buffer = bytearray(PIECE)
        channel.expect(1, memoryview(buffer), never_told)
        await channel.send(RequestPiece(request_id=1, index=0))
        await half.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert 0 < buffer.count(b"x") < PIECE
        channel.forget(1)
        buffer[:] = bytes(PIECE)
        rest.set()
        assert await channel.receive() == TaskOpened(complete=True)
        assert buffer == bytes(PIECE)


@pytest.mark.parametrize("registered", [None, PIECE - 1])
async def test_a_piece_not_asked_for_like_this_is_the_parents_fault(
    file: DiskFile, registered: int | None
) -> None:
    parent, child = make_node(1), make_node(2)
    serve_pieces(parent, file)
    async with serving(parent, child):
        channel = await child.pool.open_channel(parent.node_id)
        if registered is not None:
            channel.expect(1, memoryview(bytearray(registered)), never_told)
        await channel.send(RequestPiece(request_id=1, index=0))
        with pytest.raises(ProtocolError):
            await channel.receive()
        assert child.metrics.value("link_rejected_piece") == 1


async def test_a_cancellation_in_the_middle_of_a_piece_ends_the_channel() -> None:
    network = MemoryNetwork()
    env = env_over(network)
    parent, child = make_node(1, env=env), make_node(2, env=env)

    async def serve(channel: PieceChannel) -> None:
        await channel.receive()
        stream = network.streams[-1][1]

        async def never(file: DiskFile, offset: int, count: int, head: bytes = b"") -> None:
            await trio.sleep_forever()

        stream.send_file = never  # type: ignore[method-assign]
        with trio.move_on_after(0.01):
            await channel.send_piece(1, cast(DiskFile, None), 0, PIECE)
        with pytest.raises(NodeUnreachable):
            await channel.send(TaskOpened(complete=True))

    parent.pool.handle_channels(serve)
    async with serving(parent, child, network=network):
        channel = await child.pool.open_channel(parent.node_id)
        channel.expect(1, memoryview(bytearray(PIECE)), never_told)
        await channel.send(RequestPiece(request_id=1, index=0))
        with pytest.raises(NodeUnreachable):
            await channel.receive()


async def test_a_file_that_ends_early_ends_the_channel_not_the_node(file: DiskFile) -> None:
    parent, child = make_node(1), make_node(2)
    serve_pieces(parent, file)
    async with serving(parent, child):
        channel = await child.pool.open_channel(parent.node_id)
        channel.expect(1, memoryview(bytearray(PIECE)), never_told)
        await channel.send(RequestPiece(request_id=1, index=3))
        with pytest.raises(NodeUnreachable):
            await channel.receive()
        assert await child.ask(parent) == "HI"


async def test_closing_is_told_to_the_other_side(file: DiskFile) -> None:
    parent, child = make_node(1), make_node(2)
    ended = trio.Event()

    async def serve(channel: PieceChannel) -> None:
        with pytest.raises(trio.EndOfChannel):
            await channel.receive()
        ended.set()

    parent.pool.handle_channels(serve)
    async with serving(parent, child):
        channel = await child.pool.open_channel(parent.node_id)
        await channel.aclose()
        with trio.fail_after(5):
            await ended.wait()
        with pytest.raises(trio.ClosedResourceError):
            await channel.receive()
        with pytest.raises(NodeUnreachable):
            await channel.send(TaskOpened(complete=True))


async def test_a_parent_that_ends_its_handler_closes_in_order(file: DiskFile) -> None:
    parent, child = make_node(1), make_node(2)

    async def serve(channel: PieceChannel) -> None:
        await channel.send(TaskOpened(complete=True))

    parent.pool.handle_channels(serve)
    async with serving(parent, child):
        channel = await child.pool.open_channel(parent.node_id)
        assert await channel.receive() == TaskOpened(complete=True)
        with pytest.raises(trio.EndOfChannel):
            await channel.receive()


# --- beyond loopback


class FarNetwork(TrioNetwork):
    """The real network, seemingly beyond loopback."""

    async def bind(self, address: Address) -> Any:
        port = await super().bind(address)
        accept = port.accept

        async def far_accept() -> Any:
            return seemingly_far(await accept())

        port.accept = far_accept  # type: ignore[method-assign]
        return port

    async def dial(self, address: Address) -> Any:
        return seemingly_far(await super().dial(address))


def seemingly_far(stream: ByteStream) -> ByteStream:
    stream.local = stream.remote = Address("192.0.2.1", 7101)
    return stream


async def test_beyond_loopback_everything_goes_through_tls(file: DiskFile) -> None:
    network = FarNetwork()
    env = env_over(cast(Network, network))
    parent, child = make_node(1, env=env), make_node(2, env=env)
    serve_pieces(parent, file)
    async with serving(parent, child, network=cast(Network, network)):
        assert await child.ask(parent) == "HI"
        channel = await child.pool.open_channel(parent.node_id)
        assert isinstance(cast(Any, channel)._stream._stream, TlsStream)
        for index in range(3):
            assert await fetch(channel, index + 1, index) == CONTENT[index * PIECE :][:PIECE]


async def test_plaintext_must_be_asked_for_on_both_sides() -> None:
    network = FarNetwork()
    env = env_over(cast(Network, network))
    one, two, three = (make_node(n, env=env, plaintext=n < 3) for n in (1, 2, 3))
    async with serving(one, two, three, network=cast(Network, network)):
        assert await one.ask(two) == "HI"
        with pytest.raises(NodeUnreachable):
            await one.ask(three)


# --- with a stock trio-websocket + cbor2 program at the other end


async def authenticate(socket: WebSocketConnection, handshake: Handshake) -> None:
    effects = handshake.start()
    while True:
        for effect in effects:
            if isinstance(effect, Send):
                await socket.send_message(effect.data)
            else:
                assert isinstance(effect, Established)
                return
        effects = handshake.receive(cast(bytes, await socket.get_message()))


def stock(number: int) -> Credentials:
    return Credentials(
        Identity(bytes([number]) * 32), LOOPBACK, frozenset(("peer",)), open_to_all(LOOPBACK)
    )


async def test_a_stock_child_reads_our_pieces(file: DiskFile) -> None:
    parent = make_node(1)
    serve_pieces(parent, file)
    async with serving(parent), trio.open_nursery() as nursery:
        stream = cast(Any, await dial(parent))
        socket = await wrap_client_stream(
            nursery, stream, "x", RESOURCE, max_message_size=2 * PIECE
        )
        await authenticate(socket, Handshake("dialler", stock(2), NONCE, purpose="pieces"))
        for number in (1, 2):
            await socket.send_message(encode(RequestPiece(request_id=number, index=number)))
            piece = cbor2.loads(cast(bytes, await socket.get_message()))
            assert piece == ["piece", number, CONTENT[number * PIECE :][:PIECE]]
            have = cbor2.loads(cast(bytes, await socket.get_message()))
            assert have == {"t": "have", "first": 0, "bits": b"\x80"}
        await socket.aclose()


@asynccontextmanager
async def stock_parent(port: Port, sizes: list[int]) -> AsyncIterator[None]:
    async def serve(nursery: trio.Nursery) -> None:
        stream = cast(Any, await port.accept())
        socket = await (await wrap_server_stream(nursery, stream)).accept()
        await authenticate(socket, Handshake("acceptor", stock(1), NONCE))
        for size in sizes:
            request = cbor2.loads(cast(bytes, await socket.get_message()))
            piece = ["piece", request["request_id"], CONTENT[:size]]
            await socket.send_message(cbor2.dumps(piece))
            await socket.ping()
            have = {"t": "have", "first": 0, "bits": b"\x80"}
            await socket.send_message(cbor2.dumps(have, canonical=True))
        await socket.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, nursery)
        yield


async def test_we_read_the_pieces_of_a_stock_parent() -> None:
    child, parent = make_node(2), make_node(1)
    port = await TrioNetwork().bind(LOCALHOST)
    parent.address = port.address
    sizes = [PIECE, 70_000, 1000, PIECE]
    async with serving(child), stock_parent(port, sizes):
        child.knows(parent)
        channel = await child.pool.open_channel(parent.node_id)
        for number, size in enumerate(sizes, start=1):
            assert await fetch(channel, number, 0, size) == CONTENT[:size]
        with pytest.raises(trio.EndOfChannel):
            await channel.receive()
    await port.aclose()
