"""Asking the keepers of a task from any node, with redirects, hedging and retries."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import TypeVar

from gossipcache.dht.records.paging import batches
from gossipcache.dht.records.quorum import ask_in_turn, gather_until
from gossipcache.dht.records.reading import Absent, Accept, Fork, ReadTally, TaskRecord
from gossipcache.dht.records.standing import Standing
from gossipcache.dht.records.steps import Steps, ask, clock, sleep, within, work
from gossipcache.dht.records.surroundings import Means, Surroundings
from gossipcache.errors import (
    Busy,
    Conflict,
    GossipcacheError,
    IntegrityError,
    NodeUnreachable,
    NotReady,
    ProtocolError,
    TimedOut,
)
from gossipcache.ids import NodeId, TaskId
from gossipcache.messages.batches import ReadRecords, RecordsRead, RecordsWritten, WriteRecords
from gossipcache.messages.records import (
    MAX_ENTRIES,
    ReadRecord,
    RecordAnswer,
    RecordEntry,
    RecordWritten,
    WriteRecord,
)
from gossipcache.wire import Message

Reply = TypeVar("Reply", bound=Message)
Asked = ReadRecord | ReadRecords | WriteRecord | WriteRecords
Local = Callable[[Asked], Steps[Message]]

MAX_REDIRECTS = 2
FIRST_ASKED = 2
_FIRST_BACKOFF_S = 0.05
_MAX_BACKOFF_S = 1.0
BATCH_READ_TIMEOUT_S = 2.0
BATCH_WRITE_TIMEOUT_S = 5.0
"""After this long without an answer a batch's entries are asked for, or written, one by one: the
syncs of a slow disk are not worth that yet."""
_COORDINATION_FACTOR = 2.5
"""A coordinator asks the other keepers twice before it answers."""


class RecordClient:
    """The asking side of the records."""

    def __init__(
        self,
        means: Means,
        around: Surroundings,
        local: Local,
    ) -> None:
        """`local` answers for this node itself."""
        self._rng = means.rng
        self._config = means.config
        self._me = means.me
        self._metrics = means.metrics
        self._opener = means.opener
        self._around = around
        self._local = local

    # Reading

    def read(
        self, task_id: TaskId, accept: Accept | None, deadline: float
    ) -> Steps[TaskRecord | None]:
        """The record, or None if there certainly is none. Raises `TimedOut`, `Conflict`."""
        reasons = ["its keepers did not answer"]
        ended = yield from within(self._read(task_id, accept, reasons), deadline)
        if ended is None:
            raise TimedOut(f"the task's record could not be read in time ({reasons[-1]})")
        return ended.value

    def _read(
        self, task_id: TaskId, accept: Accept | None, reasons: list[str]
    ) -> Steps[TaskRecord | None]:
        """`reasons`: takes why it does not come to an end."""
        told: tuple[NodeId, ...] = ()
        redirecting: set[NodeId] = set()
        reconcile = False
        backoff_s = _FIRST_BACKOFF_S
        while True:
            keepers = self._keepers(task_id)
            # Who knows of no keeper yet knows nothing: one is needed at least.
            needed = max(1, min(self._config.write_quorum, len(keepers)))
            moment = yield from clock()
            tally = ReadTally(needed, accept, moment.wall_s)
            epoch = self._around.ring().epoch
            question = ReadRecord(task_id=task_id, reconcile=reconcile, epoch=epoch)
            asked = dict.fromkeys((*told, *keepers))
            nodes = tuple(node for node in asked if node not in redirecting) or keepers
            decision = yield from self._read_round(nodes, question, tally)
            if isinstance(decision, Fork):
                raise _fork_error(decision)
            if decision is not None:
                return decision if isinstance(decision, TaskRecord) else None
            reasons.append(tally.hindrance)
            told, reconcile = tally.redirects or told, tally.disagrees
            # For one round only: whoever named dead keepers may have become one by then.
            redirecting = tally.redirecting
            backoff_s = yield from self._back_off(backoff_s)

    def _read_round(
        self, nodes: tuple[NodeId, ...], question: ReadRecord, tally: ReadTally
    ) -> Steps[TaskRecord | Absent | Fork | None]:
        """Asks the first nodes at once, each further one when an answer fails or is slow; last
        those to whom some node redirects."""
        known = list(nodes)

        def ask_one(node: NodeId) -> Steps[None]:
            yield from self._read_one(node, question, tally)
            news = [one for one in tally.redirects if one not in known]
            if news:
                self._metrics.count("record_redirects")
                known.extend(news)

        yield from ask_in_turn(
            known,
            ask_one,
            at_once=FIRST_ASKED,
            budget_s=self._config.read_budget_s,
            is_done=lambda: tally.decision() is not None,
        )
        return tally.decision(last=True)

    def _read_one(self, node: NodeId, question: ReadRecord, tally: ReadTally) -> Steps[None]:
        try:
            answer = yield from self._ask(
                node, question, RecordAnswer, self._config.request_timeout_s
            )
            if answer.entry is not None:
                standing = self._opener.open(answer.entry, TaskId(question.task_id))
                tally.held(node, standing, settled=answer.settled)
            elif answer.state == "absent":
                tally.absent(node)
            elif answer.state == "recovering":
                tally.recovering()
            elif answer.state == "not_keeper":
                tally.no_keeper(node)
            tally.told(self._told_of(node, answer))
        except (IntegrityError, ProtocolError):
            self._metrics.count("record_answers_invalid")
        except GossipcacheError:
            self._metrics.count("record_reads_unanswered")

    def read_many(self, task_ids: Sequence[TaskId]) -> Steps[dict[TaskId, TaskRecord | None]]:
        """The records as far as they can be told in one go, None for what certainly is none; the
        rest is to be read one by one."""
        moment = yield from clock()
        tallies: dict[TaskId, ReadTally] = {}
        by_node: dict[NodeId, list[TaskId]] = {}
        for task_id in dict.fromkeys(task_ids):
            keepers = self._keepers(task_id)
            needed = max(1, min(self._config.write_quorum, len(keepers)))
            tallies[task_id] = ReadTally(needed, None, moment.wall_s)
            alive = [node for node in keepers if self._around.is_alive(node)]
            for node in alive[:FIRST_ASKED]:
                by_node.setdefault(node, []).append(task_id)
        yield from gather_until(
            by_node,
            lambda node: self._read_from(node, by_node[node], tallies),
            is_enough=lambda: all(tally.decision() is not None for tally in tallies.values()),
            straggler_wait_s=0.0,
        )
        decided = {task_id: tally.decision() for task_id, tally in tallies.items()}
        return {
            task_id: decision if isinstance(decision, TaskRecord) else None
            for task_id, decision in decided.items()
            if isinstance(decision, TaskRecord | Absent)
        }

    def _read_from(
        self, node: NodeId, task_ids: list[TaskId], tallies: dict[TaskId, ReadTally]
    ) -> Steps[None]:
        left = deque(task_ids)
        while left:
            asked = tuple(islice(left, MAX_ENTRIES))
            answer = yield from self._ask(
                node, ReadRecords(task_ids=asked), RecordsRead, BATCH_READ_TIMEOUT_S
            )
            entries = [known.entry for known in answer.records if known.entry is not None]
            yield from self._check(entries)
            if not answer.records:
                return
            for known in answer.records:
                task_id = left.popleft()
                if known.entry is not None:
                    with suppress(IntegrityError, ProtocolError):
                        standing = self._opener.open(known.entry, task_id)
                        tallies[task_id].held(node, standing, settled=known.settled)
                elif known.settled:
                    tallies[task_id].absent(node)

    def _check(self, entries: list[RecordEntry]) -> Steps[None]:
        """Checks the signatures beside the event loop; what is void is found again by `open`."""
        unknown = self._opener.lacking(entries)
        if unknown:
            for checked in (yield from work(lambda: self._opener.check_all(unknown))):
                self._opener.remember(checked)

    # Writing

    def write_many(self, candidates: Sequence[Standing]) -> Steps[dict[TaskId, int]]:
        """Publishes what is plain; on how many keepers each of those is committed. The rest is to
        be written one by one."""
        by_node: dict[NodeId, list[Standing]] = {}
        for candidate in candidates:
            keepers = self._keepers(candidate.task_id)
            alive = [node for node in keepers if self._around.is_alive(node)]
            for node in alive[:1]:
                by_node.setdefault(node, []).append(candidate)
        asked = [(node, batch) for node, all_ in by_node.items() for batch in batches(all_)]
        copies: dict[TaskId, int] = {}

        def ask_one(number: int) -> Steps[None]:
            node, batch = asked[number]
            message = WriteRecords(entries=tuple(one.entry for one in batch))
            answer = yield from self._ask(node, message, RecordsWritten, BATCH_WRITE_TIMEOUT_S)
            for one, count in zip(batch, answer.copies, strict=False):
                if count:
                    copies[one.task_id] = count

        yield from gather_until(
            range(len(asked)), ask_one, is_enough=lambda: False, straggler_wait_s=0.0
        )
        return copies

    def write(self, candidate: Standing, *, restore: bool, deadline: float) -> Steps[RecordWritten]:
        """What the first keeper that could coordinate answered.

        Raises `TimedOut`, and what forbids the write: `Conflict`, `NotPermitted`, `NoSpace`,
        `UsageError`.
        """
        message = WriteRecord(entry=candidate.entry, restore=restore)
        reasons = ["its keepers did not answer"]
        ended = yield from within(self._write(candidate.task_id, message, reasons), deadline)
        if ended is None:
            raise TimedOut(f"the task's record could not be written in time ({reasons[-1]})")
        return ended.value

    def _write(
        self, task_id: TaskId, message: WriteRecord, reasons: list[str]
    ) -> Steps[RecordWritten]:
        """`reasons`: takes why it does not come to an end."""
        backoff_s = _FIRST_BACKOFF_S
        while True:
            answer = yield from self._write_round(task_id, message)
            if isinstance(answer, RecordWritten):
                return answer
            reasons.append(answer or "no scheduler is known to keep it")
            backoff_s = yield from self._back_off(backoff_s)

    def _write_round(self, task_id: TaskId, message: WriteRecord) -> Steps[RecordWritten | str]:
        """The answer of the first keeper that gives one, or why none does.

        The next keeper is asked when one fails or is slow. Two that coordinate the same candidate
        do no harm: each keeper lets one candidate at a time through, whoever brings it.
        """
        nodes = list(self._keepers(task_id))
        answers: list[RecordWritten] = []
        refusals: list[GossipcacheError] = []
        reason = ""
        redirects = 0

        def ask_one(node: NodeId) -> Steps[None]:
            nonlocal reason, redirects
            timeout_s = self._config.request_timeout_s * _COORDINATION_FACTOR
            try:
                answer = yield from self._ask(node, message, RecordWritten, timeout_s)
            except (NodeUnreachable, TimedOut, NotReady, Busy, ProtocolError) as error:
                reason = error.message
            except GossipcacheError as error:
                refusals.append(error)
            else:
                if answer.outcome != "not_keeper":
                    answers.append(answer)
                elif redirects < MAX_REDIRECTS:
                    redirects += 1
                    told = self._told_of(node, answer)
                    nodes.extend(one for one in told if one not in nodes)

        yield from ask_in_turn(
            nodes,
            ask_one,
            at_once=1,
            budget_s=self._config.write_budget_s,
            is_done=lambda: bool(answers or refusals),
        )
        if refusals and not answers:
            raise refusals[0]
        return answers[0] if answers else reason

    # Both

    def _keepers(self, task_id: TaskId) -> tuple[NodeId, ...]:
        return self._around.ring().keepers(task_id, self._config.replicas)

    def _told_of(self, node: NodeId, answer: RecordAnswer | RecordWritten) -> list[NodeId]:
        """The keepers that `node` named, as far as they may be some; this node knows them now."""
        named = [NodeId(one) for one in answer.keepers]
        if answer.introductions and node != self._me:
            met = [one for one in answer.introductions if one.signer in named]
            self._around.meet(node, met)
        return [one for one in named if self._around.may_keep(one)]

    def _back_off(self, backoff_s: float) -> Steps[float]:
        yield from sleep(backoff_s * self._rng.uniform(0.5, 1.5))
        return min(2 * backoff_s, _MAX_BACKOFF_S)

    def _ask(
        self,
        node: NodeId,
        message: Asked,
        reply: type[Reply],
        timeout_s: float,
    ) -> Steps[Reply]:
        if node != self._me:
            return (yield from ask(node, message, reply, timeout_s))
        moment = yield from clock()
        try:
            ended = yield from within(self._local(message), moment.now + timeout_s)
        except OSError as error:
            raise NotReady(f"this node's own keeper cannot write ({error})") from error
        if ended is not None and isinstance(ended.value, reply):
            return ended.value
        raise TimedOut("this node's own keeper did not answer in time")


def _fork_error(fork: Fork) -> Conflict:
    publishers = ", ".join(one.publisher.hex() for one in fork.manifests)
    return Conflict(
        f"the task was imported with different content by {publishers}",
        "say which is meant with --digest or --publisher, or delete the task",
    )
