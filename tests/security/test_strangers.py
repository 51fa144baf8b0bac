"""Bytes from anybody, to every port a node listens on: it stays up, small, and serves others."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import cbor2
import pytest

from gossipcache.cluster import LOOPBACK
from gossipcache.home import socket_name
from tests.link.test_hostile import HOSTILE, UPGRADE, masked
from tests.processes.cluster import LIMIT_S, wait_until
from tests.security.attacker import (
    await_end,
    noise,
    open_files,
    pour,
    shoot,
    tcp,
)
from tests.security.conftest import Target

POST = b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\n"
HTTP = {
    "garbage": b"\x00\xff" * 50_000,
    "an endless line": b"GET /" + b"a" * 500_000,
    "an endless head": b"GET / HTTP/1.1\r\n" + b"x-a: b\r\n" * 50_000,
    "a huge length": POST + b"Content-Length: 9999999999999999\r\n\r\n{",
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{",
    "a bad chunk": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "deep JSON": POST + b"Content-Length: 60000\r\n\r\n" + b"[" * 60_000,
    "an old version": b"GET / HTTP/0.9\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00" + bytes(512),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_the_node_port(target: Target, what: str) -> None:
    for _ in range(5):
        with tcp(target.victim.address) as connection:
            opening, upgrade, rest = HOSTILE[what].rpartition(UPGRADE)
            if upgrade:
                pour(connection, upgrade)
                assert connection.recv(4096).startswith(b"HTTP/1.1 101")
            pour(connection, opening + rest)
            await_end(connection)


@pytest.mark.parametrize("what", HTTP)
def test_the_control_socket_and_the_http_port(target: Target, what: str) -> None:
    http = target.http
    for _ in range(3):
        with ExitStack() as stack:
            local = stack.enter_context(socket.socket(socket.AF_UNIX))
            local.settimeout(LIMIT_S)
            local.connect(stack.enter_context(socket_name(target.victim.home.control_path)))
            remote = stack.enter_context(tcp(http))
            for connection in (local, remote):
                pour(connection, HTTP[what])
                connection.shutdown(socket.SHUT_WR)
                assert not await_end(connection).startswith(b"HTTP/1.1 2")


def test_slow_and_silent_connections_keep_nobody_out(target: Target) -> None:
    http = target.http
    before = open_files(target.victim)
    beginnings = (b"", UPGRADE[:1], UPGRADE[:-1], UPGRADE, UPGRADE + masked(b"\xa1")[:-1])
    with ExitStack() as stack:
        for number in range(300):
            connection = stack.enter_context(tcp(target.victim.address))
            pour(connection, beginnings[number % len(beginnings)])
        for _ in range(50):
            connection = stack.enter_context(tcp(http))
            pour(connection, b"GET /v1/status HTTP/1.1\r\n")
        target.assert_serving()
        wait_until(lambda: open_files(target.victim) < before + 150, "they make way")
    wait_until(lambda: open_files(target.victim) < before + 20, "they are forgotten")


def datagram(**fields: object) -> bytes:
    return cbor2.dumps(
        {"t": "g", "c": LOOPBACK.cluster_id, "s": b"x" * 16} | fields, canonical=True
    )


ODD = (
    None, True, 1.5, float("nan"), cbor2.undefined, 2**64 - 1, -(2**64), {1: 2}, "x" * 16
)  # fmt: skip
DATAGRAMS = {
    "noise": noise(1, 2000, 1400),
    "empty": [b""] * 500,
    "too long": [b"\x00" * 60_000] * 200,
    "deep": [b"\x81" * 1300 + b"\x00"] * 500,
    "duplicate keys": [b"\xa2\x61t\x61g\x61t\x61g"] * 500,
    "tags": [datagram(a=cbor2.CBORTag(2, b"\xff" * 1000))] * 200,
    "odd values": [datagram(s=value) for value in ODD],
    "cut off": [datagram(r=[[b"p" * 100, b"k" * 32, b"s" * 64]])[:length] for length in range(250)],
    "another cluster": [datagram(c=b"another!")] * 500,
    "a void signature": [datagram(r=[[b"p" * 100, b"k" * 32, b"s" * 64]])] * 200,
}


@pytest.mark.parametrize("what", DATAGRAMS)
def test_the_datagram_port(target: Target, what: str) -> None:
    shoot(target.victim, *DATAGRAMS[what])


def test_what_is_dropped_is_counted(target: Target) -> None:
    counted = ("datagrams_malformed", "gossip_foreign", "gossip_forged")
    before = {name: target.victim.metric(name) for name in counted}
    shoot(
        target.victim,
        b"\xff",
        datagram(c=b"another!"),
        datagram(r=[[b"p" * 100, b"k" * 32, b"s" * 64]]),
    )
    grown = {name: target.victim.metric(name) - before[name] for name in counted}
    assert grown == dict.fromkeys(counted, 1)
