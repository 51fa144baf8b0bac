"""A network in memory, so that virtual time can pass while nodes talk."""

from __future__ import annotations

import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, memory_stream_pair

from gossipcache.env import NO_ROOM, ByteStream, Datagrams, DiskFile
from gossipcache.ids import Address


class MemoryStream(ByteStream):
    """One end of a pair. `frozen` ends lose all that is sent, as a half-open connection does."""

    def __init__(self, end: trio.StapledStream[MemorySendStream, MemoryReceiveStream]) -> None:
        self.local = self.remote = Address("127.0.0.1", 1)
        self.frozen = False
        self.sent = bytearray()
        self._end = end

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data
        if not self.frozen:
            await self._end.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._end.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._end.receive_some(max_bytes)

    async def receive_into(self, buffer: memoryview, spare: memoryview = NO_ROOM) -> int:
        data = await self._end.receive_some(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    async def send_file(self, file: DiskFile, offset: int, count: int, head: bytes = b"") -> None:
        data = file.read_at(offset, count)
        if len(data) < count:
            raise OSError("the file ended early")
        await self.send_all(head + data)

    async def send_eof(self) -> None:
        await self._end.send_eof()

    async def aclose(self) -> None:
        await self._end.aclose()


def stream_pair() -> tuple[MemoryStream, MemoryStream]:
    """Two connected streams."""
    one, other = memory_stream_pair()
    return MemoryStream(one), MemoryStream(other)


class MemoryPort:
    """A listening port of a `MemoryNetwork`."""

    datagrams: Datagrams

    def __init__(self, address: Address) -> None:
        self.address = address
        self.inbound, self._accepted = trio.open_memory_channel[ByteStream](100)

    async def accept(self) -> ByteStream:
        return await self._accepted.receive()

    async def aclose(self) -> None:
        self.inbound.close()
        await trio.lowlevel.checkpoint()


class MemoryNetwork:
    """Implements `gossipcache.env.Network`; `streams` holds (dialled, accepted) of each dial."""

    def __init__(self) -> None:
        self.streams: list[tuple[MemoryStream, MemoryStream]] = []
        self._ports: dict[Address, MemoryPort] = {}

    async def bind(self, address: Address) -> MemoryPort:
        await trio.lowlevel.checkpoint()
        port = MemoryPort(Address(address.host, len(self._ports) + 1))
        self._ports[port.address] = port
        return port

    async def dial(self, address: Address) -> ByteStream:
        if address not in self._ports:
            raise ConnectionRefusedError("nobody listens")
        dialled, accepted = stream_pair()
        self.streams.append((dialled, accepted))
        await self._ports[address].inbound.send(accepted)
        return dialled
