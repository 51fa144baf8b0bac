"""All connections of one node: dialled on demand, accepted, kept, reused, given up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import trio

from gossipcache.admission import Admission
from gossipcache.budget import VerificationBudget
from gossipcache.cluster import Cluster
from gossipcache.config import NodeConfig
from gossipcache.env import ByteStream, Env, Port
from gossipcache.errors import (
    Busy,
    GossipcacheError,
    NodeUnreachable,
    NotPermitted,
    ProtocolError,
    TimedOut,
)
from gossipcache.identity import Identity
from gossipcache.ids import Address, NodeId
from gossipcache.link.admission import Antechamber, Stranger
from gossipcache.link.channel import Channel
from gossipcache.link.connection import HANDSHAKE_TIMEOUT_S, Connection, Terms, run_connection
from gossipcache.link.control import ControlLink, Handlers
from gossipcache.link.handshake import Credentials
from gossipcache.link.interface import ChannelHandler, Handler, Peer, PieceChannel
from gossipcache.link.tls import Tls
from gossipcache.metrics import Metrics
from gossipcache.wire import Message

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)

MAX_LINKS_PER_NODE = 8
MAX_CHANNELS = 2048
MAX_CHANNELS_PER_NODE = 128

_log = logging.getLogger(__name__)


class _Dial:
    """A dial of a control connection that several requests wait for."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.outcome: ControlLink | GossipcacheError = NodeUnreachable("the dial was stopped")


class LinkPool:
    """Implements `gossipcache.link.interface.Links`; works while `serve` runs."""

    def __init__(
        self,
        env: Env,
        config: NodeConfig,
        identity: Identity,
        cluster: Cluster,
        metrics: Metrics,
        resolve: Callable[[NodeId], Address | None],
        on_refused: Callable[[NodeId], None],
        admission: Admission | None = None,
        budget: VerificationBudget | None = None,
    ) -> None:
        """`resolve` gives a member's address. `on_refused` hears of evidence that a node died:
        its host refused or reset a dial, or an open connection to it broke off. `admission`
        judges who connects; without it the secret alone does. `budget` bounds the signatures
        checked for one node."""
        self._budget = budget or VerificationBudget()
        self._env, self._metrics = env, metrics
        self._admission = admission or Admission(cluster, env.wall_time)
        self._terms = Terms(
            credentials=Credentials(
                identity, cluster, frozenset(config.roles), self._admission, config.ticket
            ),
            tls=None if config.plaintext else Tls(env.workers, env.entropy),
            entropy=env.entropy,
            metrics=metrics,
        )
        self._resolve, self._on_refused = resolve, on_refused
        self._handlers = Handlers()
        self._channel_handler: ChannelHandler | None = None
        self._nursery: trio.Nursery | None = None
        self._links: dict[NodeId, list[ControlLink]] = {}
        self._seeds: dict[Address, ControlLink] = {}
        self._dials: dict[NodeId | Address, _Dial] = {}
        self._channels: dict[NodeId, int] = {}
        self._strangers = Antechamber()
        self._open: dict[trio.CancelScope, Connection] = {}

    def handle(self, kind: type[M], handler: Handler[M]) -> None:
        """Names who answers messages of `kind`."""
        self._handlers.add(kind, handler)

    def handle_channels(self, handler: ChannelHandler) -> None:
        """Names who serves inbound piece channels."""
        self._channel_handler = handler

    async def serve(
        self, port: Port | None, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Accepts on `port` and keeps all connections until it is cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                if port is None:
                    await trio.sleep_forever()
                else:
                    await self._accept(port, nursery)
        finally:
            self._nursery = None

    async def request(self, node: NodeId, message: Message, reply: type[R], timeout_s: float) -> R:
        """Sends `message` to `node` and returns its answer; see `Links.request`."""
        with trio.move_on_after(timeout_s):
            link = await self._link_to(node)
            try:
                return await link.request(message, reply)
            except NodeUnreachable:
                # It closed an idle connection just when the request went out: not yet heard.
                if not link.ended_in_order:
                    raise
            return await (await self._link_to(node)).request(message, reply)
        raise TimedOut(f"{node.hex()} did not answer within {timeout_s:g} s")

    async def request_address(
        self, address: Address, message: Message, reply: type[R], timeout_s: float
    ) -> tuple[Peer, R]:
        """The same to whoever listens at `address`."""
        with trio.move_on_after(timeout_s):
            link = self._seeds.get(address)
            if link is None or not link.is_open:
                link = await self._dial_once(address, address, None)
            return link.peer, await link.request(message, reply)
        raise TimedOut(f"{address} did not answer within {timeout_s:g} s")

    async def notify(self, node: NodeId, message: Message) -> None:
        """Sends `message` without waiting for an answer."""
        await (await self._link_to(node)).notify(message)

    async def open_channel(self, node: NodeId) -> PieceChannel:
        """Dials a new piece channel to `node`."""
        address = self._address_of(node)
        channel: Channel = await self._running().start(self._run_channel, node, address)
        return channel

    # --- admission

    def reconsider(self) -> None:
        """Closes the connections of those who may not have their roles any more."""
        for scope, connection in list(self._open.items()):
            if not self._admission.admits(connection.peer.node_id, connection.peer.roles):
                self._metrics.count("link_revoked")
                scope.cancel()

    def show_ticket(self, ticket: bytes) -> None:
        """This node has a new ticket: whoever is connected shall see it."""
        self._terms = replace(
            self._terms, credentials=replace(self._terms.credentials, ticket=ticket)
        )
        for scope, connection in list(self._open.items()):
            if connection.purpose == "control":
                scope.cancel()

    @contextmanager
    def _revocable(self, connection: Connection) -> Iterator[None]:
        if not self._admission.admits(connection.peer.node_id, connection.peer.roles):
            raise NotPermitted("the node was revoked while it connected")
        with trio.CancelScope() as scope:
            self._open[scope] = connection
            try:
                yield
            finally:
                del self._open[scope]

    # --- dialling

    def _running(self) -> trio.Nursery:
        if self._nursery is None:
            raise NodeUnreachable("this node's links do not run")
        return self._nursery

    def _address_of(self, node: NodeId) -> Address:
        address = self._resolve(node)
        if address is None:
            raise NodeUnreachable(f"no address of node {node.hex()} is known")
        return address

    async def _link_to(self, node: NodeId) -> ControlLink:
        for link in reversed(self._links.get(node, [])):
            if link.is_open:
                return link
        return await self._dial_once(node, self._address_of(node), node)

    async def _dial_once(
        self, key: NodeId | Address, address: Address, expected: NodeId | None
    ) -> ControlLink:
        """Dials, or waits for the dial under way; a caller's cancellation does not stop it."""
        nursery = self._running()
        dial = self._dials.get(key)
        if dial is None:
            dial = self._dials[key] = _Dial()
            nursery.start_soon(self._dial, dial, key, address, expected)
        await dial.done.wait()
        if isinstance(dial.outcome, GossipcacheError):
            raise dial.outcome
        return dial.outcome

    async def _dial(
        self, dial: _Dial, key: NodeId | Address, address: Address, expected: NodeId | None
    ) -> None:
        try:
            dial.outcome = await self._running().start(self._run_control, address, expected)
        except GossipcacheError as error:
            dial.outcome = error
        finally:
            del self._dials[key]
            dial.done.set()

    async def _connect(self, address: Address, expected: NodeId | None) -> ByteStream:
        try:
            with trio.fail_after(HANDSHAKE_TIMEOUT_S):
                return await self._env.network.dial(address)
        except trio.TooSlowError as error:
            raise NodeUnreachable(f"{address} cannot be reached within 5 s") from error
        except OSError as error:
            refused = isinstance(error, ConnectionRefusedError | ConnectionResetError)
            if refused and expected is not None:
                self._on_refused(expected)
            raise NodeUnreachable(f"{address} cannot be reached ({error})") from error

    async def _run_control(
        self,
        address: Address,
        expected: NodeId | None,
        task_status: trio.TaskStatus[ControlLink] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        started = False

        async def body(connection: Connection) -> None:
            nonlocal started
            link = self._link_over(connection)
            if expected is None:
                self._seeds[address] = link
            try:
                with self._revocable(connection):
                    started = True
                    task_status.started(link)
                    await self._run_link(link)
            finally:
                if self._seeds.get(address) is link:
                    del self._seeds[address]

        stream = await self._connect(address, expected)
        try:
            await run_connection(stream, "dialler", self._terms, body, expected=expected)
        except GossipcacheError as error:
            if not started:
                raise
            self._ended(error)

    async def _run_channel(
        self,
        node: NodeId,
        address: Address,
        task_status: trio.TaskStatus[Channel] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        started = False

        async def body(connection: Connection) -> None:
            nonlocal started
            channel = Channel(connection)
            with self._revocable(connection):
                started = True
                task_status.started(channel)
                await channel.wait_ended()

        stream = await self._connect(address, node)
        try:
            await run_connection(
                stream, "dialler", self._terms, body, purpose="pieces", expected=node
            )
        except GossipcacheError as error:
            if not started:
                raise
            self._ended(error)

    # --- accepting

    async def _accept(self, port: Port, nursery: trio.Nursery) -> None:
        while True:
            nursery.start_soon(self._run_accepted, await port.accept())

    async def _run_accepted(self, stream: ByteStream) -> None:
        with trio.CancelScope() as scope:
            stranger = Stranger(stream.remote.host, scope.cancel)
            if self._strangers.enter(stranger):
                self._metrics.count("link_rejected_crowd")

            async def body(connection: Connection) -> None:
                self._strangers.leave(stranger)
                with self._revocable(connection):
                    if connection.purpose == "control":
                        await self._run_link(self._link_over(connection))
                    else:
                        await self._serve_channel(connection)

            try:
                await run_connection(stream, "acceptor", self._terms, body)
            except GossipcacheError as error:
                self._ended(error)
            finally:
                self._strangers.leave(stranger)

    async def _serve_channel(self, connection: Connection) -> None:
        node = connection.peer.node_id
        served = self._channels.get(node, 0)
        if served >= MAX_CHANNELS_PER_NODE or sum(self._channels.values()) >= MAX_CHANNELS:
            raise Busy("the node serves too many piece channels")
        if self._channel_handler is None:
            raise ProtocolError("this node serves no pieces")
        self._channels[node] = served + 1
        try:
            await self._run_handler(self._channel_handler, Channel(connection))
        finally:
            self._channels[node] -= 1
            if not self._channels[node]:
                del self._channels[node]

    async def _run_handler(self, handler: ChannelHandler, channel: Channel) -> None:
        try:
            await handler(channel)
        except (trio.EndOfChannel, trio.ClosedResourceError, GossipcacheError) as error:
            _log.debug("a piece channel ended: %r", error)
        except Exception:
            _log.exception("the handler of a piece channel failed")
            self._metrics.count("link_handler_errors")

    # --- open links

    def _link_over(self, connection: Connection) -> ControlLink:
        return ControlLink(connection, self._handlers, self._metrics, self._budget)

    async def _run_link(self, link: ControlLink) -> None:
        node = link.peer.node_id
        links = self._links.setdefault(node, [])
        if len(links) >= MAX_LINKS_PER_NODE:
            raise Busy("too many connections of one node")
        links.append(link)
        self._metrics.count("link_opened")
        try:
            await link.run()
        except NodeUnreachable:
            self._on_refused(node)
            raise
        finally:
            links.remove(link)
            if not links:
                self._links.pop(node, None)

    def _ended(self, error: GossipcacheError) -> None:
        self._metrics.count(f"link_ended_{error.code}")
        _log.debug("a connection ended: %s", error)
