"""The loop of a sweep: ask, execute, record, tell, track; and the rules for stopping.

The record is written before anyone is told. Everything that happens to a trial passes through this file.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from . import policy
from .backends.protocol import Backend, Exhausted, Wait
from .ending import Ending, Stop
from .errors import StoreError
from .executors.protocol import Event, Executor, Gone, Measured, Resumed
from .keep import DEFAULT, Count, Keep
from .pacing import Pace
from .record.layout import SweepDir
from .record.write import Record
from .tracking.protocol import Tracker
from .training.protocol import Job, Reply
from .training.weights import weights_of
from .trial import Kind, Measurement, Outcome, State, Suggestion

POLL_SECONDS = 0.25
STOP_GRACE = 20.0  # seconds that workers have to end their epoch after the first signal; Kubernetes kills at 30
EXPORT_SECONDS = 300.0  # at least, between exports while running
EXPORT_SHARE = 50  # and at least so many times as long as the last one took: it costs more the more trials there are
OPEN = (None, Ending.EXHAUSTED)  # while what is proposed already is still begun


@dataclass
class Attempt:
    """A trial that is being trained in a slot."""

    suggestion: Suggestion
    token: str
    alone: bool = False  # nothing else may run meanwhile
    shared: bool = False  # something else ran on its device meanwhile
    best: float | None = None
    stopped: str = ""  # why it was told to interrupt, if for want of time


@dataclass
class Loop:
    """One run of a sweep over its parts, all open. `run` returns why it ended; the caller closes the parts."""

    directory: SweepDir
    record: Record
    backend: Backend
    executor: Executor
    tracker: Tracker
    trials: int
    pace: Pace = field(default_factory=Pace)  # one of the trackers
    stop: Stop = field(default_factory=Stop)
    export: Callable[[], None] = lambda: None
    keep: Count = DEFAULT

    def __post_init__(self) -> None:
        history = self.record.trials()
        self.export_at = time.monotonic() + EXPORT_SECONDS
        self.known = self.record.sweep.known_suggestions
        self.queue = [t.suggestion for t in history if not t.state.finished]
        self.next_number = len(history)
        self.attempts = {t.number: t.attempts for t in history}
        self.running: dict[str, Attempt] = {}
        self.asked_ahead = -1  # the number that was last asked for with every slot busy
        self.stopped_by_search: dict[int, int] = {}  # number -> the epoch after which the search stopped it
        self.disk = Keep(self.directory, self.record.sweep.objective, history, self.keep, self.backend.needed)
        self.disk.settle(self.queue)  # we may have been killed before it
        self.ending: Ending | None = None
        self.breaker = policy.Breaker(any(t.state in (State.COMPLETE, State.PRUNED) for t in history))
        self.reason = ""  # why it paused, or for want of time ended

    def run(self) -> Ending:
        """Run until one of the ends. Every trial is then finished or queued; none is running."""
        while True:
            self._decide_ending()
            if self.ending in OPEN:
                self._fill()
            if not self.running:
                if self.queue and self.ending in OPEN:  # none of them can finish in time
                    self.ending = Ending.TIMEOUT
                if self.ending is Ending.TIMEOUT:
                    self.reason = self.pace.closing(self.queue)
                if self.ending is Ending.STOPPED and not self.queue and self.next_number >= self.trials:
                    self.ending = Ending.DONE  # the last trial ended all the same
                return self.ending or Ending.DONE
            for event in self.executor.wait(POLL_SECONDS):
                self._take(event)
            self.tracker.tick()
            self._export_now_and_then()
            if self.running and self.disk.due:
                self._has_room()
            if self.stop.signals > 1 or self._grace_is_over():
                return self._abandon()

    # -- deciding ----------------------------------------------------------------------------------------------------

    def _decide_ending(self) -> None:
        if self.stop.signals and self.ending is not Ending.STOPPED:
            self.ending, self.stopped_at = Ending.STOPPED, time.monotonic()
            if self.running:
                self.tracker.note("stopping at the end of the running epochs; once more stops at once")
        elif self.ending in OPEN and self.pace.over() and self._undone():
            self.ending = Ending.TIMEOUT
        elif self.ending is None and self.breaker.tripped is not None:
            self.ending = Ending.BROKEN

    def _undone(self) -> bool:
        return bool(self.running or self.queue) or (self.ending is None and self.next_number < self.trials)

    def _pause(self, reason: str) -> None:
        if self.ending in OPEN:
            self.ending, self.stopped_at, self.reason = Ending.PAUSED, time.monotonic(), reason

    def _has_room(self, *more: Suggestion) -> bool:
        """Whether the disk has room for the running trials and `more`; where it has not, the sweep pauses."""
        lacking = self.disk.lacking([*(a.suggestion for a in self.running.values()), *more], self.queue)
        if lacking is not None:
            self._pause(lacking)
        return lacking is None

    def _grace_is_over(self) -> bool:
        return self.ending in (Ending.STOPPED, Ending.PAUSED) and time.monotonic() - self.stopped_at > STOP_GRACE

    # -- asking and starting -----------------------------------------------------------------------------------------

    def _fill(self) -> None:
        for slot in self.executor.slots:
            if slot in self.running:
                continue
            if any(attempt.alone for attempt in self.running.values()):
                return
            suggestion = self._next()
            if suggestion is None:
                return
            alone = policy.alone(self.record.attempts(suggestion.number))
            if (alone and self.running) or not self._has_room(suggestion):  # it waits for them to end, or for room
                self.queue.insert(0, suggestion)
                return
            self._start(slot, suggestion, alone)
        self._propose_ahead()

    def _propose_ahead(self) -> None:
        """Every slot is busy: have the next trial ready for the first that is not, so that nobody waits for the search then.

        Asked as soon as the last slot is filled, never later: what the search knows by then follows from the trials alone.
        """
        if not self.queue and self.asked_ahead != self.next_number:
            self.asked_ahead = self.next_number
            if (proposed := self._propose()) is not None:
                self.queue.append(proposed)

    def _next(self) -> Suggestion | None:
        """The first that can finish in time of those that wait, else of new ones; where none ever could, one all the same."""
        chosen = next((s for s in self.queue if self.pace.fits(s)), None)
        while chosen is None and (proposed := self._propose()) is not None:
            self.queue.append(proposed)
            chosen = proposed if self.pace.fits(proposed) else None
        if chosen is None and self.queue:
            chosen = self.pace.insist(self.queue)
        if chosen is not None:
            self.queue.remove(chosen)
        return chosen

    def _propose(self) -> Suggestion | None:
        """A new trial, recorded; no more than one a slot that never began, as the time was too short, until the next run."""
        unbegun = sum(self.attempts.get(s.number, 0) == 0 for s in self.queue)
        if self.ending is not None or self.next_number >= self.trials or unbegun >= len(self.executor.slots):
            return None
        with self.record.transaction(durable=False):  # lost with the power, it is asked for again
            suggestion = self._ask()
            if isinstance(suggestion, Suggestion):
                self.record.propose(suggestion)
            self.record.keep_state(self.backend.state())
        if isinstance(suggestion, Exhausted):
            self.ending = Ending.EXHAUSTED
            return None
        if isinstance(suggestion, Wait):
            if not self.running and not self.queue:
                raise StoreError("the search waits although no trial is running: its recorded state is inconsistent")
            return None
        self.next_number += 1
        return suggestion

    def _ask(self) -> Suggestion | Wait | Exhausted:
        """The next proposal: a known configuration while there are any, then the backend's."""
        if self.next_number >= len(self.known):
            return self.backend.ask(self.next_number)
        suggestion = self.known[self.next_number]
        if self._is_searched(suggestion):
            self.backend.adopt(suggestion)
        return suggestion

    def _is_searched(self, suggestion: Suggestion) -> bool:
        """Whether the backend knows of this trial: one outside the space (known, or from before a change) means nothing to it."""
        return self.record.sweep.space.contains(suggestion.params)

    def _start(self, slot: str, suggestion: Suggestion, alone: bool) -> None:
        number = suggestion.number
        if alone:
            self.executor.alone(slot)
        beside = [self.running[n] for n in self.executor.neighbours(slot) if n in self.running]
        for attempt in beside:
            attempt.shared = True
        token = self.record.start(number, slot, self.executor.pid(slot))
        self.attempts[number] = self.attempts.get(number, 0) + 1
        self.running[slot] = Attempt(suggestion, token, alone, shared=bool(beside))
        self.tracker.started(suggestion, self.attempts[number])
        self.executor.start(slot, self._job(suggestion, token))

    def _job(self, suggestion: Suggestion, token: str) -> Job:
        entropy = [self.record.sweep.seed, suggestion.number, 1]  # 1: training, apart from the proposal's own stream
        parent = None
        if suggestion.parent is not None:
            parent = str(weights_of(self.directory.checkpoint(suggestion.parent)).absolute())
        return Job(
            suggestion,
            token,
            seed=int(np.random.SeedSequence(entropy).generate_state(1)[0]),
            directory=str(self.directory.checkpoint(suggestion.number).absolute()),
            start_from=parent,
        )

    # -- what came of it ---------------------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        attempt = self.running.get(event.slot)
        if attempt is None or attempt.token != event.token:
            self.record.event("late", slot=event.slot, what=type(event).__name__)
        elif isinstance(event, Measured):
            self._measured(event, attempt)
        elif isinstance(event, Resumed):
            self._resumed(event, attempt)
        elif isinstance(event, Gone):
            self._failed(event.slot, attempt, Outcome(State.FAILED, kind=event.kind, reason=event.reason))
        elif event.outcome is None:
            self._requeue(event.slot, attempt, Kind.PREEMPTED, attempt.stopped or "stopped to go on later")
        elif event.outcome.state is State.FAILED:
            self._failed(event.slot, attempt, event.outcome)
        else:
            self._finish(event.slot, attempt, event.outcome)

    def _measured(self, event: Measured, attempt: Attempt) -> None:
        self.record.measured(attempt.suggestion.number, attempt.token, event.measurement)
        prune = self._judge(attempt, event.measurement)
        assert attempt.best is not None
        self.tracker.measured(attempt.suggestion, event.measurement, attempt.best)
        self._answer(event, attempt, event.measurement.epoch, prune)

    def _resumed(self, event: Resumed, attempt: Attempt) -> None:
        """The attempt begins with what earlier ones measured. The answer to the last of them may never have been heard."""
        self.record.resumed(attempt.suggestion.number, attempt.token, event.measurements)
        verdicts = [self._judge(attempt, measurement) for measurement in event.measurements]
        self.tracker.resumed(attempt.suggestion, event.measurements)
        self._answer(event, attempt, event.measurements[-1].epoch, verdicts[-1])

    def _judge(self, attempt: Attempt, measurement: Measurement) -> bool:
        """Whether the search stops the trial after this epoch. What it said once it says again to a later attempt."""
        number, objective = attempt.suggestion.number, self.record.sweep.objective
        value = measurement.metrics[objective.metric]
        if objective.better(value, attempt.best):
            attempt.best = value
        if self._is_searched(attempt.suggestion) and self.backend.report(number, measurement.epoch, value):
            self.stopped_by_search[number] = measurement.epoch
        return self.stopped_by_search.get(number) == measurement.epoch

    def _answer(self, event: Measured | Resumed, attempt: Attempt, epoch: int, prune: bool) -> None:
        reply = Reply.GO
        if epoch < attempt.suggestion.epochs:
            late = self.ending is Ending.TIMEOUT or (not prune and not self.pace.goes_on(attempt.suggestion))
            if late or self.ending in (Ending.STOPPED, Ending.PAUSED):
                reply, attempt.stopped = Reply.INTERRUPT, self.pace.stopped(attempt.suggestion) if late else ""
            elif prune:
                reply = Reply.PRUNE
        self.executor.reply(event.slot, attempt.token, reply)

    def _failed(self, slot: str, attempt: Attempt, outcome: Outcome) -> None:
        """Try it again, give it up, or pause the sweep, as the policy says."""
        kind, reason = outcome.kind or Kind.ERROR, outcome.reason or ""
        earlier = self.record.attempts(attempt.suggestion.number)
        if kind is Kind.ENVIRONMENT:
            self._pause(reason)
            self._requeue(slot, attempt, kind, reason)
        elif kind is Kind.PREEMPTED or policy.again(kind, earlier, attempt.shared):
            self._requeue(slot, attempt, kind, reason)
        else:
            self._finish(slot, attempt, replace(outcome, kind=kind, reason=policy.history(kind, reason, earlier)))

    def _finish(self, slot: str, attempt: Attempt, outcome: Outcome) -> None:
        number = attempt.suggestion.number
        with self.record.transaction():  # a backend's own state belongs to the outcome that changed it
            self.record.finish(number, attempt.token, outcome)
            if self._is_searched(attempt.suggestion):
                self.backend.tell(number, outcome)
            self.record.keep_state(self.backend.state())
        del self.running[slot]
        self.breaker.heard(outcome)
        self.tracker.ended(attempt.suggestion, outcome)
        self.disk.ended(number, outcome)  # not before: killed earlier, the trial goes on from its checkpoint
        self.disk.settle([*self.queue, *(a.suggestion for a in self.running.values())])

    def _requeue(self, slot: str, attempt: Attempt, kind: Kind, reason: str) -> None:
        self.record.requeue(attempt.suggestion.number, attempt.token, kind, reason)
        del self.running[slot]
        self.queue.append(attempt.suggestion)
        self.queue.sort(key=lambda s: s.number)
        self.tracker.interrupted(attempt.suggestion, reason)

    def _abandon(self) -> Ending:
        """Kill what still runs and send it back to the queue."""
        self.executor.close()
        for slot, attempt in list(self.running.items()):
            self._requeue(slot, attempt, Kind.PREEMPTED, "stopped before its epoch ended")
        assert self.ending is not None or self.stop.signals
        return self.ending or Ending.STOPPED

    def _export_now_and_then(self) -> None:
        if time.monotonic() < self.export_at:
            return
        started = time.monotonic()
        self.export()
        ended = time.monotonic()
        self.export_at = ended + max(EXPORT_SECONDS, EXPORT_SHARE * (ended - started))
