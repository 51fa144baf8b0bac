"""The witness of a bare run: the digest of everything that travelled and of every change of a
view, each with its virtual instant."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import TextIO

from sim.bare.timeline import Timeline

_HEAD = struct.Struct("<d4sIII").pack
_PENDING_EVENTS = 4096


class BareTrace:
    """Folds events into a digest; with `log`, also writes each as a JSON line."""

    def __init__(self, timeline: Timeline, log: TextIO | None = None) -> None:
        self._timeline = timeline
        self._log = log
        self._state = hashlib.blake2b(digest_size=16)
        self._pending: list[bytes] = []
        self.events = 0

    def record(self, kind: bytes, source: int, target: int, size: int, data: bytes) -> None:
        """Adds one event: what happened (4 letters), between which machines (by number), how
        long it was on the wire, and what it said."""
        pending = self._pending
        pending.append(_HEAD(self._timeline.now, kind, source, target, size))
        pending.append(data)
        if len(pending) >= _PENDING_EVENTS:
            self._fold()
        if self._log is not None:
            line = {
                "t": self._timeline.now,
                "kind": kind.decode().strip(),
                "where": f"n{source}>n{target}",
                "size": size,
                "bytes": hashlib.blake2b(data, digest_size=8).hexdigest(),
            }
            self._log.write(json.dumps(line) + "\n")

    def close(self) -> str:
        """The digest in hex."""
        self._fold()
        return self._state.hexdigest()

    def _fold(self) -> None:
        self.events += len(self._pending) // 2
        self._state.update(b"".join(self._pending))
        self._pending.clear()
