"""Control connections between bare nodes.

What is modelled is what membership and records can tell: round trips and bytes, refusals and
resets as evidence, half-open connections found by who waits, the limits of time. Frames,
handshakes and windows are not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from gossipcache.errors import GossipcacheError, NodeUnreachable
from gossipcache.ids import Address, NodeId
from gossipcache.link.control import IDLE_S, LOOK_S, PONG_TIMEOUT_S
from gossipcache.messages.link import Notice, Reply, Request
from gossipcache.wire import Message, encode
from sim.bare.network import BareHost, BareNetwork
from sim.bare.outcome import Answer, Outcome

if TYPE_CHECKING:
    from sim.bare.links import Links

_FRAME_BYTES = 8
_ENVELOPE_BYTES: dict[type[Message], int] = {
    kind: _FRAME_BYTES + len(encode(kind(**fields))) - 1
    for kind, fields in (
        (Request, {"id": 1, "body": {}}),
        (Reply, {"id": 1, "body": {}}),
        (Notice, {"body": {}}),
    )
}


class End(Protocol):
    """A process, as its links see it."""

    host: BareHost
    node_id: NodeId
    is_dead: bool
    is_paused: bool
    links: Links

    def step(self, work: Callable[..., None], *args: Any) -> None:
        """Runs `work` as a step of the process, as soon as it runs."""

    def resolve(self, node: NodeId) -> Address | None:
        """Where it would dial a member."""

    def answer(self, peer: NodeId, message: Message) -> Answer:
        """Handles a request or a notice. Raises `GossipcacheError`."""

    def report_refused(self, node: NodeId) -> None:
        """Hears of evidence that a node died."""

    def length(self, message: msgspec.Struct) -> int:
        """Of a message on the wire."""


_Sent = tuple[End, Callable[..., None], tuple[Any, ...]]


class Link:
    """One open connection between two processes."""

    def __init__(self, network: BareNetwork, dialler: End, acceptor: End) -> None:
        self._network = network
        self._ends = (dialler, acceptor)
        self._used_at = network.timeline.now
        self._sent: tuple[deque[_Sent], deque[_Sent]] = (deque(), deque())
        self._stalled: list[tuple[End, int, Callable[..., None], tuple[Any, ...]]] = []
        self._waiting: dict[Outcome[Any], End] = {}
        self._unheard: set[End] = set()
        """To whom nothing came since they last asked or told something."""
        self._broken = False

    @property
    def is_open(self) -> bool:
        """Whether it can be used; an idle one was closed in order."""
        return not self._broken and self._network.timeline.now < self._used_at + IDLE_S

    def other(self, end: End) -> End:
        """The process at the other end."""
        return self._ends[self._ends[0] is end]

    def ask(self, end: End, message: Message, answered: Outcome[Any]) -> None:
        """Sends a request of `end`; the answer settles `answered`."""
        self._waiting[answered] = end
        self._uses(end)
        self._carry(end, Request, message, self._asked, end, message, answered)

    def tell(self, end: End, message: Message) -> None:
        """Sends a notice of `end`."""
        self._uses(end)
        self._carry(end, Notice, message, self._told, end, message)

    def close(self) -> None:
        """Ends in order: no evidence for anybody."""
        self._end(None)

    def reset(self, dead: End) -> None:
        """The process at one end died; its kernel tells the other end, if that can be reached."""
        other = self.other(dead)
        self._network.control(dead.host, other.host, "stream", other.step, self.broke, other)

    def broke(self, end: End) -> None:
        """`end` learns that the connection broke off."""
        if not self._broken:
            node = self.other(end).node_id
            self._end(NodeUnreachable("the connection broke"))
            end.report_refused(node)

    def suspect(self) -> None:
        """Something may have cut the ends off from each other: who waits will find out."""
        for end in self._ends:
            if end in self._unheard:
                self._look_later(end)

    def _uses(self, end: End) -> None:
        self._unheard.add(end)
        if self._is_cut_off():
            self._look_later(end)

    def _look_later(self, end: End) -> None:
        if self.is_open and not end.is_dead:
            self._network.timeline.push(self._network.timeline.now + LOOK_S, self._check_alive, end)

    def _asked(self, end: End, message: Message, answered: Outcome[Any]) -> None:
        peer = self.other(end)
        try:
            reply = peer.answer(end.node_id, message)
        except GossipcacheError as error:
            self._refuse(peer, end, answered, error)
            return
        if isinstance(reply, Outcome):
            reply.then(
                partial(self._reply, peer, end, answered),
                partial(self._refuse, peer, end, answered),
            )
        else:
            self._reply(peer, end, answered, reply)

    def _reply(self, peer: End, end: End, answered: Outcome[Any], reply: Message) -> None:
        self._carry(peer, Reply, reply, self._answered, end, answered, reply)

    def _refuse(self, peer: End, end: End, answered: Outcome[Any], error: GossipcacheError) -> None:
        self._carry(peer, Reply, None, self._failed, end, answered, error)

    def _told(self, end: End, message: Message) -> None:
        try:
            self.other(end).answer(end.node_id, message)
        except GossipcacheError:
            pass  # a notice that is refused is only logged

    def _answered(self, _end: End, answered: Outcome[Any], reply: Message) -> None:
        self._waiting.pop(answered, None)
        answered.set(reply)

    def _failed(self, _end: End, answered: Outcome[Any], error: GossipcacheError) -> None:
        self._waiting.pop(answered, None)
        answered.fail(error)

    def _carry(
        self,
        sender: End,
        envelope: type[Message],
        message: Message | None,
        work: Callable[..., None],
        *args: Any,
    ) -> None:
        size = _ENVELOPE_BYTES[envelope] + (0 if message is None else sender.length(message))
        sender.host.link_bytes_sent += size
        if message is not None:
            self._network.link_bytes[type(message).__name__] += size
        there = self.other(sender).host.number
        self._network.trace.record("link", sender.host.number, there, size, message)
        self._used_at = self._network.timeline.now
        self._send(sender, size, work, args)

    def _send(
        self, sender: End, size: int, work: Callable[..., None], args: tuple[Any, ...]
    ) -> None:
        network, side = self._network, int(self._ends[0] is not sender)
        source, target = sender.host, self.other(sender).host
        if self._stalled or network.is_cut(source, target, size):
            if not self._stalled:
                self._retry_later(sender)
            self._stalled.append((sender, size, work, args))
            return
        sent = (sender, work, args)
        self._sent[side].append(sent)
        network.reliable(source, target, size, self._arrive, side)

    def _retry_later(self, sender: End) -> None:
        wait_s = self._network.profile.retransmission_s * (1 + 4 * sender.host.rng.random())
        self._network.timeline.push(self._network.timeline.now + wait_s, self._retry)

    def _retry(self) -> None:
        stalled, self._stalled = self._stalled, []
        if not self._broken:
            for sender, size, work, args in stalled:
                self._send(sender, size, work, args)

    def _arrive(self, side: int) -> None:
        # Whatever overtook what, a stream gives its messages in the order of their sending.
        sender, work, args = self._sent[side].popleft()
        receiver = self.other(sender)
        if self._broken:
            return
        if not receiver.is_dead:
            self._unheard.discard(receiver)
            receiver.step(work, *args)
        elif receiver.host.is_silent:
            receiver.host.missed += 1
        else:
            self.reset(receiver)

    def _check_alive(self, end: End) -> None:
        if self.is_open and not end.is_dead and end in self._unheard and self._is_cut_off():
            until = self._network.timeline.now + PONG_TIMEOUT_S
            self._network.timeline.push(until, self._give_up, end)

    def _give_up(self, end: End) -> None:
        if not end.is_dead and self._is_cut_off():
            end.step(self._lost, end)

    def _lost(self, end: End) -> None:
        node = self.other(end).node_id
        if not self._broken:
            self._end(NodeUnreachable("the other end does not answer any more"))
        end.report_refused(node)

    def _is_cut_off(self) -> bool:
        there, here = (end.host for end in self._ends)
        return (
            any(end.is_dead or end.is_paused for end in self._ends)
            or self._network.is_cut(there, here)
            or self._network.is_cut(here, there)
        )

    def _end(self, error: GossipcacheError | None) -> None:
        self._broken = True
        for end in self._ends:
            end.links.forget(self)
        waiting, self._waiting = self._waiting, {}
        for outcome, end in waiting.items():
            end.step(outcome.fail, error or NodeUnreachable("the connection was closed"))
