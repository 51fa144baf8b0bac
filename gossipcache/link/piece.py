"""The piece message: the CBOR array `["piece", request_id, bytes]`, piece bytes last.

Because the bytes stand last, a sender writes the few bytes before them and then the file
itself, and a receiver that has read those few bytes knows where the rest belongs. To any
other CBOR library it is an ordinary value (RFC 8949, core deterministic encoding).
"""

from __future__ import annotations

from typing import NamedTuple

_START = b"\x83\x65piece"
_UNSIGNED, _BYTES = 0, 2
_WIDTHS = {24: 1, 25: 2, 26: 4, 27: 8}

MAX_PREFIX_BYTES = len(_START) + 9 + 9
MAX_REQUEST_ID = 2**63 - 1


class PiecePrefix(NamedTuple):
    """What stands before the bytes of a piece."""

    request_id: int
    size: int
    """Length of the piece, bytes."""
    prefix_size: int
    """Length of what stands before it, bytes."""


def piece_prefix(request_id: int, size: int) -> bytes:
    """What stands before the `size` bytes of the piece `request_id`."""
    return _START + _encoded_head(_UNSIGNED, request_id) + _encoded_head(_BYTES, size)


def is_piece(message: bytes) -> bool:
    """Whether a message claims to be a piece."""
    return message.startswith(_START)


def parse_piece_prefix(data: bytes | bytearray) -> PiecePrefix | None:
    """The prefix at the start of `data`, or None while `data` is too short to tell.

    Raises `ValueError` if `data` does not begin with a canonical prefix.
    """
    if data[: len(_START)] != _START[: len(data)]:
        raise ValueError("not a piece")
    request = _decoded_head(data, len(_START), _UNSIGNED)
    if request is None:
        return None
    request_id, position = request
    if request_id > MAX_REQUEST_ID:
        raise ValueError("a request id out of range")
    body = _decoded_head(data, position, _BYTES)
    if body is None:
        return None
    size, position = body
    return PiecePrefix(request_id, size, position)


def _encoded_head(major: int, value: int) -> bytes:
    if value < 24:
        return bytes((major << 5 | value,))
    # The shortest of 1, 2, 4 and 8 bytes.
    exponent = ((value.bit_length() - 1) // 8).bit_length()
    return bytes((major << 5 | 24 + exponent,)) + value.to_bytes(1 << exponent, "big")


def _decoded_head(data: bytes | bytearray, start: int, major: int) -> tuple[int, int] | None:
    if len(data) <= start:
        return None
    info = data[start] & 0x1F
    if data[start] >> 5 != major or (info > 23 and info not in _WIDTHS):
        raise ValueError("not a piece")
    if info < 24:
        return info, start + 1
    end = start + 1 + _WIDTHS[info]
    if len(data) < end:
        return None
    value = int.from_bytes(data[start + 1 : end], "big")
    if _encoded_head(major, value) != data[start:end]:
        raise ValueError("a number that is not in its shortest form")
    return value, end
