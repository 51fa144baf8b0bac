"""Finds paths in the tree of a simulated disk, with the errors of the real calls."""

from __future__ import annotations

import errno
import os
from pathlib import PurePath

from sim.storage.medium import FileInode, FolderInode, Inode, LinkInode

_MAX_LINKS_FOLLOWED = 16


def lookup(root: FolderInode, path: PurePath) -> Inode:
    """What stands at `path`; a link in its last part is not followed."""
    if path == path.parent:
        return root
    folder, name = parent(root, path)
    if name not in folder.entries:
        raise os_error(errno.ENOENT, path)
    return folder.entries[name]


def parent(root: FolderInode, path: PurePath, followed: int = 0) -> tuple[FolderInode, str]:
    """The folder that holds, or would hold, `path`, and the name in it; follows links."""
    inode: Inode = root
    parts = path.parts
    for depth in range(1, len(parts) - 1):
        part = parts[depth]
        if not isinstance(inode, FolderInode):
            raise os_error(errno.ENOTDIR, path)
        if part not in inode.entries:
            raise os_error(errno.ENOENT, path)
        inode = inode.entries[part]
        if isinstance(inode, LinkInode):
            if followed >= _MAX_LINKS_FOLLOWED:
                raise os_error(errno.ELOOP, path)
            target = PurePath(os.path.normpath(PurePath(*parts[:depth]) / inode.target))
            inode, _ = parent(root, target / "-", followed + 1)
    if not isinstance(inode, FolderInode):
        raise os_error(errno.ENOTDIR, path)
    return inode, path.name


def file_at(root: FolderInode, path: PurePath) -> FileInode:
    """The regular file at `path`."""
    inode = lookup(root, path)
    if isinstance(inode, LinkInode):
        raise os_error(errno.ELOOP, path)
    if not isinstance(inode, FileInode):
        raise os_error(errno.EISDIR, path)
    return inode


def folder_at(root: FolderInode, path: PurePath) -> FolderInode:
    """The folder at `path`; a link to one is followed."""
    inode = lookup(root, path)
    if isinstance(inode, LinkInode):
        inode, _ = parent(root, path / "-")
    if not isinstance(inode, FolderInode):
        raise os_error(errno.ENOTDIR, path)
    return inode


def check_replaceable(moved: Inode, replaced: Inode | None, path: PurePath) -> None:
    """Raises what rename(2) does if `moved` cannot take the place of `replaced` at `path`."""
    if isinstance(replaced, FolderInode):
        if not isinstance(moved, FolderInode):
            raise os_error(errno.EISDIR, path)
        if replaced.entries:
            raise os_error(errno.ENOTEMPTY, path)
    elif replaced is not None and isinstance(moved, FolderInode):
        raise os_error(errno.ENOTDIR, path)


def os_error(code: int, path: PurePath) -> OSError:
    """The system's error `code` about `path`."""
    return OSError(code, os.strerror(code), str(path))
