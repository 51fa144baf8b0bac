"""The local store: which tasks this node has, and their bytes.

Every change is made durable in this order: bytes, the folder they stand in, the journal. So
the journal never claims what a crash can take back, and whatever it does not know is swept
away by the next start.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import PurePath

from msgspec.structs import replace

from gossipcache.config import StoreConfig
from gossipcache.env import Disk, DiskFile
from gossipcache.errors import IntegrityError
from gossipcache.ids import TaskId
from gossipcache.manifest import SignedManifest, SignedTombstone
from gossipcache.transfer.digest_tree import DigestTree
from gossipcache.transfer.files.chunks import OnProgress, ignore_progress
from gossipcache.transfer.store.catalogue import Catalogue, Grave
from gossipcache.transfer.store.content import Content
from gossipcache.transfer.store.eviction import Eviction, evictions
from gossipcache.transfer.store.filling import Filling
from gossipcache.transfer.store.index import LinkStamp, StoredTask
from gossipcache.transfer.store.intake import Intake
from gossipcache.transfer.store.layout import Layout
from gossipcache.transfer.store.outputs import Outputs
from gossipcache.transfer.store.packed import Packing
from gossipcache.transfer.store.packs import OpenPacks, Packs
from gossipcache.transfer.store.recovery import open_catalogue
from gossipcache.transfer.store.removal import Removal
from gossipcache.transfer.store.scrub import longest_unread
from gossipcache.transfer.store.staging import Budget, Staging


class Store:
    """Tasks by id. Made by `Store.open`.

    `find`, `tasks`, `replicated`, `used_bytes`, `touch` and `using` never block and may be called
    from the event loop; all else touches the disk and runs in workers, any number at once. A task
    that is not there is `TaskNotFound`.
    """

    def __init__(
        self,
        disk: Disk,
        layout: Layout,
        catalogue: Catalogue,
        wall_time: Callable[[], float],
        config: StoreConfig,
        quota_bytes: int,
        mark: str,
    ) -> None:
        self._disk = disk
        self._layout = layout
        self._catalogue = catalogue
        self._wall_time = wall_time
        self._config = config
        packs = Packs(disk, layout, catalogue.tasks())
        self._removal = Removal(disk, layout, packs)
        self._budget = Budget(disk, layout.root, quota_bytes, lambda: catalogue.used_bytes)
        self._intake = Intake(
            disk, layout, catalogue, packs, self._removal, self._budget, wall_time
        )
        self._content = Content(disk, layout, catalogue, self._intake.moving, wall_time)
        self.outputs = Outputs(disk, catalogue, mark)
        self._filling = Filling(disk, layout, catalogue, self._content)

    @classmethod
    def open(
        cls,
        disk: Disk,
        root: PurePath,
        wall_time: Callable[[], float],
        config: StoreConfig,
        *,
        mark: str,
    ) -> Store:
        """Opens the store in `root`, or makes it. What an interrupted run left half done, in
        the store or beside the targets of its exports, is removed, and what it had written is
        taken up. `mark`: of the hidden files that exports make, as no other run of any node has it.

        Raises `VersionUnsupported` for the store of a newer program.
        """
        layout = Layout(disk, root)
        made = layout.prepare()
        quota_bytes = config.quota_bytes
        catalogue = open_catalogue(disk, layout, wall_time())
        if quota_bytes is None:
            spare_bytes = catalogue.used_bytes + layout.spare_bytes()
            quota_bytes = made.default_quota_bytes or spare_bytes
        store = cls(disk, layout, catalogue, wall_time, config, quota_bytes, mark)
        store._filling.take_up()
        return store

    def close(self) -> None:
        """Writes what is noted in memory only, and releases the index."""
        self._removal.tidy()
        self._catalogue.close()

    # What is there

    def find(self, task_id: TaskId) -> StoredTask | None:
        """What stands of `task_id`, complete or not, published or not."""
        return self._catalogue.find(task_id)

    def require(self, task_id: TaskId) -> StoredTask:
        """The same. Raises `TaskNotFound`."""
        return self._catalogue.require(task_id)

    def tasks(self, *, unpublished: bool = False) -> list[StoredTask]:
        """All published tasks; with `unpublished` also those whose record is not out yet."""
        return [task for task in self._catalogue.tasks() if unpublished or task.published]

    def replicated(self) -> list[StoredTask]:
        """The published tasks of which there should be more copies than one."""
        return [task for task in self._catalogue.replicated() if task.published]

    @property
    def used_bytes(self) -> int:
        """What all tasks together take of the disk."""
        return self._catalogue.used_bytes

    @property
    def quota_bytes(self) -> int:
        """What they may take."""
        return self._budget.quota_bytes

    def touch(self, task_id: TaskId, now: float) -> None:
        """Notes a use at `now` (seconds since 1970), to the second."""
        self._catalogue.touch(task_id, now)

    def using(self, task_id: TaskId) -> AbstractContextManager[None]:
        """Keeps the task from eviction. A deletion takes effect at once for whoever opens it
        next; files that are open stay readable, and their bytes go after the last user."""
        return self._removal.using(task_id)

    def data_path(self, task_id: TaskId) -> PurePath:
        """The file that holds the content of a task: all of it, or (if the task is `packed`)
        among others."""
        return self._content.data_path(task_id)

    def tree(self, task_id: TaskId) -> DigestTree:
        """The task's digest tree. Raises `IntegrityError` if its file was damaged."""
        return self._content.tree(task_id)

    def open_data(self, task_id: TaskId) -> DiskFile:
        """The task's content, for the caller to close; to be read, and while the task is
        partial to be written too.

        Raises `IntegrityError` if the bytes are suspect: the file is gone, has another length,
        or is linked and was touched from outside. `verify` then tells what is still good.
        """
        return self._content.open_data(task_id)

    def open_packs(self) -> OpenPacks:
        """For `read_whole`; its `close` is due."""
        return OpenPacks(self._disk, self._layout)

    def read_whole(self, task_id: TaskId, packs: OpenPacks) -> bytes:
        """A small task's content, for the caller to verify: of one that is packed nothing but its
        bytes is looked at. Raises as `open_data`."""
        return self._content.read_whole(task_id, packs)

    # Coming in

    def reserve(self, size_bytes: int) -> None:
        """Raises `NoSpace` if `size_bytes` more do not fit the quota or the disk."""
        self._budget.check(size_bytes)

    def stage(self) -> Staging:
        """A temporary folder to ingest into; its `discard` is due in any case."""
        return self._intake.stage()

    def adopt(
        self,
        staging: Staging,
        signed: SignedManifest,
        tree: DigestTree,
        *,
        pinned: bool = False,
        expires_at: float | None = None,
        published: bool = False,
        linked: LinkStamp | None = None,
    ) -> None:
        """Makes what was ingested into `staging` a complete task, durable on return.

        Once adopted, the same content may be adopted again under another header. `linked` is
        what ingest returned for a hard-linked file. Raises `Conflict` if other
        content stands complete under this task (`remember_tombstone` removes what was deleted)
        or a later generation does, `TaskNotFound` if this generation was deleted, and
        `IntegrityError` if manifest and content do not fit.
        """
        self._intake.adopt(
            staging,
            signed,
            tree,
            pinned=pinned,
            expires_at=expires_at,
            published=published,
            linked=linked,
        )

    def pack(self) -> Packing:
        """Takes in many small tasks at once, with a few syncs for all; its `discard` is due in
        any case."""
        return self._intake.pack()

    def mark_all_published(self, task_ids: Collection[TaskId]) -> None:
        """`mark_published` for many; those that are gone do not matter. Not synced: the start
        after a power loss asks the keepers for the records of what it finds unpublished."""
        self._catalogue.update_all(
            task_ids, lambda task: replace(task.entry, published=True), sync=False
        )

    def mark_published(self, task_id: TaskId) -> None:
        """Says that the task's record stands in the cluster."""
        self._catalogue.update(task_id, lambda task: replace(task.entry, published=True))

    def begin(self, signed: SignedManifest, tree: DigestTree) -> None:
        """Makes the partial task, or resumes it with the pieces it has.

        A task with the same pieces under another header takes the later header. Other content
        of an earlier generation is replaced, within one generation only if it is partial.
        Suspect bytes are verified first, a linked file is replaced by a copy.
        Raises `Conflict`, `NoSpace`, and `TaskNotFound` if this generation was deleted.
        """
        self._intake.begin(signed, tree)
        if self._catalogue.require(signed.task_id).suspect:
            self.verify(signed.task_id)
        self._intake.detach(self._catalogue.require(signed.task_id), tree)

    def mark(
        self, task_id: TaskId, pieces: Collection[int], *, manifest_name: bytes | None = None
    ) -> None:
        """Says that `pieces` are verified and written; syncs the data, then the bitmap.

        With `manifest_name` it raises `TaskNotFound` if the task was replaced meanwhile, so
        that the pieces of one content are never claimed for another.
        """
        self._filling.mark(task_id, pieces, manifest_name)

    def accept(
        self,
        task_id: TaskId,
        *,
        manifest_name: bytes | None = None,
        check_digest: bool = False,
        digest_checked: bool = False,
    ) -> None:
        """Makes a task complete all pieces of which are verified and written. That outlives the
        death of this process, but not a power loss: `settle` is due, or `withdraw`.

        The digest of the whole is computed if the cid is that digest, or on `check_digest`
        (a user named it); `digest_checked` says that the caller has done so. Raises
        `IntegrityError` if it is wrong.
        """
        self._filling.accept(
            task_id,
            manifest_name,
            check_digest=check_digest,
            digest_checked=digest_checked,
        )

    def settle(self, task_id: TaskId, *, manifest_name: bytes | None = None) -> None:
        """Makes what was accepted durable. Raises `OSError`, and the task is partial again."""
        self._filling.settle(task_id, manifest_name)

    def withdraw(self, task_id: TaskId) -> None:
        """Takes back what was accepted and not settled, since a sync failed: what was not marked
        may be lost."""
        self._filling.withdraw(task_id)

    def finish(
        self,
        task_id: TaskId,
        *,
        manifest_name: bytes | None = None,
        check_digest: bool = False,
    ) -> None:
        """`accept` and `settle` for a task all pieces of which were marked. Raises
        `IntegrityError` if some were not."""
        have = self.require(task_id).have
        if not have.complete:
            raise IntegrityError(f"task {task_id.hex()} lacks {have.total - have.count} pieces")
        self.accept(task_id, manifest_name=manifest_name, check_digest=check_digest)
        self.settle(task_id, manifest_name=manifest_name)

    # Staying and going

    def pin(self, task_id: TaskId) -> None:
        """Keeps the task from every eviction."""
        self._catalogue.update(task_id, lambda task: replace(task.entry, pinned=True))

    def unpin(self, task_id: TaskId) -> None:
        """Ends `pin`."""
        self._catalogue.update(task_id, lambda task: replace(task.entry, pinned=False))

    def mark_replica(self, task_id: TaskId) -> None:
        """Says that the task is here only because another node asked for a copy."""
        self._catalogue.update(task_id, lambda task: replace(task.entry, replica=True))

    def verify(self, task_id: TaskId, progress: OnProgress = ignore_progress) -> tuple[int, ...]:
        """Hashes the pieces that are there, and of a suspect task all of them; returns the bad.

        Bad pieces leave the bitmap, which makes the task partial: `begin` and a download mend
        it. Raises `IntegrityError` if a linked file changes meanwhile.
        """
        with self.using(task_id):
            return self._content.verify(task_id, progress)

    def next_to_verify(self, before: float, skip: Collection[TaskId] = ()) -> TaskId | None:
        """The task whose bytes were not read back for the longest time, if that was `before`
        (seconds since 1970); suspect tasks, however new, come first. None of `skip`."""
        return longest_unread(self._catalogue.tasks(), before, skip)

    def share(self, task_id: TaskId, place: Callable[[PurePath], None]) -> None:
        """Lets `place` hard-link the content of a complete task to somewhere else; from then
        on the task is linked, its file read-only. Raises what `place` raises."""
        with self.using(task_id):
            self._intake.unpack(task_id)
            self._content.share(task_id, place)

    def evictable(self, now: float, need_bytes: int = 0) -> tuple[Eviction, ...]:
        """What may be evicted at `now` (seconds since 1970) to fit the limits and `need_bytes`
        more. Proposals only: the caller asks the cluster, calls `evict`, and stops with those
        for the quota when `excess_bytes` is no longer positive."""
        return evictions(
            self._catalogue.tasks(),
            now,
            in_use=self._removal.in_use(),
            idle_ttl_s=self._config.idle_ttl_s,
            excess_bytes=self.excess_bytes(need_bytes),
        )

    def excess_bytes(self, need_bytes: int = 0) -> int:
        """By how much the quota would be passed with `need_bytes` more; not positive if it fits."""
        return self._budget.excess_bytes(need_bytes)

    def evict(self, task_id: TaskId) -> bool:
        """Removes the task, unless it is absent, pinned, in use or not durable by now."""
        with self._intake.moving:
            task = self._catalogue.find(task_id)
            if task is None or task.pinned or not task.settled:
                return False
            if task_id in self._removal.in_use():
                return False
            self.remove(task_id)
        return True

    def remove(self, task_id: TaskId) -> int:
        """Removes the task, even in use; returns the bytes that this frees, 0 if absent."""
        with self._intake.moving:
            task = self._catalogue.drop(task_id)
            self._removal.take_away(task_id, None if task is None else task.place)
        self._removal.tidy()
        return 0 if task is None else task.disk_bytes

    # What must be remembered

    def remember_tombstone(self, tombstone: SignedTombstone) -> None:
        """Remembers a deletion, so that its generation never comes back, and removes what
        stands of it; durable on return."""
        task_id = tombstone.task_id
        with self._intake.moving:
            self._catalogue.bury(task_id, Grave.of(tombstone))
            task = self._catalogue.find(task_id)
            if task is not None and task.generation <= self.dead_generation(task_id):
                self.remove(task_id)

    def dead_generation(self, task_id: TaskId) -> int:
        """The highest generation known to be deleted; 0 if none is."""
        return self._catalogue.dead_generation(task_id)

    def dead_generations(self) -> dict[TaskId, int]:
        """All deletions that are remembered: the highest deleted generation by task."""
        return self._catalogue.dead_generations()

    @property
    def dead_sum(self) -> int:
        """The sum of those generations: another number after each deletion."""
        return self._catalogue.dead_sum

    def tombstone(self, task_id: TaskId, cluster_id: bytes) -> SignedTombstone | None:
        """The proof of a task's last deletion, unless it has been compacted away."""
        grave = self._catalogue.grave(task_id)
        return None if grave is None else grave.tombstone(cluster_id)

    def compact_tombstones(self, before: float) -> int:
        """Keeps of the deletions made `before` (seconds since 1970) just the generation; their
        number is returned."""
        return self._catalogue.compact_graves(before)

    def tidy(self) -> None:
        """Housekeeping, once in a while: frees what the last users left, saves the last uses."""
        self._removal.tidy()
        self._catalogue.save_uses()
