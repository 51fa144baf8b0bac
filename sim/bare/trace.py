"""The witness of a bare run: the digest of everything that travelled and of every change of a
view, each with its virtual instant."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import TextIO

import msgspec

from sim.bare.timeline import Timeline

_PENDING_EVENTS = 4096


class BareTrace:
    """Folds events into a digest; with `log`, also writes each as a JSON line."""

    def __init__(self, timeline: Timeline, log: TextIO | None = None) -> None:
        self._timeline = timeline
        self._log = log
        self._state = hashlib.blake2b(digest_size=16)
        self._encoder = msgspec.msgpack.Encoder()
        # Many are encoded by one call: what they say is frozen.
        self._pending: list[tuple[float, str, int, int, int, object]] = []
        self._folded = 0
        self.tap: Callable[[str, int, int, int, object], None] | None = None
        """Told each event, if a report is made of the run; no run depends on it."""

    @property
    def events(self) -> int:
        """How many there were."""
        return self._folded + len(self._pending)

    def record(self, kind: str, source: int, target: int, size: int, said: object) -> None:
        """Adds one event: what happened, between which machines (by number), how long it was
        on the wire, and what it said: bytes, or anything frozen with all its fields."""
        self._pending.append((self._timeline.now, kind, source, target, size, said))
        if len(self._pending) >= _PENDING_EVENTS:
            self._fold()
        if self.tap is not None:
            self.tap(kind, source, target, size, said)
        if self._log is not None:
            line = {
                "t": self._timeline.now,
                "kind": kind,
                "where": f"n{source}>n{target}",
                "size": size,
                "bytes": hashlib.blake2b(self._encoder.encode(said), digest_size=8).hexdigest(),
            }
            self._log.write(json.dumps(line) + "\n")

    def close(self) -> str:
        """The digest in hex."""
        self._fold()
        return self._state.hexdigest()

    def _fold(self) -> None:
        self._folded += len(self._pending)
        self._state.update(self._encoder.encode(self._pending))
        self._pending.clear()
