"""The real file system behind `gossipcache.env.Disk`.

Every call blocks and runs in a worker. Modes are set explicitly, so that neither a lax nor a
strict umask changes who can read a node's files.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import shutil
import stat
import threading
from collections.abc import Iterable
from contextlib import closing
from functools import cache
from pathlib import PurePath
from time import monotonic
from typing import Literal

from gossipcache.env import Buffer, FileStamp, OpenMode
from gossipcache.errors import NoSpace

FILE_MODE = 0o600
FOLDER_MODE = 0o700

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_PUNCH_HOLE = 3
"""FALLOC_FL_PUNCH_HOLE, with FALLOC_FL_KEEP_SIZE."""
_FICLONE = 0x40049409
_HUGE_PAGES: int | None = getattr(mmap, "MADV_HUGEPAGE", None)  # on Linux
_DIRECT_ALIGNMENT_BYTES = 4096
SLOW_BYTES_PER_S = 32 * 2**20
"""A disk that takes a direct write more slowly is left to the page cache for a while."""
_SPARED_WRITES = 16
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
_NO_CLONE = frozenset(
    (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.ETXTBSY)
)
# O_NONBLOCK keeps a named pipe in the place of a file from stopping the worker for ever.
_OPEN_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class OsFile:
    """An open regular file; calls are positional, so that several workers may share it."""

    def __init__(self, descriptor: int, path: PurePath) -> None:
        self._descriptor = descriptor
        self._path = path
        self._direct: int | None = None
        """A second descriptor, past the page cache; -1 where there is none."""
        self._opening_direct = threading.Lock()
        self._spared = 0
        """So many more writes go by the page cache, since the disk was slow."""

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`; fewer only at the end of the file."""
        data = os.pread(self._open(), count, offset)
        while len(data) < count:
            more = os.pread(self._open(), count - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fills `buffer` from `offset`; returns the number of bytes, short only at the end."""
        done = 0
        while done < len(buffer):
            count = os.preadv(self._open(), [buffer[done:]], offset + done)
            if count == 0:
                break
            done += count
        return done

    def write_at(self, offset: int, data: Buffer) -> None:
        """Writes all of `data` at `offset`. Raises `NoSpace`."""
        view = memoryview(data).cast("B")
        with _full_disk_as_no_space(self._path):
            while view:
                count = os.pwrite(self._open(), view, offset)
                offset += count
                view = view[count:]

    def write_past_cache(self, offset: int, data: Buffer) -> None:
        """Writes whole aligned blocks by direct I/O (open(2), O_DIRECT), the rest as `write_at`.

        A copy into the page cache costs more than the disk itself where its pages have to be
        found first, above all in virtual machines. A slow disk is not waited for, and not asked
        again for what was just written: its data stays in the cache. Raises `NoSpace`.
        """
        view = memoryview(data).cast("B")
        whole = len(view) - len(view) % _DIRECT_ALIGNMENT_BYTES
        if self._spared:
            self._spared -= 1
        elif whole and offset % _DIRECT_ALIGNMENT_BYTES == 0 and self._direct_descriptor() >= 0:
            count = self._write_direct(offset, view[:whole])
            offset, view = offset + count, view[count:]
        self.write_at(offset, view)

    def _write_direct(self, offset: int, blocks: memoryview) -> int:
        """How many bytes of `blocks` were written: none if they are not aligned in memory."""
        began_at = monotonic()
        try:
            with _full_disk_as_no_space(self._path):
                count = os.pwrite(self._direct_descriptor(), blocks, offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return 0
        if count < SLOW_BYTES_PER_S * (monotonic() - began_at):
            self._spared = _SPARED_WRITES
        return count

    def _direct_descriptor(self) -> int:
        with self._opening_direct:
            if self._direct is None:
                self._direct = _opened_direct(self._open())
            return self._direct

    def allocate(self, size: int) -> None:
        """Reserves room for `size` bytes and makes the file that long. Raises `NoSpace`."""
        before = self.size()
        try:
            with _full_disk_as_no_space(self._path):
                if size > before:
                    os.posix_fallocate(self._open(), 0, size)
        except NoSpace:
            os.ftruncate(self._open(), before)
            raise
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
        self.truncate(size)

    def truncate(self, size: int) -> None:
        """Makes the file exactly `size` bytes long."""
        with _full_disk_as_no_space(self._path):
            os.ftruncate(self._open(), size)

    def punch(self, offset: int, count: int) -> bool:
        """A hole by fallocate(2); False where the file system makes none."""
        call = getattr(_libc(), "fallocate", None)
        if call is None:
            return False
        if not call(self._open(), _PUNCH_HOLE, ctypes.c_int64(offset), ctypes.c_int64(count)):
            return True
        code = ctypes.get_errno()
        if code in (errno.EOPNOTSUPP, errno.ENOSYS):
            return False
        raise OSError(code, os.strerror(code), str(self._path))

    def size(self) -> int:
        """The file's length in bytes."""
        return os.fstat(self._open()).st_size

    def sync(self) -> None:
        """Returns when all writes are durable."""
        with _full_disk_as_no_space(self._path):
            os.fdatasync(self._open())

    def fileno(self) -> int | None:
        """The descriptor, for sendfile."""
        return self._open()

    def close(self) -> None:
        """Releases the file; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        direct, self._direct = self._direct, -1
        for each in (descriptor, direct):
            if each is not None and each >= 0:
                os.close(each)

    def _open(self) -> int:
        # A closed number may already name another file: never hand -1's successor to the system.
        if self._descriptor < 0:
            raise OSError(errno.EBADF, "the file is closed", str(self._path))
        return self._descriptor


class OsDisk:
    """`gossipcache.env.Disk` over the operating system (Linux)."""

    def buffer(self, size: int) -> memoryview:
        """Zeroed memory of `size` bytes that begins at a page."""
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if _HUGE_PAGES is not None:
            # Direct I/O pins each page of it for each write: a few large ones cost less.
            memory.madvise(_HUGE_PAGES)
        return memoryview(memory)

    def open(self, path: PurePath, mode: OpenMode) -> OsFile:
        """Opens a regular file; raises `OSError` for a link or anything else."""
        access = {"read": os.O_RDONLY, "write": os.O_RDWR, "create": os.O_RDWR}[mode]
        if mode == "create":
            access |= os.O_CREAT | os.O_EXCL
        with _full_disk_as_no_space(path):
            descriptor = os.open(path, access | _OPEN_FLAGS, FILE_MODE)
        try:
            found = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(found):
                raise OSError(errno.EINVAL, "not a regular file", str(path))
            if mode == "create" and stat.S_IMODE(found) != FILE_MODE:
                os.fchmod(descriptor, FILE_MODE)
        except BaseException:
            os.close(descriptor)
            raise
        return OsFile(descriptor, path)

    def stamp(self, path: PurePath) -> FileStamp | None:
        """The stamp of `path` itself, never of what a link points to."""
        try:
            found = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return FileStamp(
            kind=_kind(found.st_mode),
            inode=found.st_ino,
            size=found.st_size,
            mtime_ns=found.st_mtime_ns,
            ctime_ns=found.st_ctime_ns,
            mode=stat.S_IMODE(found.st_mode),
            blocks_bytes=found.st_blocks * 512,
        )

    def make_folder(self, path: PurePath) -> None:
        """Makes `path` and its missing parents, mode 0700."""
        try:
            with _full_disk_as_no_space(path):
                os.mkdir(path, FOLDER_MODE)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
        except FileNotFoundError:
            if path.parent == path:
                raise
            self.make_folder(path.parent)
            self.make_folder(path)
        else:
            os.chmod(path, FOLDER_MODE)

    def list_folder(self, path: PurePath) -> list[str]:
        """The names in `path`, sorted."""
        return sorted(os.listdir(path))

    def rename(self, old: PurePath, new: PurePath) -> None:
        """Atomically puts `old` in the place of `new`."""
        with _full_disk_as_no_space(new):
            os.replace(old, new)

    def exchange(self, one: PurePath, other: PurePath) -> None:
        """Swaps two paths by renameat2(2); `OSError` (EINVAL, ENOSYS) where it is not known."""
        call = getattr(_libc(), "renameat2", None)
        if call is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(one), None, str(other))
        failed = call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
        if failed:
            code = ctypes.get_errno()
            with _full_disk_as_no_space(other):
                raise OSError(code, os.strerror(code), str(one), None, str(other))

    def link(self, existing: PurePath, new: PurePath) -> None:
        """A second name for a file. Raises `OSError` (EXDEV) across file systems."""
        with _full_disk_as_no_space(new):
            os.link(existing, new, follow_symlinks=False)

    def symlink(self, target: str, new: PurePath) -> None:
        """A symbolic link `new` whose text is `target`."""
        with _full_disk_as_no_space(new):
            os.symlink(target, new)

    def read_symlink(self, path: PurePath) -> str:
        """The text of a symbolic link."""
        return os.readlink(path)

    def clone(self, source: PurePath, new: PurePath) -> bool:
        """A reflink by ioctl FICLONE; False, and nothing at `new`, where there is none."""
        with closing(self.open(source, "read")) as origin:
            copy = self.open(new, "create")
            try:
                with _full_disk_as_no_space(new):
                    fcntl.ioctl(copy.fileno() or 0, _FICLONE, origin.fileno() or 0)
            except OSError as error:
                os.unlink(new)
                if error.errno in _NO_CLONE:
                    return False
                raise
            except BaseException:
                os.unlink(new)
                raise
            finally:
                copy.close()
        return True

    def set_mode(self, path: PurePath, mode: int) -> None:
        """chmod(2)."""
        os.chmod(path, mode)

    def remove(self, path: PurePath) -> None:
        """Removes a file, a link, or a folder with all that is in it; absence is fine."""
        try:
            os.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        except (IsADirectoryError, PermissionError):
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                raise
            shutil.rmtree(path)

    def sync_folder(self, path: PurePath) -> None:
        """Returns when the names in `path` are durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with _full_disk_as_no_space(path):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_all(self, paths: Iterable[PurePath]) -> None:
        """syncfs(2) on each file system that holds some of them: the waits of many files become
        one, which is that of the whole file system. (Its errors are told since Linux 5.8.)"""
        one_of_each = {os.stat(path).st_dev: path for path in paths}
        for path in one_of_each.values():
            descriptor = _opened_for_sync(path)
            try:
                with _full_disk_as_no_space(path):
                    _sync_file_system(descriptor, path)
            finally:
                os.close(descriptor)

    def free_bytes(self, path: PurePath) -> int:
        """Room left for this user on the file system of `path`, in bytes."""
        room = os.statvfs(path)
        return room.f_bavail * room.f_frsize


def _opened_for_sync(path: PurePath) -> int:
    """`path`, or the folder it is in if its mode lets nobody read it."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(path, flags)
    except PermissionError:
        return os.open(path.parent, flags)


def _sync_file_system(descriptor: int, path: PurePath) -> None:
    call = getattr(_libc(), "syncfs", None)
    if call is None:
        os.sync()
    elif call(descriptor):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))


def _opened_direct(descriptor: int) -> int:
    # Opening it anew would give a file opened to read a way to be written.
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        return -1
    try:
        return os.open(
            f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC | os.O_NOCTTY
        )
    except OSError:  # a file system without direct I/O, or no /proc
        return -1


def _kind(mode: int) -> Literal["file", "directory", "link", "other"]:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "link" if stat.S_ISLNK(mode) else "other"


class _full_disk_as_no_space:  # noqa: N801 (used as a function; a generator costs three times as much)
    """Raises `NoSpace` where the system says that the disk is full."""

    __slots__ = ("_path",)

    def __init__(self, path: PurePath) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise NoSpace(f"no room to write {self._path} ({error.strerror})") from error


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
