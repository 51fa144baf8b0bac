"""How tasks come into the store: whole from an import, or empty to be filled by a download."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import PurePath

import msgspec
from msgspec.structs import replace

from gossipcache.env import Disk
from gossipcache.errors import Conflict, IntegrityError, TaskNotFound
from gossipcache.ids import TaskId
from gossipcache.manifest import SignedManifest
from gossipcache.transfer.digest_tree import DigestTree
from gossipcache.transfer.pieces import PieceSet
from gossipcache.transfer.store.catalogue import Catalogue
from gossipcache.transfer.store.index import (
    Entry,
    LinkStamp,
    SealedManifest,
    StoredTask,
    entry_of,
    sealed_of,
)
from gossipcache.transfer.store.layout import Layout, write_file
from gossipcache.transfer.store.packed import Packing
from gossipcache.transfer.store.packs import Packs
from gossipcache.transfer.store.removal import Removal
from gossipcache.transfer.store.scrub import bad_pieces
from gossipcache.transfer.store.staging import Arriving, Budget, Folders, Staging


class Intake:
    """Puts folders in place. `moving` is held while the folder of a task comes or goes."""

    def __init__(
        self,
        disk: Disk,
        layout: Layout,
        catalogue: Catalogue,
        packs: Packs,
        removal: Removal,
        budget: Budget,
        wall_time: Callable[[], float],
    ) -> None:
        self._disk = disk
        self._layout = layout
        self._catalogue = catalogue
        self._packs = packs
        self._removal = removal
        self._budget = budget
        self._wall_time = wall_time
        self._staging = Folders(layout.staging)
        self._detaching = threading.Lock()
        self.moving = threading.RLock()
        self._arriving = Arriving(self.moving)

    def stage(self) -> Staging:
        """A temporary folder of its own."""
        return Staging(self._disk, self._staging.next(), self._budget)

    def adopt(
        self,
        staging: Staging,
        signed: SignedManifest,
        tree: DigestTree,
        *,
        pinned: bool,
        expires_at: float | None,
        published: bool,
        linked: LinkStamp | None,
    ) -> None:
        """See `Store.adopt`."""
        manifest = signed.manifest
        stamp = self._disk.stamp(staging.data)
        if stamp is None and self._readopted(signed, tree, pinned=pinned, published=published):
            return
        if stamp is None or stamp.size != manifest.size or tree.root != manifest.root:
            raise IntegrityError("the manifest does not fit the content that was staged")
        entry = replace(
            entry_of(signed.signed, signed.manifest, self._wall_time()),
            finished=True,
            digest_checked=True,
            pinned=pinned,
            expires_at=manifest.expires_at if expires_at is None else expires_at,
            published=published,
            disk_bytes=0 if linked else stamp.blocks_bytes,
            linked=linked,
        )
        self._install(staging, signed, tree, entry, keep_complete=True)

    def pack(self) -> Packing:
        """See `Store.pack`."""
        return Packing(
            self._disk,
            self._layout,
            self._catalogue,
            self._packs,
            self._budget,
            self._staging,
            self._arriving,
            self._wall_time,
        )

    def unpack(self, task_id: TaskId) -> None:
        """Gives a packed task a folder with a file of its own for the content, which may be
        written to, and linked; durable on return. Any other one stays as it is."""
        with self.moving:
            task = self._catalogue.require(task_id)
            if not task.packed:
                return
            staging = self.stage()
            try:
                self._unpack(task, staging)
            finally:
                staging.discard()
            self._catalogue.update(
                task_id, lambda task: replace(task.entry, packed=False, place=None)
            )
            self._removal.leave(task_id, task.place)
            self._disk.remove(self._layout.packed(task_id))
        self._removal.tidy()

    def _unpack(self, task: StoredTask, staging: Staging) -> None:
        folder = self._layout.task(task.task_id)
        with suppress(FileNotFoundError):
            self._take_content(task, staging)
        with suppress(IntegrityError):
            # One that was damaged is written by whoever mends the task.
            sealed = self._layout.sealed_of(task)
            write_file(self._disk, staging.folder / "manifest", msgspec.msgpack.encode(sealed))
        self._disk.sync_folder(staging.folder)
        self._disk.remove(folder)
        self._disk.rename(staging.folder, folder)
        self._disk.sync_folder(folder.parent)

    def _take_content(self, task: StoredTask, staging: Staging) -> None:
        with closing(self._disk.open(self._layout.data(task), "read")) as file:
            data = file.read_at(task.start, task.size)
        with closing(self._disk.open(staging.data, "create")) as file:
            file.write_at(0, data)
            file.sync()

    def _readopted(
        self, signed: SignedManifest, tree: DigestTree, *, pinned: bool, published: bool
    ) -> bool:
        """Whether the content was adopted before, and now has the header `signed`."""
        with self.moving:
            self._check_generation(signed, keep_complete=True)
            task = self._catalogue.find(signed.task_id)
            if task is None or not task.complete or not same_pieces(task.signed, signed):
                return False
            self._seal(task, signed, tree)
            self._catalogue.update(
                signed.task_id,
                lambda task: replace(
                    task.entry,
                    pinned=task.pinned or pinned,
                    published=task.published or published,
                ),
            )
            return True

    def begin(self, signed: SignedManifest, tree: DigestTree) -> None:
        """See `Store.begin`; a task that was there may still be suspect or linked."""
        manifest = signed.manifest
        if tree.root != manifest.root or tree.piece_count != manifest.piece_count:
            raise IntegrityError("a digest tree that is not the manifest's")
        with self.moving:
            self._check_generation(signed, keep_complete=False)
            task = self._catalogue.find(signed.task_id)
            if task is not None and same_pieces(task.signed, signed):
                self._seal(task, signed, tree)
                return
        self._begin_anew(signed, tree)

    def _begin_anew(self, signed: SignedManifest, tree: DigestTree) -> None:
        manifest = signed.manifest
        staging = self.stage()
        try:
            staging.reserve(manifest.size)
            with closing(self._disk.open(staging.data, "create")) as file:
                file.allocate(manifest.size)
            nothing = PieceSet.empty(manifest.piece_count).to_bytes()
            entry = replace(
                entry_of(signed.signed, signed.manifest, self._wall_time()),
                have=nothing,
                disk_bytes=manifest.size,
            )
            self._install(staging, signed, tree, entry, keep_complete=False)
        finally:
            staging.discard()

    def _install(
        self,
        staging: Staging,
        signed: SignedManifest,
        tree: DigestTree,
        entry: Entry,
        *,
        keep_complete: bool,
    ) -> None:
        task_id, folder = signed.task_id, self._layout.task(signed.task_id)
        with closing(self._disk.open(staging.data, "read")) as file:
            file.sync()
        # This syncs the folder too, and with it the name of the data.
        sealed = msgspec.msgpack.encode(sealed_of(signed, tree))
        write_file(self._disk, staging.folder / "manifest", sealed)
        with self.moving:
            self._check_generation(signed, keep_complete=keep_complete)
            old = self._catalogue.drop(task_id)
            self._removal.take_away(task_id, None if old is None else old.place)
            self._disk.rename(staging.folder, folder)
            self._disk.sync_folder(folder.parent)
            self._catalogue.put(task_id, entry)
        staging.release()
        self._removal.tidy()

    def _check_generation(self, signed: SignedManifest, *, keep_complete: bool) -> None:
        generation = signed.manifest.generation
        if self._catalogue.dead_generation(signed.task_id) >= generation:
            raise TaskNotFound(f"generation {generation} of this task was deleted")
        task = self._catalogue.find(signed.task_id)
        if task is None or same_pieces(task.signed, signed):
            return
        complete_stays = keep_complete or task.generation == generation
        if task.generation > generation or (task.complete and complete_stays):
            raise Conflict(
                f"this node has generation {task.generation} of the task with other content",
                "delete it first, or use another cid or tag",
            )

    def _seal(self, task: StoredTask, signed: SignedManifest, tree: DigestTree) -> None:
        """Gives a task with the same pieces a later header, and mends its manifest file."""
        if task.generation > signed.manifest.generation:
            signed = task.signed
        self.unpack(task.task_id)
        sealed = sealed_of(signed, tree)
        if not self._is_sealed(task.task_id, sealed):
            path = self._layout.manifest(task.task_id)
            write_file(self._disk, path, msgspec.msgpack.encode(sealed))
        accepted = _same_whole(task.signed, signed)
        self._catalogue.update(
            task.task_id,
            lambda task: replace(
                task.entry,
                payload=sealed.payload,
                key=sealed.key,
                signature=sealed.signature,
                generation=signed.manifest.generation,
                copies=signed.manifest.copies,
                digest_checked=task.entry.digest_checked and accepted,
                finished=task.entry.finished and accepted,
                written=task.entry.written and accepted,
            ),
        )

    def _is_sealed(self, task_id: TaskId, sealed: SealedManifest) -> bool:
        try:
            return self._layout.sealed(task_id) == sealed
        except IntegrityError:
            return False

    def detach(self, task: StoredTask, tree: DigestTree) -> None:
        """Gives a partial task a file of its own if it shares one with the user, or has none
        of the right length, so that nothing is ever written into the user's file."""
        path = self._layout.task(task.task_id) / "data"
        stamp = self._disk.stamp(path)
        if task.complete or (task.linked is None and stamp and stamp.size == task.size):
            return
        with self._detaching:
            copy_path, copied = self._copied(task, tree, path if stamp else None)
            with self.moving:
                # The bitmap loses first what the new file does not have.
                self._catalogue.update(
                    task.task_id, lambda task: replace(task.entry, have=copied.to_bytes())
                )
                self._disk.rename(copy_path, path)
                self._disk.sync_folder(path.parent)
                self._catalogue.update(
                    task.task_id,
                    lambda task: replace(task.entry, linked=None, disk_bytes=task.size),
                )

    def _copied(
        self, task: StoredTask, tree: DigestTree, path: PurePath | None
    ) -> tuple[PurePath, PieceSet]:
        manifest = task.signed.manifest
        copy_path = self._layout.task(task.task_id) / "data.new"
        self._disk.remove(copy_path)
        with closing(self._disk.open(copy_path, "create")) as copy:
            copy.allocate(manifest.size)
            if path is not None:
                with closing(self._disk.open(path, "read")) as file:
                    for index in task.have:
                        offset = index * manifest.piece_size
                        copy.write_at(offset, file.read_at(offset, manifest.piece_length(index)))
            bad = bad_pieces(copy, manifest, tree, task.have)
            copy.sync()
        return copy_path, task.have.without(bad)


def same_pieces(one: SignedManifest, other: SignedManifest) -> bool:
    """Whether two manifests describe the same bytes, cut in the same way."""
    return (one.manifest.root, one.manifest.size, one.manifest.piece_size) == (
        other.manifest.root,
        other.manifest.size,
        other.manifest.piece_size,
    )


def _same_whole(one: SignedManifest, other: SignedManifest) -> bool:
    return (one.manifest.digest, one.manifest.listing_size) == (
        other.manifest.digest,
        other.manifest.listing_size,
    )
