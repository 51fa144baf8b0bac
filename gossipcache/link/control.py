"""A control connection at work: the shell around `RpcCore`."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar, cast

import trio

from gossipcache.budget import VerificationBudget
from gossipcache.errors import (
    Busy,
    GossipcacheError,
    IntegrityError,
    NodeUnreachable,
)
from gossipcache.link.connection import Connection
from gossipcache.link.interface import Handler
from gossipcache.link.rpc import (
    MAX_CALLS,
    Abandoned,
    Answered,
    Call,
    Dropped,
    Effect,
    Failed,
    RpcCore,
    Send,
    Told,
    tag_of,
)
from gossipcache.metrics import Metrics
from gossipcache.wire import Message

R = TypeVar("R", bound=Message)

IDLE_S = 60.0
"""A connection that carries nothing for this long is closed by the side that dialled."""
LOOK_S = 10.0
"""How often a connection is looked at: whether it is idle, or half-open while somebody waits."""
PONG_TIMEOUT_S = 5.0
OUTBOX_SIZE = 32
MAX_JOINED_BYTES = 16 * 1024
"""So many bytes of messages go out by one write, and the message that passes it."""

_log = logging.getLogger(__name__)


class Handlers:
    """Who answers which message; filled before the node serves."""

    def __init__(self) -> None:
        self.kinds: dict[str, type[Message]] = {}
        self._handlers: dict[type[Message], Handler[Message]] = {}

    def add(self, kind: type[R], handler: Handler[R]) -> None:
        """Names the one `handler` of `kind`."""
        if tag_of(kind) in self.kinds:
            raise ValueError(f"{kind.__name__} already has a handler")
        self.kinds[tag_of(kind)] = kind
        self._handlers[kind] = cast("Handler[Message]", handler)

    def of(self, message: Message) -> Handler[Message]:
        """The handler of `message`."""
        return self._handlers[type(message)]


class _Waiter:
    """One own request that waits for its answer."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.outcome: Message | GossipcacheError | None = None

    def set(self, outcome: Message | GossipcacheError) -> None:
        self.outcome = outcome
        self.done.set()


class ControlLink:
    """Requests, replies and notices with one node, both ways."""

    def __init__(
        self,
        connection: Connection,
        handlers: Handlers,
        metrics: Metrics,
        budget: VerificationBudget,
    ) -> None:
        """`budget` says whether signatures of the peer are still checked."""
        self.peer = connection.peer
        self._budget = budget
        self._connection, self._handlers, self._metrics = connection, handlers, metrics
        self._core = RpcCore(handlers.kinds)
        self._waiters: dict[int, _Waiter] = {}
        self._calls: dict[int, trio.CancelScope] = {}
        self._told = 0
        self._used_at = trio.current_time()
        self._unheard = False
        """Whether nothing came since something was last asked or told."""
        self._rest = trio.CancelScope()
        """In which its keeper sleeps until there may be something to do."""
        self._ended = False
        self._failure: GossipcacheError | None = None
        self._name = f"{self.peer.node_id.hex()} at {self.peer.remote}"
        self._outbox, self._outgoing = trio.open_memory_channel[bytes](OUTBOX_SIZE)

    @property
    def is_open(self) -> bool:
        """Whether requests can be made."""
        return not self._ended and not self._connection.stream.ended.is_set()

    @property
    def ended_in_order(self) -> bool:
        """Whether the remote said goodbye: what it had not answered then, it has not done."""
        return self._connection.ended_in_order

    async def run(self) -> None:
        """Serves until the connection ends. Raises `NodeUnreachable`, `ProtocolError`."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for part in (self._write, self._look_after, self._read):
                    nursery.start_soon(self._run_part, part)
        finally:
            self._ended = True
            lost = NodeUnreachable(f"the connection to {self._name} ended", "try again in a moment")
            for waiter in self._waiters.values():
                waiter.set(lost)
        if self._failure is not None:
            raise self._failure

    async def _run_part(self, part: Callable[[], Awaitable[None]]) -> None:
        """Runs one of the three tasks whose end, by return or by error, is the link's end."""
        try:
            await part()
        except GossipcacheError as error:
            self._failure = self._failure or error
        self._nursery.cancel_scope.cancel()

    async def request(self, message: Message, reply: type[R]) -> R:
        """The remote's answer. Raises its error, `NodeUnreachable`, `Busy` or `ProtocolError`."""
        self._begin()
        call_id, data = self._core.request(message, reply)
        waiter = self._waiters[call_id] = _Waiter()
        try:
            await self._post(data)
            await waiter.done.wait()
        finally:
            del self._waiters[call_id]
            self._perform(self._core.abandon(call_id))
        if isinstance(waiter.outcome, GossipcacheError):
            raise waiter.outcome
        return cast(R, waiter.outcome)

    async def notify(self, message: Message) -> None:
        """Tells the remote `message`. Raises `NodeUnreachable`."""
        self._begin()
        await self._post(self._core.notice(message))

    def _begin(self) -> None:
        if not self.is_open:
            raise NodeUnreachable(f"the connection to {self._name} has ended")
        self._unheard = True
        self._rest.deadline = min(self._rest.deadline, trio.current_time() + LOOK_S)

    async def _post(self, data: bytes) -> None:
        self._used_at = trio.current_time()
        try:
            await self._outbox.send(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise NodeUnreachable(f"the connection to {self._name} has ended") from error

    async def _write(self) -> None:
        # A task of its own, so that no caller's cancellation can cut a frame in two.
        with self._outgoing:
            async for data in self._outgoing:
                await trio.lowlevel.checkpoint()  # what others say just now goes with it
                try:
                    await self._connection.send(data, *self._posted(len(data)))
                except NodeUnreachable:
                    break  # the reader learns why
        await trio.sleep_forever()

    def _posted(self, size: int) -> list[bytes]:
        """What else waits to be written, as far as it is short; `size` bytes are taken already."""
        more: list[bytes] = []
        while size < MAX_JOINED_BYTES:
            try:
                more.append(self._outgoing.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                break
            size += len(more[-1])
        return more

    async def _read(self) -> None:
        while True:
            try:
                message = await self._connection.receive()
            except trio.EndOfChannel:
                return
            self._used_at = trio.current_time()
            self._unheard = False
            self._perform(self._core.receive(message))

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Call(call_id, message):
                    scope = self._calls[call_id] = trio.CancelScope()
                    self._nursery.start_soon(self._answer, call_id, message, scope)
                case Told(message):
                    self._take_notice(message)
                case Abandoned(call_id):
                    self._calls[call_id].cancel()
                case Answered(call_id, message):
                    self._settle(call_id, message)
                case Failed(call_id, error):
                    self._settle(call_id, error)
                case Send(data):
                    self._send_or_drop(data)
                case Dropped(reason):
                    self._metrics.count(f"link_dropped_{reason}")

    def _settle(self, call_id: int, outcome: Message | GossipcacheError) -> None:
        waiter = self._waiters.get(call_id)
        if waiter is not None:
            waiter.set(outcome)

    def _send_or_drop(self, data: bytes) -> None:
        """For what the reader must say: it may not wait for a remote that does not read."""
        try:
            self._outbox.send_nowait(data)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self._metrics.count("link_dropped_outbox")

    async def _answer(self, call_id: int, message: Message, scope: trio.CancelScope) -> None:
        try:
            with scope:
                for effect in await self._handled(call_id, message):
                    if isinstance(effect, Send):
                        with suppress(NodeUnreachable):
                            await self._post(effect.data)
        finally:
            del self._calls[call_id]
            self._core.done(call_id)

    async def _handled(self, call_id: int, message: Message) -> list[Effect]:
        try:
            self._check_budget()
            answer = await self._handlers.of(message)(self.peer, message)
        except GossipcacheError as error:
            self._blame_for(error)
            return self._core.fail(call_id, error)
        except Exception:
            _log.exception("a handler of %s failed", type(message).__name__)
            self._metrics.count("link_handler_errors")
            return self._core.fail(call_id, GossipcacheError("the node failed inside"))
        return self._core.reply(call_id, answer)

    def _check_budget(self) -> None:
        if self._budget.is_spent(self.peer.node_id, trio.current_time()):
            self._metrics.count("link_dropped_unpaid")
            raise Busy("too many signatures of this node did not hold")

    def _blame_for(self, error: GossipcacheError) -> None:
        """What the peer sent was no statement of whom it named."""
        if isinstance(error, IntegrityError):
            self._budget.blame(self.peer.node_id, 1, trio.current_time())

    def _take_notice(self, message: Message) -> None:
        if self._told >= MAX_CALLS:
            self._metrics.count("link_dropped_notices")
            return
        self._told += 1
        self._nursery.start_soon(self._hear, message)

    async def _hear(self, message: Message) -> None:
        try:
            self._check_budget()
            await self._handlers.of(message)(self.peer, message)
        except GossipcacheError as error:
            self._blame_for(error)
            _log.debug("a notice of %s was refused: %s", self.peer.node_id.hex(), error)
        except Exception:
            _log.exception("a handler of %s failed", type(message).__name__)
            self._metrics.count("link_handler_errors")
        finally:
            self._told -= 1

    async def _look_after(self) -> None:
        """Closes a connection that nobody uses, and finds out whether one is half-open on which
        nothing came since it was used. One that rests carries nothing: membership watches the
        nodes."""
        # Both sides close idle ones, the acceptor later: the dialler's part may be lost.
        limit_s = IDLE_S * (1 if self._connection.dialled else 2)
        heard_bytes = -1
        while True:
            used = self._core.busy or self._unheard
            self._rest.deadline = trio.current_time() + LOOK_S if used else self._used_at + limit_s
            with self._rest:
                await trio.sleep_forever()
            self._rest = trio.CancelScope()
            if self._core.busy or self._unheard:
                if heard_bytes == self._connection.stream.received_bytes:
                    await self._check_alive()
            elif trio.current_time() >= self._used_at + limit_s:
                self._ended = True
                return
            heard_bytes = self._connection.stream.received_bytes

    async def _check_alive(self) -> None:
        with trio.move_on_after(PONG_TIMEOUT_S) as waiting:
            await self._connection.ping()
        if waiting.cancelled_caught:
            self._metrics.count("link_half_open")
            raise NodeUnreachable(f"{self.peer.remote} does not answer any more")
        self._unheard = False
