"""Bitmaps of pieces: numbers whose bit `i` is piece `i`, and how they stand in messages."""

from __future__ import annotations

from collections.abc import Iterator

from gossipcache.errors import ProtocolError
from gossipcache.messages.pieces import MAX_HAVE_BYTES, Have

_MIRROR = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def to_bitmap(bits: bytes) -> int:
    """Bytes in the bit order of BEP 3 as a number whose bit `i` is piece `i`."""
    return int.from_bytes(bits.translate(_MIRROR), "little")


def to_bits(bitmap: int, total: int) -> bytes:
    """The opposite of `to_bitmap`, `total` pieces long."""
    return bitmap.to_bytes(-(-total // 8), "little").translate(_MIRROR)


def have_messages(pieces: int, total: int) -> Iterator[Have]:
    """`pieces` (bitmap) as slices; stretches without any are left out."""
    bits = to_bits(pieces, total)
    for start in range(0, len(bits), MAX_HAVE_BYTES):
        part = bits[start : start + MAX_HAVE_BYTES].rstrip(b"\0")
        skipped = len(part) - len(part.lstrip(b"\0"))
        if part:
            yield Have(first=8 * (start + skipped), bits=part[skipped:])


def pieces_of(have: Have, total: int) -> int:
    """The pieces (bitmap) of a slice. Raises `ProtocolError` for one that is not below `total`."""
    pieces = to_bitmap(have.bits) << have.first
    if pieces >> total:
        raise ProtocolError("a bitmap with pieces beyond the last")
    return pieces
