"""The witness of a run: a rolling digest over every byte on every wire and disk, each with
its virtual instant. Two runs of a seed are the same run exactly if their digests are equal."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Protocol, TextIO

from sim.kernel.clock import SimClock


class Tap(Protocol):
    """Somebody who listens on the wires; no run depends on it."""

    def arrived(self, kind: str, where: str, data: bytes, sent_s: float, now: float) -> None:
        """`data` arrived, which left at `sent_s`; `where` is `source>target`."""


class Trace:
    """Folds events into a digest; with `log`, also writes each as a JSON line, so that two
    runs that differ can be compared to their first different line."""

    def __init__(self, clock: SimClock, log: TextIO | None = None) -> None:
        self._clock = clock
        self._log = log
        self.tap: Tap | None = None
        self._state = hashlib.blake2b(digest_size=16)
        self._closed = False
        self.events = 0

    def carried(self, kind: str, where: str, data: bytes, sent_s: float) -> None:
        """Adds the arrival of `data`, which left at `sent_s`."""
        self.record(kind, where, data)
        if self.tap is not None and not self._closed:
            self.tap.arrived(kind, where, data, sent_s, self._clock.now)

    def record(self, kind: str, where: str, data: bytes = b"") -> None:
        """Adds one event: what happened, where, and the bytes."""
        if self._closed:
            return
        self.events += 1
        now = self._clock.now
        head = f"{kind}\0{where}\0{len(data)}\0".encode()
        self._state.update(b"".join((struct.pack("<d", now), head, data)))
        if self._log is not None:
            line = {
                "t": now,
                "kind": kind,
                "where": where,
                "size": len(data),
                "bytes": hashlib.blake2b(data, digest_size=8).hexdigest(),
            }
            self._log.write(json.dumps(line) + "\n")

    def close(self) -> str:
        """The digest in hex; what comes later (the tearing down) is not part of the run."""
        self._closed = True
        return self._state.hexdigest()
