"""Asking several nodes: at once until enough said yes, or in turn without waiting for the slow."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from typing import TypeVar

from gossipcache.dht.records.steps import Group, Signal, Steps, clock, lead, wait
from gossipcache.errors import GossipcacheError
from gossipcache.ids import NodeId

T = TypeVar("T", bound=Hashable)


def gather(
    nodes: Iterable[NodeId],
    ask: Callable[[NodeId], Steps[bool]],
    *,
    needed: int,
    straggler_wait_s: float,
) -> Steps[tuple[NodeId, ...]]:
    """The nodes that said yes.

    Returns when all have answered or failed, or `straggler_wait_s` after `needed` said yes; the
    rest are then no longer waited for. An error counts as a no.
    """
    agreed: list[NodeId] = []

    def one(node: NodeId) -> Steps[None]:
        if (yield from ask(node)):
            agreed.append(node)

    yield from gather_until(
        nodes, one, is_enough=lambda: len(agreed) >= needed, straggler_wait_s=straggler_wait_s
    )
    return tuple(agreed)


def gather_until(
    asked: Iterable[T],
    ask: Callable[[T], Steps[None]],
    *,
    is_enough: Callable[[], bool],
    straggler_wait_s: float,
) -> Steps[None]:
    """Asks all at once. Returns when all have answered or failed, or `straggler_wait_s` after
    `is_enough()`; the rest are then no longer waited for. Errors are no answers."""
    waiting = dict.fromkeys(asked)
    group, changed = Group(), Signal()

    def one(each: T) -> Steps[None]:
        with suppress(GossipcacheError, OSError):
            yield from ask(each)
        del waiting[each]
        changed.set()

    def run() -> Steps[None]:
        for each in tuple(waiting):
            group.begin(one(each))
        while waiting and not is_enough():
            yield from wait(changed)
            changed.clear()
        moment = yield from clock()
        until, in_time = moment.now + straggler_wait_s, True
        while waiting and in_time:
            in_time = yield from wait(changed, until)
            changed.clear()

    return one(next(iter(waiting))) if len(waiting) == 1 else lead(group, run())


def ask_in_turn(
    nodes: Sequence[NodeId],
    ask: Callable[[NodeId], Steps[None]],
    *,
    at_once: int,
    budget_s: float,
    is_done: Callable[[], bool],
) -> Steps[None]:
    """Asks the first `at_once` nodes, and the next one when one has answered or after `budget_s`.

    Returns when `is_done()`, the rest is then no longer waited for, or when all have answered.
    `nodes` may grow meanwhile; `ask` must not raise.
    """
    begun = running = 0
    group, answered = Group(), Signal()

    def one(node: NodeId) -> Steps[None]:
        nonlocal running
        yield from ask(node)
        running -= 1
        answered.set()

    def run() -> Steps[None]:
        nonlocal begun, running
        is_late = False
        while begun < len(nodes) or running:
            while begun < len(nodes) and (running < at_once or is_late):
                begun, running = begun + 1, running + 1
                group.begin(one(nodes[begun - 1]))
                is_late = False
            moment = yield from clock()
            in_time = yield from wait(answered, moment.now + budget_s)
            answered.clear()
            if is_done():
                return
            is_late = not in_time

    return lead(group, run())
