"""Several hosts on one machine: network namespaces on a bridge, whose cables can be pulled."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_SUBNET = "10.213.7"
_STEP_S = 1.0


class NoNamespaces(Exception):
    """This machine does not let us make network namespaces; says why."""


@dataclass(frozen=True)
class Machine:
    """One namespace with an address of its own."""

    name: str
    ip: str

    def command(self) -> list[str]:
        """What runs a command in it, to be put before that."""
        return ["ip", "netns", "exec", self.name]


class Bridge:
    """Two bridges: machines on different ones do not reach each other."""

    def __init__(self, prefix: str, count: int) -> None:
        self._prefix = prefix
        self.machines = [
            Machine(f"{prefix}n{number}", f"{_SUBNET}.{number + 1}") for number in range(count)
        ]

    @classmethod
    @contextmanager
    def made(cls, count: int) -> Iterator[Bridge]:
        """Makes the namespaces, and removes them at the end. Raises `NoNamespaces`."""
        if shutil.which("ip") is None:
            raise NoNamespaces("there is no `ip` command: install iproute2")
        if os.geteuid() != 0:
            raise NoNamespaces("network namespaces need root")
        bridge = cls(f"gc{os.getpid() % 10_000}", count)
        try:
            bridge._make()
            yield bridge
        except subprocess.CalledProcessError as error:
            raise NoNamespaces(f"`ip` failed: {error.stderr.strip()}") from error
        finally:
            bridge._remove()

    def cut(self, numbers: Iterable[int]) -> float:
        """Cuts these machines off from all others; returns the instant."""
        for number in numbers:
            _ip("link", "set", self._cable(number), "master", f"{self._prefix}b1")
        return time.monotonic()

    def heal(self) -> float:
        """Puts all machines on one bridge again; returns the instant."""
        for number in range(len(self.machines)):
            _ip("link", "set", self._cable(number), "master", f"{self._prefix}b0")
        return time.monotonic()

    def wait(self, until_s: float) -> None:
        """Lets the time pass."""
        while time.monotonic() < until_s:
            time.sleep(min(_STEP_S, max(0.0, until_s - time.monotonic())))

    def _cable(self, number: int) -> str:
        return f"{self._prefix}v{number}"

    def _make(self) -> None:
        for side in ("b0", "b1"):
            _ip("link", "add", f"{self._prefix}{side}", "type", "bridge")
            _ip("link", "set", f"{self._prefix}{side}", "up")
        for number, machine in enumerate(self.machines):
            _ip("netns", "add", machine.name)
            cable, inner = self._cable(number), f"{self._prefix}e{number}"
            _ip("link", "add", cable, "type", "veth", "peer", "name", inner)
            _ip("link", "set", inner, "netns", machine.name)
            _ip("link", "set", cable, "master", f"{self._prefix}b0")
            _ip("link", "set", cable, "up")
            for command in (
                ("addr", "add", f"{machine.ip}/24", "dev", inner),
                ("link", "set", inner, "up"),
                ("link", "set", "lo", "up"),
            ):
                _ip("-n", machine.name, *command)

    def _remove(self) -> None:
        for number, machine in enumerate(self.machines):
            _ip("link", "del", self._cable(number), check=False)
            _ip("netns", "del", machine.name, check=False)
        for side in ("b0", "b1"):
            _ip("link", "del", f"{self._prefix}{side}", check=False)


def _ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True)
