"""The routes of the control API: which request does what, and how its answer is written.

`POST` of an import or export answers in NDJSON: `{"progress": …}` lines, then one line with
`result` or `error`.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

import trio

from gossipcache.control.backend import Backend, OnProgress
from gossipcache.control.content import send_content
from gossipcache.control.http import Exchange, Request
from gossipcache.control.progress import NDJSON, OutcomeLines, ProgressLines, error_line, json_line
from gossipcache.control.reading import (
    MAX_BATCH_BYTES,
    Fields,
    delete_of,
    export_of,
    exports_of,
    import_of,
    imports_of,
    json_fields,
    limits_of,
    optional_task,
    task_limits_of,
    task_of,
)
from gossipcache.errors import (
    GossipcacheError,
    NotPermitted,
    TaskNotFound,
    UsageError,
)
from gossipcache.requests import TaskLimitsChange, TaskQuery
from gossipcache.results import Outcome

JSON = ("content-type", "application/json")
OCTETS = "application/octet-stream"
MAX_WAIT_S = 86400.0

_HTTP_STATUS = {
    "usage": 400,
    "not_permitted": 403,
    "not_found": 404,
    "conflict": 409,
    "timeout": 504,
    "no_space": 507,
    "interrupted": 503,
    "unreachable": 503,
    "busy": 503,
    "not_ready": 503,
}

Route = Callable[[Exchange], Awaitable[None]]


class ControlApi:
    """Answers control requests from a node. `stop` asks the process to end."""

    def __init__(self, node: Backend, stop: Callable[[], None]) -> None:
        self._node = node
        self._stop = stop
        self.requests_running = 0
        self.last_request = trio.current_time()
        self.called = trio.Event()
        """Set when the first request comes."""
        self._fixed: dict[tuple[str, ...], dict[str, Route]] = {
            ("health",): {"GET": self._health},
            ("metrics",): {"GET": self._metrics},
            ("v1", "status"): {"GET": self._status},
            ("v1", "members"): {"GET": self._members},
            ("v1", "clocks"): {"GET": self._clocks},
            ("v1", "ring"): {"GET": self._ring},
            ("v1", "charter"): {"GET": self._charter, "PUT": self._enact},
            ("v1", "ticket"): {"PUT": self._take_ticket},
            ("v1", "tasks"): {"GET": self._list, "POST": self._import},
            ("v1", "imports"): {"POST": self._import_many},
            ("v1", "exports"): {"POST": self._export_many},
            ("v1", "gc"): {"POST": self._gc},
            ("v1", "verify"): {"POST": self._verify},
            ("v1", "limits"): {"GET": self._limits, "PUT": self._change_limits},
            ("v1", "stop"): {"POST": self._end},
        }
        self._of_task: dict[tuple[str, ...], dict[str, Route]] = {
            (): {"GET": self._stat, "DELETE": self._delete},
            ("content",): {"GET": self._content, "HEAD": self._content},
            ("export",): {"POST": self._export},
            ("limits",): {"PUT": self._change_task_limits, "DELETE": self._reset_task_limits},
            ("pin",): {"PUT": self._pin, "DELETE": self._unpin},
        }

    async def handle(self, exchange: Exchange) -> None:
        """Answers one request. Raises `GossipcacheError` for `fail` to answer."""
        self.requests_running += 1
        self.called.set()
        try:
            await self._route(exchange.request)(exchange)
        finally:
            self.requests_running -= 1
            self.last_request = trio.current_time()

    async def fail(self, exchange: Exchange, error: GossipcacheError) -> None:
        """Answers with `error`: as the last line of an answer in lines that has begun, while
        any other answer that has begun is broken off."""
        if exchange.started:
            if not exchange.ends_in_line:
                raise trio.BrokenResourceError("the answer had begun")
            await exchange.write(error_line(error))
            await exchange.finish()
            return
        status = _HTTP_STATUS.get(error.code, 500)
        await exchange.respond(status, error_line(error), [JSON])

    def _route(self, request: Request) -> Route:
        methods = self._fixed.get(request.path)
        if methods is None and request.path[:2] == ("v1", "tasks"):
            methods = self._of_task.get(request.path[3:])
        if methods is None:
            raise TaskNotFound(f"no such path: /{'/'.join(request.path)}", "see docs/control.md")
        if request.method not in methods:
            raise UsageError(
                f"{request.method} is not possible here", f"use {' or '.join(methods)}"
            )
        return methods[request.method]

    async def _health(self, exchange: Exchange) -> None:
        await _reply(exchange, {"status": "ok"})

    async def _metrics(self, exchange: Exchange) -> None:
        values = self._node.metrics.snapshot()
        text = "".join(f"gossipcache_{name} {value}\n" for name, value in values.items())
        kind = ("content-type", "text/plain; version=0.0.4")
        await exchange.respond(200, text.encode(), [kind])

    async def _status(self, exchange: Exchange) -> None:
        status = replace(self._node.status(), pid=os.getpid())
        await _reply(exchange, status)

    async def _members(self, exchange: Exchange) -> None:
        fields = Fields(exchange.request.query)
        expect, timeout_s = fields.optional_count("expect"), fields.seconds("timeout_s")
        fields.done()
        if expect is None:
            members = self._node.members()
        else:
            members = await self._node.wait_members(expect, timeout_s or MAX_WAIT_S)
        await _reply(exchange, {"members": members})

    async def _clocks(self, exchange: Exchange) -> None:
        Fields(exchange.request.query).done()
        await _reply(exchange, {"clocks": await self._node.clocks()})

    async def _ring(self, exchange: Exchange) -> None:
        fields = Fields(exchange.request.query)
        task = optional_task(fields)
        fields.done()
        await _reply(exchange, self._node.ring(task))

    async def _charter(self, exchange: Exchange) -> None:
        fields = Fields(exchange.request.query)
        fresh = fields.flag("fresh")
        fields.done()
        await _reply(exchange, await self._node.charter(fresh=fresh))

    async def _enact(self, exchange: Exchange) -> None:
        fields = json_fields(await exchange.read_body())
        signed = fields.text("signed") or ""
        fields.done()
        await _reply(exchange, await self._node.enact(signed))

    async def _take_ticket(self, exchange: Exchange) -> None:
        fields = json_fields(await exchange.read_body())
        ticket = fields.bytes_of("ticket")
        fields.done()
        self._node.take_ticket(ticket)
        await _reply(exchange, {"ticket": ticket.hex()})

    async def _list(self, exchange: Exchange) -> None:
        await _reply(exchange, {"tasks": self._node.list_tasks()})

    async def _stat(self, exchange: Exchange) -> None:
        fields = Fields(exchange.request.query)
        task = task_of(_cid(exchange), fields)
        local, timeout_s = fields.flag("local"), fields.seconds("timeout_s", 10.0)
        fields.done()
        found = await self._node.stat(task, local=local, timeout_s=timeout_s or MAX_WAIT_S)
        await _reply(exchange, found)

    async def _import(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.headers.get("content-type", "").partition(";")[0].strip() == OCTETS:
            wanted = import_of(Fields(request.query), from_stream=True)

            async def upload(progress: OnProgress) -> Any:
                async with aclosing(exchange.body()) as body:
                    return await self._node.import_file(wanted, stream=body, progress=progress)

            return await _with_progress(exchange, upload)
        _require_local(request)
        named = import_of(json_fields(await exchange.read_body()), from_stream=False)
        await _with_progress(
            exchange, lambda progress: self._node.import_file(named, progress=progress)
        )

    async def _export(self, exchange: Exchange) -> None:
        _require_local(exchange.request)
        wanted = export_of(_cid(exchange), json_fields(await exchange.read_body()))
        await _with_progress(
            exchange, lambda progress: self._node.export(wanted, progress=progress)
        )

    async def _import_many(self, exchange: Exchange) -> None:
        _require_local(exchange.request)
        body = await exchange.read_body(MAX_BATCH_BYTES)
        wanted = imports_of(body)
        await _with_outcomes(exchange, partial(self._node.import_files, wanted))

    async def _export_many(self, exchange: Exchange) -> None:
        _require_local(exchange.request)
        body = await exchange.read_body(MAX_BATCH_BYTES)
        wanted = exports_of(body)
        await _with_outcomes(exchange, partial(self._node.export_files, wanted))

    async def _content(self, exchange: Exchange) -> None:
        fields = Fields(exchange.request.query)
        task = task_of(_cid(exchange), fields)
        local, timeout_s = fields.flag("local"), fields.seconds("timeout_s")
        fields.done()
        await send_content(exchange, self._node, task, local=local, timeout_s=timeout_s)

    async def _delete(self, exchange: Exchange) -> None:
        wanted = delete_of(_cid(exchange), Fields(exchange.request.query))
        await _reply(exchange, await self._node.delete(wanted))

    async def _pin(self, exchange: Exchange) -> None:
        await self._set_pin(exchange, True)

    async def _unpin(self, exchange: Exchange) -> None:
        await self._set_pin(exchange, False)

    async def _set_pin(self, exchange: Exchange, pinned: bool) -> None:
        fields = Fields(exchange.request.query)
        task = task_of(_cid(exchange), fields)
        fields.done()
        await self._node.pin(task, pinned)
        await _reply(exchange, {"cid": task.cid, "tag": task.tag, "pinned": pinned})

    async def _gc(self, exchange: Exchange) -> None:
        fields = json_fields(await exchange.read_body())
        dry_run = fields.flag("dry_run")
        fields.done()
        await _reply(exchange, await self._node.gc(dry_run))

    async def _verify(self, exchange: Exchange) -> None:
        fields = json_fields(await exchange.read_body())
        task = optional_task(fields)
        fields.done()
        await _reply(exchange, await self._node.verify(task))

    async def _limits(self, exchange: Exchange) -> None:
        Fields(exchange.request.query).done()
        await _reply(exchange, self._node.limits())

    async def _change_limits(self, exchange: Exchange) -> None:
        wanted = limits_of(json_fields(await exchange.read_body()))
        await _reply(exchange, self._node.change_limits(wanted))

    async def _change_task_limits(self, exchange: Exchange) -> None:
        task = _whole_task(exchange)
        wanted = task_limits_of(json_fields(await exchange.read_body()))
        await _reply(exchange, self._node.change_task_limits(task, wanted))

    async def _reset_task_limits(self, exchange: Exchange) -> None:
        wanted = TaskLimitsChange(reset=True)
        changed = self._node.change_task_limits(_whole_task(exchange), wanted)
        await _reply(exchange, changed)

    async def _end(self, exchange: Exchange) -> None:
        await _reply(exchange, {"stopping": True})
        self._stop()


async def _reply(exchange: Exchange, value: object) -> None:
    await exchange.respond(200, json_line(value), [JSON])


async def _with_progress(exchange: Exchange, verb: Callable[[OnProgress], Awaitable[Any]]) -> None:
    """Runs `verb`; its progress, then its result or error, are the answer's lines."""
    await exchange.start(200, [NDJSON], in_lines=True)
    result = await ProgressLines(exchange.write).around(verb)
    await exchange.write(json_line({"result": result}))
    await exchange.finish()


async def _with_outcomes(
    exchange: Exchange, verb: Callable[[Callable[[int, Outcome], None]], Awaitable[None]]
) -> None:
    """Runs `verb`; what it tells of each entry is a line of the answer, then how many failed."""
    await exchange.start(200, [NDJSON], in_lines=True)
    lines = OutcomeLines(exchange.write)
    await lines.around(verb)
    summary = {"entries": lines.count, "failed": lines.failed}
    await exchange.write(json_line({"result": summary}))
    await exchange.finish()


def _cid(exchange: Exchange) -> str:
    return exchange.request.path[2]


def _whole_task(exchange: Exchange) -> TaskQuery:
    """The task of the path and the query's tag, whatever its content."""
    fields = Fields(exchange.request.query)
    task = TaskQuery(_cid(exchange), fields.text("tag") or "")
    fields.done()
    return task


def _require_local(request: Request) -> None:
    if not request.is_local:
        raise NotPermitted(
            "paths are taken from the control socket only", "send or fetch the content itself"
        )
