"""The store's index in memory, with the journal that keeps it.

Readers never wait: they take immutable snapshots out of a dict. Writers go one at a time
through the journal first, so that memory never shows what a crash would take back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import PurePath

import msgspec

from gossipcache.env import Disk
from gossipcache.errors import TaskNotFound
from gossipcache.identity import Signed
from gossipcache.ids import TaskId
from gossipcache.journal import Change, Journal
from gossipcache.manifest import SignedTombstone, open_tombstone
from gossipcache.transfer.store.index import Entry, StoredTask

_TASK = b"t"
_TOMBSTONE = b"d"
_OUTPUT = b"o"
"""A hidden path, as earlier programs noted them."""
_FOLDER = b"f"
_MARK_END = b"\0"
_USE_RESOLUTION_S = 1.0

_encode = msgspec.msgpack.Encoder().encode
_decode_entry = msgspec.msgpack.Decoder(Entry).decode


class Grave(msgspec.Struct, frozen=True, array_like=True):
    """What is remembered of a deletion: the generation it kills, and the proof of it (the
    signed tombstone and manifest, each as payload, key, signature) until it is compacted."""

    generation: int
    deleted_at: float
    proof: tuple[tuple[bytes, bytes, bytes], tuple[bytes, bytes, bytes]] | None = None

    @classmethod
    def of(cls, tombstone: SignedTombstone) -> Grave:
        """All that is to be remembered of `tombstone`."""
        stone, dead = tombstone.signed, tombstone.manifest.signed
        return cls(
            tombstone.tombstone.generation,
            tombstone.tombstone.deleted_at,
            ((stone.payload, stone.key, stone.signature), (dead.payload, dead.key, dead.signature)),
        )

    def tombstone(self, cluster_id: bytes) -> SignedTombstone | None:
        """The proof, unless it was compacted."""
        if self.proof is None:
            return None
        stone, dead = self.proof
        return open_tombstone(Signed(*stone), Signed(*dead), cluster_id)


_decode_grave = msgspec.msgpack.Decoder(Grave).decode


class Catalogue:
    """Entries and graves by task, and the folders that exports have written to."""

    def __init__(self, disk: Disk, path: PurePath) -> None:
        """Reads the journal at `path`, or makes one. Raises as `Journal.open`."""
        self._writing = threading.Lock()
        """Held over journal writes."""
        self._state = threading.Lock()
        """Held for memory updates only, never over I/O."""
        self._tasks: dict[TaskId, StoredTask] = {}
        self._generations: dict[TaskId, int] = {}
        self.dead_sum = 0
        """The sum of the highest deleted generations."""
        self._outputs: set[bytes] = set()
        self._folders: set[bytes] = set()
        self._used_since_saved: set[TaskId] = set()
        self._replicated: dict[TaskId, None] = {}
        """The tasks of which there should be more copies than one."""
        self._undecoded: dict[TaskId, bytes] = {}
        """While the journal is read: each entry is decoded once, however often it was written."""
        self._journal = Journal.open(disk, path, self._load)
        self._decode_all()
        self.used_bytes = sum(task.entry.disk_bytes for task in self._tasks.values())
        wanting = (task.task_id for task in self._tasks.values() if task.copies > 1)
        self._replicated = dict.fromkeys(wanting)

    def _load(self, key: bytes, value: bytes | None) -> None:
        kind, name = key[:1], key[1:]
        if kind == _TASK:
            if value is None:
                self._undecoded.pop(TaskId(name), None)
            else:
                self._undecoded[TaskId(name)] = value
        elif kind == _TOMBSTONE and value is not None:
            self._remember(TaskId(name), _decode_grave(value).generation)
        elif kind == _OUTPUT and value is not None:
            self._outputs.add(name)
        elif kind == _OUTPUT:
            self._outputs.discard(name)
        elif kind == _FOLDER and value is not None:
            self._folders.add(name)
        elif kind == _FOLDER:
            self._folders.discard(name)

    def _decode_all(self) -> None:
        publishers: dict[bytes, bytes] = {}
        for task_id in tuple(self._undecoded):
            entry = _decode_entry(self._undecoded.pop(task_id))
            # Most are by few publishers: their keys need not be in memory many times.
            key = publishers.setdefault(entry.key, entry.key)
            msgspec.structs.force_setattr(entry, "key", key)
            self._tasks[task_id] = StoredTask(task_id, entry)

    def find(self, task_id: TaskId) -> StoredTask | None:
        """The present snapshot of a task."""
        return self._tasks.get(task_id)

    def require(self, task_id: TaskId) -> StoredTask:
        """The same. Raises `TaskNotFound`."""
        found = self._tasks.get(task_id)
        if found is None:
            raise TaskNotFound(f"task {task_id.hex()} is not in this node's store")
        return found

    def tasks(self) -> list[StoredTask]:
        """All snapshots, in no order that means anything."""
        return list(self._tasks.values())

    def replicated(self) -> list[StoredTask]:
        """Those of which there should be more copies than one."""
        with self._state:
            return [self._tasks[task_id] for task_id in self._replicated]

    def put(self, task_id: TaskId, entry: Entry) -> None:
        """Adds a task, or replaces what stood of it; durable on return."""
        with self._writing:
            self._journal.put(_TASK + task_id, _encode(entry))
            self._swap(task_id, entry)

    def put_all(self, entries: Mapping[TaskId, Entry]) -> None:
        """The same for many, with one sync."""
        with self._writing:
            self._journal.write(
                (_TASK + task_id, _encode(entry)) for task_id, entry in entries.items()
            )
            for task_id, entry in entries.items():
                self._swap(task_id, entry)

    def update_all(
        self, task_ids: Iterable[TaskId], change: Callable[[StoredTask], Entry], sync: bool = True
    ) -> None:
        """Replaces the entries of those tasks that are there, with one sync or none."""
        with self._writing:
            found = [task for task_id in task_ids if (task := self.find(task_id)) is not None]
            after = {task.task_id: change(task) for task in found}
            self._journal.write(
                ((_TASK + task_id, _encode(entry)) for task_id, entry in after.items()), sync
            )
            for task_id, entry in after.items():
                self._swap(task_id, entry)

    def update(
        self, task_id: TaskId, change: Callable[[StoredTask], Entry], sync: bool = True
    ) -> StoredTask:
        """Replaces a task's entry by what `change` makes of it. Raises `TaskNotFound`."""
        with self._writing:
            before = self.require(task_id)
            after = change(before)
            if after != before.entry:
                self._journal.put(_TASK + task_id, _encode(after), sync)
                self._swap(task_id, after)
            return self.require(task_id)

    def drop(self, task_id: TaskId) -> StoredTask | None:
        """Forgets a task; durable on return. Returns what stood."""
        with self._writing:
            self._journal.delete(_TASK + task_id)
            return self._swap(task_id, None)

    def _swap(self, task_id: TaskId, entry: Entry | None) -> StoredTask | None:
        with self._state:
            old = self._tasks.get(task_id)
            self.used_bytes -= old.entry.disk_bytes if old is not None else 0
            if entry is None:
                self._tasks.pop(task_id, None)
                self._replicated.pop(task_id, None)
                return old
            if old is not None and old.entry.last_use > entry.last_use:
                entry = msgspec.structs.replace(entry, last_use=old.entry.last_use)
            self._tasks[task_id] = StoredTask(task_id, entry)
            self.used_bytes += entry.disk_bytes
            if self._tasks[task_id].copies > 1:
                self._replicated[task_id] = None
            else:
                self._replicated.pop(task_id, None)
            return old

    def touch(self, task_id: TaskId, now: float) -> None:
        """Notes a use, in memory; `save_uses` writes it."""
        with self._state:
            old = self._tasks.get(task_id)
            if old is None or now < old.entry.last_use + _USE_RESOLUTION_S:
                return
            entry = msgspec.structs.replace(old.entry, last_use=now)
            self._tasks[task_id] = StoredTask(task_id, entry)
            self._used_since_saved.add(task_id)

    def save_uses(self) -> None:
        """Writes the noted uses; not synced, for a lost one does no harm."""
        with self._state:
            used = [self._tasks[task] for task in self._used_since_saved if task in self._tasks]
            self._used_since_saved.clear()
        with self._writing:
            changes: list[Change] = [
                (_TASK + task.task_id, _encode(task.entry))
                for task in used
                if self._tasks.get(task.task_id) is task
            ]
            self._journal.write(changes, sync=False)

    def dead_generation(self, task_id: TaskId) -> int:
        """The highest generation that is known to be deleted; 0 if none is."""
        return self._generations.get(task_id, 0)

    def bury(self, task_id: TaskId, grave: Grave) -> None:
        """Remembers a deletion, unless a later one is known; durable on return."""
        with self._writing:
            if self.dead_generation(task_id) > grave.generation:
                return
            self._journal.put(_TOMBSTONE + task_id, _encode(grave))
            self._remember(task_id, grave.generation)

    def _remember(self, task_id: TaskId, generation: int) -> None:
        self.dead_sum += generation - self._generations.get(task_id, 0)
        self._generations[task_id] = generation

    def grave(self, task_id: TaskId) -> Grave | None:
        """What is remembered of a task's last deletion."""
        with self._writing:
            value = self._journal.get(_TOMBSTONE + task_id)
        return None if value is None else _decode_grave(value)

    def dead_generations(self) -> dict[TaskId, int]:
        """All deletions that are remembered, by task."""
        return dict(self._generations)

    def compact_graves(self, before: float) -> int:
        """Drops the proofs of deletions made `before`; returns how many."""
        with self._writing:
            changes: list[Change] = []
            for task_id in self.dead_generations():
                value = self._journal.get(_TOMBSTONE + task_id)
                grave = _decode_grave(value) if value is not None else None
                if grave is not None and grave.proof is not None and grave.deleted_at < before:
                    compact = msgspec.structs.replace(grave, proof=None)
                    changes.append((_TOMBSTONE + task_id, _encode(compact)))
            self._journal.write(changes)
            return len(changes)

    def note_folders(self, mark: str, folders: Collection[bytes]) -> None:
        """Remembers that the run `mark` makes hidden files in these; durable on return."""
        if not folders:
            return
        names = [mark.encode() + _MARK_END + folder for folder in folders]
        with self._writing:
            self._journal.write((_FOLDER + name, b"") for name in names)
            self._folders.update(names)

    def forget_folder(self, mark: str, folder: bytes) -> None:
        """Ends `note_folders`; not synced."""
        name = mark.encode() + _MARK_END + folder
        with self._writing:
            self._journal.delete(_FOLDER + name, sync=False)
            self._folders.discard(name)

    def folders(self) -> list[tuple[str, bytes]]:
        """The marks and folders noted and not forgotten."""
        parts = (name.partition(_MARK_END) for name in sorted(self._folders))
        return [(mark.decode(), folder) for mark, _, folder in parts]

    def outputs(self) -> list[bytes]:
        """Hidden paths that an earlier program noted and did not forget."""
        return sorted(self._outputs)

    def forget_output(self, name: bytes) -> None:
        """It is gone."""
        with self._writing:
            self._journal.delete(_OUTPUT + name, sync=False)
            self._outputs.discard(name)

    def close(self) -> None:
        """Makes all durable and releases the journal."""
        self.save_uses()
        with self._writing:
            self._journal.close()
