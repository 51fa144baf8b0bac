"""A durable map from keys to values: an append-only log with one fsync a batch.

File layout, big-endian. Header: magic, u16 format version. Then entries: marker, u32 length of
the body, u64 `durable`, 8 bytes BLAKE2b over all the rest, body (u8 kind, u16 length of the
key, key, value). `durable` is how far the file was synced when the entry was written. It tells
a torn tail, which a crash may leave and which is dropped, from damage to what was promised to
be durable: an unreadable entry is damage if a readable one behind it says it had been synced.

Values stay on disk; memory holds the keys and where their values are. All calls block: use
them from a worker, one at a time.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from pathlib import PurePath
from typing import NamedTuple

from gossipcache.env import Disk, DiskFile
from gossipcache.errors import IntegrityError, UsageError, VersionUnsupported

FORMAT_VERSION = 1
MAX_KEY_BYTES = 2**16 - 1
MAX_VALUE_BYTES = 16 * 2**20
COMPACT_MIN_BYTES = 256 * 1024
"""Smaller files are not worth a rewrite."""

_MAGIC = b"gossipcache-log"
_HEADER = _MAGIC + struct.pack(">H", FORMAT_VERSION)
_MARKER = b"\xe5\x9bJe"
_PREFIX = struct.Struct(">4sIQ8s")
_SUMMED = struct.Struct(">IQ")
_SUMMED_PART = slice(len(_MARKER), len(_MARKER) + _SUMMED.size)
"""Where `_SUMMED` stands in a prefix."""
_PREFIX_BYTES = _PREFIX.size
_BODY = struct.Struct(">BH")
_BODY_BYTES = _BODY.size
_MAX_BODY_BYTES = _BODY.size + MAX_KEY_BYTES + MAX_VALUE_BYTES
_PUT, _DELETE = 0, 1
_CHUNK_BYTES = 4 * 2**20

Change = tuple[bytes, bytes | None]
"""A key and its new value; None deletes it."""


def _ignore(_key: bytes, _value: bytes | None) -> None:
    pass


class _Entry(NamedTuple):
    offset: int
    end: int
    durable: int
    kind: int
    key: bytes
    value: bytes


class Journal:
    """The open log. Made by `Journal.open`."""

    def __init__(self, disk: Disk, path: PurePath, file: DiskFile) -> None:
        self._disk = disk
        self._path = path
        self._file = file
        self._end = len(_HEADER)
        self._durable = len(_HEADER)
        self._spans: dict[bytes, tuple[int, int]] = {}
        """Key to (offset, end) of its last entry, in the order of the file."""
        self._live_bytes = 0
        self._failed = False

    @classmethod
    def open(
        cls,
        disk: Disk,
        path: PurePath,
        take: Callable[[bytes, bytes | None], None] = _ignore,
    ) -> Journal:
        """Opens the log at `path`, or makes it with the missing folders.

        `take` is given what was written, change by change (None: a deletion): whoever needs all
        values has them at the price of one reading, that of `items` comes on top.

        Raises `VersionUnsupported` for a newer format, and `IntegrityError` if entries that had
        been durable are damaged: the file is then moved to `PATH.bad`, so that the next open
        starts anew, and the caller chooses how to rebuild.
        """
        disk.make_folder(path.parent)
        disk.remove(_beside(path, ".new"))
        if disk.stamp(path) is None:
            return cls(disk, path, _made_anew(disk, path))
        journal = cls(disk, path, disk.open(path, "write"))
        try:
            journal._load(take)
        except BaseException:
            journal._file.close()
            raise
        return journal

    def __len__(self) -> int:
        return len(self._spans)

    def __contains__(self, key: bytes) -> bool:
        return key in self._spans

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, read from disk. Raises `IntegrityError` if it has gone bad."""
        span = self._spans.get(key)
        if span is None:
            return None
        offset, end = span
        return self._checked(self._file.read_at(offset, end - offset), offset, key).value

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All keys with their values, in the order of their last writes.

        Raises `IntegrityError` if a value has gone bad. Not to be mixed with writes.
        """
        for entry, _ in self._live():
            yield entry.key, entry.value

    def put(self, key: bytes, value: bytes, sync: bool = True) -> None:
        """Sets `key`; durable on return, or with `sync=False` at the next sync."""
        self.write(((key, value),), sync)

    def delete(self, key: bytes, sync: bool = True) -> None:
        """Drops `key`; an absent one is fine."""
        self.write(((key, None),), sync)

    def write(self, changes: Iterable[Change], sync: bool = True) -> None:
        """Applies `changes` in order with one write and one sync.

        After a crash in the midst a prefix of them may stand. Raises `NoSpace`, `OSError`, or
        `UsageError` for a key or value beyond its limit; then none of them counts. After a
        failed sync the log refuses to write: what the disk holds is no longer known.
        """
        if self._failed:
            raise OSError(errno.EIO, f"an earlier sync of {self._path} failed")
        batch = self._effective(changes)
        blob, places = self._encoded(batch)
        end = self._end + len(blob)
        if batch:
            self._file.write_at(self._end, blob)
        if sync and end > self._durable:
            self._sync_to(end)
        self._end = end
        for (key, value), (offset, entry_end) in zip(batch, places, strict=True):
            self._note(key, None if value is None else (offset, entry_end))
        if self._end > max(COMPACT_MIN_BYTES, 2 * (self._live_bytes + len(_HEADER))):
            self.compact()

    def sync(self) -> None:
        """Makes all writes durable."""
        if self._durable < self._end:
            self._sync_to(self._end)

    def compact(self) -> None:
        """Rewrites the log without what is outdated; a crash leaves the old or the new one."""
        new_path = _beside(self._path, ".new")
        self._disk.remove(new_path)
        file = self._disk.open(new_path, "create")
        try:
            spans, end = self._copy_live(file)
            file.sync()
            self._disk.rename(new_path, self._path)
            self._disk.sync_folder(self._path.parent)
        except BaseException:
            file.close()
            raise
        self._file.close()
        self._file, self._spans = file, spans
        self._end = self._durable = end
        self._live_bytes = end - len(_HEADER)

    def close(self) -> None:
        """Makes all writes durable and releases the file; a second call does nothing."""
        if not self._failed:
            self.sync()
        self._file.close()

    def _effective(self, changes: Iterable[Change]) -> list[Change]:
        batch: list[Change] = []
        touched: set[bytes] = set()
        for key, value in changes:
            if value is not None or key in self._spans or key in touched:
                batch.append((key, value))
                touched.add(key)
        return batch

    def _encoded(self, batch: list[Change]) -> tuple[bytes, list[tuple[int, int]]]:
        parts, places, offset = [], [], self._end
        for key, value in batch:
            entry = _entry_bytes(key, value, self._durable)
            parts.append(entry)
            places.append((offset, offset + len(entry)))
            offset += len(entry)
        return b"".join(parts), places

    def _sync_to(self, end: int) -> None:
        try:
            self._file.sync()
        except BaseException:
            self._failed = True
            raise
        self._durable = end

    def _note(self, key: bytes, span: tuple[int, int] | None) -> None:
        # Popping first keeps the order of the dict that of the file.
        old = self._spans.pop(key, None)
        if old is not None:
            self._live_bytes -= old[1] - old[0]
        if span is not None:
            self._spans[key] = span
            self._live_bytes += span[1] - span[0]

    def _load(self, take: Callable[[bytes, bytes | None], None]) -> None:
        header = self._file.read_at(0, len(_HEADER))
        if not header.startswith(_MAGIC) or len(header) < len(_HEADER):
            raise self._set_aside(0)
        if (version := int.from_bytes(header[len(_MAGIC) :], "big")) > FORMAT_VERSION:
            raise VersionUnsupported(
                f"{self._path} has format {version}, this program knows up to {FORMAT_VERSION}"
            )
        for entry in _scan(self._file, len(_HEADER)):
            is_put = entry.kind == _PUT
            self._note(entry.key, (entry.offset, entry.end) if is_put else None)
            take(entry.key, entry.value if is_put else None)
            self._end = entry.end
        if self._end < self._file.size():
            self._drop_tail()
        self._durable = self._end

    def _drop_tail(self) -> None:
        for entry in _search(self._file, self._end):
            if entry.durable > self._end:
                raise self._set_aside(self._end)
        self._file.truncate(self._end)
        self._file.sync()

    def _set_aside(self, offset: int) -> IntegrityError:
        bad, number = _beside(self._path, ".bad"), 1
        while self._disk.stamp(bad) is not None:
            bad, number = _beside(self._path, f".bad{number}"), number + 1
        self._disk.rename(self._path, bad)
        self._disk.sync_folder(self._path.parent)
        return IntegrityError(
            f"{self._path} is damaged at byte {offset}",
            f"it was kept as {bad}; what it held is rebuilt where that can be done",
        )

    def _checked(self, data: bytes, offset: int, key: bytes) -> _Entry:
        entry = _parse(data, 0, offset)
        if entry is None or entry.key != key:
            raise IntegrityError(f"{self._path} has gone bad at byte {offset}")
        return entry

    def _live(self) -> Iterator[tuple[_Entry, bytes]]:
        window, base = b"", 0
        for key, (offset, end) in self._spans.items():
            if end > base + len(window):
                window = self._file.read_at(offset, max(_CHUNK_BYTES, end - offset))
                base = offset
            raw = window[offset - base : end - base]
            yield self._checked(raw, offset, key), raw

    def _copy_live(self, file: DiskFile) -> tuple[dict[bytes, tuple[int, int]], int]:
        spans: dict[bytes, tuple[int, int]] = {}
        pending, start = bytearray(_HEADER), 0
        for entry, _ in self._live():
            offset = start + len(pending)
            # `durable` counts bytes of the old file, so the entry is written anew.
            pending += _entry_bytes(entry.key, entry.value, 0)
            spans[entry.key] = (offset, start + len(pending))
            if len(pending) >= _CHUNK_BYTES:
                file.write_at(start, pending)
                start, pending = start + len(pending), bytearray()
        file.write_at(start, pending)
        return spans, start + len(pending)


def _beside(path: PurePath, suffix: str) -> PurePath:
    return path.with_name(path.name + suffix)


def _made_anew(disk: Disk, path: PurePath) -> DiskFile:
    new_path = _beside(path, ".new")
    file = disk.open(new_path, "create")
    try:
        file.write_at(0, _HEADER)
        file.sync()
        disk.rename(new_path, path)
        disk.sync_folder(path.parent)
    except BaseException:
        file.close()
        raise
    return file


def _entry_bytes(key: bytes, value: bytes | None, durable: int) -> bytes:
    if len(key) > MAX_KEY_BYTES or (value is not None and len(value) > MAX_VALUE_BYTES):
        raise UsageError(f"a journal entry beyond {MAX_KEY_BYTES} or {MAX_VALUE_BYTES} bytes")
    kind = _DELETE if value is None else _PUT
    body = b"".join((_BODY.pack(kind, len(key)), key, value or b""))
    summed = _SUMMED.pack(len(body), durable)
    return b"".join((_MARKER, summed, _checksum(summed, body), body))


def _checksum(summed: bytes, body: bytes) -> bytes:
    return blake2b(summed + body, digest_size=8).digest()


def _parse(window: bytes, at: int, offset: int) -> _Entry | None:
    """The entry at `at` in `window`, which stands at `offset` in the file, if it is sound."""
    prefix = window[at : at + _PREFIX_BYTES]
    if len(prefix) < _PREFIX_BYTES:
        return None
    marker, length, durable, checksum = _PREFIX.unpack(prefix)
    end = at + _PREFIX_BYTES + length
    body = window[at + _PREFIX_BYTES : end]
    if marker != _MARKER or len(body) != length or length < _BODY_BYTES:
        return None
    if _checksum(prefix[_SUMMED_PART], body) != checksum:
        return None
    kind, key_length = _BODY.unpack_from(body)
    value_at = _BODY_BYTES + key_length
    return _Entry(
        offset, offset - at + end, durable, kind, body[_BODY_BYTES:value_at], body[value_at:]
    )


def _wanted_bytes(window: bytes, at: int) -> int:
    """How many bytes the entry at `at` takes, as far as its prefix can be believed."""
    if at + _PREFIX.size > len(window):
        return _PREFIX.size
    length: int = _PREFIX.unpack_from(window, at)[1]
    return _PREFIX.size + min(length, _MAX_BODY_BYTES)


def _scan(file: DiskFile, start: int) -> Iterator[_Entry]:
    """The sound entries from `start` on, up to the first that is not."""
    window, base, at = b"", start, 0
    while True:
        entry = _parse(window, at, base + at)
        if entry is None:
            wanted = _wanted_bytes(window, at)
            if at + wanted <= len(window):
                return
            base, at = base + at, 0
            window = file.read_at(base, max(_CHUNK_BYTES, wanted))
            if len(window) >= _PREFIX.size and _wanted_bytes(window, 0) > len(window):
                window = file.read_at(base, _wanted_bytes(window, 0))
            entry = _parse(window, 0, base)
        if entry is None:
            return
        yield entry
        at = entry.end - base


def _search(file: DiskFile, start: int) -> Iterator[_Entry]:
    """Every sound entry behind `start`, wherever it begins."""
    size = file.size()
    while start < size:
        window = file.read_at(start, _CHUNK_BYTES)
        at = window.find(_MARKER)
        while at >= 0:
            prefix = file.read_at(start + at, _PREFIX.size)
            raw = file.read_at(start + at, _wanted_bytes(prefix, 0))
            if (entry := _parse(raw, 0, start + at)) is not None:
                yield entry
            at = window.find(_MARKER, at + 1)
        start += max(1, len(window) - len(_MARKER) + 1)
