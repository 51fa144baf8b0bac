"""What a node does about records, step by step, without doing any of it itself.

A *procedure* is a generator. It yields what has to happen before it goes on, an *effect*, and is
sent the result, or is thrown the error with which that failed. Whoever carries procedures out
owns the clock, the connections and the disk: `performing` on Trio, the simulator on its heap of
events. Both run the same code, so what is shown of the one holds for the other. (mitmproxy's
proxy layers are written like this.)

The few ways in which procedures wait for each other are here too, made of two effects: `Wait` for
a signal, and a `Group` of procedures that ends with the one that leads it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Generic, TypeVar

from gossipcache.errors import GossipcacheError
from gossipcache.ids import NodeId
from gossipcache.journal import Change
from gossipcache.wire import Message

T = TypeVar("T")
Reply = TypeVar("Reply", bound=Message)


class Signal:
    """Something that happened, or not yet. Procedures wait for it with `Wait`."""

    __slots__ = ("is_set", "waiting")

    def __init__(self) -> None:
        self.is_set = False
        self.waiting: list[Callable[[], None]] = []
        """Called when it is set: those of whoever carries out the procedures that wait."""

    def set(self) -> None:
        """It happened."""
        if not self.is_set:
            self.is_set = True
            for wake in tuple(self.waiting):
                wake()

    def clear(self) -> None:
        """It is to happen anew."""
        self.is_set = False


@dataclass(frozen=True, slots=True)
class Moment:
    """An instant, by the two clocks of a node."""

    now: float
    """Monotonic (s)."""
    wall_s: float
    """Since 1970."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Say what time it is: a `Moment`."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Send a request to another node; its answer. Fails as the node says, or `TimedOut`,
    `NodeUnreachable`."""

    node: NodeId
    message: Message
    reply: type[Message]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Notify:
    """Tell another node. Fails with `NodeUnreachable`."""

    node: NodeId
    message: Message


@dataclass(frozen=True, slots=True)
class Persist:
    """Make changes durable, in the order of these effects. Fails with `NoSpace`, `OSError`."""

    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """Run something that takes long, or reads the disk, beside the event loop; its result."""

    work: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Breathe:
    """Let other work run."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for a signal, or until an instant; whether the signal is set."""

    signal: Signal
    until: float = inf


@dataclass(frozen=True, slots=True)
class Lead:
    """Carry out `procedure`, and whatever it begins in `group`, which ends with it; its result."""

    group: Group
    procedure: Steps[Any]


@dataclass(frozen=True, slots=True)
class Within:
    """Carry out `procedure` until an instant at most: `Ended`, or None if it was broken off."""

    procedure: Steps[Any]
    until: float


@dataclass(frozen=True, slots=True)
class ReachCharter:
    """Fetch the charter of that number. Fails with a `GossipcacheError` if nobody has it."""

    number: int


@dataclass(frozen=True, slots=True)
class Look:
    """Compare with another keeper by datagrams: whether it has the same; None: ask it again."""

    node: NodeId


Effect = (
    Clock | Ask | Notify | Persist | Work | Breathe | Wait | Lead | Within | ReachCharter | Look
)
Steps = Generator[Effect, Any, T]


class Group:
    """Procedures that run beside the one that leads them, and end with it."""

    def __init__(self) -> None:
        self.start: Callable[[Steps[None]], None] | None = None
        """Given by whoever carries it out."""

    def begin(self, procedure: Steps[None]) -> None:
        """Runs `procedure` beside the others. It must not fail."""
        assert self.start is not None, "the group is not led yet"
        self.start(procedure)


# Single effects, with the type of what comes of each.


def clock() -> Steps[Moment]:
    """What time it is."""
    moment: Moment = yield Clock()
    return moment


def ask(node: NodeId, message: Message, reply: type[Reply], timeout_s: float) -> Steps[Reply]:
    """The answer of another node."""
    answer: Reply = yield Ask(node, message, reply, timeout_s)
    return answer


def persist(changes: Iterable[Change]) -> Steps[None]:
    """Makes changes durable, if there are any."""
    if made := tuple(changes):
        yield Persist(made)


def work(function: Callable[[], T]) -> Steps[T]:
    """What `function` returns, which may block."""
    result: T = yield Work(function)
    return result


def wait(signal: Signal, until: float = inf) -> Steps[bool]:
    """Waits for `signal`, until an instant at most; whether it is set."""
    is_set: bool = yield Wait(signal, until)
    return is_set


def sleep_until(until: float) -> Steps[None]:
    """Lets time pass."""
    yield Wait(Signal(), until)


def sleep(seconds: float) -> Steps[None]:
    """Lets so much time pass."""
    moment = yield from clock()
    yield from sleep_until(moment.now + seconds)


@dataclass(frozen=True, slots=True)
class Ended(Generic[T]):
    """A procedure that ended in time."""

    value: T


def within(procedure: Steps[T], until: float) -> Steps[Ended[T] | None]:
    """Carries `procedure` out until an instant at most; None if it had to be broken off then."""
    ended: Ended[T] | None = yield Within(procedure, until)
    return ended


def lead(group: Group, procedure: Steps[T]) -> Steps[T]:
    """Carries `procedure` out, and what it begins in `group`."""
    result: T = yield Lead(group, procedure)
    return result


# Several procedures.


@dataclass(slots=True)
class _Part(Generic[T]):
    """One procedure of a group, and what came of it."""

    procedure: Steps[T]
    ended: Signal = field(default_factory=Signal)
    result: T | None = None
    error: GossipcacheError | OSError | None = None

    def run(self) -> Steps[None]:
        try:
            self.result = yield from self.procedure
        except (GossipcacheError, OSError) as error:
            self.error = error
        self.ended.set()

    def outcome(self) -> T:
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]


def unless(over: Signal, procedure: Steps[T]) -> Steps[T | None]:
    """Carries `procedure` out; it is broken off when `over` is set, with None as its result."""
    group, part = Group(), _Part(procedure, over)

    def run() -> Steps[T | None]:
        group.begin(part.run())
        yield from wait(over)
        return part.outcome()

    return (yield from lead(group, run()))


def together(procedures: Sequence[Steps[None]]) -> Steps[None]:
    """Carries all out at once. Fails as the first of them that did, when all have ended."""
    group, parts = Group(), [_Part(each) for each in procedures]

    def run() -> Steps[None]:
        for part in parts:
            group.begin(part.run())
        for part in parts:
            yield from wait(part.ended)
        for part in parts:
            part.outcome()

    if parts:
        yield from lead(group, run())


class Turn:
    """Lets `width` procedures at a time through, in the order in which they came."""

    def __init__(self, width: int = 1) -> None:
        self._free = width
        self._waiting: deque[Signal] = deque()

    def take(self, procedure: Steps[T]) -> Steps[T]:
        """Carries `procedure` out when it is its turn."""
        if self._free:
            self._free -= 1
        else:
            yield from self._queue()
        try:
            return (yield from procedure)
        finally:
            self._pass_on()

    def try_take(self) -> bool:
        """Takes a turn, to be given back by `give_back`, if one is free now."""
        if not self._free:
            return False
        self._free -= 1
        return True

    def give_back(self) -> None:
        """Ends the turn of `try_take`."""
        self._pass_on()

    def _queue(self) -> Steps[None]:
        mine = Signal()
        self._waiting.append(mine)
        try:
            yield from wait(mine)
        except GeneratorExit:
            if mine.is_set:
                self._pass_on()
            else:
                self._waiting.remove(mine)
            raise

    def _pass_on(self) -> None:
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._free += 1
