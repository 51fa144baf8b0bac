"""What must hold of all views, checked at every change of one.

Memory of a view is two numbers a member (incarnation, state), in arrays: there are n² of them.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

from gossipcache.dht.membership.member import Member
from gossipcache.ids import NodeId, task_id_of
from sim.bare.machine import BareMachine
from sim.bare.membership import BareMembership

_WORSE = {"alive": 0, "suspect": 1, "dead": 2, "left": 2}
_REMEMBERED_VIEWS = 100_000
_SAMPLE_TASKS = tuple(task_id_of(f"sample-{number}", "") for number in range(8))
_SAMPLE_RINGS = 3


class _Seen:
    """What one process has believed so far, by the machine's number."""

    def __init__(self) -> None:
        self.incarnations = array("Q")
        self.states = bytearray()

    def grow(self, count: int) -> None:
        missing = count - len(self.states)
        if missing > 0:
            self.incarnations.extend([0] * missing)
            self.states.extend(bytes(missing))


class BareWitness:
    """Looks on; tells `report` what it sees broken."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._machines: list[BareMachine] = []
        self._numbers: dict[NodeId, int] = {}
        self._claimed: list[set[int]] = []
        self._seen: dict[BareMembership, _Seen] = {}
        self._owners_of: dict[bytes, int] = {}

    def add(self, machine: BareMachine) -> None:
        """One more machine; its number is the next."""
        self._machines.append(machine)
        # A second machine with a key of another stands for the same member.
        self._numbers.setdefault(machine.identity.node_id, machine.number)
        self._claimed.append(set())

    def number_of(self, node: NodeId) -> int | None:
        """The machine of a node."""
        return self._numbers.get(node)

    def changed(self, viewer: BareMembership, member: Member) -> None:
        """(incarnation, state) of a member never goes back, and no incarnation is one that the
        member never claimed."""
        number = self._numbers.get(member.node_id)
        if number is None:
            self._report(f"{self._name(viewer)} lists a member that never was")
            return
        if member.node_id == viewer.process.node_id:
            self._claimed[number].add(member.incarnation)
        elif member.incarnation not in self._claimed[number]:
            self._tell(viewer, number, "has an incarnation it never claimed")
        seen = self._seen.get(viewer)
        if seen is None:
            seen = self._seen[viewer] = _Seen()
        if number >= len(seen.states):
            seen.grow(len(self._machines))
        before, worse = seen.incarnations[number], _WORSE[member.state]
        if member.incarnation < before or (
            member.incarnation == before and worse < seen.states[number]
        ):
            self._tell(viewer, number, "went back in (incarnation, state)")
        seen.incarnations[number] = member.incarnation
        seen.states[number] = worse

    def met(self, viewer: BareMembership, members: Sequence[Member]) -> None:
        """A view of members at incarnations that they claimed came about at once."""
        seen = self._seen.setdefault(viewer, _Seen())
        seen.grow(len(self._machines))
        for member in members:
            seen.incarnations[self._numbers[member.node_id]] = member.incarnation

    def forgotten(self, viewer: BareMembership, node: NodeId) -> None:
        """What a view forgot, it may learn anew."""
        number = self._numbers.get(node)
        if number is not None and viewer in self._seen:
            self._seen[viewer].states[number] = 0
            self._seen[viewer].incarnations[number] = 0

    def settled(self, viewer: BareMembership) -> None:
        """Equal views have equal owners."""
        known = self._owners_of.setdefault(viewer.core.table.digest(), viewer.owners_mark)
        if known != viewer.owners_mark:
            self._report(f"{self._name(viewer)} has other owners than one with an equal view")
        if len(self._owners_of) > _REMEMBERED_VIEWS:
            self._owners_of.clear()

    def drop(self, viewer: BareMembership) -> None:
        """The process of a view is dead."""
        self._seen.pop(viewer, None)

    def at_the_end(self) -> None:
        """The owners that each view keeps are those that its members say; views that are equal
        have equal rings, however they came about."""
        rings: dict[bytes, list[BareMembership]] = {}
        for machine in self._machines:
            if machine.is_up:
                view = machine.membership
                if view.owners != {each.node_id for each in view.core.table if each.owns_keys}:
                    self._report(f"{machine.name} has other owners than its members say")
                rings.setdefault(view.core.table.digest(), []).append(view)
        for views in rings.values():
            answers = {
                tuple(view.ring.keepers(task, 3) for task in _SAMPLE_TASKS)
                for view in views[:_SAMPLE_RINGS]
            }
            if len(answers) > 1:
                self._report(f"equal views of {len(views)} nodes name different keepers")

    def _tell(self, viewer: BareMembership, number: int, what: str) -> None:
        self._report(f"on {self._name(viewer)} {self._machines[number].name} {what}")

    def _name(self, viewer: BareMembership) -> str:
        return self._machines[viewer.process.host.number].name
