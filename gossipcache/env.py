"""The seams: all that a node needs from the machine it runs on.

A node gets one `Env`. `gossipcache.network` and `gossipcache.disk` give the real one, the
simulator gives its own; one contract suite runs on both. Monotonic time is
`trio.current_time()`, which the simulator's clock drives.

`Disk` is synchronous: a function that uses it runs in a worker (`Env.workers.run`), so that
one thread hop covers a whole step of work, not one system call.
"""

from __future__ import annotations

import errno
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Literal, Protocol, TypeVar

import trio

from gossipcache.ids import Address

R = TypeVar("R")
Buffer = bytes | bytearray | memoryview
OpenMode = Literal["read", "write", "create"]

LARGE_FILE_BYTES = 64 * 2**20
"""From this size on a file that nobody fetches meanwhile is written past the cache: to find room
for its pages costs more than the disk, and they push out others. What is smaller stays at hand."""


class DiskFile(Protocol):
    """An open file. Not shared between workers while its position-less calls overlap a close."""

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`; fewer only at the end of the file."""

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fills `buffer` from `offset`; returns the number of bytes, short only at the end."""

    def write_at(self, offset: int, data: Buffer) -> None:
        """Writes all of `data` at `offset`; not durable before `sync`."""

    def write_past_cache(self, offset: int, data: Buffer) -> None:
        """`write_at` for bulk that is not read again soon: it goes straight to the disk where
        the system can (from a `Disk.buffer`, at a multiple of 4 KiB). It may wait for the disk,
        and is not durable before `sync` either."""

    def allocate(self, size: int) -> None:
        """Reserves room for `size` bytes and makes the file that long. Raises `NoSpace`."""

    def truncate(self, size: int) -> None:
        """Makes the file exactly `size` bytes long."""

    def punch(self, offset: int, count: int) -> bool:
        """Gives back the room of these bytes, which read as zeros then; False where the file
        system cannot. Not durable before `sync`."""

    def size(self) -> int:
        """The file's length in bytes."""

    def sync(self) -> None:
        """Returns when all writes are durable."""

    def fileno(self) -> int | None:
        """The descriptor for sendfile, or None where there is none (in the simulator)."""

    def close(self) -> None:
        """Releases the file; a second call does nothing."""


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What tells whether a file is still the one that was read: stat(2) fields."""

    kind: Literal["file", "directory", "link", "other"]
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    blocks_bytes: int = field(compare=False)
    """Room it takes on the disk; file systems allocate late, so it is no sign of a change."""


class Disk(Protocol):
    """The file system, called from workers. Errors of the system are raised as `OSError`,
    but a full disk or quota as `NoSpace`."""

    def buffer(self, size: int) -> memoryview:
        """Zeroed memory of `size` bytes that the disk can write from as it stands."""

    def open(self, path: PurePath, mode: OpenMode) -> DiskFile:
        """`read`: must exist · `write`: read and write, must exist · `create`: made anew, 0600,
        must not exist. Never follows a symbolic link in the last part."""

    def stamp(self, path: PurePath) -> FileStamp | None:
        """The file's stamp without following links, or None if nothing is there."""

    def make_folder(self, path: PurePath) -> None:
        """Makes `path` and its missing parents, mode 0700; an existing folder is fine."""

    def list_folder(self, path: PurePath) -> list[str]:
        """The names in `path`, sorted."""

    def rename(self, old: PurePath, new: PurePath) -> None:
        """Atomically puts `old` in the place of `new`."""

    def exchange(self, one: PurePath, other: PurePath) -> None:
        """Atomically swaps two existing paths (files or folders)."""

    def link(self, existing: PurePath, new: PurePath) -> None:
        """A second name for a file. Raises `OSError` across file systems."""

    def symlink(self, target: str, new: PurePath) -> None:
        """A symbolic link `new` whose text is `target`."""

    def read_symlink(self, path: PurePath) -> str:
        """The text of a symbolic link."""

    def clone(self, source: PurePath, new: PurePath) -> bool:
        """A copy-on-write copy (reflink) at `new`; False where the file system has none."""

    def set_mode(self, path: PurePath, mode: int) -> None:
        """chmod(2)."""

    def remove(self, path: PurePath) -> None:
        """Removes a file, a link, or a folder with all that is in it; absence is fine."""

    def sync_folder(self, path: PurePath) -> None:
        """Returns when the names in `path` are durable."""

    def sync_all(self, paths: Iterable[PurePath]) -> None:
        """Returns when the contents of these files and the names in these folders are durable;
        where the system can, that costs one wait for all of them."""

    def free_bytes(self, path: PurePath) -> int:
        """Room left for this user on the file system of `path`."""


NO_ROOM = memoryview(bytearray())


class ByteStream(trio.abc.HalfCloseableStream):
    """A connected byte stream with the two bulk calls of the fast path."""

    local: Address
    remote: Address

    async def receive_into(self, buffer: memoryview, spare: memoryview = NO_ROOM) -> int:
        """Receives at least one byte straight into `buffer`; 0 at the end of the stream.

        It may wait a moment for more, so as not to wake up for each packet of a large buffer. What
        is there already of what follows may go to `spare`, and counts too."""
        raise NotImplementedError

    def send_now(self, data: bytes | bytearray) -> int:
        """How many bytes of `data` could be sent without waiting, while nobody else sends.

        Raises what `send_all` raises."""
        return 0

    async def send_file(self, file: DiskFile, offset: int, count: int, head: bytes = b"") -> None:
        """Sends `head`, and `count` bytes of `file` from `offset`; sendfile(2) where it can.

        Raises `OSError` if the file ends early; the stream is then unusable.
        """
        raise NotImplementedError


class DatagramRefused(ConnectionRefusedError):
    """The host of `address` reported that nobody listens there."""

    def __init__(self, address: Address) -> None:
        super().__init__(errno.ECONNREFUSED, "nobody listens", str(address))
        self.address = address


class Datagrams(Protocol):
    """An unreliable datagram socket."""

    def send_to(self, data: bytes, address: Address) -> None:
        """Sends one datagram, or drops it where there is no room for it: it never waits.

        May raise `OSError`, never for a datagram to another address.
        """

    async def receive(self) -> tuple[bytes, Address]:
        """The next datagram and its source.

        Raises `DatagramRefused` as soon as a host reports that a datagram sent before found
        nobody; the socket works on.
        """


class Port(Protocol):
    """One port number for both streams and datagrams."""

    address: Address
    datagrams: Datagrams

    async def accept(self) -> ByteStream:
        """The next inbound stream."""

    async def aclose(self) -> None:
        """Stops listening; accepted streams live on."""


class Network(Protocol):
    """Streams and datagrams."""

    async def bind(self, address: Address) -> Port:
        """Listens on `address`; port 0 picks one number that is free for TCP and UDP."""

    async def dial(self, address: Address) -> ByteStream:
        """Connects a stream. Raises `OSError`; `ConnectionRefusedError` is evidence of death."""


class Lane(Protocol):
    """Takes work off a worker, one step at a time and in order, on another processor."""

    def do(self, work: Callable[[], object]) -> None:
        """Begins `work` when the step before has ended. Raises what that one raised."""

    def finish(self) -> None:
        """Waits for the last step. Raises what it raised."""


class InlineLane:
    """A `Lane` that does each step at once."""

    def do(self, work: Callable[[], object]) -> None:
        """Does `work`."""
        work()

    def finish(self) -> None:
        """Nothing is left to do."""


Lanes = Callable[[], AbstractContextManager[Lane]]


@contextmanager
def inline_lane() -> Iterator[Lane]:
    """Where there is no other processor, or little to do."""
    yield InlineLane()


class Workers(Protocol):
    """Where blocking and hashing work runs: threads in production, inline in the simulator."""

    async def run(self, work: Callable[[], R]) -> R:
        """Runs `work` off the event loop. A cancellation is delivered after it has ended."""

    async def run_each(self, queue: deque[Callable[[], R]], done: Callable[[R], None]) -> None:
        """Runs what stands in `queue` and is added meanwhile, one after the other, off the event
        loop and without waiting for it in between, until nothing is left or other work waits for
        a worker. `done`, which may not raise, is called on the event loop with each result, before
        this returns.

        Raises what a step raises; those behind it stay in the queue."""

    def lane(self) -> AbstractContextManager[Lane]:
        """For a worker that has enough to do for two; at the end its last step has ended."""


@dataclass(frozen=True, slots=True)
class Env:
    """All the seams of one node."""

    network: Network
    disk: Disk
    workers: Workers
    wall_time: Callable[[], float]
    """Seconds since 1970, for expiry and display; never for measuring durations."""
    entropy: Callable[[int], bytes]
    """Secret random bytes: nonces, keys, tokens."""
    rng: random.Random
    """Jitter and sampling; nothing secret."""
