"""What strangers and bad members send to the listening port costs only their own connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import cbor2
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from gossipcache.cluster import LOOPBACK, Cluster
from gossipcache.env import ByteStream
from gossipcache.identity import Identity
from gossipcache.link.connection import RESOURCE
from gossipcache.link.handshake import Credentials, Established, Failed, Handshake, Send
from gossipcache.link.interface import Peer
from gossipcache.link.rpc import MAX_CALLS
from gossipcache.messages.link import Purpose
from gossipcache.wire import Message
from tests.link.harness import Answer, LinkNode, dial, env_over, make_node, open_to_all, serving
from tests.link.memory import MemoryNetwork
from tests.link.test_frames import frame

UPGRADE = (
    b"GET /gossipcache HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
MASK = b"\0\0\0\0"


def masked(payload: bytes, first: int = 0x82) -> bytes:
    return frame(payload, first, MASK)


async def read_to_end(stream: ByteStream) -> bytes:
    received = bytearray()
    with trio.fail_after(8):
        try:
            while data := await stream.receive_some(65536):
                received += data
        except trio.BrokenResourceError:
            pass
    return bytes(received)


async def assert_serving(node: LinkNode, other: LinkNode) -> None:
    with trio.fail_after(8):
        assert await other.ask(node) == "HI"


HOSTILE = {
    "garbage": b"\x00\xff" * 5000,
    "a TLS hello": b"\x16\x03\x01\x02\x00" + bytes(512),
    "an endless head": b"GET / HTTP/1.1\r\n" + b"x-a: b\r\n" * 5000,
    "another resource": UPGRADE.replace(b"/gossipcache", b"/admin"),
    "no websocket": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a text message": UPGRADE + masked(b"hello", 0x81),
    "an unmasked frame": UPGRADE + frame(b"hello"),
    "an oversized frame": UPGRADE + masked(bytes(70_000)),
    "an absurd length": UPGRADE + b"\x82\xff\x7f" + b"\xff" * 7 + MASK,
    "a fragment flood": UPGRADE + masked(b"", 0x02) + masked(b"", 0x00) * 100_000,
    "a ping flood": UPGRADE + masked(b"", 0x89) * 100_000,
    "an empty message": UPGRADE + masked(b""),
    "broken CBOR": UPGRADE + masked(b"\xff\x00"),
    "deep CBOR": UPGRADE + masked(b"\x81" * 3000 + b"\x00"),
    "duplicate keys": UPGRADE + masked(b"\xa2\x61t\x01\x61t\x01"),
    "a proof first": UPGRADE
    + masked(cbor2.dumps({"t": "proof", "mac": bytes(32), "signature": bytes(64)}, canonical=True)),
    "a piece": UPGRADE + masked(b"\x83\x65piece\x01\x41x"),
    "a long handshake message": UPGRADE + masked(bytes(5000)),
    "a bad close frame": UPGRADE + masked(b"x", 0x88),
    "reserved bits": UPGRADE + masked(b"x", 0xF2),
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_a_stranger_is_cut_off_and_others_are_served(what: str) -> None:
    node, friend = make_node(1), make_node(2)
    async with serving(node, friend):
        async with await dial(node) as stream, trio.open_nursery() as nursery:
            opening, upgrade, rest = HOSTILE[what].rpartition(UPGRADE)
            if upgrade:
                await stream.send_all(upgrade)
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 101")
            nursery.start_soon(send_ignoring_errors, stream, opening + rest)
            await read_to_end(stream)
            nursery.cancel_scope.cancel()
        await assert_serving(node, friend)
    assert node.told == ["hi"]


async def send_ignoring_errors(stream: ByteStream, data: bytes) -> None:
    try:
        await stream.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(st.lists(st.binary(max_size=400), max_size=5), st.booleans(), st.booleans())
def test_no_bytes_bring_a_node_down(chunks: list[bytes], upgraded: bool, framed: bool) -> None:
    async def main() -> None:
        network = MemoryNetwork()
        env = env_over(network)
        node, friend = make_node(1, env=env), make_node(2, env=env)
        async with serving(node, friend, network=network):
            assert node.address is not None
            async with await network.dial(node.address) as stream:
                await send_ignoring_errors(stream, UPGRADE if upgraded else b"")
                for chunk in chunks:
                    data = masked(chunk) if framed else chunk
                    await send_ignoring_errors(stream, data)
                await trio.testing.wait_all_tasks_blocked()
            await assert_serving(node, friend)

    trio.run(main)


async def test_truncated_openings_are_forgotten(autojump_clock: object) -> None:
    network = MemoryNetwork()
    env = env_over(network)
    node, friend = make_node(1, env=env), make_node(2, env=env)
    hello = UPGRADE + masked(b"\xa1")
    async with serving(node, friend, network=network):
        assert node.address is not None
        for length in (0, 1, 20, len(UPGRADE), len(UPGRADE) + 1, len(hello) - 1):
            stream = await network.dial(node.address)
            await stream.send_all(hello[:length])
            await read_to_end(stream)
        assert node.metrics.value("link_rejected_timeout") == 6
        await assert_serving(node, friend)


async def test_a_slow_loris_has_five_seconds(autojump_clock: object) -> None:
    network = MemoryNetwork()
    env = env_over(network)
    node, friend = make_node(1, env=env), make_node(2, env=env)
    async with serving(node, friend, network=network):
        assert node.address is not None
        stream = await network.dial(node.address)
        begun_at = trio.current_time()
        for byte in UPGRADE:
            try:
                await stream.send_all(bytes((byte,)))
            except trio.BrokenResourceError:
                break
            await trio.sleep(0.5)
        assert 5 <= trio.current_time() - begun_at <= 6.5
        await assert_serving(node, friend)


async def test_a_crowd_of_silent_strangers_keeps_nobody_out() -> None:
    network = MemoryNetwork()
    env = env_over(network)
    node, friend = make_node(1, env=env), make_node(2, env=env)
    async with serving(node, friend, network=network):
        assert node.address is not None
        strangers = [await network.dial(node.address) for _ in range(90)]
        await assert_serving(node, friend)
        assert await read_to_end(strangers[0]) == b""
    assert node.metrics.value("link_rejected_crowd") == 27


# --- members that turn bad


@asynccontextmanager
async def member(
    node: LinkNode, purpose: Purpose = "control", cluster: Cluster = LOOPBACK
) -> AsyncIterator[WebSocketConnection]:
    """A websocket whose handshake the node has accepted."""
    credentials = Credentials(Identity(b"m" * 32), cluster, frozenset(), open_to_all(cluster))
    handshake = Handshake("dialler", credentials, b"n" * 32, purpose=purpose)
    async with trio.open_nursery() as nursery:
        stream = cast(Any, await dial(node))
        socket = await wrap_client_stream(nursery, stream, "x", RESOURCE)
        effects = handshake.start()
        while not any(isinstance(effect, Established | Failed) for effect in effects):
            for effect in effects:
                if isinstance(effect, Send):
                    await socket.send_message(effect.data)
            effects = handshake.receive(cast(bytes, await socket.get_message()))
        yield socket
        nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(stream)


BAD_ENVELOPES = {
    "no CBOR": b"\xff",
    "no envelope": cbor2.dumps([1]),
    "an unknown envelope": cbor2.dumps({"t": "x"}),
    "an answer to nothing": cbor2.dumps({"t": "reply", "id": 9, "body": {}}, canonical=True),
    "a tag": cbor2.dumps({"t": "notice", "body": {"t": cbor2.CBORTag(0, "x")}}, canonical=True),
    "a piece": b"\x83\x65piece\x01\x41x",
}


@pytest.mark.parametrize("what", BAD_ENVELOPES)
async def test_a_member_that_breaks_the_protocol_loses_its_connection(what: str) -> None:
    node, friend = make_node(1), make_node(2)
    async with serving(node, friend):
        async with member(node) as socket:
            await socket.send_message(BAD_ENVELOPES[what])
            with pytest.raises(ConnectionClosed), trio.fail_after(5):
                await socket.get_message()
        await assert_serving(node, friend)
        assert node.metrics.value("link_ended_protocol") == 1


async def test_more_calls_than_allowed_are_told_busy() -> None:
    node, friend = make_node(1), make_node(2)
    ask = {"t": "test_ask", "text": "sleep"}
    async with serving(node, friend):
        async with member(node) as socket:
            for number in range(257):
                request = {"t": "request", "id": number + 1, "body": ask}
                await socket.send_message(cbor2.dumps(request, canonical=True))
            with trio.fail_after(5):
                answer = cbor2.loads(cast(bytes, await socket.get_message()))
            assert (answer["t"], answer["id"], answer["code"]) == ("failure", 257, "busy")
        await assert_serving(node, friend)


async def test_a_member_that_never_reads_does_not_fill_the_memory() -> None:
    node, friend = make_node(1), make_node(2)
    ask = {"t": "test_ask", "text": "x" * 60_000}
    async with serving(node, friend), member(node) as socket:
        for number in range(1000):
            request = {"t": "request", "id": number + 1, "body": ask}
            await socket.send_message(cbor2.dumps(request, canonical=True))
        await assert_serving(node, friend)
        # What it was answered waits in the sockets' buffers; beyond it and the limit of calls
        # nothing was worked on.
        assert len(node.told) < 600
        assert node.metrics.value("link_dropped_busy") > 400


class Toil(Message, frozen=True, kw_only=True, tag="test_toil"):
    """Asks for work that cannot be broken off."""


async def test_requests_that_are_taken_back_at_once_do_not_heap_up_work() -> None:
    node, friend = make_node(1), make_node(2)
    running = most = 0

    async def toil(_peer: Peer, _toil: Toil) -> Answer:
        nonlocal running, most
        running += 1
        most = max(most, running)
        with trio.CancelScope(shield=True):  # like work in a thread
            await trio.sleep(0.05)
        running -= 1
        return Answer(text="")

    node.pool.handle(Toil, toil)
    async with serving(node, friend), member(node) as socket:
        for number in range(1, 1000):
            request = {"t": "request", "id": number, "body": {"t": "test_toil"}}
            await socket.send_message(cbor2.dumps(request, canonical=True))
            await socket.send_message(cbor2.dumps({"t": "cancel", "id": number}, canonical=True))
    assert 0 < most <= MAX_CALLS


async def test_a_bad_message_on_a_piece_channel_closes_it() -> None:
    node, friend = make_node(1), make_node(2)

    async def serve(channel: Any) -> None:
        await channel.receive()

    node.pool.handle_channels(serve)
    async with serving(node, friend):
        for data in (b"\xff", cbor2.dumps({"t": "test_ask", "text": "x"}, canonical=True)):
            async with member(node, "pieces") as socket:
                await socket.send_message(data)
                with pytest.raises(ConnectionClosed), trio.fail_after(5):
                    await socket.get_message()
        await assert_serving(node, friend)
