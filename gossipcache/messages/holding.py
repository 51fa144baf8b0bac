"""What nodes ask a holder of a task."""

from __future__ import annotations

from gossipcache.identity import Signed
from gossipcache.wire import Message


class DropTask(Message, frozen=True, kw_only=True, tag="drop_task"):
    """From the node that deletes, to each holder: drop this task.

    The holder checks both statements (and the delete policy) itself; the sender needs no right.
    Answered by `TaskDropped` once the copy is gone from the holder's store.
    """

    tombstone: Signed
    manifest: Signed


class TaskDropped(Message, frozen=True, kw_only=True, tag="task_dropped"):
    """The holder has no copy of the task any more."""


class KeepCopy(Message, frozen=True, kw_only=True, tag="keep_copy"):
    """From the first complete holder of a task that wants more copies: please keep one.

    The node that is asked checks the manifest, and with the record keepers that it stands.
    """

    manifest: Signed


class CopyPromised(Message, frozen=True, kw_only=True, tag="copy_promised"):
    """The node will download the task and be a holder of it."""
