"""Simulated clusters with an operator, in which one admitted member turns bad."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from gossipcache.config import AdmissionPolicy
from gossipcache.errors import GossipcacheError
from gossipcache.identity import Signed
from gossipcache.ids import NodeId
from gossipcache.node.node import Node
from gossipcache.wire import Message
from sim.whole.operator import Operator
from sim.whole.world import World
from tests.node.cluster import in_cluster

SIZE = 3000
CID = "index.db"
WITHIN_S = 30.0


@dataclass
class Governed:
    """A world, its operator, and the honest machines in it."""

    world: World
    operator: Operator
    honest: list[str] = field(default_factory=list)

    async def start(self, count: int) -> None:
        """`count` honest schedulers that see each other."""
        self.honest = [self.operator.add_machine().name for _ in range(count)]
        for name in self.honest:
            await self.world.start(name)
        await self.until_on_ring(self.honest)

    async def until_on_ring(self, names: list[str]) -> None:
        """Waits until exactly these stand on the ring of every honest node."""
        wanted = {self.node_id(name) for name in names}
        await self.world.wait_until(
            f"{names} are the ring", lambda: self.rings() == [wanted], within_s=WITHIN_S
        )

    def rings(self) -> list[set[NodeId]]:
        """The different rings that honest nodes see."""
        found: list[set[NodeId]] = []
        for name in self.honest:
            members = set(self.world.node(name).services.membership.ring.members)
            if members not in found:
                found.append(members)
        return found

    def node_id(self, name: str) -> NodeId:
        return self.world.machines[name].identity.node_id

    def knows(self, name: str, of: str) -> bool:
        """Whether the node on `name` lists the one on `of` at all."""
        members = self.world.node(name).services.membership.members()
        return self.node_id(of) in [member.node_id for member in members]

    def states(self, of: str) -> set[str]:
        """How the honest nodes see the one on `of`."""
        listed = [
            self.world.node(name).services.membership.member(self.node_id(of))
            for name in self.honest
        ]
        return {"unknown" if member is None else member.state for member in listed}

    def metric(self, name: str) -> int:
        """A counter, over all honest nodes."""
        return sum(self.world.node(each).metrics.value(name) for each in self.honest)

    def numbers(self) -> set[int]:
        """The numbers of the charters that honest nodes go by."""
        return {self.world.node(name).services.charters.admission.number for name in self.honest}

    async def enact(self, on: str, charter: Signed) -> None:
        """Brings a charter to one node."""
        await self.world.on(on, partial(_enact, charter))

    async def decree(self, on: str, **changes: object) -> Signed:
        """Makes the next charter with `changes`, brings it to `on`; returns when all have it."""
        cluster_id = self.world.machines[on].cluster.cluster_id
        charter = self.operator.charter(cluster_id, **changes)
        await self.enact(on, charter)
        number = self.world.node(on).services.charters.admission.number
        await self.world.wait_until(
            "all have the charter", lambda: self.numbers() == {number}, within_s=WITHIN_S
        )
        return charter

    async def tell(self, liar: str, message: Message, targets: list[str] | None = None) -> None:
        """The node on `liar` sends a notice of its own making to the honest nodes."""
        for target in targets or self.honest:
            await self.world.on(liar, partial(_tell, self.node_id(target), message))

    async def ask(self, liar: str, target: str, message: Message, reply: type[Message]) -> object:
        """What `target` answers to a request of the liar's making: a message or an error."""
        return await self.world.on(liar, partial(_ask, self.node_id(target), message, reply))


async def _enact(charter: Signed, node: Node) -> None:
    await node.services.charters.enact(charter)


async def _tell(target: NodeId, message: Message, node: Node) -> None:
    await node.services.links.notify(target, message)


async def _ask(target: NodeId, message: Message, reply: type[Message], node: Node) -> object:
    try:
        return await node.services.links.request(target, message, reply, 5.0)
    except GossipcacheError as error:
        return error


def governed(
    test: Callable[[Governed], Awaitable[None]], admission: AdmissionPolicy = "secret"
) -> None:
    """Runs `test` on virtual time in a world that has an operator and no node yet."""

    async def main(world: World) -> None:
        await test(Governed(world, Operator(world, admission)))

    in_cluster(main, nodes=0)
