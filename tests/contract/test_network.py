"""The contract of `gossipcache.env.Network`, on real sockets and on the simulated network."""

from __future__ import annotations

import ipaddress
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath

import pytest
import trio
import trio.testing

from gossipcache.disk import OsDisk
from gossipcache.env import ByteStream, DatagramRefused, Disk, Network, Port
from gossipcache.ids import Address
from gossipcache.network import TrioNetwork
from sim.kernel import engine
from sim.kernel.clock import SimClock
from sim.kernel.entropy import Streams
from sim.network.fabric import Fabric
from sim.storage.disk import SimDisk
from sim.trace import Trace


@dataclass
class Two:
    """Two hosts, and a folder for files to send."""

    a: Network
    b: Network
    at_a: Address
    at_b: Address
    disk: Disk
    home: PurePath

    @asynccontextmanager
    async def ports(self) -> AsyncIterator[tuple[Port, Port]]:
        one, other = await self.a.bind(self.at_a), await self.b.bind(self.at_b)
        try:
            yield one, other
        finally:
            await one.aclose()
            await other.aclose()

    async def connected(self) -> tuple[ByteStream, ByteStream]:
        port = await self.b.bind(self.at_b)
        dialled = await self.a.dial(port.address)
        accepted = await port.accept()
        await port.aclose()
        return dialled, accepted


def on_both(body: Callable[[Two], Awaitable[None]]) -> Callable[[str], None]:
    """Makes a test of `body` that runs on real sockets (v4 and v6) and in the simulator."""

    async def real(host: str) -> None:
        address = Address(host, 0)
        with tempfile.TemporaryDirectory() as home, trio.fail_after(20):
            await body(Two(TrioNetwork(), TrioNetwork(), address, address, OsDisk(), Path(home)))

    async def simulated(clock: SimClock, streams: Streams) -> None:
        fabric = Fabric(clock, streams, Trace(clock))
        a, b = Address("10.0.0.1", 0), Address("10.0.0.2", 0)
        await body(Two(fabric.host(a.host), fabric.host(b.host), a, b, SimDisk(), PurePath("/")))

    @pytest.mark.parametrize("kind", ["127.0.0.1", "::1", "simulated"])
    def test(kind: str) -> None:
        if kind == "simulated":
            engine.run(simulated, seed=1, limit_s=600)
        else:
            trio.run(real, kind)

    test.__name__ = body.__name__
    test.__doc__ = body.__doc__
    return test


@on_both
async def test_streams_keep_trios_contract(two: Two) -> None:
    async def make() -> tuple[ByteStream, ByteStream]:
        return await two.connected()

    async def make_clogged() -> tuple[ByteStream, ByteStream]:
        one, other = await two.connected()
        for stream in (one, other):
            await clog(stream)
        return one, other

    await trio.testing.check_half_closeable_stream(make, make_clogged)


async def clog(stream: ByteStream) -> None:
    """Sends until the stream takes no more."""
    while True:
        with trio.move_on_after(0.05) as waiting:
            await stream.wait_send_all_might_not_block()
        if waiting.cancelled_caught:
            break
        with trio.move_on_after(0.05):
            await stream.send_all(bytes(1 << 16))
    while stream.send_now(bytes(1 << 16)):  # the kernel has more room than it owns to
        pass


@on_both
async def test_both_ends_know_both_addresses(two: Two) -> None:
    port = await two.b.bind(two.at_b)
    dialled = await two.a.dial(port.address)
    accepted = await port.accept()
    assert dialled.remote == accepted.local == port.address
    assert dialled.local == accepted.remote
    assert dialled.local.host == two.at_a.host
    for each in (dialled, accepted, port):
        await each.aclose()


@on_both
async def test_receive_into_fills_the_callers_buffer(two: Two) -> None:
    one, other = await two.connected()
    await one.send_all(b"abcdef")
    await one.send_eof()
    buffer = bytearray(10)
    done = 0
    while count := await other.receive_into(memoryview(buffer)[done:]):
        done += count
    assert bytes(buffer[:done]) == b"abcdef"
    await one.aclose()
    await other.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await other.receive_into(memoryview(buffer))


@on_both
async def test_what_follows_may_come_along_and_is_counted(two: Two) -> None:
    one, other = await two.connected()
    await one.send_all(b"piecehead")
    await one.send_eof()
    buffer, spare = memoryview(bytearray(5)), memoryview(bytearray(2))
    received = bytearray()
    while count := await other.receive_into(buffer, spare):
        received += buffer[: min(count, 5)]
        received += spare[: max(0, count - 5)]
    assert received == b"piecehead"
    await one.aclose()
    await other.aclose()


@on_both
async def test_what_is_sent_now_keeps_its_place_and_what_is_not_is_left_to_the_caller(
    two: Two,
) -> None:
    one, other = await two.connected()
    sent = one.send_now(b"first")
    await one.send_all(b"first"[sent:] + b"second")
    await one.send_eof()
    received = bytearray()
    while data := await other.receive_some():
        received += data
    assert received == b"firstsecond"
    await one.aclose()
    await other.aclose()


@on_both
async def test_sending_now_never_waits_for_a_remote_that_does_not_read(two: Two) -> None:
    one, other = await two.connected()
    data = bytes(1 << 20)
    for _ in range(64):
        if one.send_now(data) < len(data):
            break
    else:
        raise AssertionError("the stream took 64 MiB that nobody reads")
    await one.aclose()
    await other.aclose()


@on_both
async def test_receive_into_can_be_cancelled_without_loss(two: Two) -> None:
    one, other = await two.connected()
    buffer = memoryview(bytearray(10))
    with trio.move_on_after(0.01) as scope:
        await other.receive_into(buffer)
    assert scope.cancelled_caught
    await one.send_all(b"x")
    assert await other.receive_into(buffer) == 1
    await one.aclose()
    await other.aclose()


@on_both
async def test_much_is_received_without_loss_whenever_it_is_cancelled(two: Two) -> None:
    one, other = await two.connected()
    content = bytes(range(256)) * 16_384
    buffer, done = memoryview(bytearray(len(content))), 0

    async def send() -> None:
        for start in range(0, len(content), 700_000):
            await one.send_all(content[start : start + 700_000])
            await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while done < len(content):
            with trio.move_on_after(0.005):
                done += await other.receive_into(buffer[done:])
    assert buffer == content
    await one.aclose()
    await other.aclose()


@on_both
async def test_few_bytes_for_a_large_buffer_come_soon_and_so_does_what_follows(two: Two) -> None:
    one, other = await two.connected()
    buffer = memoryview(bytearray(1 << 20))
    with trio.fail_after(5):
        await one.send_all(b"piece")
        assert await other.receive_into(buffer) == 5
        await one.send_all(b"word")
        assert await other.receive_some() == b"word"
        await one.send_all(b"last")
        await one.send_eof()
        assert await other.receive_into(buffer) == 4
        assert await other.receive_into(buffer) == 0
    await one.aclose()
    await other.aclose()


@on_both
async def test_closing_ends_whoever_moves_much(two: Two) -> None:
    file = two.disk.open(two.home / "file", "create")
    file.write_at(0, bytes(8 << 20))
    one, other = await two.connected()

    ends: list[str] = []

    async def move(step: Callable[[], Awaitable[object]], name: str) -> None:
        try:
            while True:
                await step()
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            ends.append(name)

    buffer = memoryview(bytearray(1 << 20))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(move, lambda: one.send_file(file, 0, 8 << 20), "sender")
        nursery.start_soon(move, lambda: one.receive_into(buffer), "receiver")
        await trio.testing.wait_all_tasks_blocked(0.05)
        await one.aclose()
    assert sorted(ends) == ["receiver", "sender"]
    file.close()
    await other.aclose()


@on_both
async def test_send_file_sends_exactly_the_range(two: Two) -> None:
    content = bytes(range(256)) * 20_000
    file = two.disk.open(two.home / "file", "create")
    file.write_at(0, content)
    if (descriptor := file.fileno()) is not None:  # part of it comes from the disk
        file.sync()
        os.posix_fadvise(descriptor, 2_000_000, 2_000_000, os.POSIX_FADV_DONTNEED)
    one, other = await two.connected()
    received = bytearray()

    async def receive() -> None:
        while data := await other.receive_some():
            received.extend(data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await one.send_file(file, 1000, 4_000_001, b"head")
        await one.send_file(file, 0, 0)
        await one.send_all(b"tail")
        await one.send_eof()
    assert bytes(received) == b"head" + content[1000:4_001_001] + b"tail"
    file.close()
    await one.aclose()
    await other.aclose()


@on_both
async def test_send_file_says_when_the_file_is_too_short(two: Two) -> None:
    file = two.disk.open(two.home / "file", "create")
    file.write_at(0, b"short")
    one, other = await two.connected()
    with pytest.raises(OSError, match="ends 5 bytes early"):
        await one.send_file(file, 0, 10)
    file.close()
    await one.aclose()
    await other.aclose()


@on_both
async def test_send_file_to_a_peer_that_went_is_a_broken_stream(two: Two) -> None:
    file = two.disk.open(two.home / "file", "create")
    file.write_at(0, bytes(1 << 20))
    one, other = await two.connected()
    await other.aclose()

    async def send_on() -> None:
        while True:
            await one.send_file(file, 0, 1 << 20)
            await trio.sleep(0.01)

    with pytest.raises(trio.BrokenResourceError):
        await send_on()
    file.close()
    await one.aclose()


@on_both
async def test_a_dial_where_nobody_listens_is_refused(two: Two) -> None:
    port = await two.b.bind(two.at_b)
    await port.aclose()
    with pytest.raises(ConnectionRefusedError):
        await two.a.dial(port.address)


@on_both
async def test_one_port_number_serves_streams_and_datagrams(two: Two) -> None:
    async with two.ports() as (one, other):
        assert one.address.port > 0
        with pytest.raises(OSError, match="in use"):
            await two.a.bind(one.address)
        one.datagrams.send_to(b"to you", other.address)
        assert await other.datagrams.receive() == (b"to you", one.address)
        stream = await two.a.dial(other.address)
        await (await other.accept()).aclose()
        await stream.aclose()


@on_both
async def test_accepted_streams_outlive_their_port(two: Two) -> None:
    one, other = await two.connected()
    await one.send_all(b"still")
    assert await other.receive_some() == b"still"
    await one.aclose()
    await other.aclose()


@on_both
async def test_closing_a_port_wakes_who_waits_on_it(two: Two) -> None:
    port = await two.b.bind(two.at_b)

    async def expect_closed(work: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await work()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_closed, port.accept)
        nursery.start_soon(expect_closed, port.datagrams.receive)
        await trio.testing.wait_all_tasks_blocked()
        await port.aclose()
    await expect_closed(port.accept)
    await expect_closed(port.datagrams.receive)


@on_both
async def test_a_refused_datagram_is_told_to_its_sender_at_once(two: Two) -> None:
    async with two.ports() as (one, other):
        gone = await two.b.bind(two.at_b)
        await gone.aclose()
        one.datagrams.send_to(b"anyone?", gone.address)
        with pytest.raises(DatagramRefused) as refusal:
            await one.datagrams.receive()
        assert refusal.value.address == gone.address
        one.datagrams.send_to(b"hello", other.address)
        assert await other.datagrams.receive() == (b"hello", one.address)
        other.datagrams.send_to(b"and back", one.address)
        assert await one.datagrams.receive() == (b"and back", other.address)


@on_both
async def test_datagrams_that_wait_are_all_received_and_so_is_a_refusal_among_them(
    two: Two,
) -> None:
    async with two.ports() as (one, other):
        gone = await two.b.bind(two.at_b)
        await gone.aclose()
        sent = [bytes([number]) for number in range(40)]
        for data in sent[:20]:
            other.datagrams.send_to(data, one.address)
        one.datagrams.send_to(b"anyone?", gone.address)
        for data in sent[20:]:
            other.datagrams.send_to(data, one.address)
        received: list[bytes] = []
        refused: list[Address] = []
        while len(received) < len(sent) or not refused:
            try:
                received.append((await one.datagrams.receive())[0])
            except DatagramRefused as refusal:
                refused.append(refusal.address)
        assert sorted(received) == sent
        assert refused == [gone.address]


@on_both
async def test_a_datagram_too_large_is_an_error(two: Two) -> None:
    async with two.ports() as (one, other):
        with pytest.raises(OSError):
            one.datagrams.send_to(bytes(70_000), other.address)
        one.datagrams.send_to(bytes(1400), other.address)
        assert await other.datagrams.receive() == (bytes(1400), one.address)


@pytest.mark.parametrize("host", ["", "\0", "127.0.0.1\0", "..", "x" * 64, "é" * 100, "\ud800"])
def test_what_is_no_address_is_an_os_error(host: str) -> None:
    async def main() -> None:
        network = TrioNetwork()
        port = await network.bind(Address("127.0.0.1", 0))
        with pytest.raises(OSError):
            port.datagrams.send_to(b"x", Address(host, 1))
        with pytest.raises(OSError):
            await network.dial(Address(host, 1))
        await port.aclose()

    trio.run(main)


@pytest.mark.parametrize("anywhere", ["0.0.0.0", "::"])
def test_a_port_on_any_address_says_one_that_can_be_dialled(anywhere: str) -> None:
    async def main() -> None:
        network = TrioNetwork()
        port = await network.bind(Address(anywhere, 0))
        assert not ipaddress.ip_address(port.address.host).is_unspecified
        async with await network.dial(port.address), await port.accept():
            pass
        await port.aclose()

    trio.run(main)
