"""Carrying out procedures (`dht.records.steps`) on the heap of events; see `dht.records.performing`
for Trio.

A glance by datagrams (`Look`) is never conclusive here, so that all comparisons go over links; no
charter can be had; work beside the event loop takes no time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from math import inf
from typing import Any, TypeVar

from gossipcache.dht.records.steps import (
    Ask,
    Breathe,
    Clock,
    Effect,
    Ended,
    Lead,
    Look,
    Moment,
    Notify,
    Persist,
    ReachCharter,
    Steps,
    Wait,
    Within,
    Work,
)
from gossipcache.errors import GossipcacheError, NotReady
from gossipcache.journal import Change
from sim.bare.disk import SYNC_S, BareDisk
from sim.bare.outcome import Outcome
from sim.bare.process import Process
from sim.bare.timeline import Timeline

T = TypeVar("T")


class BarePerformer:
    """What the procedures of one process are carried out with."""

    def __init__(
        self,
        process: Process,
        timeline: Timeline,
        disk: BareDisk,
        wall_time: Callable[[], float],
        on_written: Callable[[Change], None] = lambda _change: None,
    ) -> None:
        self.process = process
        self._timeline = timeline
        self._disk = disk
        self._wall_time = wall_time
        self._on_written = on_written

    def perform(self, procedure: Steps[T]) -> Outcome[T]:
        """Carries `procedure` out, up to where it has to wait; what comes of it."""
        outcome: Outcome[T] = Outcome()
        _Run(self, procedure, outcome).start()
        return outcome

    @property
    def moment(self) -> Moment:
        """Now."""
        return Moment(self._timeline.now, self._wall_time())

    def write(self, changes: Iterable[Change]) -> Outcome[None]:
        """Makes changes durable; those of a process that dies before are lost."""
        written: Outcome[None] = Outcome()

        def sync() -> None:
            for key, value in changes:
                if value is None:
                    self._disk.journal.pop(key, None)
                else:
                    self._disk.journal[key] = value
                self._on_written((key, value))
            written.set(None)

        self.later(SYNC_S, sync)
        return written

    def later(self, wait_s: float, work: Callable[..., None], *args: Any) -> None:
        """Runs `work` as a step of the process."""
        self._timeline.push(self._timeline.now + wait_s, self.process.step, work, *args)

    def at(self, instant: float, work: Callable[..., None], *args: Any) -> None:
        """The same at an instant."""
        until = max(instant, self._timeline.now)
        self._timeline.push(until, self.process.step, work, *args)


class _Run:
    """One procedure that is under way."""

    __slots__ = ("_beside", "_forget", "_outcome", "_performer", "_procedure", "is_over")

    def __init__(
        self, performer: BarePerformer, procedure: Steps[Any], outcome: Outcome[Any]
    ) -> None:
        self._performer = performer
        self._procedure = procedure
        self._outcome = outcome
        self._beside: list[_Run] = []
        """What runs in the group that it leads just now."""
        self._forget: Callable[[], None] | None = None
        """Ends the wait for a signal."""
        self.is_over = False

    def start(self) -> None:
        """Begins."""
        self._go_on(self._procedure.send, None)

    def break_off(self) -> None:
        """It is not wanted any more."""
        if self.is_over:
            return
        self.is_over = True
        if self._forget is not None:
            self._forget()
        self._break_off_others()
        self._procedure.close()

    def _break_off_others(self) -> None:
        beside, self._beside = self._beside, []
        for run in beside:
            run.break_off()

    def _go_on(self, step: Callable[[Any], Effect], value: Any) -> None:
        """Runs on, to the end or to the next thing that takes time."""
        if self.is_over:
            return
        send, throw = self._procedure.send, self._procedure.throw
        try:
            while True:
                try:
                    awaited = self._do(step(value))
                except _Failed as failed:
                    step, value = throw, failed.error
                    continue
                if isinstance(awaited, Outcome):
                    awaited.then(partial(self._go_on, send), partial(self._go_on, throw))
                    return
                step, value = send, awaited
        except StopIteration as ended:
            self.is_over = True
            self._outcome.set(ended.value)
        except GossipcacheError as error:
            self.is_over = True
            self._outcome.fail(error)

    def _do(self, effect: Effect) -> Any:
        """What came of an effect, or the `Outcome` that will be it."""
        performer = self._performer
        match effect:
            case Clock():
                return performer.moment
            case Ask(node, message, _, timeout_s):
                return performer.process.request(node, message, timeout_s)
            case Notify(node, message):
                return performer.process.notify(node, message)
            case Persist(changes):
                return performer.write(changes)
            case Work(work):
                try:
                    return work()
                except GossipcacheError as error:
                    raise _Failed(error) from error
            case Wait():
                return self._wait(effect)
            case Lead():
                return self._lead(effect)
            case Within():
                return self._within(effect)
            case ReachCharter():
                raise _Failed(NotReady("bare nodes have no charters"))
            case Look():
                return False
            case Breathe():
                return None

    def _wait(self, effect: Wait) -> bool | Outcome[bool]:
        signal, performer = effect.signal, self._performer
        if signal.is_set:
            return True
        waited: Outcome[bool] = Outcome()

        def end() -> None:
            if not waited.is_settled and not self.is_over:
                forget()
                self._forget = None
                waited.set(signal.is_set)

        wake = partial(performer.later, 0.0, end)
        forget = partial(signal.waiting.remove, wake)
        self._forget = forget
        signal.waiting.append(wake)
        if effect.until < inf:
            performer.at(effect.until, end)
        return waited

    def _lead(self, effect: Lead) -> Outcome[Any]:
        led: Outcome[Any] = Outcome()
        ended: Outcome[Any] = Outcome()
        effect.group.start = self._start_beside

        def end(settle: Callable[[Any], None], value: Any) -> None:
            self._break_off_others()
            settle(value)

        main = _Run(self._performer, effect.procedure, ended)
        self._beside = [main]
        main.start()
        ended.then(partial(end, led.set), partial(end, led.fail))
        return led

    def _within(self, effect: Within) -> Outcome[Any]:
        led: Outcome[Any] = Outcome()
        ended: Outcome[Any] = Outcome()

        def late() -> None:
            if not (led.is_settled or self.is_over):
                self._break_off_others()
                led.set(None)

        main = _Run(self._performer, effect.procedure, ended)
        self._beside = [main]
        if effect.until < inf:
            self._performer.at(effect.until, late)
        main.start()
        ended.then(lambda value: led.set(Ended(value)), led.fail)
        return led

    def _start_beside(self, procedure: Steps[None]) -> None:
        run = _Run(self._performer, procedure, Outcome())
        self._beside.append(run)
        # Not at once: who begins it is in the middle of a step.
        self._performer.later(0.0, run.start)


class _Failed(Exception):
    """An effect came to nothing."""

    def __init__(self, error: GossipcacheError) -> None:
        self.error = error
