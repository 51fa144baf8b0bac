"""Bugs in who holds what, and who fetches from whom."""

from __future__ import annotations

from sim.mutation.mutant import Mutant

_SCHEDULE = "gossipcache.schedule"

SCHEDULE = (
    Mutant(
        name="expired-announcement-counts",
        breaks="a statement of last week is taken for what a node holds today",
        module=f"{_SCHEDULE}.announcement",
        old='return None if earliest <= self.wall_time <= latest else "expired"',
        new="return None",
        scenarios=("forged-announcements",),
    ),
    Mutant(
        name="replayed-announcement-counts",
        breaks="who recorded an announcement can undo later ones with it",
        module=f"{_SCHEDULE}.announcement",
        old="if statement.sequence <= self.floor:",
        new="if statement.sequence < 0:",
        scenarios=("forged-announcements",),
    ),
    Mutant(
        name="announcement-of-another",
        breaks="a node withdraws what another one holds",
        module=f"{_SCHEDULE}.announcement",
        old="if signed.signer != self.sender:",
        new="if False:",
        scenarios=("forged-announcements",),
    ),
    Mutant(
        name="lost-holder-kept",
        breaks="children are sent for hours to a node that lost its disk",
        module=f"{_SCHEDULE}.directory",
        old="announcer.lease_until = now + self._config.lease_ttl_s",
        new="announcer.lease_until = now + 3600.0",
        scenarios=("wiped-holder",),
    ),
    Mutant(
        name="not-announced-to-new-keepers",
        breaks="nobody holds a task any more when its keepers have died",
        module=f"{_SCHEDULE}.announcer",
        old="        self._sweep = deque(dict.fromkeys([*self._sweep, *self._held]))\n",
        new="",
        scenarios=("keepers-die",),
    ),
    Mutant(
        name="record-not-restored",
        breaks="a task is lost with its keepers, though nodes hold all of it",
        module=f"{_SCHEDULE}.directory",
        old="                    unknown.append(task_id)\n",
        new="                    pass\n",
        scenarios=("keepers-die",),
    ),
    Mutant(
        name="session-dies-with-its-owner",
        breaks="a download that outlives its scheduler finds no further parents",
        module=f"{_SCHEDULE}.conversation",
        old="if best is not None and best != self._keeper:\n"
        "                self._under_way = self._register(best)\n"
        "                return self._under_way\n"
        "            self._look_at = None if self._keeper is not None else self._next_try(now)\n",
        new="if best is not None and self._answered_at < 0:\n"
        "                self._under_way = self._register(best)\n"
        "                return self._under_way\n"
        "            self._look_at = None if self._keeper is not None else now + 1.0\n",
        scenarios=("owner-then-parent-death",),
    ),
    Mutant(
        name="deletion-not-told-to-returning-holder",
        breaks="a node that was away keeps and shows what was deleted meanwhile",
        module=f"{_SCHEDULE}.announcer",
        old="            *(DropDeleted(proof) for task_id, proof in proofs.items() "
        "if task_id in asked),\n",
        new="",
        scenarios=("delete-dead-holder",),
    ),
    Mutant(
        name="both-copies-released",
        breaks="the last two holders of a task drop it at the same moment",
        module=f"{_SCHEDULE}.directory",
        old=" and (task_id, node_id) not in self._releases\n",
        new="\n",
        scenarios=("delete-last-copies",),
    ),
    Mutant(
        name="zones-ignored",
        breaks="a file crosses the links between zones as often as there are children",
        module=f"{_SCHEDULE}.assignments",
        old=" if self._view.zone_of(parent) == zone\n",
        new="\n",
        scenarios=("broadcast-zones",),
    ),
)
