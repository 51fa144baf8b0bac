"""A task's content over HTTP: whole, by range, or *framed*.

Framed (media type `FRAMED`): a line `{"bytes": N}` stands before each N bytes, and the last
line is `{"result": …}` or `{"error": …}`. Plain HTTP has no place for an error in mid-body;
a plain answer that fails is broken off short of its length instead.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

import trio

from gossipcache.control.backend import Backend, Reader
from gossipcache.control.http import Exchange
from gossipcache.control.progress import json_line
from gossipcache.control.reading import byte_range
from gossipcache.errors import TimedOut
from gossipcache.requests import TaskQuery

FRAMED = "application/vnd.gossipcache.framed"

_MEDIA_TYPES = {"file": "application/octet-stream", "tree": "application/x-tar"}


async def send_content(
    exchange: Exchange, node: Backend, task: TaskQuery, *, local: bool, timeout_s: float | None
) -> None:
    """Answers with the content of `task`; every piece is verified before it is sent."""
    with trio.move_on_after(math.inf if timeout_s is None else timeout_s) as limit:
        async with node.reader(task, local=local, timeout_s=timeout_s) as reader:
            if exchange.request.headers.get("accept") == FRAMED:
                await _send_framed(exchange, reader)
            else:
                await _send_plain(exchange, reader)
    if limit.cancelled_caught:
        raise TimedOut(f"the content was not whole after {timeout_s:g} s")


async def _send_framed(exchange: Exchange, reader: Reader) -> None:
    await exchange.start(200, [("content-type", FRAMED)], in_lines=True)
    size = 0
    async with aclosing(_chunks(reader)) as chunks:
        async for chunk in chunks:
            await exchange.write(json_line({"bytes": len(chunk), "total": reader.size}))
            await exchange.write(chunk)
            size += len(chunk)
    result = {"size": size, "digest": reader.digest, "kind": reader.kind}
    await exchange.write(json_line({"result": result}))
    await exchange.finish()


async def _send_plain(exchange: Exchange, reader: Reader) -> None:
    wanted = byte_range(exchange.request.headers.get("range"), reader.size)
    if wanted is not None and wanted[0] == wanted[1]:
        refused = [("content-range", f"bytes */{reader.size}")]
        await exchange.respond(416, b"", refused)
        return
    start, stop = wanted or (0, reader.size)
    headers = [
        ("content-type", _MEDIA_TYPES[reader.kind]),
        ("content-length", str(stop - start)),
        ("accept-ranges", "bytes"),
        _etag(reader),
    ]
    if wanted is not None:
        headers.append(("content-range", f"bytes {start}-{stop - 1}/{reader.size}"))
    await exchange.start(200 if wanted is None else 206, headers)
    if exchange.request.method != "HEAD":
        async with aclosing(_chunks(reader, start, stop)) as chunks:
            async for chunk in chunks:
                await exchange.write(chunk)
    await exchange.finish()


def _chunks(reader: Reader, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
    return cast("AsyncGenerator[bytes, None]", reader.chunks(start, stop))


def _etag(reader: Reader) -> tuple[str, str]:
    return "etag", f'"{reader.digest}"'
