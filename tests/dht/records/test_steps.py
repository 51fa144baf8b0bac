"""Procedures: what they ask for, and how they wait for each other."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from gossipcache.dht.records.performing import Performer
from gossipcache.dht.records.quorum import ask_in_turn, gather
from gossipcache.dht.records.steps import (
    Ask,
    Clock,
    Ended,
    Moment,
    Signal,
    Steps,
    Turn,
    ask,
    clock,
    sleep,
    together,
    unless,
    wait,
    within,
)
from gossipcache.env import Env
from gossipcache.errors import NodeUnreachable
from gossipcache.ids import NodeId
from gossipcache.messages.records import ReadRecord, RecordAnswer
from tests.dht.records.harness import EPOCH_S, reach_none
from tests.fakes.workers import InlineWorkers

ONE, TWO, THREE = (NodeId(bytes([number]) * 16) for number in (1, 2, 3))
QUESTION = ReadRecord(task_id=bytes(32))


def performer() -> Performer:
    nothing: Any = None
    env = Env(nothing, nothing, InlineWorkers(), lambda: EPOCH_S, bytes, random.Random(1))
    return Performer(env, nothing, reach_none)


def after(seconds: float, answer: bool) -> Steps[bool]:
    yield from sleep(seconds)
    return answer


def test_a_procedure_reads_as_a_transcript() -> None:
    def asks() -> Steps[str]:
        moment = yield from clock()
        try:
            answer = yield from ask(ONE, QUESTION, RecordAnswer, 1.0)
        except NodeUnreachable:
            return f"unreachable at {moment.now}"
        return answer.state

    procedure = asks()
    assert next(procedure) == Clock()
    assert procedure.send(Moment(3.0, EPOCH_S)) == Ask(ONE, QUESTION, RecordAnswer, 1.0)
    with pytest.raises(StopIteration) as ended:
        procedure.throw(NodeUnreachable("it is off"))
    assert ended.value.value == "unreachable at 3.0"


async def test_who_is_late_is_broken_off(autojump_clock: MockClock) -> None:
    broken_off = []

    def late() -> Steps[bool]:
        try:
            return (yield from after(5.0, True))
        finally:
            broken_off.append(trio.current_time())

    now = trio.current_time()
    assert await performer().perform(within(after(1.0, True), now + 2)) == Ended(True)
    assert await performer().perform(within(late(), now + 2)) is None
    assert broken_off == [now + 2]


async def test_an_error_comes_out_where_it_is_waited_for(autojump_clock: MockClock) -> None:
    def fails() -> Steps[None]:
        yield from sleep(1.0)
        raise NodeUnreachable("it is off")

    with pytest.raises(NodeUnreachable):
        await performer().perform(within(fails(), trio.current_time() + 2))
    with pytest.raises(NodeUnreachable):
        await performer().perform(together([fails(), fails()]))


async def test_a_quorum_waits_a_moment_for_the_last(autojump_clock: MockClock) -> None:
    takes_s = {ONE: 1.0, TWO: 1.1, THREE: 1.25}
    began_at = trio.current_time()

    def asked(node: NodeId) -> Steps[bool]:
        return after(takes_s[node], True)

    agreed = gather((ONE, TWO, THREE), asked, needed=2, straggler_wait_s=0.2)
    assert await performer().perform(agreed) == (ONE, TWO, THREE)
    agreed = gather((ONE, TWO, THREE), asked, needed=2, straggler_wait_s=0.1)
    assert await performer().perform(agreed) == (ONE, TWO)
    assert trio.current_time() - began_at == pytest.approx(1.25 + 1.2)


async def test_the_next_is_asked_when_one_is_slow(autojump_clock: MockClock) -> None:
    began_at = trio.current_time()
    asked: list[tuple[NodeId, float]] = []

    def ask_one(node: NodeId) -> Steps[None]:
        asked.append((node, trio.current_time() - began_at))
        yield from sleep(0.1 if node == TWO else 9.0)

    in_turn = ask_in_turn(
        (ONE, TWO, THREE), ask_one, at_once=1, budget_s=0.3, is_done=lambda: len(asked) == 3
    )
    await performer().perform(in_turn)
    assert asked == [(ONE, 0.0), (TWO, pytest.approx(0.3)), (THREE, pytest.approx(0.7))]


async def test_who_takes_turns_is_let_through_in_order(autojump_clock: MockClock) -> None:
    turn, seen = Turn(), []

    def one(number: int) -> Steps[None]:
        yield from sleep(0.5)
        seen.append(number)

    def all_of_them() -> Steps[None]:
        leaves = within(turn.take(one(2)), trio.current_time() + 0.4)
        yield from together([turn.take(one(1)), _ignored(leaves), turn.take(one(3))])

    await performer().perform(all_of_them())
    assert sorted(seen) == [1, 3]


async def test_a_signal_wakes_all_who_wait(autojump_clock: MockClock) -> None:
    signal, woken = Signal(), []

    def waits(number: int) -> Steps[None]:
        woken.append((number, (yield from wait(signal))))

    def sets() -> Steps[None]:
        yield from sleep(1.0)
        signal.set()

    await performer().perform(together([waits(1), waits(2), sets()]))
    assert sorted(woken) == [(1, True), (2, True)]
    assert not signal.waiting


def _ignored(procedure: Steps[Any]) -> Steps[None]:
    yield from procedure


async def test_what_is_called_off_is_not_waited_for(autojump_clock: MockClock) -> None:
    called_off = Signal()

    def work() -> Steps[None]:
        yield from together([call_off(), take_long()])

    def call_off() -> Steps[None]:
        yield from sleep(1.0)
        called_off.set()

    def take_long() -> Steps[None]:
        assert (yield from unless(called_off, after(60.0, answer=True))) is None

    begun = trio.current_time()
    assert await performer().perform(unless(Signal(), after(0.5, answer=True)))
    await performer().perform(work())
    assert trio.current_time() - begun == pytest.approx(1.5)
