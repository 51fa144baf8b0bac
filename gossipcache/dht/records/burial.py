"""Who may delete a task: by the policy that a deletion names, and by the present one."""

from __future__ import annotations

from collections.abc import Callable

from gossipcache.charter import Deletion
from gossipcache.dht.records.standing import Standing


class BurialRights:
    """Judges deletions by what is known of the operator's charters."""

    def __init__(self, deletion: Callable[[], Deletion]) -> None:
        self._deletion = deletion

    @property
    def is_strict(self) -> bool:
        """Whether only publishers delete now."""
        return self._deletion().policy == "publisher"

    def lacks_charter(self, candidate: Standing) -> bool:
        """Whether this is a deletion under a charter that is not known here: it is not judged."""
        tombstone = candidate.tombstone
        return tombstone is not None and (
            tombstone.tombstone.policy_number > self._deletion().number
        )

    def may_bury(self, candidate: Standing, own: Standing | None, *, vouched: bool) -> bool:
        """Whether a deletion's signer may delete: by the policy it names, and, unless other
        keepers vouch that it is an old one, also by the present policy: who deletes now cannot
        choose an earlier charter."""
        tombstone = candidate.tombstone
        if tombstone is None:
            return True
        deletion = self._deletion()
        policies = {deletion.policy_at(tombstone.tombstone.policy_number)}
        if not vouched:
            policies.add(deletion.policy)
        if "publisher" not in policies:
            return True
        if tombstone.signer != tombstone.manifest.publisher:
            return False
        if own is None or own.generation != candidate.generation or not own.manifests:
            return True
        # Of a fork all sides must be its own: a rival that it made up gives it no right.
        return all(one.publisher == tombstone.signer for one in own.manifests)


def is_of_same_publisher(tombstone: Standing, own: Standing) -> bool:
    """Whether the deleted manifest has the publisher of one that stands."""
    dead = tombstone.tombstone
    return dead is not None and (
        not own.manifests or dead.manifest.publisher in [one.publisher for one in own.manifests]
    )
