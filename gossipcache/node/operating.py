"""What the operator brings to a node: charters, and the node's own ticket."""

from __future__ import annotations

from gossipcache.errors import NotPermitted, ProtocolError, UsageError
from gossipcache.identity import Signed
from gossipcache.node.services import Services
from gossipcache.results import CharterView
from gossipcache.wire import decode, encode


async def charter(services: Services, *, fresh: bool = False) -> CharterView:
    """What holds in the cluster, as far as this node knows; `fresh`: or some other members."""
    if fresh:
        await services.charters.refresh()
    admission = services.charters.admission
    held, signed = admission.charter, admission.signed_charter
    revoked = () if held is None else held.revoked_nodes
    return CharterView(
        number=admission.number,
        admission=admission.policy,
        delete_policy=admission.deletion.policy,
        revoked_nodes=tuple(one.node_id.hex() for one in revoked),
        revoked_serials=() if held is None else held.revoked_serials,
        cluster_id=services.cluster.cluster_id.hex(),
        operator_key=services.cluster.operator_key.hex(),
        signed="" if signed is None else encode(signed).hex(),
    )


async def enact(services: Services, signed: str) -> CharterView:
    """Takes a charter (hex of an encoded `Signed`), durable and on its way to all on return.

    Raises `UsageError`, `IntegrityError`; `NotPermitted` if it is not newer than the one known.
    """
    try:
        statement = decode(bytes.fromhex(signed), Signed)
    except (ValueError, ProtocolError) as error:
        raise UsageError("that is no signed charter") from error
    if not await services.charters.enact(statement):
        raise NotPermitted(
            "the cluster has a charter that is as new, or newer", "make the change again"
        )
    return await charter(services)


def take_ticket(services: Services, ticket: bytes) -> None:
    """Uses another ticket from now on. Raises `IntegrityError`, `ProtocolError`, and
    `NotPermitted` if it gives this node no place."""
    admission = services.charters.admission
    admission.grant(services.me, frozenset(services.config.roles), ticket)
    services.show_ticket(ticket)
