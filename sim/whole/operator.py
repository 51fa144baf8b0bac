"""A cluster's operator: a key that no machine has, and what is signed with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import trio

from gossipcache.charter import Charter, Ticket, amended, first_charter, sign_charter, sign_ticket
from gossipcache.config import AdmissionPolicy, DeletePolicy, Role
from gossipcache.identity import SEED_BYTES, Identity, Signed
from gossipcache.node.node import Node
from sim.kernel.entropy import WALL_EPOCH_S
from sim.whole.machine import Machine
from sim.whole.world import World

BOTH: tuple[Role, ...] = ("peer", "scheduler")
LIFETIME_S = 90 * 24 * 3600


class Operator:
    """Gives tickets to machines before their nodes start, and writes charters."""

    def __init__(self, world: World, admission: AdmissionPolicy = "secret") -> None:
        self._world = world
        self._admission: AdmissionPolicy = admission
        self._key = Identity(world.streams.named("operator").randbytes(SEED_BYTES))
        self._serial = 0
        self._last: Charter | None = None

    def add_machine(
        self, roles: Iterable[Role] | None = BOTH, *, delete_policy: DeletePolicy = "any"
    ) -> Machine:
        """A machine that knows this operator, with a ticket for `roles` (None: without one)."""
        machine = self._world.add_machine(admission=self._admission, delete_policy=delete_policy)
        machine.cluster = replace(machine.cluster, operator_key=self._key.public_key)
        if roles is not None:
            self.give(machine, self.ticket(machine, roles))
        return machine

    async def start_cluster(self, count: int, **last: Any) -> list[Machine]:
        """`count` machines whose nodes run and see each other; `last` goes to `add_machine` for
        the last of them."""
        machines = [self.add_machine() for _ in range(count - 1)]
        machines.append(self.add_machine(**last))
        async with trio.open_nursery() as nursery:
            for machine in machines:
                nursery.start_soon(self._world.start, machine.name)
        await self._world.wait_views(count)
        return machines

    def ticket(
        self,
        machine: Machine,
        roles: Iterable[Role] = BOTH,
        *,
        from_s: float = 0.0,
        lifetime_s: float = LIFETIME_S,
    ) -> bytes:
        """A new ticket for a machine's key, valid from `from_s` seconds from now on."""
        self._serial += 1
        not_before = int(self._now_s + from_s)
        ticket = Ticket(
            cluster_id=machine.cluster.cluster_id,
            node_id=machine.identity.node_id,
            roles=tuple(roles),
            not_before=not_before,
            expires_at=int(not_before + lifetime_s),
            serial=self._serial,
        )
        return sign_ticket(ticket, self._key)

    @staticmethod
    def give(machine: Machine, ticket: bytes) -> None:
        """Puts a ticket in a machine's home, for its next start."""
        machine.config = replace(machine.config, ticket=ticket)

    @property
    def last_serial(self) -> int:
        """Of the last ticket given out."""
        return self._serial

    def charter(self, cluster_id: bytes, **changes: object) -> Signed:
        """The next charter: the last one with some `changes` (see `charter.amended`)."""
        last = self._last or first_charter(cluster_id, self._admission, "any")
        number = 1 if self._last is None else last.number + 1
        self._last = amended(last, number, int(self._now_s), **changes)  # type: ignore[arg-type]
        return sign_charter(self._last, self._key)

    async def decree(self, on: Machine, **changes: object) -> None:
        """Brings the next charter to the node on `on`; returns when all that run have it."""
        charter = self.charter(on.cluster.cluster_id, **changes)
        await self._world.on(on.name, partial(_enact, charter))
        number = self._world.node(on.name).services.charters.admission.number
        await self._world.wait_until(
            f"all have charter {number}",
            lambda: all(
                self._world.node(name).services.charters.admission.number == number
                for name in self._world.up()
            ),
            within_s=30.0,
        )

    @property
    def _now_s(self) -> float:
        return WALL_EPOCH_S + self._world.clock.now


async def _enact(charter: Signed, node: Node) -> None:
    await node.services.charters.enact(charter)
