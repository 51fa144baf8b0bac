"""Shell: one download's membership in its swarm, which outlives any single keeper."""

from __future__ import annotations

from collections.abc import Callable, Collection

import trio

from gossipcache.config import ScheduleConfig
from gossipcache.env import Env
from gossipcache.errors import GossipcacheError, TaskNotFound
from gossipcache.ids import NodeId, TaskId
from gossipcache.link.interface import Links
from gossipcache.manifest import SignedManifest
from gossipcache.messages.announcements import DeletedTask
from gossipcache.messages.sessions import AssignParents, SessionReply
from gossipcache.schedule.alarm import Alarm
from gossipcache.schedule.conversation import Ask, Conversation
from gossipcache.swarm import NO_BORDER, Border, PieceReport


class Session:
    """Implements `gossipcache.swarm.Swarm` by a `Conversation`."""

    def __init__(
        self,
        env: Env,
        config: ScheduleConfig,
        links: Links,
        manifest: SignedManifest,
        have: Collection[int],
        *,
        number: int,
        keepers_of: Callable[[TaskId], tuple[NodeId, ...]],
        is_alive: Callable[[NodeId], bool],
    ) -> None:
        self._links = links
        self._cid = manifest.manifest.cid
        self._core = Conversation(
            config,
            manifest,
            have,
            number=number,
            keepers_of=keepers_of,
            is_alive=is_alive,
            rng=env.rng,
        )
        self.task_id = manifest.task_id
        self._alarm = Alarm()
        self._told: tuple[tuple[NodeId, ...] | None, Border] = (None, NO_BORDER)
        self._assigned = trio.Event()

    @property
    def deletion(self) -> DeletedTask | None:
        """Proof that the task was deleted, once it is known."""
        return self._core.deletion

    async def parents(self) -> tuple[NodeId, ...]:
        """See `Swarm.parents`. Raises `TaskNotFound`."""
        while self._assignment == self._told and self.deletion is None:
            await self._assigned.wait()
        if self.deletion is not None:
            raise TaskNotFound(
                f"the task {self._cid!r} was deleted", "import it again to have it back"
            )
        self._told = self._assignment
        return self._core.parents or ()

    @property
    def border(self) -> Border:
        """See `Swarm.border`."""
        return self._core.border

    def report(self, have: Collection[int], reports: tuple[PieceReport, ...]) -> None:
        """See `Swarm.report`."""
        self._core.report(have, reports)
        self._alarm.ring()

    def failed(self, parent: NodeId, reason: str) -> None:
        """See `Swarm.failed`."""
        self._core.failed(parent, reason)
        self._alarm.ring()

    def assigned(self, message: AssignParents, sender: NodeId) -> None:
        """A push came in."""
        self._core.assigned(message, sender)
        self._look_up()

    def ring_changed(self) -> None:
        """The task's owner may be another now."""
        self._core.ring_changed()
        self._alarm.ring()

    async def run(self) -> None:
        """Registers and reports until cancelled, or until the task is found deleted."""
        while self.deletion is None:
            ask = self._core.next_ask(trio.current_time())
            if ask is not None:
                await self._ask(ask)
            else:
                await self._alarm.wait_until(self._core.next_timeout())

    async def leave(self) -> None:
        """Tells the keeper that this is over; best effort."""
        farewell = self._core.leave()
        if farewell is None:
            return
        try:
            await self._links.notify(*farewell)
        except GossipcacheError:
            pass  # the keeper forgets the session when its lease ends

    async def _ask(self, ask: Ask) -> None:
        try:
            reply = await self._links.request(ask.keeper, ask.message, SessionReply, ask.timeout_s)
        except GossipcacheError:
            self._core.unanswered(trio.current_time())
        else:
            self._core.answered(reply, trio.current_time())
        self._look_up()

    @property
    def _assignment(self) -> tuple[tuple[NodeId, ...] | None, Border]:
        return self._core.parents, self._core.border

    def _look_up(self) -> None:
        """Wakes whoever waits for parents, if there is something new."""
        if self._assignment != self._told or self.deletion is not None:
            self._assigned.set()
            self._assigned = trio.Event()
        if self.deletion is not None:
            self._alarm.ring()
