"""The operator's charter on one node: kept on the disk, learned from others, handed on.

A new one goes to a few random members, each of which does the same; push/pulls, which name the
charter's number, reach whoever that missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import PurePath

import trio

from gossipcache.admission import Admission
from gossipcache.env import Env
from gossipcache.errors import GossipcacheError, IntegrityError, NotReady, ProtocolError
from gossipcache.identity import Signed
from gossipcache.ids import NodeId
from gossipcache.journal import Journal
from gossipcache.link.interface import Links, Peer
from gossipcache.messages.gossip import AskCharter, CharterHeld, CharterNews
from gossipcache.metrics import Metrics
from gossipcache.wire import decode, encode

FANOUT = 4
ASKED_AT_ONCE = 3
REQUEST_TIMEOUT_S = 2.0
RECHECK_S = 10.0
"""How often tickets are looked at for having run out."""
_KEY = b"charter"


class Charters:
    """Keeps the node's `Admission` up to date, and others that are behind."""

    def __init__(
        self,
        env: Env,
        admission: Admission,
        links: Links,
        metrics: Metrics,
        path: PurePath,
        others: Callable[[], Iterable[NodeId]],
        on_change: Callable[[], None],
    ) -> None:
        """`others` gives the other live members. `on_change` is called when what nodes may do
        can have changed."""
        self._env = env
        self.admission = admission
        self._links = links
        self._metrics = metrics
        self._path = path
        self._others = others
        self._on_change = on_change
        self._news = trio.Event()
        self._reaching = trio.Lock()
        self._writing = trio.Lock()
        links.handle(AskCharter, self._answer)
        links.handle(CharterNews, self._hear)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Started with what the disk holds; hands on and looks after tickets until cancelled."""
        if self.admission.has_operator:
            await self._load()
        task_status.started()
        while self.admission.has_operator:
            news = False
            with trio.move_on_after(RECHECK_S):
                await self._news.wait()
                news, self._news = True, trio.Event()
            self._on_change()
            if news:
                await self._spread()
        await trio.sleep_forever()

    async def enact(self, signed: Signed) -> bool:
        """Takes a charter over if it is newer; durable on return. Raises as
        `Admission.enact`, and `OSError`."""
        if not self.admission.enact(signed):
            return False
        self._metrics.count("charters_enacted")
        self._on_change()
        self._news.set()
        await self._store()
        return True

    async def meet(self, node: NodeId, number: int) -> None:
        """`node` holds charter `number`: whoever is behind gets the other's."""
        held = self.admission.signed_charter
        if number > self.admission.number:
            await self._ask(node)
        elif number < self.admission.number and held is not None:
            await self._links.notify(node, CharterNews(charter=held))

    async def refresh(self) -> None:
        """Asks a few members whether they know a newer one."""
        for node in self._sample(ASKED_AT_ONCE):
            with suppress(GossipcacheError):
                await self._ask(node)

    async def reach(self, number: int) -> None:
        """Returns once charter `number` is known. Raises `NotReady` if no member asked has it."""
        if number <= self.admission.number:
            return
        async with self._reaching:
            for node in self._sample(ASKED_AT_ONCE):
                if number <= self.admission.number:
                    return
                with suppress(GossipcacheError):
                    await self._ask(node)
        if number > self.admission.number:
            self._metrics.count("charters_missed")
            raise NotReady(f"no member asked knows charter {number}")

    async def _ask(self, node: NodeId) -> None:
        if not self.admission.has_operator:
            return
        answer = await self._links.request(node, AskCharter(), CharterHeld, REQUEST_TIMEOUT_S)
        if answer.charter is not None:
            await self.enact(answer.charter)

    async def _spread(self) -> None:
        charter = self.admission.signed_charter
        assert charter is not None

        async def tell(node: NodeId) -> None:
            with trio.move_on_after(REQUEST_TIMEOUT_S), suppress(GossipcacheError):
                await self._links.notify(node, CharterNews(charter=charter))

        async with trio.open_nursery() as nursery:
            for node in self._sample(FANOUT):
                nursery.start_soon(tell, node)

    def _sample(self, count: int) -> list[NodeId]:
        others = sorted(self._others())
        return self._env.rng.sample(others, min(count, len(others)))

    async def _answer(self, _peer: Peer, _message: AskCharter) -> CharterHeld:
        return CharterHeld(charter=self.admission.signed_charter)

    async def _hear(self, _peer: Peer, message: CharterNews) -> None:
        try:
            await self.enact(message.charter)
        except (IntegrityError, ProtocolError):
            self._metrics.count("charters_forged")
            raise

    # The disk.

    async def _load(self) -> None:
        try:
            data = await self._env.workers.run(self._read)
        except IntegrityError:
            self._metrics.count("charters_damaged")  # the others have it
            return
        if data is not None:
            with suppress(IntegrityError, ProtocolError):
                self.admission.enact(decode(data, Signed))

    def _read(self) -> bytes | None:
        journal = Journal.open(self._env.disk, self._path)
        try:
            return journal.get(_KEY)
        finally:
            journal.close()

    async def _store(self) -> None:
        async with self._writing:
            signed = self.admission.signed_charter
            assert signed is not None
            data = encode(signed)
            await self._env.workers.run(lambda: self._write(data))

    def _write(self, data: bytes) -> None:
        journal = Journal.open(self._env.disk, self._path)
        try:
            journal.put(_KEY, data)
            journal.compact()
        finally:
            journal.close()
