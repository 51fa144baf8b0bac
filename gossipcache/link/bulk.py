"""A stream under the websocket library that moves messages and pieces past it.

Towards the library it is an ordinary `trio.abc.Stream`, by which it opens and closes the websocket
and answers pings. Messages come out of `receive_message` whole. Piece frames that come in are
received straight into the buffer registered for their request.
Pieces that go out are written as one frame, header first and then the file itself, never in the
middle of another frame.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import zip_longest

import trio

from gossipcache.env import ByteStream, DiskFile
from gossipcache.errors import ProtocolError
from gossipcache.link.frames import (
    BINARY,
    CLOSE,
    MASK_BYTES,
    MAX_HEADER_BYTES,
    Forward,
    FrameError,
    FrameLimits,
    FrameScanner,
    MessageReceived,
    PieceBegins,
    mask_over,
)
from gossipcache.link.interface import Arrived, Pay
from gossipcache.link.piece import parse_piece_prefix, piece_prefix
from gossipcache.metrics import Metrics
from gossipcache.pacing import SLICE_BYTES

RECEIVE_BYTES = 32 * 1024
"""What is received at once of messages; also what may be copied of a piece."""
MESSAGE_QUEUE_SIZE = 8
"""With so many messages that nobody took nothing further is received."""
MAX_FORGOTTEN = 4096
_SPARE_BYTES = 2 * 1024
"""What may be received with the end of a piece: the head of the next one."""
_DISCARD_BYTES = 64 * 1024
_FINAL = 0x80


class BulkStream(trio.abc.Stream):
    """Frames one websocket connection over `stream`, which it owns."""

    def __init__(
        self,
        stream: ByteStream,
        metrics: Metrics,
        *,
        dialled: bool,
        pieces: bool = False,
        limits: FrameLimits | None = None,
    ) -> None:
        """`dialled`: whether this side did, which masks its frames then. `pieces`: whether pieces
        may come in, as on the dialler's side of a piece channel."""
        self.failure: ProtocolError | None = None
        """Why this side closed the connection, if the remote broke the protocol."""
        self.ended = trio.Event()
        """Set when no byte will come or go any more."""
        self.received_bytes = 0
        self._stream, self._metrics = stream, metrics
        self._dialled = dialled
        self._scanner = FrameScanner(
            pieces=pieces, masked=not dialled, limits=limits or FrameLimits()
        )
        self._incoming, self._messages = trio.open_memory_channel[bytes](MESSAGE_QUEUE_SIZE)
        self._sending = _Turn(self)
        self._posted = bytearray()
        """Frames that wait for whoever sends next."""
        self._spare = memoryview(bytearray(_SPARE_BYTES))
        self._closing = False
        self._said_goodbye = False
        self._expected: dict[int, tuple[memoryview, Arrived]] = {}
        self._forgotten: OrderedDict[int, int] = OrderedDict()
        self._receiving: tuple[int, trio.CancelScope] | None = None

    # --- towards the websocket library

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Sends one whole frame, or the HTTP head."""
        async with self._sending:
            # The library passes one frame at a time.
            self._closing = data[:1] == bytes((_FINAL | CLOSE,))
            await self._stream.send_all(data)

    async def receive_message(self) -> bytes:
        """The next message. Raises `trio.EndOfChannel` once `end_messages` was called."""
        return await self._messages.receive()

    def end_messages(self) -> None:
        """No further message comes: the library has seen the end of the connection."""
        self._incoming.close()

    async def send_messages(self, messages: Sequence[bytes], masks: Sequence[bytes]) -> None:
        """Sends binary messages past the library, all by one write, after those posted; `masks`
        has four random bytes for each, or nothing at a server."""
        async with self._sending:
            data = b"".join((self._posted, *_frames(messages, masks)))
            self._posted.clear()
            if left := data[self._stream.send_now(data) :]:
                await self._stream.send_all(left)

    def post(self, messages: Sequence[bytes], masks: Sequence[bytes]) -> bool:
        """Sends messages without waiting; False if some of them go by the next `send_messages`."""
        self._posted += b"".join(_frames(messages, masks))
        if not (self._sending.is_taken or self.has_closed):
            try:
                del self._posted[: self._stream.send_now(self._posted)]
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return False
        return not self._posted

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next bytes for the library. Raises `trio.BrokenResourceError`."""
        try:
            return await self._receive_ordinary()
        except FrameError as error:
            await self._fail(error)
            raise trio.BrokenResourceError(str(error)) from error
        except OSError as error:
            await self.aclose()
            raise trio.BrokenResourceError(str(error)) from error
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.ended.set()
            raise

    async def aclose(self) -> None:
        """Closes the connection at once."""
        self.ended.set()
        self._expected.clear()
        await self._stream.aclose()

    @property
    def has_closed(self) -> bool:
        """Whether no further frame may go out."""
        return self._closing or self.ended.is_set()

    async def break_off(self) -> None:
        """Ends the connection without a word."""
        self.ended.set()
        await trio.aclose_forcefully(self._stream)

    # --- pieces that come in

    def expect(self, request_id: int, buffer: memoryview, arrived: Arrived) -> None:
        """Registers where the piece `request_id` is to be received, and who is told of it."""
        if request_id in self._expected:
            raise ValueError(f"the piece {request_id} is already expected")
        self._expected[request_id] = buffer, arrived

    def forget(self, request_id: int) -> None:
        """Withdraws `expect`. Of a piece that is under way some bytes may be written to the buffer
        for a moment yet."""
        expected = self._expected.pop(request_id, None)
        if expected is not None:
            self._forgotten[request_id] = len(expected[0])
            if len(self._forgotten) > MAX_FORGOTTEN:
                self._forgotten.popitem(last=False)
        elif self._receiving is not None and self._receiving[0] == request_id:
            self._receiving[1].cancel()

    def forget_all(self) -> None:
        """Withdraws every `expect`."""
        for request_id in list(self._expected):
            self.forget(request_id)
        if self._receiving is not None:
            self._receiving[1].cancel()

    def accept_small(self, message: bytes) -> None:
        """Takes a piece that came as an ordinary message.

        Raises `ProtocolError` if it was not asked for or is malformed.
        """
        try:
            prefix = parse_piece_prefix(message)
            if prefix is None or prefix.prefix_size + prefix.size != len(message):
                raise ValueError("a length that is not its message's")
            expected = self._claim(prefix.request_id, prefix.size)
        except (ValueError, FrameError) as error:
            raise ProtocolError(f"a bad piece: {error}") from error
        if expected is not None:
            buffer, arrived = expected
            buffer[:] = message[prefix.prefix_size :]
            arrived()

    # --- pieces that go out

    async def send_piece(
        self,
        request_id: int,
        file: DiskFile,
        offset: int,
        count: int,
        pay: Pay | None = None,
    ) -> None:
        """Sends `count` bytes of `file` as one unmasked frame; only a server may. For `pay`
        see `PieceChannel`.

        Raises `OSError` if the file cannot be read; the connection is then closed.
        """
        prefix = piece_prefix(request_id, count)
        header = frame_header(len(prefix) + count)
        async with self._sending:
            if pay is None:
                await self._stream.send_file(file, offset, count, header + prefix)
            else:
                await self._stream.send_all(header + prefix)
                await self._send_slices(file, offset, offset + count, pay)

    async def _send_slices(self, file: DiskFile, start: int, end: int, pay: Pay) -> None:
        for offset in range(start, end, SLICE_BYTES):
            size = min(SLICE_BYTES, end - offset)
            await pay(size)
            await self._stream.send_file(file, offset, size)

    async def say_goodbye(self, code: int) -> None:
        """Sends a close frame (RFC 6455 section 7.4) past the library, unless one was sent."""
        if not self.has_closed:
            async with self._sending:
                self._closing = self._said_goodbye = True
                mask = bytes(MASK_BYTES) if self._dialled else b""
                head = bytes((_FINAL | CLOSE, (0x80 if self._dialled else 0) | 2))
                await self._stream.send_all(head + mask + code.to_bytes(2, "big"))

    async def drain(self) -> None:
        """Once nobody receives here any more: waits until the remote has closed too, so that
        the goodbye is not lost in a reset."""
        if self._said_goodbye and not self.ended.is_set():
            await self._stream.send_eof()
            while await self._stream.receive_some(RECEIVE_BYTES):
                pass

    # --- inside

    async def _receive_ordinary(self) -> bytes:
        while True:
            event = self._scanner.next_event(trio.current_time())
            if isinstance(event, MessageReceived):
                await self._deliver(event.data)
                continue
            if isinstance(event, Forward):
                await self._pace(len(event.data))
                return event.data
            if isinstance(event, PieceBegins):
                await self._receive_piece(event)
                continue
            data = await self._receive_chunk()
            if not data:
                self.ended.set()
                return b""
            self._scanner.feed(data)

    async def _receive_chunk(self) -> bytes | bytearray:
        deadline = self._scanner.next_timeout()
        if deadline is None:
            return await self._receive_now()
        with trio.move_on_at(deadline):
            return await self._receive_now()
        self._scanner.handle_timeout(trio.current_time())
        raise AssertionError("the deadline was the scanner's")

    async def _receive_now(self) -> bytes | bytearray:
        # A little less than the library asked for, as a half header may be held back before.
        data = await self._stream.receive_some(RECEIVE_BYTES - MAX_HEADER_BYTES)
        self.received_bytes += len(data)
        return data

    async def _deliver(self, message: bytes) -> None:
        await self._pace(len(message))
        try:
            self._incoming.send_nowait(message)
        except trio.WouldBlock:
            await self._incoming.send(message)

    async def _pace(self, byte_count: int) -> None:
        pause_s = self._scanner.pause_s(byte_count, trio.current_time())
        if pause_s > 0:
            self._metrics.count("link_throttled")
            await trio.sleep(pause_s)

    async def _receive_piece(self, head: PieceBegins) -> None:
        """Receives the piece that begins; it may be forgotten until its end."""
        expected = self._claim(head.request_id, head.size)
        if expected is not None:
            buffer, arrived = expected
            with trio.CancelScope() as scope:
                self._receiving = (head.request_id, scope)
                await self._fill(buffer)
            self._receiving = None
            if not scope.cancel_called:
                arrived()
                return
        await self._discard()

    def _claim(self, request_id: int, size: int) -> tuple[memoryview, Arrived] | None:
        """What was registered for a piece, or None if it was forgotten."""
        if self._forgotten.get(request_id) == size:
            del self._forgotten[request_id]
            return None
        expected = self._expected.get(request_id)
        if expected is None:
            raise FrameError("piece", f"the piece {request_id} was not asked for")
        if len(expected[0]) != size:
            raise FrameError("piece", f"{size} bytes for a piece of {len(expected[0])}")
        return self._expected.pop(request_id)

    async def _fill(self, buffer: memoryview) -> None:
        scanner = self._scanner
        position = len(taken := scanner.take_body())
        buffer[:position] = taken
        while scanner.body_left:
            count = await self._stream.receive_into(buffer[position:], self._spare)
            more = max(0, count - scanner.body_left)
            position += count - more
            self._progress(count - more)
            if more:
                self.received_bytes += more
                scanner.feed(self._spare[:more])

    async def _discard(self) -> None:
        scanner = self._scanner
        scanner.take_body()
        scratch = memoryview(bytearray(min(scanner.body_left, _DISCARD_BYTES)))
        while scanner.body_left:
            self._progress(await self._stream.receive_into(scratch[: scanner.body_left]))

    def _progress(self, count: int) -> None:
        if not count:
            raise trio.BrokenResourceError("the connection ended in the middle of a piece")
        self._scanner.body_received(count)
        self.received_bytes += count

    async def _fail(self, error: FrameError) -> None:
        self._metrics.count(f"link_rejected_{error.reason}")
        self.failure = ProtocolError(str(error))
        await self.aclose()


class _Turn:
    """One frame after the other: `async with` it to send one. Raises `ClosedResourceError`."""

    def __init__(self, bulk: BulkStream) -> None:
        self._bulk = bulk
        self._lock = trio.StrictFIFOLock()

    @property
    def is_taken(self) -> bool:
        """Whether somebody sends."""
        return self._lock.locked()

    async def __aenter__(self) -> None:
        try:
            self._lock.acquire_nowait()  # else every frame would wait for the next turn
        except trio.WouldBlock:
            await self._lock.acquire()
        if self._bulk.has_closed:
            self._lock.release()
            raise trio.ClosedResourceError("the connection is closed")

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        try:
            if error is not None:
                # Part of a frame may have gone out: nothing that follows would make sense.
                await self._bulk.break_off()
        finally:
            self._lock.release()


def _frames(messages: Sequence[bytes], masks: Sequence[bytes]) -> list[bytes]:
    return [message_frame(*each) for each in zip_longest(messages, masks, fillvalue=b"")]


def frame_header(payload_size: int) -> bytes:
    """The header of a final, unmasked binary frame (RFC 6455 section 5.2)."""
    first = _FINAL | BINARY
    if payload_size < 126:
        return bytes((first, payload_size))
    if payload_size < 2**16:
        return bytes((first, 126)) + payload_size.to_bytes(2, "big")
    return bytes((first, 127)) + payload_size.to_bytes(8, "big")


def message_frame(message: bytes, mask: bytes = b"") -> bytes:
    """`message` as a final binary frame, masked (RFC 6455 section 5.3) if there is a `mask`."""
    header = frame_header(len(message))
    if not mask:
        return header + message
    return bytes((header[0], header[1] | 0x80)) + header[2:] + mask + mask_over(message, mask)
