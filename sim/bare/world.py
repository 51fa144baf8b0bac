"""Thousands of bare nodes on one network, on one timeline, from one seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO

from gossipcache.cluster import cluster_from_secret
from gossipcache.config import ALL_ROLES, Role, SwimConfig
from gossipcache.dht.membership.member import Member, Profile
from gossipcache.identity import SEED_BYTES, Identity
from gossipcache.ids import Address, NodeId
from gossipcache.metrics import Metrics
from sim.bare.machine import BareMachine
from sim.bare.membership import BareMembership, Rings
from sim.bare.network import BareHost, BareNetwork
from sim.bare.process import Process
from sim.bare.telling import Teller
from sim.bare.timeline import Timeline
from sim.bare.trace import BareTrace
from sim.bare.wire import RealWire, StandInWire, Wire
from sim.bare.witness import BareWitness
from sim.chronicle import Chronicle
from sim.kernel.entropy import WALL_EPOCH_S, Streams

PORT = 7100
SEEDS = 3
"""How many of the first machines the others are told to join."""
_REMEMBERED_SIGNATURES = 1_000_000


@dataclass(frozen=True, slots=True)
class Wrong:
    """A finding: what was violated, and when."""

    at_s: float
    what: str

    def __str__(self) -> str:
        return f"{self.at_s:.3f} s: {self.what}"


class BareWorld:
    """Machines by name (`n0`, `n1`, …), and what is seen of them."""

    def __init__(
        self,
        seed: int,
        *,
        swim: SwimConfig | None = None,
        real_wire: bool = False,
        log: TextIO | None = None,
        chronicle: Chronicle | None = None,
    ) -> None:
        """`real_wire`: encode, seal and sign in earnest; some twenty times slower."""
        self.timeline = Timeline()
        self.streams = Streams(seed)
        self.trace = BareTrace(self.timeline, log)
        self.network = BareNetwork(self.timeline, self.trace)
        self.machines: dict[str, BareMachine] = {}
        self.wrong: list[Wrong] = []
        self.on_wrong: Callable[[str], None] = lambda what: None
        """Told each violation as it is noted."""
        self.metrics = Metrics()
        """The counters of all nodes together."""
        self.witness = BareWitness(self.report)
        self.on_start: list[Callable[[str], None]] = []
        """Told of each machine whose node starts, before it does anything."""
        self.on_change: list[Callable[[str, str, Member], None]] = []
        """Told of each change of a view: the viewer's and the member's machine, and the member."""
        self._teller = Teller(self, chronicle) if chronicle is not None else None
        self._swim = swim or SwimConfig()
        self._cluster = cluster_from_secret(self.streams.named("cluster").randbytes(32))
        self.wire: Wire = RealWire(self._cluster) if real_wire else StandInWire()
        self._verifier = self.wire.verifier(self._cluster.cluster_id, _REMEMBERED_SIGNATURES)
        self._names: list[str] = []
        self._rings = Rings()

    @property
    def cluster_id(self) -> bytes:
        """Of all nodes."""
        return self._cluster.cluster_id

    # Machines and their nodes.

    def add_machine(
        self, *, roles: frozenset[Role] = ALL_ROLES, identity: Identity | None = None
    ) -> BareMachine:
        """One more machine, its node not yet started; `identity` if it has another's key."""
        number = len(self.machines)
        name = f"n{number}"
        rng = self.streams.named(f"node/{name}")
        key = self.wire.identity(rng.randbytes(SEED_BYTES))
        address = Address(f"10.0.{number // 250}.{number % 250 + 1}", PORT)
        machine = BareMachine(
            name=name,
            number=number,
            identity=identity or key,
            roles=roles,
            seeds=tuple(each.host.address for each in list(self.machines.values())[:SEEDS]),
            rng=rng,
            host=BareHost(number, address, self.streams.named(f"link/{address.host}")),
        )
        self.machines[name] = machine
        self._names.append(name)
        self.witness.add(machine)
        return machine

    def start(self, name: str, *, address: Address | None = None) -> None:
        """Boots the machine's node, at its address or at a new one."""
        machine = self.machines[name]
        assert not machine.is_up, f"{name} runs already"
        old = machine.host
        if address is not None:
            self.network.remove(old)
        machine.host = host = BareHost(machine.number, address or old.address, old.rng)
        process = Process(host, self.network, machine.identity.node_id, self.wire.length)
        process.membership = BareMembership(
            process,
            self.network,
            self.wire,
            self,
            config=self._swim,
            identity=machine.identity,
            cluster=self._cluster,
            profile=Profile(
                self._cluster.cluster_id,
                name,
                host.address,
                frozenset(machine.roles),
                zone=machine.zone,
            ),
            verifier=self._verifier,
            metrics=self.metrics,
            rng=random.Random(machine.rng.getrandbits(128)),
            wall_time_s=WALL_EPOCH_S + self.timeline.now + machine.wall_skew_s,
            seeds=machine.seeds,
            rings=self._rings,
        )
        host.process = machine.process = process
        self.network.add(host)
        for begin in self.on_start:
            begin(name)
        process.membership.start()
        if self._teller is not None:
            self._teller.started(name)

    def grow(
        self, count: int, *, schedulers: int | None = None, zones: Sequence[str] = ("",)
    ) -> None:
        """Machines whose nodes run and know each other: a cluster that has long been there.
        Only the first `schedulers` of them keep records; None: all. They stand in `zones` in
        turn."""
        peers: frozenset[Role] = frozenset(("peer",))
        kept = count if schedulers is None else schedulers
        added = [
            self.add_machine(roles=ALL_ROLES if number < kept else peers).name
            for number in range(count)
        ]
        for number, name in enumerate(added):
            self.machines[name].zone = zones[number % len(zones)]
            self.start(name)
            self.machines[name].membership.enter("active")
        views = [self.machines[name].membership for name in added]
        members = [self._verifier.member(view.core.me.record) for view in views]
        for view in views:
            view.meet(members)

    def kill(self, name: str, *, power_loss: bool = False) -> None:
        """SIGKILL, or the machine's power."""
        process = self.machines[name].process
        if process is not None:
            process.kill(silent=power_loss)
            self.witness.drop(process.membership)
            self.trace.record("kill", self.machines[name].number, 0, 0, b"")

    def suspect_links(self) -> None:
        """Something may have come between nodes that are connected."""
        for machine in self.machines.values():
            for link in [] if machine.process is None else machine.process.links.all():
                link.suspect()

    def up(self) -> list[str]:
        """The names of the machines whose node runs."""
        return [name for name, machine in self.machines.items() if machine.is_up]

    def name_of(self, node: NodeId) -> str:
        """The machine of a node."""
        number = self.witness.number_of(node)
        return "?" if number is None else self._names[number]

    # Views.

    def member(self, viewer: str, member: str) -> Member | None:
        """What one machine's node knows of another's."""
        table = self.machines[viewer].membership.core.table
        return table.get(self.machines[member].identity.node_id)

    def state(self, viewer: str, member: str) -> str | None:
        """`alive`, `suspect`, `dead`, `left`, or None."""
        known = self.member(viewer, member)
        return None if known is None else known.state

    def alive_on(self, viewer: str) -> set[str]:
        """Who is alive or suspect in a node's view, itself included."""
        table = self.machines[viewer].membership.core.table
        return {self.name_of(member.node_id) for member in table if member.is_live}

    def views_agree(self) -> bool:
        """Whether all running nodes see exactly each other, and alike."""
        up = self.up()
        tables = [self.machines[name].membership.core.table for name in up]
        return (
            all(table.live_count == len(up) for table in tables)
            and len({table.digest() for table in tables}) == 1
            and self.alive_on(up[0]) == set(up)
        )

    def missed_by(self, member: str) -> list[str]:
        """The running nodes in whose view a member is neither alive nor suspect."""
        node = self.machines[member].identity.node_id
        missing = []
        for name in self.up():
            held = self.machines[name].membership.core.table.get(node)
            if name != member and (held is None or not held.is_live):
                missing.append(name)
        return missing

    def bytes_sent(self) -> int:
        """What all nodes have sent, in datagrams and over links."""
        hosts = [machine.host for machine in self.machines.values()]
        return sum(host.datagram_bytes_sent + host.link_bytes_sent for host in hosts)

    def report(self, violation: str) -> None:
        """Notes what is wrong; the run goes on."""
        self.wrong.append(Wrong(self.timeline.now, violation))
        self.on_wrong(violation)

    # What is seen of everything.

    def changed(self, viewer: BareMembership, member: Member) -> None:
        """A node's view changed."""
        number = self.witness.number_of(member.node_id)
        here = viewer.process.host.number
        self.trace.record("view", here, number or 0, 0, (member.incarnation, member.state))
        self.witness.changed(viewer, member)
        for listener in self.on_change:
            listener(self._names[here], self.name_of(member.node_id), member)

    def met(self, viewer: BareMembership, members: Sequence[Member]) -> None:
        """A node's view came about all at once."""
        here = viewer.process.host.number
        self.trace.record("met", here, 0, 0, viewer.core.table.digest())
        self.witness.met(viewer, members)
        for listener in self.on_change:
            for member in members:
                listener(self._names[here], self.name_of(member.node_id), member)

    def forgotten(self, viewer: BareMembership, node: NodeId) -> None:
        """A member is not listed any more."""
        self.trace.record("forgotten", viewer.process.host.number, 0, 0, node)
        self.witness.forgotten(viewer, node)

    def settled(self, viewer: BareMembership) -> None:
        """A step that changed a view has ended."""
        self.witness.settled(viewer)
