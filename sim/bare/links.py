"""The links of one process: dialled on demand, kept while they are used."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from gossipcache.errors import GossipcacheError, NodeUnreachable, TimedOut
from gossipcache.ids import Address, NodeId
from gossipcache.wire import Message
from sim.bare.dial import Dial
from sim.bare.link import End, Link
from sim.bare.network import BareNetwork
from sim.bare.outcome import Outcome


class Links:
    """The links of one process."""

    def __init__(self, network: BareNetwork, end: End) -> None:
        self._network = network
        self._end = end
        self._open: dict[NodeId, Link] = {}
        self._seeds: dict[Address, Link] = {}
        self._dials: dict[NodeId | Address, list[Outcome[Link]]] = {}

    def all(self) -> list[Link]:
        """Those that are open."""
        return [link for link in self._open.values() if link.is_open]

    def request(self, node: NodeId, message: Message, timeout_s: float) -> Outcome[Any]:
        """The answer of `node`; fails by its error, `NodeUnreachable` or `TimedOut`."""
        answered = self._limited(timeout_s)
        self._with_link(node, node, partial(self._ask, message, answered), answered)
        return answered

    def request_address(
        self, address: Address, message: Message, timeout_s: float
    ) -> Outcome[tuple[NodeId, Any]]:
        """The same of whoever listens at `address`, with its id."""
        answered: Outcome[tuple[NodeId, Any]] = self._limited(timeout_s)

        def ask(link: Link) -> None:
            node = link.other(self._end).node_id
            inner: Outcome[Any] = Outcome()
            inner.then(lambda reply: answered.set((node, reply)), answered.fail)
            self._ask(message, inner, link)

        self._with_link(address, None, ask, answered)
        return answered

    def notify(self, node: NodeId, message: Message) -> Outcome[None]:
        """Tells `node`; settled when the message is on its way."""
        sent: Outcome[None] = Outcome()

        def tell(link: Link) -> None:
            link.tell(self._end, message)
            sent.set(None)

        self._with_link(node, node, tell, sent)
        return sent

    def keep(self, link: Link) -> None:
        """A connection was opened, by either side."""
        self._open = {node: held for node, held in self._open.items() if held.is_open}
        self._open[link.other(self._end).node_id] = link

    def forget(self, link: Link) -> None:
        """A connection has ended."""
        node = link.other(self._end).node_id
        if self._open.get(node) is link:
            del self._open[node]
        self._seeds = {at: held for at, held in self._seeds.items() if held is not link}

    def _limited(self, timeout_s: float) -> Outcome[Any]:
        answered: Outcome[Any] = Outcome()
        late = TimedOut(f"no answer within {timeout_s:g} s")
        timeline = self._network.timeline
        timeline.push(timeline.now + timeout_s, self._end.step, answered.fail, late)
        return answered

    def _ask(self, message: Message, answered: Outcome[Any], link: Link) -> None:
        if not answered.is_settled:
            link.ask(self._end, message, answered)

    def _with_link(
        self,
        key: NodeId | Address,
        expected: NodeId | None,
        work: Callable[[Link], None],
        failed: Outcome[Any],
    ) -> None:
        link = self._seeds.get(key) if isinstance(key, Address) else self._open.get(key)
        if link is not None and link.is_open:
            work(link)
            return
        address = key if isinstance(key, Address) else self._end.resolve(key)
        if address is None:
            failed.fail(NodeUnreachable("no address of the node is known"))
            return
        dialled: Outcome[Link] = Outcome()
        dialled.then(work, failed.fail)
        waiting = self._dials.setdefault(key, [])
        waiting.append(dialled)
        if len(waiting) == 1:
            Dial(self._network, self._end, address, expected, partial(self._dialled, key))

    def _dialled(self, key: NodeId | Address, outcome: Link | GossipcacheError) -> None:
        if isinstance(outcome, Link) and isinstance(key, Address):
            self._seeds[key] = outcome
        for waiting in self._dials.pop(key):
            if isinstance(outcome, Link):
                waiting.set(outcome)
            else:
                waiting.fail(outcome)
