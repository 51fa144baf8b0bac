"""Tells a chronicle what happens among bare nodes; only when a report is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gossipcache.dht.membership.member import Member
from sim.chronicle import Chronicle, Message
from sim.whole.wiretap import told

if TYPE_CHECKING:
    from sim.bare.world import BareWorld


class Teller:
    """Looks on at a bare world. Its network does not say when something was sent: that is taken
    to be one latency before it arrived."""

    def __init__(self, world: BareWorld, chronicle: Chronicle) -> None:
        self._world = world
        self._chronicle = chronicle
        world.on_change.append(self._changed)
        world.trace.tap = self._recorded

    def started(self, name: str) -> None:
        """A node's process started."""
        self._chronicle.lived(self._world.timeline.now, name, is_up=True)

    def _recorded(self, kind: str, source: int, target: int, size: int, said: Any) -> None:
        now = self._world.timeline.now
        match kind:
            case "kill":
                self._chronicle.lived(now, f"n{source}", is_up=False)
            case "datagram":
                opened = self._world.wire.open(said)
                self._carried(source, target, size, *told(opened, self._world.name_of))
            case "link":
                name = str(said.__struct_config__.tag)
                self._carried(source, target, size, name, "", False)

    def _changed(self, viewer: str, member: str, seen: Member) -> None:
        now = self._world.timeline.now
        if now > 0.0:  # before that a cluster is made, whose nodes know each other
            self._chronicle.viewed(now, viewer, member, seen.state)

    def _carried(
        self, source: int, target: int, size: int, kind: str, said: str, is_routine: bool
    ) -> None:
        now = self._world.timeline.now
        sent_s = max(0.0, now - self._world.network.profile.latency_s)
        names = f"n{source}", f"n{target}"
        self._chronicle.carried(Message(sent_s, now, *names, kind, size, said, is_routine))
