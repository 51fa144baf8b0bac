"""What a node asks of the records: publishing a manifest, burying it, giving a lost one back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gossipcache.dht.records.client import RecordClient
from gossipcache.dht.records.standing import Opener, standing_manifest, standing_tombstone
from gossipcache.dht.records.steps import Steps
from gossipcache.errors import Conflict
from gossipcache.ids import TaskId
from gossipcache.manifest import SignedManifest, SignedTombstone
from gossipcache.messages.records import RecordWritten


@dataclass(frozen=True)
class Published:
    """The manifest that stands after `publish`, durable on `copies` keepers.

    `adopted`: it is another's, with the same content.
    """

    manifest: SignedManifest
    copies: int
    adopted: bool


class Publisher:
    """The writes of one node. A `deadline` is monotonic (s)."""

    def __init__(self, client: RecordClient, opener: Opener) -> None:
        self._client = client
        self._opener = opener

    def publish(
        self, candidate: Callable[[int], SignedManifest], task_id: TaskId, deadline: float
    ) -> Steps[Published]:
        """Makes a manifest stand for `task_id`; `candidate` signs it for a generation.

        The same content under another header is adopted. Raises `Conflict` (other content
        stands), `TimedOut` (too few keepers), and what `candidate` raises.
        """
        mine = candidate(1)
        while True:
            written = yield from self._client.write(
                standing_manifest(mine), restore=False, deadline=deadline
            )
            if written.outcome != "generation":
                break
            mine = candidate(written.generation)
        if written.outcome == "written":
            return Published(mine, written.copies, adopted=False)
        standing = self._standing_manifest(written, task_id, mine)
        return Published(standing, written.copies, adopted=standing.name != mine.name)

    def publish_many(self, manifests: Sequence[SignedManifest]) -> Steps[dict[TaskId, Published]]:
        """Makes manifests that this node signed stand, as far as it goes in one go: those that are
        not among what is returned are to be published one by one."""
        for mine in manifests:
            self._opener.remember(mine)
        candidates = {mine.task_id: standing_manifest(mine) for mine in manifests}
        copies = yield from self._client.write_many(list(candidates.values()))
        return {
            mine.task_id: Published(mine, copies[mine.task_id], adopted=False)
            for mine in manifests
            if mine.task_id in copies
        }

    def bury(self, tombstone: SignedTombstone, deadline: float) -> Steps[int]:
        """Makes a deletion stand; returns the number of durable copies.

        Raises `NotPermitted`, `Conflict` (imported anew since), `TimedOut` (too few keepers).
        """
        written = yield from self._client.write(
            standing_tombstone(tombstone), restore=False, deadline=deadline
        )
        return written.copies

    def restore(self, manifest: SignedManifest, deadline: float) -> Steps[bool]:
        """Gives a record back that its keepers may have lost; whether this manifest stands now.

        Raises `TimedOut`. A deletion, or other content, that stands is left alone.
        """
        try:
            written = yield from self._client.write(
                standing_manifest(manifest), restore=True, deadline=deadline
            )
        except Conflict:
            return False
        if written.outcome == "stands" and written.entry is not None:
            stands = self._opener.open(written.entry, manifest.task_id)
            return manifest.name in [one.name for one in stands.manifests]
        return written.outcome == "written"

    def _standing_manifest(
        self, written: RecordWritten, task_id: TaskId, mine: SignedManifest
    ) -> SignedManifest:
        if written.entry is not None:
            for one in self._opener.open(written.entry, task_id).manifests:
                if one.manifest.digest == mine.manifest.digest:
                    return one
        raise Conflict("other content stands under this cid and tag")
