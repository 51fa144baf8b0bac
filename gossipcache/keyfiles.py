"""The key files of a node: the cluster's key, the operator's ticket, and secrets in general.

Standard library only: the command line uses it before any node runs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gossipcache.errors import (
    Conflict,
    IntegrityError,
    NotPermitted,
    UsageError,
    VersionUnsupported,
)

CLUSTER_FILE_VERSION = 2
"""Version 2 names an operator, without whom version 1 is still written: who cannot judge
tickets shall not take part where they count."""
TICKET_FILE_VERSION = 1
SEED_BYTES = 32
SECRET_BYTES = 32
CLUSTER_ID_BYTES = 8
PUBLIC_KEY_BYTES = 32

RotationStep = Literal["begin", "switch", "finish"]
_NO_ROTATION = ("no rotation is under way", "begin one with `gossipcache cluster key rotate`")
_OUT_OF_TURN = {
    "begin": ("a rotation is under way", "end it with `gossipcache cluster key rotate --finish`"),
    "switch": _NO_ROTATION,
    "finish": _NO_ROTATION,
}


@dataclass(frozen=True, slots=True)
class ClusterFile:
    """What `cluster init` makes and every node of the cluster holds a copy of.

    `secrets`: the first seals and proves, each is accepted. Two while a rotation is under way:
    nodes are restarted one by one, so all must accept a secret before the first one uses it.
    `operator_key` is the public half of the operator's key; empty: there is none. Whether a
    ticket is needed, and who may delete, holds until the operator's charter says otherwise.
    """

    cluster_id: bytes
    secrets: tuple[bytes, ...]
    delete_policy: Literal["any", "publisher"] = "any"
    operator_key: bytes = b""
    admission: Literal["secret", "ticket"] = "secret"

    def rotated(self, step: RotationStep) -> ClusterFile:
        """The same cluster one step further: a new secret accepted, used, or the only one.

        Raises `Conflict` for a step out of turn.
        """
        if (len(self.secrets) == 1) != (step == "begin"):
            raise Conflict(*_OUT_OF_TURN[step])
        if step == "begin":
            secrets = (*self.secrets, os.urandom(SECRET_BYTES))
        else:
            secrets = self.secrets[::-1] if step == "switch" else self.secrets[:1]
        return replace(self, secrets=secrets)


def new_cluster(delete_policy: Literal["any", "publisher"] = "any") -> ClusterFile:
    """A cluster with a random id and secret."""
    return ClusterFile(os.urandom(CLUSTER_ID_BYTES), (os.urandom(SECRET_BYTES),), delete_policy)


def write_private(path: Path, data: bytes) -> None:
    """Puts `data` at `path`, mode 0600, durable and whole or not at all."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.unlink(missing_ok=True)
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(staged, path)
    except OSError as error:
        staged.unlink(missing_ok=True)
        error.filename = error.filename or str(path)
        raise


def read_private(path: Path) -> bytes:
    """The bytes of a secret file. Raises `NotPermitted` if others than the owner may read it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise NotPermitted(
            f"cannot read {path} ({error.strerror})", "check the file's owner and mode"
        ) from error
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(descriptor).st_mode & 0o077:
            raise NotPermitted(f"others can read the secret {path}", f"run: chmod 600 {path}")
        return file.read(64 * 1024)


def read_seed(path: Path, hint: str) -> bytes:
    """The secret half of a key (32 bytes). Raises `NotPermitted`, `IntegrityError`."""
    seed = _from_hex(read_private(path).decode("ascii", "replace").strip())
    if seed is None or len(seed) != SEED_BYTES:
        raise IntegrityError(f"{path} is not a key", hint)
    return seed


def encode_ticket(ticket: bytes, shown: Mapping[str, object]) -> bytes:
    """The text of a ticket file (JSON); `shown` says to people what is in the ticket."""
    fields = {"version": TICKET_FILE_VERSION, **shown, "ticket": ticket.hex()}
    return json.dumps(fields, indent=1).encode() + b"\n"


def decode_ticket(data: bytes, where: str) -> bytes:
    """The ticket in `data`. Raises `VersionUnsupported` or `UsageError`."""
    fields = _versioned(
        data,
        TICKET_FILE_VERSION,
        f"{where} is not a ticket",
        "ask the operator for it again",
        where,
    )
    ticket = _from_hex(fields.get("ticket"))
    if not ticket:
        raise UsageError(f"{where} is a damaged ticket", "ask the operator for it again")
    return ticket


def _versioned(data: bytes, newest: int, where: str, what: str, hint: str) -> Any:
    """The fields of a file (JSON) that is `what`, of a version up to `newest`."""
    try:
        fields: Any = json.loads(data)
        version = int(fields["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{where} is not {what}", hint) from error
    if version > newest:
        raise VersionUnsupported(f"{where} has version {version}, newer than this program knows")
    return fields


def encode_cluster(cluster: ClusterFile) -> bytes:
    """The text of a cluster file (JSON)."""
    fields: dict[str, object] = {
        "version": 1,
        "cluster_id": cluster.cluster_id.hex(),
        "secrets": [secret.hex() for secret in cluster.secrets],
        "delete_policy": cluster.delete_policy,
    }
    if cluster.operator_key:
        fields |= {
            "version": CLUSTER_FILE_VERSION,
            "operator_key": cluster.operator_key.hex(),
            "admission": cluster.admission,
        }
    return json.dumps(fields, indent=1).encode() + b"\n"


def decode_cluster(data: bytes, where: str) -> ClusterFile:
    """The cluster in `data`. Raises `VersionUnsupported` or `UsageError`; shows no secret."""
    fields = _versioned(
        data, CLUSTER_FILE_VERSION, f"{where} is not a cluster key", "copy it again", where
    )
    cluster_id = _from_hex(fields.get("cluster_id"))
    keys = [_from_hex(text) for text in fields.get("secrets") or ()]
    policy = fields.get("delete_policy", "any")
    operator_key = _from_hex(fields.get("operator_key", ""))
    admission = fields.get("admission", "secret")
    sized = [key for key in keys if key is not None and len(key) == SECRET_BYTES]
    if (
        cluster_id is None
        or len(cluster_id) != CLUSTER_ID_BYTES
        or len(sized) != len(keys)
        or not 1 <= len(sized) <= 2
        or policy not in ("any", "publisher")
        or operator_key is None
        or len(operator_key) not in (0, PUBLIC_KEY_BYTES)
        or admission not in ("secret", "ticket")
    ):
        raise UsageError(f"{where} is a damaged cluster key", "copy it again")
    return ClusterFile(cluster_id, tuple(sized), policy, operator_key, admission)


def _from_hex(text: object) -> bytes | None:
    try:
        return bytes.fromhex(text) if isinstance(text, str) else None
    except ValueError:
        return None
