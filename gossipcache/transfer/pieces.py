"""Which pieces of a task are there: an immutable bitmap."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import cached_property

from gossipcache.errors import ProtocolError

_BIT = tuple(0x80 >> place for place in range(8))


class PieceSet(Collection[int]):
    """A set of piece indexes below `total`, as a bitmap in the bit order of BEP 3: piece 0 is
    the highest bit of the first byte, spare bits are zero."""

    def __init__(self, bitmap: bytes, total: int) -> None:
        """`bitmap` is trusted; bytes from elsewhere go through `from_bytes`."""
        self._bitmap = bitmap
        self.total = total

    @classmethod
    def empty(cls, total: int) -> PieceSet:
        """None of `total` pieces."""
        return cls(bytes(-(-total // 8)), total)

    @classmethod
    def full(cls, total: int) -> PieceSet:
        """All of `total` pieces."""
        whole, spare = divmod(total, 8)
        return cls(b"\xff" * whole + (bytes([0xFF00 >> spare & 0xFF]) if spare else b""), total)

    @classmethod
    def of(cls, pieces: Iterable[int], total: int) -> PieceSet:
        """Just `pieces`. Raises `ValueError` for one that is not below `total`."""
        return cls.empty(total).with_pieces(pieces)

    @classmethod
    def from_bytes(cls, bitmap: bytes, total: int) -> PieceSet:
        """The set that `to_bytes` wrote. Raises `ProtocolError` on a wrong length or spare bits."""
        if len(bitmap) != -(-total // 8):
            raise ProtocolError(f"a bitmap of {len(bitmap)} bytes for {total} pieces")
        if total % 8 and bitmap[-1] & (0xFF >> total % 8):
            raise ProtocolError("a bitmap with pieces beyond the last")
        return cls(bytes(bitmap), total)

    def to_bytes(self) -> bytes:
        """The bitmap, one bit a piece."""
        return self._bitmap

    @cached_property
    def count(self) -> int:
        """How many pieces are in the set."""
        return int.from_bytes(self._bitmap, "big").bit_count()

    @property
    def complete(self) -> bool:
        """Whether no piece is missing; true of an empty file, which has none."""
        return self.count == self.total

    def missing(self) -> Iterator[int]:
        """The indexes that are not in the set, ascending."""
        return (index for index in range(self.total) if index not in self)

    def with_pieces(self, pieces: Iterable[int]) -> PieceSet:
        """This set and `pieces`. Raises `ValueError` for one that is not below `total`."""
        bitmap = bytearray(self._bitmap)
        for index in pieces:
            bitmap[self._place(index)] |= _BIT[index & 7]
        return PieceSet(bytes(bitmap), self.total)

    def without(self, pieces: Iterable[int]) -> PieceSet:
        """This set less `pieces`. Raises `ValueError` for one that is not below `total`."""
        bitmap = bytearray(self._bitmap)
        for index in pieces:
            bitmap[self._place(index)] &= ~_BIT[index & 7]
        return PieceSet(bytes(bitmap), self.total)

    def _place(self, index: int) -> int:
        if not 0 <= index < self.total:
            raise ValueError(f"piece {index} of {self.total}")
        return index >> 3

    def __contains__(self, index: object) -> bool:
        return (
            isinstance(index, int)
            and 0 <= index < self.total
            and bool(self._bitmap[index >> 3] & _BIT[index & 7])
        )

    def __iter__(self) -> Iterator[int]:
        return (index for index in range(self.total) if index in self)

    def __len__(self) -> int:
        return self.count

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PieceSet):
            return NotImplemented
        return self.total == other.total and self._bitmap == other._bitmap

    def __hash__(self) -> int:
        return hash((self._bitmap, self.total))

    def __repr__(self) -> str:
        return f"PieceSet({self.count} of {self.total})"
