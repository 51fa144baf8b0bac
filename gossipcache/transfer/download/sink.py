"""Where the pieces of one download go: verified, written, accepted, and made durable."""

from __future__ import annotations

from collections.abc import Callable

from gossipcache.env import LARGE_FILE_BYTES
from gossipcache.errors import TaskNotFound
from gossipcache.manifest import SignedManifest
from gossipcache.transfer.digest_tree import DigestTree
from gossipcache.transfer.download.whole_digest import WholeDigest
from gossipcache.transfer.store.store import Store

OnPiece = Callable[[int, memoryview], None]
"""Called in a worker with a piece that has just been verified and written to the store."""


class Sink:
    """The partial task in the store. All calls block and run in workers; `take` in several."""

    def __init__(
        self,
        store: Store,
        signed: SignedManifest,
        tree: DigestTree,
        make_buffer: Callable[[int], memoryview],
        *,
        check_digest: bool,
    ) -> None:
        """Makes or resumes the partial task. The digest of the whole is verified if the cid is
        that digest, and on `check_digest`; `make_buffer` gives memory for that. Raises what
        `Store.begin` raises."""
        store.begin(signed, tree)
        self._store = store
        self._signed = signed
        self._tree = tree
        stored = store.find(signed.task_id)
        if stored is None:
            raise TaskNotFound("the task was deleted")
        self.resumed = stored.have
        """What stood in the store before."""
        self._check_digest = check_digest or signed.manifest.is_content_addressed
        self._file = store.open_data(signed.task_id)
        self._is_large = signed.manifest.size >= LARGE_FILE_BYTES
        self._whole: WholeDigest | None = None
        if self._check_digest and WholeDigest.supports(signed.manifest) and not stored.complete:
            self._whole = WholeDigest(signed.manifest, self._file, make_buffer)
            self._whole.found(list(self.resumed))

    def take(
        self, index: int, data: memoryview, on_piece: OnPiece | None, *, keep_hot: bool
    ) -> bool:
        """Writes piece `index` if `data` is what it must be; nothing of a bad one is kept.

        With `keep_hot` it stays in the page cache, as somebody is about to read it, and so it does
        for the digest of the whole where that is far behind.
        """
        if not self._tree.matches(index, data):
            return False
        whole = self._whole
        hot = keep_hot or not self._is_large or (whole is not None and whole.is_far(index))
        write = self._file.write_at if hot else self._file.write_past_cache
        write(index * self._signed.manifest.piece_size, data)
        if whole is not None:
            whole.feed(index, data)
        if on_piece is not None:
            on_piece(index, data)
        return True

    def mark(self, pieces: list[int]) -> None:
        """Makes `pieces`, which were taken, durable. Raises `TaskNotFound`."""
        name = self._signed.name
        self._store.mark(self._signed.task_id, pieces, manifest_name=name)

    def accept(self) -> None:
        """Turns the task, every piece of which was taken, into a complete one (`Store.accept`).

        Raises `IntegrityError` if the digest of the whole is wrong, and `TaskNotFound`.
        """
        if self._whole is not None:
            self._whole.check()
        self._store.accept(
            self._signed.task_id,
            manifest_name=self._signed.name,
            check_digest=self._check_digest,
            digest_checked=self._whole is not None,
        )

    def settle(self) -> None:
        """Makes durable what was accepted. Raises `OSError`, `TaskNotFound`."""
        self._store.settle(self._signed.task_id, manifest_name=self._signed.name)

    def withdraw(self) -> None:
        """Takes back an `accept`, since a sync failed. Raises `TaskNotFound`."""
        self._store.withdraw(self._signed.task_id)

    def close(self) -> None:
        """Releases the file, and the memory for the digest of the whole."""
        self._file.close()
        self._whole = None
