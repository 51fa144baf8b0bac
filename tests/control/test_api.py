"""The control API over its real Unix socket, asked by the real client."""

from __future__ import annotations

import http.client
import json
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from gossipcache.client import ControlClient, task_path
from gossipcache.control.serving import FIRST_REQUEST_S, ControlServer
from gossipcache.errors import (
    GossipcacheError,
    IntegrityError,
    Interrupted,
    NodeUnreachable,
    TaskNotFound,
    TimedOut,
    UsageError,
)
from gossipcache.home import Home
from gossipcache.requests import LimitsChange, TaskLimitsChange, TaskQuery
from tests.fakes.node import FakeNode
from tests.fakes.served import Served, served


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Served]:
    with served(Home(tmp_path / "home")) as running:
        yield running


@pytest.fixture
def client(fake: Served) -> ControlClient:
    return ControlClient(fake.home)


def put(fake: Served, data: bytes, cid: str = "x", tag: str = "") -> None:
    fake.node.tasks[cid, tag] = data


def test_the_socket_is_for_the_owner_only(fake: Served) -> None:
    assert stat.S_IMODE(fake.home.control_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(fake.home.path.stat().st_mode) == 0o700


def test_a_socket_path_that_is_too_long_for_an_address_works(tmp_path: Path) -> None:
    home = Home(tmp_path / ("long" * 20) / ("er" * 40))
    with served(home):
        assert ControlClient(home).call("GET", "/health") == {"status": "ok"}


@pytest.mark.parametrize("cid", ["x", "a/b?c#d", "../..", ".", "ünï 漢字", "%2F", "a b+c"])
def test_any_cid_reaches_the_node_as_it_is(fake: Served, client: ControlClient, cid: str) -> None:
    put(fake, b"data", cid, "t/1")
    assert client.call("GET", task_path(cid), query={"tag": "t/1"})["cid"] == cid


def test_errors_come_back_as_their_classes(client: ControlClient) -> None:
    with pytest.raises(TaskNotFound, match="no task missing") as caught:
        client.call("GET", task_path("missing"))
    assert caught.value.hint
    with pytest.raises(TimedOut):
        client.call("GET", "/v1/members", query={"expect": 3, "timeout_s": 1})


def test_import_of_a_path_tells_progress_and_result(client: ControlClient, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"hello")
    seen: list[dict[str, object]] = []
    result = client.run("/v1/tasks", body={"path": str(tmp_path / "f")}, on_progress=seen.append)
    assert result["size"] == 5
    assert seen == [{"phase": "hash", "done_bytes": 5, "total_bytes": 5, "sources": {}}]


def test_upload_streams_the_parts(fake: Served, client: ControlClient) -> None:
    parts = (bytes([n]) * 100_000 for n in range(20))
    result = client.upload("/v1/tasks", query={"cid": "x", "pin": True}, parts=parts)
    assert result["size"] == 2_000_000
    assert fake.node.tasks["x", ""][-1] == 19
    assert fake.node.requests[-1].pin  # type: ignore[attr-defined]


def test_an_upload_that_breaks_off_is_cancelled(fake: Served, client: ControlClient) -> None:
    def parts() -> Iterator[bytes]:
        yield b"first"
        fake.wait_for(fake.node.importing)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.upload("/v1/tasks", query={"cid": "x"}, parts=parts())
    fake.wait_for(fake.node.cancelled)
    assert not fake.node.tasks


def test_content_comes_framed_and_whole(fake: Served, client: ControlClient) -> None:
    put(fake, bytes(range(256)) * 20)
    assert b"".join(client.content(task_path("x", "content"), query={})) == bytes(range(256)) * 20


def test_content_that_turns_bad_in_the_middle_ends_in_a_typed_error(
    fake: Served, client: ControlClient
) -> None:
    put(fake, bytes(5000))
    fake.node.fail_after = 2000
    parts = client.content(task_path("x", "content"), query={})
    assert [next(parts), next(parts)] == [bytes(1000), bytes(1000)]
    with pytest.raises(IntegrityError, match="piece"):
        next(parts)


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 1), (0, 10), (995, 1005), (4990, 6000), (0, 5000), (5000, 5001)]
)
def test_ranges_give_what_a_slice_gives(
    fake: Served, client: ControlClient, start: int, stop: int
) -> None:
    data = bytes(n % 251 for n in range(5000))
    put(fake, data)
    path = task_path("x", "content")
    assert client.read_range(path, query={}, start=start, stop=stop) == data[start:stop]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("POST", "/v1/members", 400),
        ("GET", "/v1/members?exepct=3", 400),
        ("GET", "/v1/tasks/x?tag=%FF", 400),
        ("GET", "/v1/tasks/x?local=maybe", 400),
        ("GET", "/v1/tasks/x?timeout_s=nan", 400),
    ],
)
def test_bad_requests_are_refused_with_a_status(
    fake: Served, method: str, path: str, status: int
) -> None:
    connection = raw_connection(fake)
    connection.request(method, path)
    assert connection.getresponse().status == status
    connection.close()


def raw_connection(fake: Served) -> http.client.HTTPConnection:
    import socket

    connection = http.client.HTTPConnection("localhost", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(fake.home.control_path))
    return connection


def test_a_connection_serves_request_after_request(fake: Served) -> None:
    connection = raw_connection(fake)
    for _ in range(3):
        connection.request("GET", "/health")
        assert json.loads(connection.getresponse().read()) == {"status": "ok"}
    connection.request("GET", "/v1/tasks/none")
    assert connection.getresponse().read().startswith(b'{"error"')
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200
    connection.close()


def test_garbage_is_answered_and_the_server_lives(fake: Served, client: ControlClient) -> None:
    connection = raw_connection(fake)
    connection.sock.sendall(b"\x00\xff garbage\r\n\r\n")
    assert connection.sock.recv(100).startswith(b"HTTP/1.1 400")
    connection.close()
    connection = raw_connection(fake)
    connection.sock.sendall(b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert connection.sock.recv(100).startswith(b"HTTP/1.1 4")
    connection.close()
    assert client.call("GET", "/health")


def test_unknown_fields_of_a_body_are_refused(client: ControlClient) -> None:
    with pytest.raises(UsageError, match="'overwrit'"):
        client.run(task_path("x", "export"), body={"path": "/tmp/x", "overwrit": True})
    with pytest.raises(UsageError, match="absolute"):
        client.run("/v1/tasks", body={"path": "relative"})


def test_limits_are_shown_changed_and_reset(fake: Served, client: ControlClient) -> None:
    assert client.call("GET", "/v1/limits")["upload_rate"] == 10 * 2**20
    body = {"upload_rate": "100MiB/s", "download_rate": "none", "max_uploads": 8}
    client.call("PUT", "/v1/limits", body=body)
    of_task = task_path("big", "limits")
    client.call("PUT", of_task, query={"tag": "t"}, body={"download_rate": 65536})
    client.call("DELETE", of_task)
    assert fake.node.requests == [
        LimitsChange(upload_rate=100 * 2**20, download_rate=0, max_uploads=8),
        (TaskQuery("big", "t"), TaskLimitsChange(download_rate=65536)),
        (TaskQuery("big"), TaskLimitsChange(reset=True)),
    ]


@pytest.mark.parametrize("rate", ["fast", "1KiB/s", 5, -1, True])
def test_a_rate_that_is_none_is_refused(client: ControlClient, rate: object) -> None:
    with pytest.raises(UsageError):
        client.call("PUT", "/v1/limits", body={"upload_rate": rate})


def test_metrics_are_prometheus_text(fake: Served) -> None:
    fake.on_loop(lambda: fake.node.metrics.count("pieces_bad", 3))
    connection = raw_connection(fake)
    connection.request("GET", "/metrics")
    assert b"gossipcache_pieces_bad 3\n" in connection.getresponse().read()
    connection.close()


def test_a_client_that_goes_away_cancels_its_verb(
    fake: Served, client: ControlClient, tmp_path: Path
) -> None:
    put(fake, b"data")
    fake.node.hang = True
    reply: list[dict[str, object]] = []

    def leave(event: dict[str, object]) -> None:
        reply.append(event)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.run(task_path("x", "export"), body={"path": str(tmp_path / "o")}, on_progress=leave)
    fake.wait_for(fake.node.cancelled)
    assert not (tmp_path / "o").exists()


def test_abort_from_another_thread_breaks_the_call_off(
    fake: Served, client: ControlClient, tmp_path: Path
) -> None:
    put(fake, b"data")
    fake.node.hang = True
    with pytest.raises(NodeUnreachable):
        client.run(
            task_path("x", "export"),
            body={"path": str(tmp_path / "o")},
            on_progress=lambda _: client.abort(),
        )
    fake.wait_for(fake.node.cancelled)


async def test_a_stopping_node_tells_running_verbs_so(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    node = FakeNode()
    node.tasks["x", ""] = b"data"
    node.hang = True
    caught: list[GossipcacheError] = []

    def export() -> None:
        try:
            ControlClient(home).run(task_path("x", "export"), body={"path": str(tmp_path / "o")})
        except GossipcacheError as error:
            caught.append(error)

    async with trio.open_nursery() as nursery:
        server = ControlServer(home, node, lambda: None)
        scope = trio.CancelScope()

        async def serve(task_status: trio.TaskStatus[None]) -> None:
            with scope:
                await server.serve(None, task_status=task_status)

        await nursery.start(serve)
        nursery.start_soon(partial(trio.to_thread.run_sync, export))
        await node.hanging.wait()
        scope.cancel()
    assert isinstance(caught[0], Interrupted)


def test_stop_is_asked_over_the_api(fake: Served, client: ControlClient) -> None:
    assert client.call("POST", "/v1/stop") == {"stopping": True}
    assert fake.stopped.wait(10)
    with pytest.raises(NodeUnreachable, match="no node runs"):
        client.call("GET", "/health")


async def test_idleness_is_counted_from_the_last_request(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    server = ControlServer(Home(tmp_path), FakeNode(), lambda: None)
    start = trio.current_time()
    await server.wait_idle(1800)
    assert trio.current_time() - start == pytest.approx(1800)


async def test_the_first_request_is_waited_for_longer(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    server = ControlServer(Home(tmp_path), FakeNode(), lambda: None)
    start = trio.current_time()
    await server.wait_idle(0.2)
    assert trio.current_time() - start == pytest.approx(FIRST_REQUEST_S)
