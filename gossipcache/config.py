"""What a node is told: names, addresses, limits, and the tunables of its protocols.

Pure values. Where they come from (flag > environment > file > default) is decided in
`gossipcache.settings`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Literal

from gossipcache.ids import Address

Role = Literal["peer", "scheduler"]
ALL_ROLES: frozenset[Role] = frozenset(("peer", "scheduler"))
DeletePolicy = Literal["any", "publisher"]
AdmissionPolicy = Literal["secret", "ticket"]


@dataclass(frozen=True, slots=True)
class SwimConfig:
    """SWIM with Lifeguard (Dadgar et al., 2018). Smaller periods find deaths sooner and cost
    more traffic; the defaults suit one data centre."""

    probe_interval_s: float = 1.0
    probe_timeout_s: float = 0.5
    indirect_probes: int = 3
    max_lag_s: float = 0.1
    """A timer that comes later shows that this process is slow: its deadlines move as far, and
    its local health worsens."""
    suspicion_factor: float = 3.0
    """The shortest suspicion lasts this many probe intervals times max(1, log10 N)."""
    suspicion_max_factor: float = 4.0
    """A suspicion that nobody confirms lasts this many times longer."""
    gossip_interval_s: float = 0.2
    gossip_fanout: int = 3
    sync_interval_s: float = 20.0
    """How often the digest-first push/pull with a random member runs while no answer to a ping
    says that views agree; where they are found to differ it runs at once."""
    reconnect_interval_s: float = 5.0
    """How often a dead member or a seed is tried again, so that partitions heal by themselves."""
    readmission_s: float = 30.0
    """How long a node that is called dead a second time within ten minutes must see its own
    pings answered before it asks to be taken back; doubles each time."""
    retain_dead_s: float = 24 * 3600.0
    max_members: int = 20_000
    max_datagram_bytes: int = 1400
    max_local_health: int = 8
    lifeguard: bool = True
    """Off is plain SWIM (2002), for comparison: no local health, no confirmations, no second
    looks and no pings over links, no word to suspects and to who brings old news, no allowance
    for pauses, no damping of flaps, and anybody's word is enough for a death."""


@dataclass(frozen=True, slots=True)
class RecordConfig:
    """Replication of task records."""

    replicas: int = 3
    write_quorum: int = 2
    straggler_wait_s: float = 0.2
    """After the quorum, how long a write waits for its last copy."""
    provisional_ttl_s: float = 10.0
    request_timeout_s: float = 2.0
    read_budget_s: float = 0.1
    """How long a read waits for the first two keepers before it asks the next."""
    write_budget_s: float = 0.3
    """How long a write waits for one coordinating keeper before it asks the next as well."""
    recovery_s: float = 8.0
    """How long a keeper does not say "not found" of a task whose keepers were all lost; holders
    give records back within some 2 s. Below the default timeout of a stat, 10 s, so that one that
    comes just then ends with an answer."""
    sync_interval_s: float = 10.0
    """How often a keeper compares with another; up to 16 times as long while it finds nothing."""
    max_records: int = 5_000_000


@dataclass(frozen=True, slots=True)
class ScheduleConfig:
    """Announcements and sessions."""

    lease_interval_s: float = 5.0
    lease_ttl_s: float = 30.0
    announcement_ttl_s: float = 3600.0
    clock_skew_s: float = 300.0
    max_batch: int = 1000
    reannounce_delay_s: float = 0.5
    max_parents: int = 5
    max_tasks_per_peer: int = 1_000_000
    report_interval_s: float = 0.25


@dataclass(frozen=True, slots=True)
class TransferConfig:
    """Pieces and how they are fetched."""

    piece_size_bytes: int = 4 * 2**20
    large_piece_size_bytes: int = 16 * 2**20
    large_task_bytes: int = 64 * 2**30
    """From this size on, tasks are cut into large pieces."""
    pipeline_depth: int = 4
    """Requests in flight on one connection."""
    connections_per_parent: int = 2
    max_active_parents: int = 5
    max_uploads: int = 64
    """Pieces sent at once; further ones wait for their turn. More than four begin only where some
    of them take long."""
    upload_rate: int | None = None
    """What this node sends of pieces, bytes a second; None: no limit. So for all rates."""
    download_rate: int | None = None
    task_upload_rate: int | None = None
    """The same for each task by itself."""
    task_download_rate: int | None = None
    piece_timeout_s: float = 30.0
    stall_s: float = 5.0
    """A parent that gives no byte for this long loses its requests to others."""
    bitmap_interval_s: float = 1.0
    """How often a running download makes its progress durable."""


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Limits of the local store. None means no limit."""

    quota_bytes: int | None = None
    """Default: 80 % of what the disk had free when the store was made."""
    idle_ttl_s: float | None = None
    gc_interval_s: float = 60.0
    scrub_age_s: float = 30 * 24 * 3600.0
    """Content that was not read back for this long is, in the background."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """All that one node is told."""

    home: PurePath
    name: str
    listen: Address | None
    """None: no network port at all (an auto-started node)."""
    join: tuple[Address, ...] = ()
    advertise: Address | None = None
    """What others dial, if it differs from `listen`."""
    roles: frozenset[Role] = ALL_ROLES
    zone: str = ""
    """Where it stands, such as a rack or a site; nodes fetch within their zone if they can."""
    delete_policy: DeletePolicy = "any"
    admission: AdmissionPolicy = "secret"
    """This and `delete_policy` hold until the operator's charter says otherwise."""
    ticket: bytes = b""
    """The operator's ticket for this node; empty: none."""
    plaintext: bool = False
    """Leave out TLS beyond loopback; the handshake and the sealing stay."""
    swim: SwimConfig = field(default_factory=SwimConfig)
    records: RecordConfig = field(default_factory=RecordConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    transfer: TransferConfig = field(default_factory=TransferConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
