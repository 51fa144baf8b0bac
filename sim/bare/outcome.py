"""What a conversation waits for, and what drives a coroutine on the heap of events."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

from gossipcache.errors import GossipcacheError

R = TypeVar("R")


class Outcome(Generic[R]):
    """A result that comes later; one coroutine may await it."""

    __slots__ = ("_error", "_value", "_waiting", "is_settled")

    def __init__(self) -> None:
        self.is_settled = False
        self._value: R | None = None
        self._error: GossipcacheError | None = None
        self._waiting: Callable[[], None] | None = None

    def set(self, value: R) -> None:
        """It has come; a later word changes nothing."""
        if not self.is_settled:
            self._value = value
            self._settle()

    def fail(self, error: GossipcacheError) -> None:
        """It will not come."""
        if not self.is_settled:
            self._error = error
            self._settle()

    def result(self) -> R:
        """What has come. Raises why it has not."""
        assert self.is_settled
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]

    def then(self, work: Callable[[R], None], failed: Callable[[GossipcacheError], None]) -> None:
        """Calls one of the two once it is settled."""

        def settled() -> None:
            if self._error is not None:
                failed(self._error)
            else:
                work(self._value)  # type: ignore[arg-type]

        if self.is_settled:
            settled()
        else:
            self._waiting = settled

    def __await__(self) -> Generator[Outcome[Any], None, R]:
        if not self.is_settled:
            yield self
        return self.result()

    def _settle(self) -> None:
        self.is_settled = True
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting()


Answer = Any
"""Of a node to a message: a `Message`, None, or an `Outcome` of one of them."""


def begin(coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs `coroutine` to its end, or to the next outcome that is not there yet; that one runs
    it on."""
    try:
        outcome = coroutine.send(None)
    except StopIteration:
        return
    outcome._waiting = lambda: begin(coroutine)
