"""Who may be in the cluster, and as what: the judge that every part of a node asks.

It knows the operator's key, the newest charter and, of each node, the newest ticket that
anybody showed. Without an operator's key everybody is what it claims to be. Only the operator
signs tickets, so that nobody can fill this memory.
"""

from __future__ import annotations

from collections.abc import Callable

from gossipcache.charter import Charter, Deletion, PolicyChange, Ticket, open_charter, ticket_for
from gossipcache.cluster import Cluster
from gossipcache.config import AdmissionPolicy, DeletePolicy
from gossipcache.errors import NotPermitted, UsageError
from gossipcache.identity import Signed
from gossipcache.ids import NodeId

CLOCK_SKEW_S = 300.0
"""How far the clocks of a node and of the operator may differ."""
PEER_ONLY = frozenset(("peer",))
_ASK_OPERATOR = "ask the operator for a ticket: `gossipcache cluster ticket make`"


class Admission:
    """What the operator has said, as far as this node knows."""

    def __init__(
        self,
        cluster: Cluster,
        wall_time: Callable[[], float],
        admission: AdmissionPolicy = "secret",
        delete_policy: DeletePolicy = "any",
    ) -> None:
        """`admission` and `delete_policy` hold until there is a charter."""
        self._cluster = cluster
        self._wall_time = wall_time
        self._policy: AdmissionPolicy = admission
        self._revoked_nodes: dict[NodeId, int] = {}
        self._revoked_serials: frozenset[int] = frozenset()
        self._tickets: dict[NodeId, tuple[bytes, Ticket]] = {}
        self.deletion = Deletion(0, (PolicyChange(0, delete_policy),))
        """Who may delete."""
        self.charter: Charter | None = None
        self.signed_charter: Signed | None = None

    @property
    def has_operator(self) -> bool:
        """Whether tickets and charters mean anything here."""
        return bool(self._cluster.operator_key)

    @property
    def number(self) -> int:
        """The number of the newest charter known; 0: none."""
        return self.deletion.number

    @property
    def policy(self) -> AdmissionPolicy:
        """Whether a ticket is needed."""
        return self._policy

    def enact(self, signed: Signed) -> bool:
        """Takes a charter; whether it is newer than the one known. Raises `IntegrityError`,
        `ProtocolError`, and `UsageError` in a cluster without an operator."""
        if not self.has_operator:
            raise UsageError(
                "this cluster has no operator key",
                "make one with `gossipcache cluster operator make`",
            )
        if signed == self.signed_charter:
            return False
        charter = open_charter(signed, self._cluster.operator_key, self._cluster.cluster_id)
        if self._rank(charter, signed) <= self._rank(self.charter, self.signed_charter):
            return False
        self.charter, self.signed_charter = charter, signed
        self._policy = charter.admission
        self.deletion = Deletion(charter.number, charter.deletion)
        self._revoked_nodes = {NodeId(one.node_id): one.through for one in charter.revoked_nodes}
        self._revoked_serials = frozenset(charter.revoked_serials)
        return True

    @staticmethod
    def _rank(charter: Charter | None, signed: Signed | None) -> tuple[int, bytes]:
        # Two of one number are the operator's slip; all nodes still settle on the same one.
        return (0, b"") if charter is None or signed is None else (charter.number, signed.payload)

    def grant(self, node: NodeId, claimed: frozenset[str], ticket: bytes = b"") -> frozenset[str]:
        """The roles out of `claimed` that `node` may have now; `ticket` is one that it shows.

        Raises `NotPermitted` if it may not be here at all, `IntegrityError` or `ProtocolError`
        for a ticket that is not the operator's or not this node's.
        """
        if not self.has_operator:
            return claimed
        held = self._learn(node, ticket)
        serial = 0 if held is None else held.serial
        if self._revoked_nodes.get(node, -1) >= serial or serial in self._revoked_serials:
            raise NotPermitted("the operator has revoked this node", _ASK_OPERATOR)
        if held is not None and self._is_current(held):
            return claimed & frozenset(held.roles)
        if self._policy == "ticket":
            raise NotPermitted("a node without a valid ticket", _ASK_OPERATOR)
        return claimed & PEER_ONLY

    def admits(self, node: NodeId, roles: frozenset[str]) -> bool:
        """Whether `node` may still have `roles`, which were granted to it."""
        try:
            return self.grant(node, roles) == roles
        except NotPermitted:
            return False

    def _learn(self, node: NodeId, shown: bytes) -> Ticket | None:
        held = self._tickets.get(node)
        if not shown or (held is not None and held[0] == shown):
            return None if held is None else held[1]
        cluster = self._cluster
        ticket = ticket_for(shown, cluster.operator_key, cluster.cluster_id, node)
        if held is None or ticket.serial > held[1].serial:
            self._tickets[node] = (shown, ticket)
            return ticket
        return held[1]

    def _is_current(self, ticket: Ticket) -> bool:
        now = self._wall_time()
        return ticket.not_before - CLOCK_SKEW_S <= now < ticket.expires_at + CLOCK_SKEW_S
