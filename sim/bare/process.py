"""One process of a bare node, from its start to its death: when its steps run, if at all."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from gossipcache.errors import GossipcacheError
from gossipcache.ids import Address, NodeId
from gossipcache.wire import Message
from sim.bare.links import Links
from sim.bare.network import BareHost, BareNetwork
from sim.bare.outcome import Answer, Outcome

if TYPE_CHECKING:
    from sim.bare.membership import BareMembership

_INBOX_DATAGRAMS = 4096


class Process:
    """Steps run at once; not while the process is paused; one after another if they take time."""

    membership: BareMembership

    def __init__(
        self,
        host: BareHost,
        network: BareNetwork,
        node_id: NodeId,
        length: Callable[[msgspec.Struct], int],
    ) -> None:
        self.host = host
        self.node_id = node_id
        self.length = length
        self.links = Links(network, self)
        self.is_dead = False
        self.is_paused = False
        self.on_end: list[Callable[[bool], None]] = []
        """Called when it is over, with whether the machine fell silent with it."""
        self.step_s = 0.0
        """Processor time that each of its steps takes."""
        self.held_steps = 0
        """How many steps ever had to wait."""
        self._timeline = network.timeline
        self._runs_freely = True
        self._held: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._free_at = 0.0
        self._is_due = False

    def step(self, work: Callable[..., None], *args: Any) -> None:
        """Runs `work`, or keeps it until the process gets to it."""
        if self._runs_freely:
            work(*args)
        elif not self.is_dead:
            self.held_steps += 1
            self._held.append((work, args))
            self._go_on()

    def receive(self, sealed: Any, source: Address) -> None:
        """A datagram; one too many for the socket's buffer is lost."""
        if self._runs_freely:
            self.membership.receive(sealed, source)
        elif len(self._held) < _INBOX_DATAGRAMS:
            self.step(self.membership.receive, sealed, source)

    def refused(self, address: Address) -> None:
        """A datagram to `address` was refused."""
        self.step(self.membership.address_refused, address)

    def pause(self) -> None:
        """SIGSTOP: its kernel answers, the process does not."""
        self.is_paused = True
        self._runs_freely = False
        for link in self.links.all():
            link.suspect()

    def resume(self) -> None:
        """SIGCONT: all that has piled up runs."""
        if self.is_dead or not self.is_paused:
            return
        self.is_paused = False
        while self._held and not self.step_s:
            work, args = self._held.popleft()
            work(*args)
        self._runs_freely = not (self.is_dead or self.is_paused or self.step_s)
        self._go_on()

    def slow_down(self, step_s: float) -> None:
        """Each step takes `step_s` seconds from now on; 0 ends that."""
        self.step_s = step_s
        self._runs_freely = not (self.is_dead or self.is_paused or self.step_s or self._held)
        self._go_on()

    def end(self) -> None:
        """Ends in order: its connections are closed, its port is too."""
        if not self.is_dead:
            self._die(silent=False)
            for link in self.links.all():
                link.close()

    def kill(self, *, silent: bool) -> None:
        """SIGKILL; with `silent` the machine goes off, so that nothing answers in its place."""
        if self.is_dead:
            return
        self._die(silent=silent)
        self.host.is_silent = silent
        for link in self.links.all():
            if silent:
                link.suspect()
            else:
                link.reset(self)

    def request(self, node: NodeId, message: Message, timeout_s: float) -> Outcome[Any]:
        """The answer of a node, this one included; see `Links.request`."""
        if node != self.node_id:
            return self.links.request(node, message, timeout_s)
        answered: Outcome[Any] = Outcome()
        try:
            answer = self.answer(node, message)
        except GossipcacheError as error:
            answered.fail(error)
        else:
            if isinstance(answer, Outcome):
                return answer
            answered.set(answer)
        return answered

    def notify(self, node: NodeId, message: Message) -> Outcome[None]:
        """Tells a node, this one included, without an answer."""
        if node != self.node_id:
            return self.links.notify(node, message)
        told: Outcome[None] = Outcome()
        with suppress(GossipcacheError):
            self.answer(node, message)
        told.set(None)
        return told

    # What its links ask of it.

    def resolve(self, node: NodeId) -> Address | None:
        """Where it would dial a member."""
        return self.membership.resolve(node)

    def answer(self, peer: NodeId, message: Message) -> Answer:
        """Handles a request or a notice."""
        return self.membership.answer(peer, message)

    def report_refused(self, node: NodeId) -> None:
        """Evidence that a node died."""
        self.membership.report_refused(node)

    def _die(self, *, silent: bool) -> None:
        self.is_dead = True
        self._runs_freely = False
        self._held.clear()
        self.host.process = None
        for ended in self.on_end:
            ended(silent)

    def _go_on(self) -> None:
        if self._held and not self._is_due and not self.is_paused:
            self._is_due = True
            self._timeline.push(max(self._timeline.now, self._free_at), self._next)

    def _next(self) -> None:
        """One step of a slow process."""
        self._is_due = False
        if self.is_paused or not self._held:
            return
        self._free_at = self._timeline.now + self.step_s
        work, args = self._held.popleft()
        work(*args)
        self._go_on()
        self._runs_freely = not (self.is_dead or self.is_paused or self.step_s or self._held)
