"""A simulated stream: `gossipcache.env.ByteStream` over two pipes."""

from __future__ import annotations

import errno
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from gossipcache.env import NO_ROOM, ByteStream, DiskFile
from gossipcache.ids import Address
from gossipcache.network import Exclusive
from sim.network.pipe import SEGMENT_BYTES, Pipe

if TYPE_CHECKING:
    from sim.network.fabric import Fabric, SimHost

_RECEIVE_BYTES = 64 * 1024


class SimStream(ByteStream):
    """One end of a connection between two simulated hosts."""

    def __init__(
        self, host: SimHost, local: Address, remote: Address, outbound: Pipe, inbound: Pipe
    ) -> None:
        self.local = local
        self.remote = remote
        self._host = host
        self._outbound = outbound
        self._inbound = inbound
        self._closed = False
        self._ended = False
        self._sending = Exclusive("sending to this stream")
        self._receiving = Exclusive("receiving from this stream")
        outbound.on_reset_needed = self._reset_arrives
        host.streams[self] = None

    @classmethod
    def pair(
        cls, fabric: Fabric, source: SimHost, local: Address, target: SimHost, remote: Address
    ) -> tuple[SimStream, SimStream]:
        """The two ends of a new connection, the dialling one first."""
        there = Pipe(fabric, source, target, f"{local}>{remote}")
        back = Pipe(fabric, target, source, f"{remote}>{local}")
        return cls(source, local, remote, there, back), cls(target, remote, local, back, there)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Sends all of `data`."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._check_sendable()
            await self._send(memoryview(data).cast("B"))

    async def wait_send_all_might_not_block(self) -> None:
        """Returns when the window has room."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._check_open()
            await self._outbound.wait_writable()
            self._check_open()

    async def send_eof(self) -> None:
        """Ends this direction of the stream."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._check_open()
            if not self._ended:
                self._ended = True
                self._outbound.push_end()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """At least one byte, at most `max_bytes`; b"" at the end."""
        limit = _RECEIVE_BYTES if max_bytes is None else operator.index(max_bytes)
        if limit < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._receiving:
            await trio.lowlevel.checkpoint()
            self._check_open()
            await self._inbound.wait_readable()
            self._check_open()
            data = self._inbound.pull(limit)
            if not data:
                self._check_unbroken()
            return data

    async def receive_into(self, buffer: memoryview, spare: memoryview = NO_ROOM) -> int:
        """Receives at least one byte straight into `buffer`; 0 at the end of the stream."""
        data = await self.receive_some(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    async def send_file(self, file: DiskFile, offset: int, count: int, head: bytes = b"") -> None:
        """Sends `head`, and `count` bytes of `file` from `offset`."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._check_sendable()
            if head:
                await self._send(memoryview(head))
            while count:
                data = file.read_at(offset, min(SEGMENT_BYTES, count))
                if not data:
                    raise OSError(errno.EIO, f"the file ends {count} bytes early")
                await self._send(memoryview(self._host.on_serve(file, offset, data)))
                offset += len(data)
                count -= len(data)

    async def aclose(self) -> None:
        """Closes both directions; a second call does nothing."""
        if not self._closed:
            self._closed = self._outbound.is_left = True
            self._hang_up()
            self._inbound.wake()
            self._outbound.wake()
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        """Closes with a reset."""
        self._closed = True
        self._host.streams.pop(self, None)
        self._inbound.is_abandoned = True
        self._ended = True
        self._outbound.push_reset(self._reset_arrives)

    def die(self, *, silent: bool) -> None:
        """Its process was killed: the kernel hangs up, or nothing ever comes again."""
        if silent:
            self._host.streams.pop(self, None)
        else:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._inbound.has_unread:  # what close(2) does with bytes nobody has read
            self.abort()
            return
        self._host.streams.pop(self, None)
        self._inbound.is_abandoned = True
        if not self._ended and not self._outbound.is_reset:
            self._ended = True
            self._outbound.push_end()

    async def _send(self, view: memoryview) -> None:
        while view:
            await self._outbound.wait_writable()
            self._check_sendable()
            if self._host.resets_due and len(view) > 1:
                self._reset_behind(bytes(view[: len(view) // 2]))
            size = min(SEGMENT_BYTES, self._outbound.room_bytes(), len(view))
            self._outbound.push(bytes(view[:size]))
            view = view[size:]

    def _reset_behind(self, data: bytes) -> None:
        """The connection breaks in the midst of a message; only `data` of it gets through."""
        self._host.resets_due -= 1
        self._host.resets_done += 1
        self._outbound.push(data)
        self._ended = True
        self._outbound.push_reset(self._reset_arrives)
        raise trio.BrokenResourceError("the simulated connection was reset")

    def forget(self) -> Callable[[], int]:
        """A firewall on the path forgets the connection; gives how many segments it dropped."""
        pipes = self._outbound, self._inbound
        for pipe in pipes:
            pipe.is_forgotten = True
        return lambda: sum(pipe.swallowed for pipe in pipes)

    def _reset_arrives(self) -> None:
        self._outbound.reset()
        self._inbound.reset()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream is closed")

    def _check_sendable(self) -> None:
        self._check_open()
        if self._ended:
            raise trio.ClosedResourceError("this stream's end was sent already")
        if self._outbound.is_reset:
            raise trio.BrokenResourceError("the simulated connection was reset")
        self._host.check_alive()

    def _check_unbroken(self) -> None:
        if self._inbound.is_reset:
            raise trio.BrokenResourceError("the simulated connection was reset")
        self._host.check_alive()
