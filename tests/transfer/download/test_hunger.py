"""When a download may ask a parent that offers its pieces for what it did not offer."""

from __future__ import annotations

import random

from gossipcache.ids import NodeId
from gossipcache.transfer.download.hunger import PATIENCE_S, Hunger
from gossipcache.transfer.download.parent import Parent
from gossipcache.transfer.download.picker import Picker
from gossipcache.transfer.download.requests import Request
from gossipcache.transfer.offering import FIRST_OFFERS

SEED = NodeId(b"s" * 16)


def hungry(*, offers: bool = True, lacks: int = 2 * FIRST_OFFERS) -> Hunger:
    """That of a download that lacks so many pieces."""
    picker = Picker(2 * FIRST_OFFERS, random.Random(1))
    if offers:
        picker.offers(SEED)
    picker.found(picker.everything >> lacks)
    return Hunger(picker)


def parent(name: bytes, *, rate: float | None = None, owes: int = 0) -> Parent:
    made = Parent(NodeId(name * 16), window=4, progress_at=0.0)
    made.slots[0] = 0
    made.meter.rate = rate
    for number in range(owes):
        made.requests[number] = Request(number, made.node, 0, number, 100, asked_at=0.0)
    return made


def test_who_waits_for_nothing_for_long_may_ask_until_somebody_else_gives() -> None:
    hunger, seed, other = hungry(), parent(b"s"), parent(b"o")
    both = [seed, other]
    hunger.look(both, 0.0)
    assert hunger.starves_at == PATIENCE_S
    assert not hunger.may_ask(seed, both)
    hunger.look(both, PATIENCE_S)
    assert hunger.may_ask(seed, both)
    assert hunger.starves_at is None
    seed.requests[1] = Request(1, seed.node, 0, 1, 100, asked_at=PATIENCE_S)
    hunger.look(both, PATIENCE_S)
    assert hunger.may_ask(seed, both), "it goes on with full windows"
    other.requests[2] = Request(2, other.node, 0, 2, 100, asked_at=1.0)
    hunger.look(both, 1.0)
    assert not hunger.may_ask(seed, both)


def test_the_last_few_pieces_are_asked_for_as_soon_as_nothing_else_is_under_way() -> None:
    hunger, seed, other = hungry(lacks=FIRST_OFFERS), parent(b"s"), parent(b"o", owes=1)
    both = [seed, other]
    hunger.look(both, 0.0)
    assert not hunger.may_ask(seed, both)
    other.requests.clear()
    hunger.look(both, 0.1)
    assert hunger.may_ask(seed, both)


def test_nobody_waits_where_nobody_offers_or_nothing_is_lacking() -> None:
    for hunger in (hungry(offers=False), hungry(lacks=0)):
        hunger.look([parent(b"s"), parent(b"o")], 0.0)
        assert hunger.starves_at is None


def test_who_makes_it_wait_in_line_brings_nothing_soon() -> None:
    hunger, seed, busy = hungry(), parent(b"s"), parent(b"o", owes=1)
    hunger.look([seed, busy], 0.0)
    assert hunger.starves_at is None
    busy.told_to_wait(30.0, 0.0)
    hunger.look([seed, busy], 0.0)
    assert hunger.starves_at == PATIENCE_S


def test_one_that_is_many_times_faster_than_all_others_is_asked_all_the_same() -> None:
    seed = parent(b"s", rate=500.0)
    slow, slower = parent(b"o", rate=90.0, owes=1), parent(b"p", rate=20.0, owes=1)
    assert hungry().may_ask(seed, [seed, slow, slower])
    slow.meter.rate = 110.0
    assert not hungry().may_ask(seed, [seed, slow, slower])


def test_what_others_bring_is_not_known_before_their_first_piece() -> None:
    seed, new = parent(b"s", rate=500.0), parent(b"o", owes=1)
    assert not hungry().may_ask(seed, [seed, new])
