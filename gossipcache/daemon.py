"""The process of a node: from its home's lock to an orderly end.

`python -m gossipcache.daemon` is what `gossipcache.launch` runs in the background;
`gossipcache node run` calls `run_foreground`.
"""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import trio

from gossipcache.client import ControlClient
from gossipcache.control.serving import ControlServer, HttpPort
from gossipcache.embed import check_home, only_error, running_node
from gossipcache.errors import GossipcacheError, HomeInUse
from gossipcache.home import Home, RunMode, RunningNode
from gossipcache.launch import Order, Report, decode_order, read_settings
from gossipcache.log import configure_log
from gossipcache.node.node import Node
from gossipcache.settings import Settings

END_WITHIN_S = 4.5
"""After this long an end that was asked for is forced; what is on disk stands in any case."""
TAKEOVER_S = 10.0
OPEN_FILES = 65_536
GC_THRESHOLDS = (20_000, 20, 20)
"""Garbage is looked for less often than usual, since most of what is made lives on or goes at once:
with the usual ones that was a twentieth of the CPU of many small imports."""

_log = logging.getLogger("gossipcache.daemon")


@dataclass(frozen=True, slots=True)
class Ready:
    """Where a node serves."""

    node: str
    name: str
    listen: str | None
    control: str
    http: str | None

    def line(self) -> str:
        """`ready node=… listen=… control=…`, for scripts."""
        fields = {
            "node": self.node,
            "name": self.name,
            "listen": self.listen or "none",
            "control": self.control,
        }
        if self.http is not None:
            fields["http"] = self.http
        return "ready " + " ".join(f"{name}={value}" for name, value in fields.items())


OnReady = Callable[[Ready], None]


def run_foreground(home: Home, flags: dict[str, object]) -> None:
    """Runs a node until it is told to stop; prints its ready line on stdout."""
    settings = read_settings(home, flags)
    configure_log(settings["log_level"], settings["log_format"])
    run_process(home, settings, "foreground", lambda ready: print(ready.line(), flush=True))


def run_process(home: Home, settings: Settings, mode: RunMode, on_ready: OnReady) -> None:
    """Runs a node in this process until SIGINT, SIGTERM or `POST /v1/stop`.

    Raises `HomeInUse` if another node runs on `home`; one started for convenience gives way.
    """
    os.umask(0o077)
    gc.set_threshold(*GC_THRESHOLDS)
    _allow_many_files()
    check_home(home, settings)
    if mode != "auto":
        take_over(home)
    with home.locked():
        try:
            trio.run(partial(_serve, home, settings, mode, on_ready))
        except BaseExceptionGroup as group:
            raise only_error(group) from None


def take_over(home: Home) -> None:
    """Ends the auto-started node on `home`, if one runs."""
    running = home.running()
    if running is None or running.mode != "auto" or not home.is_held():
        return
    _log.info("taking over from an auto-started node", extra={"fields": {"pid": running.pid}})
    with suppress(GossipcacheError):
        ControlClient(home).call("POST", "/v1/stop", timeout_s=TAKEOVER_S)
    if not home.wait_free(TAKEOVER_S):
        raise HomeInUse(f"the auto-started node {running.pid} on {home.path} does not end")


async def _serve(home: Home, settings: Settings, mode: RunMode, on_ready: OnReady) -> None:
    stopping, serving = trio.Event(), trio.Event()
    async with trio.open_nursery() as outer:
        await outer.start(_watch_signals, stopping)
        outer.start_soon(_end_in_time, stopping, serving, outer.cancel_scope)
        async with (
            running_node(home, settings, networked=mode != "auto") as node,
            trio.open_nursery() as nursery,
        ):
            control = ControlServer(home, node, stopping.set)
            await nursery.start(control.serve, _http_port(home, settings, mode))
            ready = _ready(home, node, control)
            home.write_running(RunningNode(os.getpid(), mode, ready.listen, ready.http))
            on_ready(ready)
            serving.set()
            _log.info("ready", extra={"fields": {"node": ready.node, "listen": ready.listen}})
            if mode == "auto":
                nursery.start_soon(_end_when_idle, control, settings["idle_end_s"], stopping)
            await stopping.wait()
            _log.info("stopping")
            nursery.cancel_scope.cancel()
        outer.cancel_scope.cancel()


async def _end_in_time(
    stopping: trio.Event, serving: trio.Event, all_of_it: trio.CancelScope
) -> None:
    """Once the end is asked for: breaks off a start, and bounds how long the end may take."""
    await stopping.wait()
    _force_after(END_WITHIN_S)
    if not serving.is_set():
        all_of_it.cancel()


async def _watch_signals(
    stopping: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """The first signal asks for an orderly end, the second forces it."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        task_status.started()
        async for number in received:
            if stopping.is_set():
                os._exit(128 + number)
            stopping.set()


async def _end_when_idle(control: ControlServer, idle_s: float, stopping: trio.Event) -> None:
    await control.wait_idle(idle_s)
    _log.info("idle for long enough", extra={"fields": {"idle_s": idle_s}})
    stopping.set()


def _force_after(seconds: float) -> None:
    """Ends the process even if a thread that hashes or writes does not come back in time."""
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _allow_many_files() -> None:
    """The usual soft limit (1,024) is below what peers may open; the hard one is the machine's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _http_port(home: Home, settings: Settings, mode: RunMode) -> HttpPort | None:
    if settings["http"] is None or mode == "auto":
        return None
    return HttpPort(settings["http"], home.http_token())


def _ready(home: Home, node: Node, control: ControlServer) -> Ready:
    return Ready(
        node=node.node_id.hex(),
        name=node.status().name,
        listen=str(node.address) if node.address is not None else None,
        control=str(home.control_path),
        http=str(control.http_address) if control.http_address is not None else None,
    )


def main() -> int:
    """Runs the background node that the order on the command line asks for."""
    order: Order = decode_order(sys.argv[1])
    report = Report(order.report_fd)
    os.chdir("/")
    home = Home(order.home)
    try:
        settings = read_settings(home, order.flags)
        configure_log(settings["log_level"], settings["log_format"])
        run_process(home, settings, order.mode, lambda ready: report.ready(ready.line()))
    except GossipcacheError as error:
        _log.error(error.message)
        report.error(error)
        return error.exit_code
    except BaseException as error:
        _log.critical("the node failed", exc_info=error)
        report.error(GossipcacheError(f"the node failed ({type(error).__name__}: {error})"))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
