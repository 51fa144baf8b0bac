"""The digests of a task's pieces under one root, verified page by page.

Level 0 is the list of piece digests (BLAKE3-256), cut into pages of 1024; level n + 1 lists
the digests of the pages of level n. The root, which the manifest carries, is the digest of
the only page of the highest level. A page's digest covers its level, so that no page passes
for one of another level, and the number of pieces (signed with the manifest) fixes how many
pages there are and how long each is: a Merkle tree (Merkle, 1987) with a fan-out of 1024.
"""

from __future__ import annotations

from blake3 import blake3

from gossipcache.env import Buffer
from gossipcache.errors import IntegrityError

DIGEST_BYTES = 32
FANOUT = 1024
MAX_PAGE_BYTES = FANOUT * DIGEST_BYTES

_DOMAIN = b"gossipcache/digest-tree/1"


def piece_digest(data: Buffer) -> bytes:
    """BLAKE3-256 of a piece's bytes."""
    return blake3(data).digest()


def page_digest(level: int, page: bytes) -> bytes:
    """The digest of a page as the level above, or the root, states it."""
    return blake3(_DOMAIN + bytes([level]) + page).digest()


def level_count(piece_count: int) -> int:
    """How many levels a tree over `piece_count` pieces has; at least one."""
    levels, pages = 1, page_count(piece_count, 0)
    while pages > 1:
        levels, pages = levels + 1, -(-pages // FANOUT)
    return levels


def page_count(piece_count: int, level: int) -> int:
    """How many pages `level` has; at least one, which is empty for an empty file."""
    pages = piece_count
    for _ in range(level + 1):
        pages = -(-pages // FANOUT)
    return max(pages, 1)


def page_bytes(piece_count: int, level: int, index: int) -> int:
    """How long page `index` of `level` is."""
    digests = piece_count if level == 0 else page_count(piece_count, level - 1)
    return min(FANOUT, digests - index * FANOUT) * DIGEST_BYTES


class DigestTree:
    """All levels of one task's tree."""

    def __init__(self, digests: bytes) -> None:
        """`digests`: the piece digests, joined in order."""
        self._levels = [digests]
        while len(self._levels[-1]) > MAX_PAGE_BYTES:
            level, below = len(self._levels) - 1, self._levels[-1]
            self._levels.append(
                b"".join(
                    page_digest(level, below[at : at + MAX_PAGE_BYTES])
                    for at in range(0, len(below), MAX_PAGE_BYTES)
                )
            )
        self.root = page_digest(len(self._levels) - 1, self._levels[-1])

    @property
    def piece_count(self) -> int:
        """How many pieces it covers."""
        return len(self._levels[0]) // DIGEST_BYTES

    @property
    def levels(self) -> int:
        """How many levels it has."""
        return len(self._levels)

    @property
    def digests(self) -> bytes:
        """The piece digests, joined in order."""
        return self._levels[0]

    def piece(self, index: int) -> bytes:
        """The digest of piece `index`. Raises `IndexError`."""
        if not 0 <= index < self.piece_count:
            raise IndexError(f"piece {index} of {self.piece_count}")
        return self._levels[0][index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]

    def page(self, level: int, index: int) -> bytes:
        """Page `index` of `level`, at most 32 KiB. Raises `IndexError`."""
        if not 0 <= level < self.levels or not 0 <= index < page_count(self.piece_count, level):
            raise IndexError(f"no page {index} at level {level}")
        return self._levels[level][index * MAX_PAGE_BYTES : (index + 1) * MAX_PAGE_BYTES]

    def matches(self, index: int, data: Buffer) -> bool:
        """Whether `data` is piece `index`."""
        return piece_digest(data) == self.piece(index)


class TreeAssembly:
    """A tree that comes in by pages, from any holders, each checked against its parent.

    Ask for `wanted()`, hand each answer to `add`, until `tree` is there.
    """

    def __init__(self, root: bytes, piece_count: int) -> None:
        self._piece_count = piece_count
        self._level = level_count(piece_count) - 1
        self._expected = [root]
        self._pages: list[bytes | None] = [None]
        self.tree: DigestTree | None = None
        """The whole tree, once the last page is in."""
        if piece_count == 0:
            self.add(0, 0, b"")

    def wanted(self) -> tuple[tuple[int, int], ...]:
        """The pages (level, index) that can be verified now and are not in yet."""
        if self.tree is not None:
            return ()
        return tuple((self._level, at) for at, page in enumerate(self._pages) if page is None)

    def add(self, level: int, index: int, page: bytes) -> None:
        """Takes in a page. One that is not wanted (any more) is ignored.

        Raises `IntegrityError` if it is not the page that the root commits to.
        """
        if self.tree is not None or level != self._level or not 0 <= index < len(self._pages):
            return
        if (
            len(page) != page_bytes(self._piece_count, level, index)
            or page_digest(level, page) != self._expected[index]
        ):
            raise IntegrityError(f"page {index} of level {level} is not in the digest tree")
        self._pages[index] = page
        if all(page is not None for page in self._pages):
            self._descend()

    def _descend(self) -> None:
        joined = b"".join(page for page in self._pages if page is not None)
        if self._level == 0:
            self.tree = DigestTree(joined)
            return
        self._level -= 1
        self._expected = [
            joined[at : at + DIGEST_BYTES] for at in range(0, len(joined), DIGEST_BYTES)
        ]
        self._pages = [None] * len(self._expected)
