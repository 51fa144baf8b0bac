"""A task's content as a stream or by ranges, from the store or while it comes in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal

import trio

from gossipcache.env import DiskFile
from gossipcache.errors import TimedOut
from gossipcache.manifest import SignedManifest
from gossipcache.node.deleting import is_over
from gossipcache.node.fetching import joined
from gossipcache.node.looking import find_local, find_manifest
from gossipcache.node.services import Services, not_found
from gossipcache.requests import TaskQuery
from gossipcache.transfer.digest_tree import DigestTree
from gossipcache.transfer.files.tree import Listing, checked_listing
from gossipcache.transfer.files.tree_output import ContentRange, tar_parts, tar_size
from gossipcache.transfer.store.scrub import read_piece

FIND_TIMEOUT_S = 30.0
CHUNK_BYTES = 256 * 1024


class Reader:
    """Reads one task; every piece is verified before it is given out."""

    def __init__(
        self,
        services: Services,
        signed: SignedManifest,
        wait_piece: Callable[[int], Awaitable[None]],
        wait_whole: Callable[[], Awaitable[object]],
    ) -> None:
        self._services = services
        self._signed = signed
        self._manifest = signed.manifest
        self._wait_piece = wait_piece
        self._wait_whole = wait_whole
        self._listing: Listing | None = None
        self._file: DiskFile | None = None
        self._tree: DigestTree | None = None
        self._piece: tuple[int, bytes] = (-1, b"")

    @property
    def kind(self) -> Literal["file", "tree"]:
        """What the chunks are: a file's bytes, or a tar of the tree."""
        return self._manifest.kind

    @property
    def digest(self) -> str:
        """Digest of the whole, as in the manifest."""
        return self._manifest.digest

    @property
    def size(self) -> int:
        """Length in bytes of a file, or of a tree's tar."""
        return self._manifest.size if self._listing is None else tar_size(self._listing)

    async def read(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`; fewer only at the end."""
        found = [chunk async for chunk in self.chunks(offset, min(offset + count, self.size))]
        return b"".join(found)

    async def chunks(self, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` to before `stop`, in order.

        When all was asked for, the digest of the whole is verified before the last chunk.
        """
        end = self.size if stop is None else min(stop, self.size)
        at = 0
        for part in self._parts():
            length = part.size if isinstance(part, ContentRange) else len(part)
            low, high = max(start - at, 0), min(end - at, length)
            at += length
            if low >= high:
                continue
            if isinstance(part, bytes):
                yield part[low:high]
                continue
            async for chunk in self._content(part.offset + low, part.offset + high):
                yield chunk

    def _parts(self) -> Iterator[bytes | ContentRange]:
        if self._listing is None:
            return iter((ContentRange(0, self._manifest.size),))
        return tar_parts(self._listing, self._manifest.listing_size)

    async def _content(self, start: int, stop: int) -> AsyncIterator[bytes]:
        piece_size = self._manifest.piece_size
        for index in range(start // piece_size, -(-stop // piece_size)):
            piece = await self._verified(index)
            if index == self._manifest.piece_count - 1 and start == 0:
                await self._wait_whole()
            base = index * piece_size
            low, high = max(start - base, 0), min(stop - base, len(piece))
            for offset in range(low, high, CHUNK_BYTES):
                yield piece[offset : min(offset + CHUNK_BYTES, high)]

    async def _verified(self, index: int) -> bytes:
        if self._piece[0] != index:
            await self._wait_piece(index)
            self._piece = (index, await self._services.env.workers.run(partial(self._load, index)))
        return self._piece[1]

    def _load(self, index: int) -> bytes:
        if self._file is None or self._tree is None:
            self._file = self._services.store.open_data(self._signed.task_id)
            self._tree = self._services.store.tree(self._signed.task_id)
        return read_piece(self._file, self._manifest, self._tree, index)

    async def open(self) -> None:
        """Reads a tree's listing, so that the size of its tar is known."""
        if self._manifest.kind == "tree":
            found = [chunk async for chunk in self._content(0, self._manifest.listing_size)]
            self._listing = checked_listing(b"".join(found), self._manifest)

    def close(self) -> None:
        """Releases the file; runs in a worker."""
        if self._file is not None:
            self._file.close()


@asynccontextmanager
async def reader(
    services: Services, query: TaskQuery, *, local: bool, timeout_s: float | None
) -> AsyncIterator[Reader]:
    """Opens a task for reading; what is not here is downloaded into the store meanwhile.

    Raises as `export` does; `timeout_s` covers the whole block.
    """
    with trio.move_on_after(timeout_s or float("inf")) as scope:
        stored = find_local(services, query)
        if not local and stored is not None and await is_over(services, stored):
            stored = None
        if stored is not None and stored.complete and not stored.suspect:
            async with _opened(services, stored.signed, _at_once, _at_once) as found:
                yield found
        elif local:
            raise not_found(query, "it is not complete on this node")
        else:
            async with _downloading(services, query, timeout_s) as found:
                yield found
    if scope.cancelled_caught:
        raise TimedOut(f"reading {query.cid!r} took over {timeout_s:g} s")


@asynccontextmanager
async def _downloading(
    services: Services, query: TaskQuery, timeout_s: float | None
) -> AsyncIterator[Reader]:
    find_s = min(FIND_TIMEOUT_S, timeout_s or FIND_TIMEOUT_S)
    signed = await find_manifest(services, query, find_s)
    async with (
        joined(services, signed, check=query.digest is not None) as download,
        _opened(services, signed, download.wait_piece, download.written) as found,
    ):
        yield found


@asynccontextmanager
async def _opened(
    services: Services,
    signed: SignedManifest,
    wait_piece: Callable[[int], Awaitable[None]],
    wait_whole: Callable[[], Awaitable[object]],
) -> AsyncIterator[Reader]:
    found = Reader(services, signed, wait_piece, wait_whole)
    services.store.touch(signed.task_id, services.env.wall_time())
    try:
        await found.open()
        with services.store.using(signed.task_id):
            yield found
    finally:
        with trio.CancelScope(shield=True):
            await services.env.workers.run(found.close)


async def _at_once(_index: int = 0) -> None:
    await trio.lowlevel.checkpoint()
