"""The one error tree.

Every class carries the `code` that stands in JSON output and on the wire, and the
`exit_code` of the command line. A reply that carries a code is raised again on the other
side as the same class (`from_code`).
"""

from __future__ import annotations

import errno
from typing import ClassVar

_DISK_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
_FORBIDDEN = frozenset((errno.EACCES, errno.EPERM, errno.EROFS))


class GossipcacheError(Exception):
    """Base of every error a user or a remote node can meet.

    `message` names what failed and its cause, `hint` the next step to try.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = "run `gossipcache node status` and look at the node's log"

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint if hint is not None else self.default_hint


class UsageError(GossipcacheError):
    """A flag, a value or an input file is not what the command takes."""

    code = "usage"
    exit_code = 2
    default_hint = "see the command's --help"


class TaskNotFound(GossipcacheError):
    """No alive member can give the task, or it was deleted."""

    code = "not_found"
    exit_code = 3
    default_hint = "check cid and tag, or import the file first"


class NodeUnreachable(GossipcacheError):
    """No node could be reached: the local one, or the remote one that is needed."""

    code = "unreachable"
    exit_code = 4
    default_hint = "start one with `gossipcache node start`"


class TimedOut(GossipcacheError):
    """The work did not end within its time limit."""

    code = "timeout"
    exit_code = 5
    default_hint = "try again, or raise --timeout"


class IntegrityError(GossipcacheError):
    """Bytes, a digest or a signature are not what they must be."""

    code = "integrity"
    exit_code = 6
    default_hint = "the data was not used; check where it comes from"


class PartlyDone(GossipcacheError):
    """The work took effect, but not everywhere yet."""

    code = "partial"
    exit_code = 7
    default_hint = "what is pending is done when the missing nodes answer"


class Conflict(GossipcacheError):
    """Something else already stands in this place."""

    code = "conflict"
    exit_code = 8
    default_hint = "use another cid or tag, or delete the old one first"


class NoSpace(GossipcacheError):
    """The disk or the quota is full."""

    code = "no_space"
    exit_code = 9
    default_hint = "free space, raise the quota, or run `gossipcache gc`"
    wanted_bytes: int = 0
    """What the quota of this node's store had no room for; 0 where it is the disk that is full."""


class NotPermitted(GossipcacheError):
    """The caller may not do this."""

    code = "not_permitted"
    exit_code = 10
    default_hint = "ask the publisher or an operator"


class Interrupted(GossipcacheError):
    """The user or the node's shutdown ended the work."""

    code = "interrupted"
    exit_code = 130
    default_hint = "run the command again; pieces already fetched are kept"


class SourceChanged(GossipcacheError):
    """A file changed while it was read; nothing was stored."""

    code = "source_changed"
    default_hint = "import it again when nothing writes to it"


class ProtocolError(GossipcacheError):
    """A remote sent something outside the protocol; it was dropped."""

    code = "protocol"
    default_hint = "check that both nodes run compatible versions"


class VersionUnsupported(GossipcacheError):
    """A store, a config file or a remote speaks a version this program does not know."""

    code = "version"
    default_hint = "upgrade gossipcache on this machine"


class HomeInUse(GossipcacheError):
    """Another node process holds this home folder."""

    code = "home_in_use"
    default_hint = "stop the other node, or give another --home"


class Busy(GossipcacheError):
    """A limit of the remote is reached; the same request may succeed later."""

    code = "busy"
    default_hint = "try again in a moment"


class NotReady(GossipcacheError):
    """A record keeper cannot answer yet: it is recovering, or keepers disagree."""

    code = "not_ready"
    default_hint = "try again in a moment"


def _codes(cls: type[GossipcacheError]) -> dict[str, type[GossipcacheError]]:
    found = {cls.code: cls}
    for sub in cls.__subclasses__():
        found.update(_codes(sub))
    return found


def from_code(code: str, message: str, hint: str | None = None) -> GossipcacheError:
    """The error that a remote or the control API named by `code`; unknown codes give the base."""
    return _codes(GossipcacheError).get(code, GossipcacheError)(message, hint)


def from_os_error(error: OSError) -> GossipcacheError:
    """What the operating system refused: `NoSpace`, `NotPermitted` or a plain error."""
    name = f" {error.filename!r}" if error.filename else ""
    message = f"the system refused{name} ({error.strerror or error})"
    if error.errno in _DISK_FULL:
        return NoSpace(message)
    if error.errno in _FORBIDDEN:
        return NotPermitted(message, "check the owner and mode of the file and of its folder")
    return GossipcacheError(message, "check the path, then the node's log")
