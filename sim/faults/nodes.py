"""What befalls processes and their machines."""

from __future__ import annotations

from typing import Literal

from sim.faults.fault import Fault


class Kill(Fault, frozen=True, kw_only=True, tag="kill"):
    """SIGKILL of a node: nothing it holds in memory survives, its disk does."""

    node: str


class PowerLoss(Fault, frozen=True, kw_only=True, tag="power-loss"):
    """The machine goes off: no goodbye from its kernel; of its unsynced writes some are lost,
    the last perhaps torn, or all of them."""

    node: str
    lost: Literal["some", "all"] = "some"


class Restart(Fault, frozen=True, kw_only=True, tag="restart"):
    """A dead node starts again, on its disk or (`wiped`) on an empty one with the same key."""

    node: str
    wiped: bool = False


class OldSnapshot(Fault, frozen=True, kw_only=True, tag="old-snapshot"):
    """A node's disk is imaged; `after_s` later the node is killed and starts again on the
    image, as after a restore of its machine."""

    node: str
    after_s: float


class Leave(Fault, frozen=True, kw_only=True, tag="leave"):
    """A node leaves in order and ends."""

    node: str


class Pause(Fault, frozen=True, kw_only=True, tag="pause"):
    """SIGSTOP for a while: its kernel answers, the node does not."""

    node: str
    for_s: float


class Stall(Fault, frozen=True, kw_only=True, tag="stall"):
    """A node's event loop is blocked again and again: for `stall_s` out of every `every_s`."""

    node: str
    stall_s: float
    every_s: float
    for_s: float


class SlowCpu(Fault, frozen=True, kw_only=True, tag="slow-cpu"):
    """A node's processor is slow or stolen: each step of its tasks takes `step_s` seconds, one
    after the other."""

    node: str
    step_s: float
    for_s: float


class RollingRestart(Fault, frozen=True, kw_only=True, tag="rolling-restart"):
    """The nodes are killed and started again one after the other, each down for `down_s`."""

    nodes: tuple[str, ...]
    down_s: float
    interval_s: float


class SchedulerDeath(Fault, frozen=True, kw_only=True, tag="scheduler-death"):
    """All nodes with the role scheduler are killed at once, and are back after `down_s`."""

    down_s: float


class CrashLoop(Fault, frozen=True, kw_only=True, tag="crash-loop"):
    """A node is killed, comes back, and is killed `up_s` after that, `times` times; then it
    stays up."""

    node: str
    times: int
    up_s: float
    down_s: float


class FlashJoin(Fault, frozen=True, kw_only=True, tag="flash-join"):
    """`count` machines that nobody has seen join at once, stay for a while and are killed."""

    count: int
    for_s: float


class ClonedKey(Fault, frozen=True, kw_only=True, tag="cloned-key"):
    """A second machine starts with the key of `node` (a copied image), and is killed later."""

    node: str
    for_s: float


NodeFault = (
    Kill
    | PowerLoss
    | Restart
    | OldSnapshot
    | Leave
    | Pause
    | Stall
    | SlowCpu
    | RollingRestart
    | SchedulerDeath
    | CrashLoop
    | FlashJoin
    | ClonedKey
)
