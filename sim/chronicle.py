"""What happened in a run, in words: what the page of a report is drawn from.

The witness of a run (`sim.trace`) knows bytes; this knows messages, views, lives and verbs. It is
kept only when a report is made. Each driver feeds it what it has: whole nodes by
`sim.whole.wiretap`, which reads their wires. Nodes go by the names of their machines; instants are
virtual seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Message(NamedTuple):
    """Something that one node sent to another, and that arrived."""

    sent_s: float
    arrived_s: float
    source: str
    target: str
    kind: str
    size: int
    """Bytes on the wire."""
    detail: str = ""
    """What it says, if that is worth a word."""
    is_routine: bool = False
    """Whether it says nothing new: a probe that carries no gossip, an empty answer."""


class View(NamedTuple):
    """From now on `viewer` sees `member` in `state`."""

    at_s: float
    viewer: str
    member: str
    state: str


class Life(NamedTuple):
    """A node's process started or ended."""

    at_s: float
    node: str
    is_up: bool


class Verb(NamedTuple):
    """What a user asked of a node, and what came of it ("" if all was well)."""

    node: str
    verb: str
    cid: str
    started_s: float
    ended_s: float
    failure: str


@dataclass(slots=True)
class Chronicle:
    """All of a run, each list in the order in which it was told."""

    messages: list[Message] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    verbs: list[Verb] = field(default_factory=list)
    _seen: dict[tuple[str, str], str] = field(default_factory=dict)

    def carried(self, message: Message) -> None:
        """A message arrived."""
        self.messages.append(message)

    def viewed(self, at_s: float, viewer: str, member: str, state: str) -> None:
        """How a node sees a member now; told again and again, kept where it changed."""
        if viewer != member and self._seen.get((viewer, member)) != state:
            self._seen[viewer, member] = state
            self.views.append(View(at_s, viewer, member, state))

    def lived(self, at_s: float, node: str, *, is_up: bool) -> None:
        """A node's process started, knowing nothing, or ended."""
        self.lives.append(Life(at_s, node, is_up))
        if is_up:
            for viewer, member in [pair for pair in self._seen if pair[0] == node]:
                del self._seen[viewer, member]

    def worked(self, verb: Verb) -> None:
        """A verb ended, well or not."""
        self.verbs.append(verb)
