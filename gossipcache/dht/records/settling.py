"""Whether a keeper may say "absent": has it all that it should have of a task's range?

It has once it compared its entries with every scheduler that may hold one it lacks. Who that is
follows from three facts. A committed entry lies with the keepers of its task, on the ring of
whoever wrote it, or with a node that still has to hand it on. A keeper that has all there is of
a task is told of what comes later, because writes go to all keepers and hint those they miss.
And a join takes tasks from the keepers there are, a leave gives them some. So:

- A keeper that starts compares with all the others.
- One that has settled compares with whoever *joins* its ring: that node may come from the other
  side of a partition. Of what both keep it is then told as all keepers are, and what it has
  learnt of the others before it holds for the tasks that are left to it.
- When nodes *leave*, it compares with those that keep, or kept, the tasks which it gains by
  that: they hold what the gone ones held. Of the tasks that it kept already it has all.

A comparison tells of the tasks that this keeper keeps just then, not of those it gains later. The
*base* minds that: a ring of the nodes that were there when all was settled last (or at the
start), and of all that joined since, be they gone or not. A task that this keeper has on the base
it has on any ring of some of those nodes, as only fewer come before it there. So it has kept that
task all the time, and each comparison since was about that task too. All others that it keeps are
gains, also what it lost and got back, and whoever keeps them, now or on the base, is asked, be it
again. One hole is left: a newcomer that was *lost* before this keeper compared with it may have
told some other keeper. The tasks that it kept on the base count as gains, too.

Who hangs before this keeper has compared with it, as in the first second of a cluster, holds up
writes of new tasks that it keeps, until it is missed. It may hold a deletion, or a record, that
was committed where the others were not, and that would end what they wrote once it goes on.

What is not covered: an old entry that reached a keeper from a node which does not keep that task,
or never came on the ring, and is gone. Periodic exchanges spread that.

A comparison counts on the ring that both see, and also if the other's ring is the smaller one:
it then takes this keeper for the keeper of more tasks than it is, and shows more of them. Both
sides may count one comparison. One with a node that is about to join counts when it does, if
that is soon: until then that node takes entries only from those who are on the ring.

A join thus costs the newcomer one comparison with each scheduler and every other one a single
one; a leave costs each those with whom it shares what it gains, some 2 · 320 · 3 · 3 / n of
them at n schedulers. Where a task lost all its keepers at once, holders are given some seconds
to rebuild the record, and those who remember deletions to say so. A keeper that left the ring in
between and is back counts as lost too: its disk may be empty, or an old one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gossipcache.config import RecordConfig
from gossipcache.dht.ring import Ring
from gossipcache.ids import NodeId, TaskId

_MAX_PAST_RINGS = 8
_MAX_EPOCHS = 64


@dataclass(frozen=True, slots=True)
class _PastRing:
    """A ring of the last seconds."""

    ring: Ring
    until: float
    """When it matters no more."""
    survivors: frozenset[NodeId]
    """Those of its members that have been on every ring since."""


class Settling:
    """The ring as the records see it, always with `me` on it, and how far it is synced."""

    def __init__(self, me: NodeId, ring: Ring, config: RecordConfig, now: float) -> None:
        self._me = me
        self._config = config
        self.ring = self._with_me(ring)
        self._starting = True
        """Whether it has never been settled."""
        self._base = self.ring
        """The nodes of the last ring that was settled (or the first), and all that joined since."""
        self._joined: dict[NodeId, None] = dict.fromkeys(self._others(self.ring))
        self._lost: set[NodeId] = set()
        """Newcomers that were gone before they were compared with."""
        self._sharing: dict[NodeId, None] = {}
        """With whom it shares what it gained."""
        self._expected: dict[NodeId, float] = {}
        """Nodes compared with that are not on the ring yet, and until when that counts."""
        self._unsettled_since = now
        self._past: list[_PastRing] = []
        """Rings of the last seconds of which some node was lost."""
        self._recovering_until = now
        """As other keepers told, who saw records lost that this one has now to keep."""
        self._away_until = now
        self._smaller: dict[bytes, frozenset[NodeId]] = {}
        """Recent rings, by epoch, all of whose members are on the present one."""
        self._note(self.ring)
        self._settle_if_done()

    @property
    def settled(self) -> bool:
        """Whether the whole present ring is synced."""
        return not self._joined and not self._sharing

    def waiting(self) -> list[NodeId]:
        """Whom it still has to compare with."""
        return [*self._joined, *(node for node in self._sharing if node not in self._joined)]

    def awaits(self, node: NodeId) -> bool:
        """Whether a comparison with `node` would count: it waits for that, or `node` may join."""
        waits = node in self._joined or node in self._sharing
        return waits or node not in self.ring.members

    def set_ring(self, ring: Ring, now: float) -> None:
        """Takes the ring of the ACTIVE schedulers."""
        ring = self._with_me(ring)
        if ring.epoch == self.ring.epoch:
            return
        if self.settled:
            self._unsettled_since = now
        before, self.ring = self.ring, ring
        present = set(ring.members)
        self._note(ring)
        if not present.issuperset(before.members):
            self._expected = {}
        self._take_joined(sorted(present.difference(before.members)), now)
        if not present.issuperset(before.members):
            until = now + self._config.recovery_s
            self._past.append(_PastRing(before, until, frozenset(before.members)))
            self._past = [
                replace(past, survivors=past.survivors & present)
                for past in self._past[-_MAX_PAST_RINGS:]
            ]
            self._lost |= self._joined.keys() - present
            self._joined = {node: None for node in self._joined if node in present}
            self._sharing = {node: None for node in self._sharing if node in present}
            count = self._config.replicas
            gained = ring.sharing_gains(self._me, self._base, count, self._lost)
            self._sharing.update(dict.fromkeys(gained))
        if not self._lost and present.issuperset(self._base.members):
            self._sharing = {}
        self._settle_if_done()

    def compared(self, node: NodeId, epoch: bytes, now: float) -> None:
        """Says that this keeper has all that `node`, on its ring `epoch`, shares with it."""
        if node in self.ring.members:
            if epoch in self._smaller:
                self._joined.pop(node, None)
                self._sharing.pop(node, None)
                self._settle_if_done()
        elif epoch == self.ring.with_members((*self.ring.members, node)).epoch:
            self._expected[node] = now + self._config.recovery_s

    def foresee(self) -> None:
        """Does ahead what the next leave would have to wait for, while nobody waits."""
        self._base.place()

    def expects(self, now: float) -> list[NodeId]:
        """The nodes that were compared with and are about to join."""
        return [node for node, until in self._expected.items() if until > now]

    def give_up(self) -> None:
        """Settles though some scheduler could not be compared with."""
        self._joined, self._sharing = {}, {}
        self._settle_if_done()

    def gives_up_at(self) -> float:
        """When to `give_up`."""
        return self._unsettled_since + self._config.recovery_s

    def is_settled(self, task_id: TaskId, now: float) -> bool:
        """Whether the keeper has what there is of `task_id`."""
        count = self._config.replicas
        kept = self._base.keepers(task_id, count)
        if self._joined or self._me not in kept or not self._lost.isdisjoint(kept):
            return False
        return now >= max(self._recovering_until, self._away_until) and not any(
            now < past.until and past.survivors.isdisjoint(past.ring.keepers(task_id, count))
            for past in self._past
        )

    def recovering_until(self) -> float:
        """Until when an "absent" may be due to the loss of all keepers of a task."""
        lossy = [
            past.until
            for past in self._past
            if len(past.ring.members) - len(past.survivors) >= self._config.replicas
        ]
        return max([self._recovering_until, *lossy])

    def inherit(self, until: float) -> None:
        """Another keeper is still recovering until then: to one that starts, what that other has
        not is not absent."""
        if self._starting:
            self._recovering_until = max(self._recovering_until, until)

    def distrust(self, until: float) -> None:
        """This keeper was away; until then the others tell it what it missed."""
        self._away_until = until

    def _others(self, ring: Ring) -> list[NodeId]:
        return [node for node in ring.members if node != self._me]

    def _with_me(self, ring: Ring) -> Ring:
        return ring if self._me in ring.members else ring.with_members((*ring.members, self._me))

    def _take_joined(self, joined: list[NodeId], now: float) -> None:
        self._expected = {node: until for node, until in self._expected.items() if until > now}
        for node in joined:
            if node != self._me and self._expected.pop(node, None) is None:
                self._joined[node] = None
        if joined:
            base = {*self._base.members, *joined}
            whole = len(base) == len(self.ring.members)
            self._base = self.ring if whole else self.ring.with_members(base)

    def _note(self, ring: Ring) -> None:
        present = frozenset(ring.members)
        kept = [item for item in self._smaller.items() if item[1] <= present]
        self._smaller = dict(kept[1 - _MAX_EPOCHS :])
        self._smaller[ring.epoch] = present

    def _settle_if_done(self) -> None:
        if self.settled:
            self._starting = False
            self._base = self.ring
            self._lost.clear()
