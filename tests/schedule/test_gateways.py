from __future__ import annotations

from gossipcache.ids import NodeId, TaskId
from gossipcache.schedule.gateways import TRIAL_S, Gateways
from gossipcache.schedule.task import STARVED_S, Child
from gossipcache.swarm import SHARES

PIECES = 256


def child(number: int) -> Child:
    return Child(
        node_id=NodeId(bytes([number]) * 16),
        task_id=TaskId(bytes(32)),
        session=1,
        manifest_name=bytes(32),
        piece_count=PIECES,
        have=0,
        lease_until=1e9,
        gained_at=0.0,
    )


def settled(count: int) -> tuple[Gateways, list[Child]]:
    """Children that came one after the other."""
    gateways, children = Gateways(), [child(number) for number in range(count)]
    for one in children:
        gateways.settle(one, 0.0)
    return gateways, children


def test_a_child_that_goes_short_takes_one_share_and_may_show_that_it_does_better() -> None:
    gateways, (other, starving) = settled(2)
    other.gained_at = STARVED_S
    assert gateways.settle(starving, STARVED_S / 2) == ()
    assert gateways.settle(starving, STARVED_S) == (other,)
    assert gateways.shares(starving).bit_count() == SHARES / 2 + 1
    gateways.settle(other, STARVED_S + 1)
    assert gateways.shares(starving).bit_count() == 1, "it lost the others, for it gains nothing"


def test_every_share_is_fetched_by_one_child() -> None:
    for count in range(1, 12):
        gateways, children = settled(count)
        masks = [gateways.shares(one) for one in children]
        assert sum(masks) == (1 << SHARES) - 1, "none twice, none by nobody"
        parts = [mask.bit_count() for mask in masks]
        assert max(parts[:SHARES]) - min(parts[:SHARES]) <= 1


def test_a_share_of_who_is_gone_goes_to_the_next_that_asks() -> None:
    gateways, children = settled(3)
    gateways.remove(children[0])
    assert gateways.settle(children[1], 0.0) == ()
    assert gateways.shares(children[1]) | gateways.shares(children[2]) == (1 << SHARES) - 1


def test_a_share_that_falls_behind_the_others_is_taken_over_once() -> None:
    gateways, children = settled(SHARES)
    slow, helper = children[0], child(100)
    for one in children:
        one.gained_at = TRIAL_S
        one.have = (1 << PIECES) - 1 if one is not slow else 0
    share = gateways.shares(slow)
    assert gateways.settle(helper, TRIAL_S / 2) == ()
    assert gateways.settle(helper, TRIAL_S) == (slow,)
    assert gateways.shares(helper) == share
    assert gateways.settle(slow, TRIAL_S) == (), "it is not taken back at once"
