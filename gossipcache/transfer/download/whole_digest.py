"""The digest of the whole content, computed while its pieces come in."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

from blake3 import blake3

from gossipcache.env import DiskFile
from gossipcache.errors import IntegrityError
from gossipcache.manifest import Manifest

_CATCH_UP_PIECES = 4
"""How many written pieces one arriving piece may cause to be read back; so an arrival never
waits for long, and the reading keeps pace all the same."""
_KEPT_BYTES = 8 * 2**20
"""What is kept of early pieces: with two connections most are early by one."""
_NEAR_PIECES = 16
"""How far ahead of the hash a piece may be to be kept, or waited for. A swarm sends most from
farther ahead."""


class WholeDigest:
    """SHA-256 or BLAKE3 of content whose pieces arrive in any order, in any worker.

    A piece that is next in order is hashed while it is hot; of those that came too early a few
    are kept, the others are read back from the file when their turn has come. The digest of a
    tree is not of this kind (`supports`).
    """

    def __init__(
        self, manifest: Manifest, file: DiskFile, make_buffer: Callable[[int], memoryview]
    ) -> None:
        """`file` holds every piece before it is fed, and is read from inside the calls."""
        self._manifest = manifest
        self._file = file
        self._make_buffer = make_buffer
        scheme = manifest.digest.partition(":")[0]
        self._state = hashlib.sha256() if scheme == "sha256" else blake3()
        self._next = 0
        self._early: set[int] = set()
        self._kept: dict[int, memoryview] = {}
        """The content of some early pieces."""
        self._spare: list[memoryview] = []
        self._room = _KEPT_BYTES // manifest.piece_size
        """How many more can be kept."""
        self._early_lock = threading.Lock()
        self._turn = threading.Lock()
        """Held by the worker that hashes."""
        self._scratch: bytearray | None = None

    @staticmethod
    def supports(manifest: Manifest) -> bool:
        """Whether the manifest's digest is one over the plain content."""
        return manifest.digest.startswith(("sha256:", "blake3:"))

    def is_far(self, index: int) -> bool:
        """Whether piece `index` comes so early that it will be read back from the file."""
        return index > self._next + _NEAR_PIECES

    def feed(self, index: int, data: memoryview) -> None:
        """Piece `index` is verified and written, and is `data`.

        Waits for another feed only where that is sooner done than reading the piece back would be:
        the hash is then what the download waits for.
        """
        waits = not self._room and not self.is_far(index)
        if not self._turn.acquire(blocking=waits):
            self._note(index, data)
            return
        try:
            self._catch_up(_NEAR_PIECES if waits else _CATCH_UP_PIECES)
            if index == self._next:
                self._state.update(data)
                self._next += 1
            else:
                self._note(index, data)
            self._catch_up(_CATCH_UP_PIECES)
        finally:
            self._turn.release()

    def check(self) -> None:
        """To be called when every piece was fed or stood in the file before.

        Raises `IntegrityError` if the content is not what the manifest says it is.
        """
        with self._turn:
            while self._next < self._manifest.piece_count:
                self._take_next()
            digest = self._state.hexdigest()
        if digest != self._manifest.digest.partition(":")[2]:
            raise IntegrityError(
                f"the content is not {self._manifest.digest}, which its manifest says it is",
                "its publisher made a false statement; name another with --publisher",
            )

    def found(self, pieces: list[int]) -> None:
        """`pieces` stood in the file before."""
        with self._early_lock:
            self._early.update(pieces)

    def _note(self, index: int, data: memoryview) -> None:
        size = self._manifest.piece_size
        with self._early_lock:
            if not self._room or self.is_far(index):
                self._early.add(index)
                return
            self._room -= 1
            copy = self._spare.pop() if self._spare else self._make_buffer(size)
        copy[: len(data)] = data
        with self._early_lock:
            self._kept[index] = copy
            self._early.add(index)

    def _catch_up(self, limit: int) -> None:
        for _ in range(limit):
            with self._early_lock:
                if self._next not in self._early:
                    return
                self._early.remove(self._next)
            self._take_next()

    def _take_next(self) -> None:
        with self._early_lock:
            kept = self._kept.pop(self._next, None)
        if kept is None:
            self._read_back()
        else:
            self._state.update(kept[: self._manifest.piece_length(self._next)])
            with self._early_lock:
                self._spare.append(kept)
                self._room += 1
        self._next += 1

    def _read_back(self) -> None:
        if self._scratch is None:
            self._scratch = bytearray(min(2**20, self._manifest.piece_size))
        offset = self._next * self._manifest.piece_size
        end = offset + self._manifest.piece_length(self._next)
        while offset < end:
            part = memoryview(self._scratch)[: end - offset]
            if self._file.read_into(offset, part) != len(part):
                raise IntegrityError("a file is shorter than it was")
            self._state.update(part)
            offset += len(part)
