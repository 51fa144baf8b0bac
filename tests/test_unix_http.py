"""Connections to a node that are used again, against the real control server and bare sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from gossipcache.client import ControlClient, task_path
from gossipcache.errors import GossipcacheError, NodeUnreachable, TaskNotFound
from gossipcache.home import Home
from gossipcache.unix_http import Connection, NoHttp
from tests.fakes.served import served

JSON_ANSWER = b'HTTP/1.1 200 \r\nContent-Length: 14\r\n\r\n{"status":"o"}'


@contextmanager
def scripted(home: Home, *answers: tuple[bytes, ...]) -> Iterator[list[int]]:
    """A server that gives the answers of each tuple on one connection, then closes it; yields
    how many requests each connection has brought so far."""
    home.prepare()
    seen: list[int] = []
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(home.control_path))
    listening.listen()

    def serve() -> None:
        for scripts in answers:
            connection, _ = listening.accept()
            seen.append(0)
            with connection:
                for answer in scripts:
                    while not connection.recv(65536).endswith(b"\r\n\r\n"):
                        pass
                    seen[-1] += 1
                    connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield seen
    finally:
        thread.join(10)
        listening.close()
        assert not thread.is_alive()


def test_calls_one_after_the_other_share_a_connection(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with scripted(home, (JSON_ANSWER,) * 3) as seen:
        client = ControlClient(home)
        for _ in range(3):
            client.call("GET", "/health")
        assert seen == [3]


def test_a_connection_that_the_node_closed_is_not_used_again(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with scripted(home, (JSON_ANSWER,), (JSON_ANSWER,)) as seen:
        client = ControlClient(home)
        client.call("GET", "/health")
        while client.is_connected():
            pass
        client.call("GET", "/health")
        assert seen == [1, 1]


def test_a_node_that_says_close_is_taken_at_its_word(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    closing = JSON_ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with scripted(home, (closing,)):
        client = ControlClient(home)
        client.call("GET", "/health")
        assert not client.is_connected()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SMTP ready\r\n",
        b"HTTP/1.1 200 \r\n\r\n",
        b"HTTP/1.1 200 \r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 \r\nContent-Length: 99\r\n\r\n{}",
        b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}",
        b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 \r\n" + b"a: b\r\n" * 101 + b"\r\n",
    ],
)
def test_what_is_no_whole_answer_is_an_error(tmp_path: Path, answer: bytes) -> None:
    home = Home(tmp_path / "home")
    with scripted(home, (answer,)):
        client = ControlClient(home)
        with pytest.raises(NodeUnreachable):
            client.call("GET", "/health")
        assert not client.is_connected()


def test_lines_may_be_split_over_chunks_in_any_way(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    head = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b'{"result":\n'
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"4;x=y\r\n1}\nz\r\n0\r\n\r\n"
    with scripted(home, (head + chunks,)):
        connection = Connection(home)
        connection.connect(10)
        connection.request("GET", "/", None, {}, 10)
        answer = connection.answer()
        assert [answer.read_line() for _ in range(4)] == [body, b"1}\n", b"z", b""]
        assert answer.whole
        assert connection.reusable
        connection.close()


def test_a_broken_body_of_a_request_spoils_the_connection(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")

    def parts() -> Iterator[bytes]:
        yield b"one"
        raise ValueError("no more")

    with served(home):
        client = ControlClient(home)
        with pytest.raises(ValueError, match="no more"):
            client.upload("/v1/tasks", query={"cid": "x"}, parts=parts())
        assert not client.is_connected()


def test_errors_and_long_answers_leave_the_connection_good(tmp_path: Path) -> None:
    with served(Home(tmp_path / "home")) as fake:
        fake.node.tasks["x", ""] = bytes(3_000_000)
        client = ControlClient(fake.home)
        with pytest.raises(TaskNotFound):
            client.call("GET", task_path("y"))
        assert client.is_connected()
        content = b"".join(client.content(task_path("x", "content"), query={}))
        assert content == bytes(3_000_000)
        assert client.is_connected()
        assert client.run("/v1/tasks", body={"path": str(__file__)})["size"]
        assert client.is_connected()
        client.close()


def test_a_node_that_was_started_again_is_found(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    client = ControlClient(home)
    for _ in range(2):
        with served(home):
            client.call("GET", "/health")
    with pytest.raises(NodeUnreachable, match="no node runs"):
        client.call("GET", "/health")


def test_many_threads_share_a_client(tmp_path: Path) -> None:
    with served(Home(tmp_path / "home")) as fake:
        cids = [f"task {number}" for number in range(200)]
        for cid in cids:
            fake.node.tasks[cid, ""] = b"data"
        client = ControlClient(fake.home)
        with ThreadPoolExecutor(8) as pool:
            found = pool.map(lambda cid: client.call("GET", task_path(cid))["cid"], cids)
            assert list(found) == cids


def test_an_aborted_client_gives_no_connection_back(tmp_path: Path) -> None:
    with served(Home(tmp_path / "home")) as fake:
        client = ControlClient(fake.home)
        client.call("GET", "/health")
        client.abort()
        with pytest.raises(GossipcacheError):
            client.call("GET", "/health")


def test_half_a_head_is_no_answer(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with scripted(home, (b"HTTP/1.1 200",)):
        connection = Connection(home)
        connection.connect(10)
        connection.request("GET", "/", None, {}, 10)
        with pytest.raises(NoHttp):
            connection.answer()
        connection.close()
