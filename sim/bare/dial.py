"""How a link of bare nodes comes about, or does not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from gossipcache.errors import GossipcacheError, NodeUnreachable
from gossipcache.ids import Address, NodeId
from gossipcache.link.connection import HANDSHAKE_TIMEOUT_S
from sim.bare.link import End, Link
from sim.bare.network import BareHost, BareNetwork

DIAL_ROUND_TRIPS = 4
"""TCP, the websocket's upgrade, and the two of the signed handshake."""
_SYN_RETRY_S = (0.0, 1.0, 3.0)


class Dial:
    """One attempt to connect, over in 5 s."""

    def __init__(
        self,
        network: BareNetwork,
        end: End,
        address: Address,
        expected: NodeId | None,
        done: Callable[[Link | GossipcacheError], None],
    ) -> None:
        self._network, self._end = network, end
        self._address, self._expected = address, expected
        self._done: Callable[[Link | GossipcacheError], None] | None = done
        self._answered = False
        timeline = network.timeline
        for wait_s in _SYN_RETRY_S:
            timeline.push(timeline.now + wait_s, self._send_syn)
        late = NodeUnreachable(f"{address} cannot be reached within 5 s")
        timeline.push(timeline.now + HANDSHAKE_TIMEOUT_S, end.step, self._finish, late)

    def _send_syn(self) -> None:
        target = self._network.hosts.get(self._address.host)
        if target is not None and not self._answered and not self._end.is_dead:
            self._network.control(self._end.host, target, "stream", self._syn_arrives, target)

    def _syn_arrives(self, target: BareHost) -> None:
        if target.is_silent:
            target.missed += 1
        elif target.process is None or target.address.port != self._address.port:
            target.missed += 1
            self._network.control(target, self._end.host, "stream", self._end.step, self._refused)
        else:
            self._network.control(
                target, self._end.host, "stream", self._shake_hands, target.process, 1
            )

    def _shake_hands(self, peer: Any, trips: int) -> None:
        """Each further round trip is a step of both processes."""
        self._answered = True
        if self._done is None or self._end.is_dead:
            return
        if trips == DIAL_ROUND_TRIPS:
            self._end.step(self._established, peer)
            return
        here, there = self._end.host, peer.host
        back = partial(self._network.reliable, there, here, 256, self._shake_hands, peer, trips + 1)
        self._network.reliable(here, there, 256, peer.step, back)

    def _established(self, peer: Any) -> None:
        if self._done is None:
            return
        if peer.is_dead:
            self._refused()
        elif self._expected is not None and peer.node_id != self._expected:
            self._finish(NodeUnreachable("another node answered"))
        else:
            link = Link(self._network, self._end, peer)
            self._end.links.keep(link)
            peer.links.keep(link)
            self._finish(link)

    def _refused(self) -> None:
        if self._done is not None:
            if self._expected is not None:
                self._end.report_refused(self._expected)
            self._finish(NodeUnreachable(f"{self._address} cannot be reached"))

    def _finish(self, outcome: Link | GossipcacheError) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(outcome)
