"""Comparing with another keeper by datagrams: a question, an answer, and if need be a confirmation.

Most comparisons find nothing, and a cluster that starts, or loses a node, makes many of them at
once. So the first try needs no connection. Each side believes only what the other signed over a
number that was drawn for it just now: no member can speak for another, nor repeat what one said
before. Who is asked for what it has not counted yet, as by a newcomer, counts first and answers
then. Who gets another digest compares over a connection, and so does who gets no answer time after
time. An answer that comes late counts too, and the next ones are waited for longer, as TCP
does (RFC 6298): where all are busy, asking again and dialling would keep them so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import trio

from gossipcache.cluster import Cluster
from gossipcache.dht.records.graves import Graves
from gossipcache.dht.records.recall import Recall
from gossipcache.dht.records.replication import ReplicationCore
from gossipcache.env import Env
from gossipcache.errors import IntegrityError
from gossipcache.identity import Identity, Signed, verify
from gossipcache.ids import NodeId
from gossipcache.messages.glances import (
    GLANCE_DOMAIN,
    NONCE_BYTES,
    AskGlance,
    Glance,
    GlanceStatement,
)
from gossipcache.messages.records import BUCKET_DIGEST_BYTES
from gossipcache.wire import Message, encode

M = TypeVar("M", bound=Message)

ATTEMPTS = 2
TIMEOUT_S = 0.25
MAX_TIMEOUT_S = 2.0
_TIMEOUT_SHARE, _SMOOTHING = 4, 1 / 8
"""One is waited for so many times as long as answers take of late; what the last adds to that."""
MAX_OPEN = 4096
"""Answers given that are not confirmed yet; while there are so many, no others are given."""
OPEN_S = 5.0
"""How long an answer or a confirmation may take to count."""
_NOTHING = bytes(BUCKET_DIGEST_BYTES)


class Whispers(Protocol):
    """Datagrams between members, which may be lost, and prove nothing of who sent them."""

    def whisper(self, node: NodeId, message: Message) -> None:
        """Sends `message` to a member, if its address is known."""

    def hear(self, kind: type[M], handler: Callable[[M], None]) -> None:
        """Names who takes messages of `kind`."""

    def scheduler_key(self, node: NodeId) -> bytes | None:
        """The public key of a member that is a scheduler."""


class _Question:
    """One that waits for its answer, asked once or twice."""

    def __init__(self, node: NodeId) -> None:
        self.node = node
        self.answered = trio.Event()
        self.same = False


class Glances:
    """Both sides of the comparison at one node; it works while a keeper lets it look."""

    def __init__(self, env: Env, identity: Identity, cluster: Cluster, whispers: Whispers) -> None:
        self._env, self._identity, self._cluster = env, identity, cluster
        self._whispers = whispers
        self._keeper: tuple[ReplicationCore, Graves, Recall] | None = None
        self._questions: dict[bytes, tuple[_Question, float]] = {}
        """By number, and since when; the oldest first."""
        self._takes_s = 0.0
        """How long answers take of late."""
        self._silent: set[NodeId] = set()
        self._open: dict[bytes, tuple[NodeId, float]] = {}
        """Whose confirmation is waited for by number, since when; the oldest first."""
        self._put_off: dict[NodeId, bytes] = {}
        """Last questions, of those for whom this keeper has to count first."""
        self._is_put_off = trio.Event()
        whispers.hear(AskGlance, self._asked)
        whispers.hear(Glance, self._shown)

    def look_at(self, core: ReplicationCore, graves: Graves, recall: Recall) -> None:
        """From now on compares what this keeper holds and remembers."""
        self._keeper = core, graves, recall

    def look_away(self) -> None:
        """The keeper is gone."""
        self._keeper = None
        self._put_off.clear()

    async def answer_late(self, count: Callable[[NodeId], Awaitable[None]]) -> None:
        """Until cancelled answers the questions that take time, in turn; `count` readies the view
        of what a node shares."""
        while True:
            await self._is_put_off.wait()
            self._is_put_off = trio.Event()
            while self._put_off:
                node = next(iter(self._put_off))
                await count(node)
                self._answer(node, self._put_off.pop(node))

    async def has_same(self, node: NodeId) -> bool | None:
        """Whether `node` says that it has the same of what both keep, which then counts. None if
        it says nothing, for the first time: it is to be asked again."""
        question = _Question(node)
        for _ in range(ATTEMPTS):
            self._ask(question)
            with trio.move_on_after(self._timeout_s):
                await question.answered.wait()
            if question.answered.is_set():
                return question.same
        if node in self._silent:
            return False
        self._silent.add(node)
        return None

    @property
    def _timeout_s(self) -> float:
        return min(max(TIMEOUT_S, _TIMEOUT_SHARE * self._takes_s), MAX_TIMEOUT_S)

    def _ask(self, question: _Question) -> None:
        now = trio.current_time()
        for old in [key for key, (_, since) in self._questions.items() if since < now - OPEN_S]:
            del self._questions[old]
        nonce = self._env.entropy(NONCE_BYTES)
        self._questions[nonce] = question, now
        ask = AskGlance(sender=self._identity.node_id, nonce=nonce)
        self._whispers.whisper(question.node, ask)

    def _asked(self, message: AskGlance) -> None:
        node = NodeId(message.sender)
        if self._keeper is None or self._whispers.scheduler_key(node) is None:
            return
        if self._digest(node) is not None:
            self._answer(node, message.nonce)
        else:
            self._put_off[node] = message.nonce
            self._is_put_off.set()

    def _answer(self, node: NodeId, echo: bytes) -> None:
        now = trio.current_time()
        for old in [key for key, (_, since) in self._open.items() if since < now - OPEN_S][:8]:
            del self._open[old]
        if len(self._open) >= MAX_OPEN:
            return
        nonce: bytes | None = None
        if self._keeper is not None and self._keeper[0].settling.awaits(node):
            nonce = self._env.entropy(NONCE_BYTES)
            self._open[nonce] = node, now
        self._show(node, echo, nonce)

    def _shown(self, message: Glance) -> None:
        node = NodeId(message.sender)
        question, asked_at = self._questions.get(message.echo, (None, 0.0))
        if question is not None and question.node == node:
            del self._questions[message.echo]
            took_s = trio.current_time() - asked_at
            self._takes_s += _SMOOTHING * (took_s - self._takes_s)
            self._silent.discard(node)
            question.same = self._judge(node, message)
            question.answered.set()
            if question.same and message.nonce is not None:
                self._show(node, message.nonce, None)
        elif self._open.pop(message.echo, (None, 0.0))[0] == node:
            self._judge(node, message)

    def _show(self, node: NodeId, echo: bytes, nonce: bytes | None) -> None:
        statement = self._statement(node, echo)
        if statement is None:
            return
        signed = self._identity.sign(GLANCE_DOMAIN, encode(statement))
        self._whispers.whisper(
            node,
            Glance(
                sender=statement.sender,
                echo=echo,
                epoch=statement.epoch,
                digest=statement.digest,
                graves=statement.graves,
                recovering_ms=statement.recovering_ms,
                signature=signed.signature,
                nonce=nonce,
            ),
        )

    def _judge(self, node: NodeId, message: Glance) -> bool:
        """Whether `node` has the same, and nothing that this one must ask it for."""
        key, digest = self._whispers.scheduler_key(node), self._digest(node)
        if self._keeper is None or key is None or not self._is_signed(message, key):
            return False
        core, _, recall = self._keeper
        now = trio.current_time()
        core.settling.inherit(now + message.recovering_ms / 1000)
        if digest != message.digest or not recall.has_asked(node, message.graves):
            return False
        core.settling.compared(node, message.epoch, now)
        return True

    def _is_signed(self, message: Glance, key: bytes) -> bool:
        statement = GlanceStatement(
            self._cluster.cluster_id,
            message.sender,
            self._identity.node_id,
            message.echo,
            message.epoch,
            message.digest,
            message.graves,
            message.recovering_ms,
        )
        try:
            verify(Signed(encode(statement), key, message.signature), GLANCE_DOMAIN)
        except IntegrityError:
            return False
        return True

    def _statement(self, node: NodeId, echo: bytes) -> GlanceStatement | None:
        """What this node says to `node` now; None if it has nothing to say."""
        digest = self._digest(node)
        if self._keeper is None or digest is None:
            return None
        core, graves, _ = self._keeper
        recovering_s = core.settling.recovering_until() - trio.current_time()
        return GlanceStatement(
            self._cluster.cluster_id,
            self._identity.node_id,
            node,
            echo,
            core.ring_with(node).epoch,
            digest,
            graves.sum,
            max(0, int(1000 * recovering_s)),
        )

    def _digest(self, node: NodeId) -> bytes | None:
        """Of what `node` keeps too; None if to know it takes time."""
        if self._keeper is None:
            return None
        core = self._keeper[0]
        if not len(core):
            return _NOTHING
        view = core.views.on(core.ring_with(node))
        return view.digest(node) if view.filled else None
