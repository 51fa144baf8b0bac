"""What befalls wall clocks. Timers are not touched: monotonic time is the cluster's."""

from __future__ import annotations

from sim.faults.fault import Fault


class ClockSkew(Fault, frozen=True, kw_only=True, tag="clock-skew"):
    """A machine boots with a clock that is wrong by `by_s` (ahead if positive): its node is
    killed and starts again so. Set right after `for_s`."""

    node: str
    by_s: float
    for_s: float


class ClockDrift(Fault, frozen=True, kw_only=True, tag="clock-drift"):
    """A clock runs fast (slow if negative) by `rate` seconds a second. Set right after `for_s`."""

    node: str
    rate: float
    for_s: float


class ClockStepBack(Fault, frozen=True, kw_only=True, tag="clock-step-back"):
    """A running node's clock jumps back by `by_s`. Set right after `for_s`."""

    node: str
    by_s: float
    for_s: float


class ClockStepForward(Fault, frozen=True, kw_only=True, tag="clock-step-forward"):
    """A running node's clock jumps ahead by `by_s`, past the expiry of announcements and
    leases. Set right after `for_s`."""

    node: str
    by_s: float
    for_s: float


TimeFault = ClockSkew | ClockDrift | ClockStepBack | ClockStepForward
