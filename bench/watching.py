"""What nodes in many processes see of each other, gathered as it happens."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.measure import Process

POLL_S = 0.1
LIMIT_S = 120.0
"""How long anything may take before the benchmark gives up with a `RuntimeError`."""


class Views:
    """The present views of all nodes, fed by threads that read the hosts' output."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._alive: dict[str, set[str]] = {}
        self._changed_s: dict[tuple[str, str], float] = {}
        self.up_s: dict[str, float] = {}
        """When each node first saw itself."""
        self.addresses: dict[str, str] = {}
        """Of the nodes that serve."""

    def feed(self, line: dict[str, Any]) -> None:
        """Takes one line of a host."""
        with self._news:
            if "viewer" in line:
                self._see(line["viewer"], line["member"], line["state"], line["at_s"])
            else:
                self.addresses[line["node"]] = line["address"]
            self._news.notify_all()

    def _see(self, viewer: str, member: str, state: str, at_s: float) -> None:
        alive = self._alive.setdefault(viewer, set())
        if state == "alive":
            alive.add(member)
        else:
            alive.discard(member)
        self._changed_s[viewer, member] = at_s
        self.up_s.setdefault(viewer, at_s)

    def await_serving(self, names: Iterable[str]) -> None:
        """Waits until all of `names` serve. Raises `RuntimeError` if they do not in time."""
        wanted = set(names)
        self._wait(f"{sorted(wanted)} serve", lambda: wanted <= set(self.addresses))

    def await_agreement(self, *groups: Sequence[str]) -> None:
        """Waits until the nodes of each group see exactly each other alive. Raises
        `RuntimeError` if they do not in time."""
        self._wait("the views agree", lambda: all(self._agree(set(group)) for group in groups))

    def last_change_s(self, viewers: Iterable[str], members: Sequence[str]) -> float:
        """When one of `viewers` last changed its mind of one of `members`."""
        return max(self._changed_s[viewer, member] for viewer in viewers for member in members)

    def _agree(self, names: set[str]) -> bool:
        return all(self._alive.get(name) == names for name in names)

    def _wait(self, what: str, holds: Callable[[], bool]) -> None:
        until = time.monotonic() + LIMIT_S
        with self._news:
            while not holds():
                if time.monotonic() > until:
                    raise RuntimeError(f"not within {LIMIT_S} s: {what}")
                self._news.wait(POLL_S)


class Host:
    """A process of nodes; see `bench.member_host`."""

    def __init__(
        self,
        views: Views,
        folder: Path,
        numbers: range,
        *,
        ip: str = "127.0.0.1",
        join: Sequence[str] = (),
        prefix: Sequence[str] = (),
    ) -> None:
        """`prefix` goes before the command, as `ip netns exec NAME` does."""
        self.names = [f"n{number}" for number in numbers]
        command = [sys.executable, "-m", "bench.member_host", str(folder), ip]
        command += [str(numbers.start), str(len(numbers)), *join]
        log = folder / f"{self.names[0]}.log"
        self._process = Process([*prefix, *command], log=log)
        self._views = views
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def kill(self) -> float:
        """SIGKILL; returns the instant."""
        at_s = time.monotonic()
        self._process.kill()
        return at_s

    def stop(self) -> None:
        """Ends and reaps the process."""
        self._process.stop()
        self._reader.join()

    def _read(self) -> None:
        while True:
            try:
                line = self._process.read_line()
            except (RuntimeError, ValueError):
                return
            self._views.feed(json.loads(line))
