"""Starts a node in the background, and finds the one that a command talks to.

Standard library only. The new process keeps no descriptor of the one that starts it, has a
session of its own, and reports over a pipe whether it serves.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from gossipcache.client import ControlClient
from gossipcache.errors import (
    GossipcacheError,
    NodeUnreachable,
    TimedOut,
    UsageError,
    from_code,
)
from gossipcache.home import Home, RunMode

if TYPE_CHECKING:
    from gossipcache.settings import Settings

START_TIMEOUT_S = 30.0
MAX_LOG_BYTES = 16 * 2**20
MAX_REPORT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Order:
    """What a background node is started with."""

    home: Path
    mode: RunMode
    report_fd: int
    flags: dict[str, object] = field(default_factory=dict)


def encode_order(order: Order) -> str:
    """The order as one command-line argument; it holds no secret."""
    return json.dumps({
        "home": str(order.home),
        "mode": order.mode,
        "report_fd": order.report_fd,
        "flags": order.flags,
    })  # fmt: skip


def decode_order(text: str) -> Order:
    """The order in a command-line argument."""
    fields = json.loads(text)
    mode = cast("RunMode", fields["mode"])
    return Order(Path(fields["home"]), mode, fields["report_fd"], fields["flags"])


class Report:
    """The background node's one message to the command that started it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        os.set_inheritable(descriptor, False)

    def ready(self, line: str) -> None:
        """Says that the node serves."""
        self._send({"ready": line})

    def error(self, error: GossipcacheError) -> None:
        """Says why the node cannot serve; later errors are only in its log."""
        self._send({"code": error.code, "message": error.message, "hint": error.hint})

    def _send(self, message: Mapping[str, str]) -> None:
        if self._descriptor is None:
            return
        with suppress(BrokenPipeError):
            os.write(self._descriptor, json.dumps(message).encode())
        os.close(self._descriptor)
        self._descriptor = None


def read_settings(home: Home, flags: dict[str, object]) -> Settings:
    """The settings of `home` with `flags` above the environment and the config file."""
    from gossipcache.settings import load_settings  # not needed where a node runs already

    try:
        text = home.config_path.read_text(encoding="utf-8")
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {home.config_path} ({error})", "correct the file") from error
    return load_settings(flags, os.environ, text, str(home.config_path))


def start_background(home: Home, mode: RunMode, flags: dict[str, object]) -> str:
    """Starts a node on `home` and returns its ready line. Raises the error it starts with."""
    import subprocess

    home.prepare()
    reading, writing = os.pipe()
    try:
        with _open_log(home) as log:
            order = encode_order(Order(home.path, mode, writing, flags))
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "gossipcache.daemon", order],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                pass_fds=(writing,), start_new_session=True,
            )  # fmt: skip
        os.close(writing)
        writing = -1
        answer = _read_report(reading)
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)
    child.returncode = child.poll() or 0  # it outlives this process: nobody waits for it
    if "ready" in answer:
        return answer["ready"]
    raise from_code(
        answer.get("code", "error"),
        answer.get("message", "the node ended while it started"),
        answer.get("hint", f"its log is {home.log_path}"),
    )


def find_node(
    client: ControlClient,
    *,
    may_start: Callable[[], bool],
    announce: Callable[[str], None],
) -> ControlClient:
    """`client`, once a node runs on its home; where none does and `may_start`, a lone one is
    started.

    `announce` tells the user so. Raises `NodeUnreachable`.
    """
    home = client.home
    if client.is_listening():
        return client
    if _comes_up(client):
        return client
    if not may_start():
        raise NodeUnreachable(f"no node runs on the home {home.path}")
    home.prepare()
    with home.starting():
        if not client.is_listening():
            announce(f"starting a node for this user only on {home.path} (no network port)")
            start_background(home, "auto", {})
    return client


def may_start_lone(home: Home) -> bool:
    """Whether a lone node may be started: nothing in `home` names a cluster."""
    return home.cluster() is None and not read_settings(home, {}).names_cluster


def _comes_up(client: ControlClient) -> bool:
    """Whether a node that holds the home, but does not listen yet, comes to do so."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while client.home.is_held() and time.monotonic() < deadline:
        if client.is_listening():
            return True
        time.sleep(0.02)
    return False


def await_listening(client: ControlClient, timeout_s: float) -> None:
    """Waits for a node to listen on the client's home. Raises `NodeUnreachable`."""
    deadline = time.monotonic() + timeout_s
    while not client.is_listening():
        if time.monotonic() >= deadline:
            raise NodeUnreachable(f"no node answers on the home {client.home.path}")
        time.sleep(0.02)


@contextmanager
def _open_log(home: Home) -> Iterator[int]:
    """The node's log to append to; a long one is set aside first."""
    with suppress(FileNotFoundError):
        if home.log_path.stat().st_size > MAX_LOG_BYTES:
            os.replace(home.log_path, home.log_path.with_suffix(".log.1"))
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    descriptor = os.open(home.log_path, flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read_report(descriptor: int) -> dict[str, str]:
    """What the new node says; empty if it ended without a word. Raises `TimedOut`."""
    said = b""
    deadline = time.monotonic() + START_TIMEOUT_S
    while len(said) < MAX_REPORT_BYTES:
        readable, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            raise TimedOut("the node did not start in time", "look at its log, HOME/node.log")
        part = os.read(descriptor, MAX_REPORT_BYTES)
        if not part:
            break
        said += part
    return cast("dict[str, str]", json.loads(said)) if said else {}
