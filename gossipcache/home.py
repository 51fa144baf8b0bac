"""One node's home folder: where its files lie, who may read them, and who runs it.

Standard library only: the command line uses it before any node runs.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gossipcache.errors import (
    Conflict,
    HomeInUse,
    NotPermitted,
    TaskNotFound,
    UsageError,
    VersionUnsupported,
)
from gossipcache.keyfiles import (
    SEED_BYTES,
    ClusterFile,
    decode_cluster,
    decode_ticket,
    encode_cluster,
    read_private,
    read_seed,
    write_private,
)

HOME_VERSION = 1
MAX_SOCKET_PATH_BYTES = 100
PROBE_GRACE_S = 0.2
"""Asking who holds a home takes its lock for an instant; a starting node waits that out."""

RunMode = Literal["auto", "background", "foreground"]


@dataclass(frozen=True, slots=True)
class RunningNode:
    """What a running node says of itself in its home."""

    pid: int
    mode: RunMode
    listen: str | None
    http: str | None


class Home:
    """The folder of one node; nothing is made before `prepare`."""

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.abspath(path))
        self.config_path = self.path / "config.toml"
        self.key_path = self.path / "node.key"
        self.cluster_path = self.path / "cluster.key"
        self.ticket_path = self.path / "ticket"
        self.control_path = self.path / "control.sock"
        self.log_path = self.path / "node.log"
        self.token_path = self.path / "http.token"
        self._version_path = self.path / "version"
        self._lock_path = self.path / "node.lock"
        self._start_lock_path = self.path / "start.lock"
        self._running_path = self.path / "node.json"

    def prepare(self) -> None:
        """Makes the folder (0700) and its version mark, or checks the ones that are there.

        Raises `NotPermitted` if others can write to it, `VersionUnsupported` if a newer
        program made it, `UsageError` if it is no folder.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except FileExistsError as error:
            raise UsageError(f"{self.path} is not a folder", "give another --home") from error
        except OSError as error:
            raise NotPermitted(
                f"cannot make the home folder {self.path} ({error.strerror})", "give another --home"
            ) from error
        self._check_owner()
        self.check_version()
        if not self._version_path.exists():
            write_private(self._version_path, f"{HOME_VERSION}\n".encode())

    def check_version(self) -> None:
        """Raises `VersionUnsupported` if the home was made by a newer program."""
        try:
            text = self._version_path.read_text().strip()
        except FileNotFoundError:
            return
        if not text.isdigit() or int(text) > HOME_VERSION:
            raise VersionUnsupported(
                f"the home {self.path} has format version {text!r},"
                f" this program knows up to {HOME_VERSION}"
            )

    def _check_owner(self) -> None:
        status = self.path.stat()
        if not stat.S_ISDIR(status.st_mode):
            raise UsageError(f"{self.path} is not a folder", "give another --home")
        if status.st_uid != os.geteuid():
            raise NotPermitted(
                f"the home {self.path} belongs to another user", "give a --home of your own"
            )
        if status.st_mode & 0o077:
            self._close_to_others()

    def _close_to_others(self) -> None:
        """Takes the folder for the owner alone; refuses one that serves another purpose."""
        names = set(os.listdir(self.path))
        own = {self._version_path.name, self.config_path.name, self.cluster_path.name}
        if names and not names & own:
            raise NotPermitted(
                f"others can open {self.path}, and it is not a home of gossipcache",
                "give a --home that is empty or new",
            )
        os.chmod(self.path, 0o700)

    def node_seed(self) -> bytes:
        """The secret half of the node's key (32 bytes), made on the first call.

        Raises `NotPermitted` if others can read it, `IntegrityError` if it is damaged.
        """
        if not self.key_path.exists():
            write_private(self.key_path, os.urandom(SEED_BYTES).hex().encode() + b"\n")
        return read_seed(
            self.key_path, "put it back from a backup, or remove it to become a new node"
        )

    def cluster(self) -> ClusterFile | None:
        """The cluster this node belongs to; None if it was never given one."""
        if not self.cluster_path.exists():
            return None
        return decode_cluster(read_private(self.cluster_path), str(self.cluster_path))

    def write_cluster(self, cluster: ClusterFile, *, replace: bool) -> None:
        """Stores `cluster` (0600). Raises `Conflict` if one is there and not `replace`."""
        if not replace and self.cluster_path.exists():
            raise cluster_exists(self)
        write_private(self.cluster_path, encode_cluster(cluster))

    def ticket(self) -> bytes:
        """The operator's ticket for this node; empty if it has none."""
        if not self.ticket_path.exists():
            return b""
        return decode_ticket(read_private(self.ticket_path), str(self.ticket_path))

    def http_token(self) -> str:
        """The token that the HTTP port on TCP asks for, made on the first call."""
        if not self.token_path.exists():
            write_private(self.token_path, os.urandom(32).hex().encode())
        return read_private(self.token_path).decode().strip()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the home: one node process at a time. Raises `HomeInUse`."""
        with _lock(self._lock_path, wait_s=PROBE_GRACE_S) as held:
            if not held:
                running = self.running()
                who = f"process {running.pid}" if running else "another process"
                raise HomeInUse(f"{who} runs a node on {self.path}")
            try:
                yield
            finally:
                self._running_path.unlink(missing_ok=True)

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Holds the right to start a node, so that two commands do not start two."""
        with _lock(self._start_lock_path, wait_s=None):
            yield

    def is_held(self) -> bool:
        """Whether a node process holds this home now."""
        if not self._lock_path.exists():
            return False
        with _lock(self._lock_path, wait_s=0.0) as held:
            return not held

    def wait_free(self, timeout_s: float) -> bool:
        """Waits until no process holds the home; False if one still does after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while self.is_held():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        return True

    def write_running(self, node: RunningNode) -> None:
        """Says who runs this home; only its holder calls this."""
        fields = {"pid": node.pid, "mode": node.mode, "listen": node.listen, "http": node.http}
        write_private(self._running_path, json.dumps(fields).encode())

    def running(self) -> RunningNode | None:
        """What the last holder said of itself; it may be dead (see `is_held`)."""
        try:
            fields = json.loads(self._running_path.read_bytes())
            return RunningNode(
                int(fields["pid"]), fields["mode"], fields["listen"], fields.get("http")
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None


def cluster_exists(home: Home) -> Conflict:
    """The error of who would make a second cluster in a home."""
    return Conflict(
        f"{home.cluster_path} exists already",
        "use `gossipcache cluster key rotate`, or `import --replace` to leave that cluster",
    )


def existing_cluster(home: Home) -> ClusterFile:
    """The cluster of `home`. Raises `TaskNotFound` if it was never given one."""
    cluster = home.cluster()
    if cluster is None:
        raise TaskNotFound(
            f"the home {home.path} belongs to no cluster",
            "run `gossipcache cluster init` or `gossipcache cluster key import FILE`",
        )
    return cluster


@contextmanager
def socket_name(path: Path) -> Iterator[str]:
    """A name of the Unix socket at `path` that fits into a socket address, to bind or connect.

    `sockaddr_un` holds 107 bytes on Linux and 103 elsewhere; a longer path is reached through a
    descriptor of its folder, or through a short link where there is no `/proc`.
    """
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.path.isdir(f"/proc/self/fd/{folder}"):
            yield f"/proc/self/fd/{folder}/{path.name}"
            return
    finally:
        os.close(folder)
    import tempfile

    with tempfile.TemporaryDirectory(prefix="gc-") as short:
        os.symlink(path.parent, f"{short}/h")
        yield f"{short}/h/{path.name}"


@contextmanager
def _lock(path: Path, *, wait_s: float | None) -> Iterator[bool]:
    """Whether the lock on `path` could be had within `wait_s` seconds (None: wait for ever).

    It ends with the process, however that ends.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield _acquire(descriptor, wait_s)
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, wait_s: float | None) -> bool:
    if wait_s is None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return True
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        else:
            return True
