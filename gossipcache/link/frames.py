"""A scanner of the websocket frames that come in (RFC 6455), below the websocket library.

It bounds what the library does not (the number and pace of frames, half messages, pings), puts
messages together, and finds the piece frames, whose bytes go straight to their buffers. The
HTTP head and control frames are handed on to the library untouched. Sans-IO: bytes and the time
go in by `feed`, events come out of `next_event`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from gossipcache.link.piece import MAX_PREFIX_BYTES, parse_piece_prefix
from gossipcache.pacing import TokenBucket
from gossipcache.wire import MAX_MESSAGE_BYTES

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_FIN, _RESERVED, _MASKED = 0x80, 0x70, 0x80
_OPENING_END = b"\r\n\r\n"
MAX_HEADER_BYTES = 14
MASK_BYTES = 4


class FrameError(Exception):
    """The remote broke the framing rules or a limit. `reason` is short, for counting."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """What one remote may send. Rates are per second; bursts are what may come at once."""

    opening_bytes: int = 8 * 1024
    """The HTTP head that opens the websocket."""
    message_bytes: int = MAX_MESSAGE_BYTES
    frames_per_message: int = 64
    assembly_s: float = 10.0
    """From the first byte of a message to its last."""
    frame_rate: float = 20_000.0
    byte_rate: float = 64.0 * 2**20
    """Above these rates reading pauses, so that the remote is slowed down, not dropped."""
    ping_rate: float = 10.0
    ping_burst: float = 100.0


@dataclass(frozen=True, slots=True)
class Forward:
    """Bytes for the websocket library, as they came."""

    data: bytes


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A whole binary message, from however many fragments; unmasked."""

    data: bytes


@dataclass(frozen=True, slots=True)
class PieceBegins:
    """`size` bytes of the piece `request_id` follow; take them by `take_body`/`body_received`."""

    request_id: int
    size: int


class _Header(NamedTuple):
    final: bool
    opcode: int
    masked: bool
    size: int
    payload_size: int


class FrameScanner:
    """Scans one direction of one connection, from its HTTP head on."""

    def __init__(self, *, pieces: bool, masked: bool, limits: FrameLimits) -> None:
        """`pieces`: whether unmasked frames above the message limit are pieces, or an error.
        `masked`: whether the remote must mask its frames, as whoever dials does, or must not."""
        self.body_left = 0
        """Bytes of the present piece still to come."""
        self._pieces, self._masked, self._limits = pieces, masked, limits
        self._buffer = bytearray()
        self._opening, self._said_goodbye = True, False
        self._frame: _Header | None = None
        """Admitted, but its payload is not whole yet."""
        self._parts: list[bytes] = []
        self._fragments = 0
        self._message_bytes = 0
        self._begun_at: float | None = None
        self._pings = TokenBucket(limits.ping_rate, limits.ping_burst)
        self._frames = TokenBucket(limits.frame_rate, limits.frame_rate)
        self._bytes = TokenBucket(limits.byte_rate, limits.byte_rate)
        self._frames_since = 0

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """More bytes from the remote; nothing counts after its goodbye."""
        if not self._said_goodbye:
            self._buffer += data

    def next_event(self, now: float) -> Forward | MessageReceived | PieceBegins | None:
        """What comes next, or None until more bytes are fed. Raises `FrameError`."""
        if self._opening:
            return self._scan_opening(now)
        while (header := self._frame or self._parse_header()) is not None:
            if header.payload_size > self._limits.message_bytes:
                return self._begin_piece(header, now)
            if self._frame is None:
                self._admit(header, now)
                self._frame = header
            frame_size = header.size + header.payload_size
            if len(self._buffer) < frame_size:
                break
            frame = self._take(frame_size)
            self._frame = None
            if header.opcode in (CLOSE, PING, PONG):
                if header.opcode == CLOSE:
                    self._said_goodbye = True
                    self._buffer.clear()
                self._mark_progress(now)
                return Forward(frame)
            if (message := self._assembled(header, frame)) is not None:
                self._mark_progress(now)
                return MessageReceived(message)
        self._mark_progress(now)
        return None

    def take_body(self) -> bytes:
        """The bytes of the present piece that have been fed already."""
        taken = self._take(self.body_left)
        self.body_left -= len(taken)
        return taken

    def body_received(self, count: int) -> None:
        """`count` bytes of the present piece went past the scanner."""
        self.body_left -= count

    def pause_s(self, byte_count: int, now: float) -> float:
        """Accounts `byte_count` ordinary bytes; how long to wait before reading on, seconds."""
        frames, self._frames_since = self._frames_since, 0
        return max(self._frames.take(frames, now), self._bytes.take(byte_count, now))

    def next_timeout(self) -> float | None:
        """When a half message that has begun must have ended."""
        return None if self._begun_at is None else self._begun_at + self._limits.assembly_s

    def handle_timeout(self, now: float) -> None:
        """Raises `FrameError` if `next_timeout` has passed."""
        deadline = self.next_timeout()
        if deadline is not None and now >= deadline:
            raise FrameError("slow", "a message took too long to arrive")

    def _scan_opening(self, now: float) -> Forward | None:
        if self._buffer and not self._buffer.startswith((b"G", b"H")):
            raise FrameError("opening", "neither an HTTP request (GET) nor an answer (HTTP)")
        end = self._buffer.find(_OPENING_END)
        if end + len(_OPENING_END) > self._limits.opening_bytes or (
            end < 0 and len(self._buffer) > self._limits.opening_bytes
        ):
            raise FrameError("opening", "the HTTP head is too long")
        self._opening = end < 0
        head = None if end < 0 else Forward(self._take(end + len(_OPENING_END)))
        self._mark_progress(now)
        return head

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _assembled(self, header: _Header, frame: bytes) -> bytes | None:
        """The message that ends with this data frame, None if it goes on."""
        payload = frame[header.size :]
        if header.masked:
            payload = mask_over(payload, frame[header.size - MASK_BYTES : header.size])
        if header.final and not self._parts:
            return payload
        self._parts.append(payload)
        if not header.final:
            return None
        message, self._parts = b"".join(self._parts), []
        return message

    def _parse_header(self) -> _Header | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        if buffer[0] & _RESERVED:
            raise FrameError("reserved_bits", "a frame with reserved bits set")
        is_masked, short = bool(buffer[1] & _MASKED), buffer[1] & 0x7F
        width = {126: 2, 127: 8}.get(short, 0)
        size = 2 + width + (MASK_BYTES if is_masked else 0)
        if len(buffer) < size:
            return None
        payload_size = int.from_bytes(buffer[2 : 2 + width], "big") if width else short
        if (width == 2 and payload_size < 126) or (width == 8 and payload_size < 2**16):
            raise FrameError("length", "a frame length that is not in its shortest form")
        return _Header(bool(buffer[0] & _FIN), buffer[0] & 0x0F, is_masked, size, payload_size)

    def _begin_piece(self, header: _Header, now: float) -> PieceBegins | None:
        whole = header.final and header.opcode == BINARY and not self._fragments
        if not self._pieces or header.masked or not whole:
            raise FrameError("too_large", f"a frame of {header.payload_size} bytes")
        try:
            head = self._buffer[header.size : header.size + MAX_PREFIX_BYTES]
            prefix = parse_piece_prefix(head)
        except ValueError as error:
            raise FrameError("piece", f"a large frame that is no piece: {error}") from error
        if prefix is None:
            self._mark_progress(now)
            return None
        if prefix.prefix_size + prefix.size != header.payload_size:
            raise FrameError("piece", "a piece whose length is not its frame's")
        del self._buffer[: header.size + prefix.prefix_size]
        self.body_left = prefix.size
        self._begun_at = None
        return PieceBegins(prefix.request_id, prefix.size)

    def _admit(self, header: _Header, now: float) -> None:
        self._frames_since += 1
        if header.masked != self._masked:
            raise FrameError("mask", "a masked frame of a server, or an unmasked one of a client")
        if header.opcode in (CLOSE, PING, PONG):
            if header.payload_size > 125 or not header.final:
                raise FrameError("control_frame", "a control frame that is long or in parts")
            if header.opcode != CLOSE and self._pings.take(1, now):
                raise FrameError("ping_flood", "too many pings")
        elif header.opcode in (BINARY, CONTINUATION):
            self._admit_data(header)
        elif header.opcode == TEXT:
            raise FrameError("text", "a text message where only binary ones are allowed")
        else:
            raise FrameError("opcode", f"a frame of unknown kind {header.opcode}")
        if not self._fragments:
            self._begun_at = None

    def _admit_data(self, header: _Header) -> None:
        if (header.opcode == CONTINUATION) != bool(self._fragments):
            raise FrameError("sequence", "message fragments out of order")
        self._fragments += 1
        self._message_bytes += header.payload_size
        if self._fragments > self._limits.frames_per_message:
            raise FrameError("fragments", "a message in too many fragments")
        if self._message_bytes > self._limits.message_bytes:
            raise FrameError("too_large", "a message above the size limit")
        if header.final:
            self._fragments = self._message_bytes = 0

    def _mark_progress(self, now: float) -> None:
        if not (self._buffer or self._fragments):
            self._begun_at = None
        elif self._begun_at is None:
            self._begun_at = now


def mask_over(data: bytes, mask: bytes) -> bytes:
    """`data` with `mask` over it, or without it again (RFC 6455 section 5.3)."""
    size = len(data)
    repeated = int.from_bytes((mask * (size // MASK_BYTES + 1))[:size])
    return (int.from_bytes(data) ^ repeated).to_bytes(size)
