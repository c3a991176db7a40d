"""What a sweep keeps on its disk as it runs, and whether the disk has room for more.

The best weights of the best trials stay, and those that another trial starts from or may still be started from. All others go
once the record says that their trial has ended. Who stays follows from the record and the search alone, so that after a kill
the same is decided again, and no more is removed than without it.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

from .record.layout import SweepDir
from .record.write import Record
from .sweep import Objective
from .text import printable
from .training.checkpoint import discard
from .training.weights import best_weights, drop_partial, drop_weights
from .trial import Outcome, State, Suggestion, Trial

Count = int | Literal["all"]

DEFAULT: Count = 5  # as many as are copied into the project that Keras Tuner opens
RESERVE = 200_000_000  # bytes that stay free for the record, its backups, logs and exports
COPIES = 4  # of a running trial's checkpoint: two that are kept, the last one waited for, and the one being written
LOOK_SECONDS = 10.0  # between two looks at the disk while nothing is started


class Keep:
    """The trials' directories of one sweep: told of every trial that ends, it removes what nobody needs.

    count: how many of the best trials keep their weights.   needed: those that the search may still start a trial from
    (`Backend.needed`); asked only when something would be removed.
    """

    def __init__(
        self,
        directory: SweepDir,
        objective: Objective,
        history: Iterable[Trial],
        count: Count,
        needed: Callable[[], set[int]],
    ) -> None:
        self._directory, self._count, self._needed = directory, count, needed
        self._sign = -1 if objective.direction == "max" else 1
        self._ranks: dict[
            int, tuple[bool, float, int]
        ] = {}  # by number of a finished trial, the best one's is the lowest
        self._held: set[int] = set()  # finished trials whose weights are there
        self._sizes: dict[int, int] = {}  # by trial, bytes of its largest checkpoint or weights
        self._looked = 0.0
        there = _numbers(directory.checkpoints)
        for trial in history:
            if trial.state.finished:
                self._rank(trial.number, trial.state, trial.value)
            if trial.number in there:
                self._measure(trial.number)
                if trial.state.finished:  # we may have been killed before its checkpoints went
                    self._clear(trial.number)

    def ended(self, number: int, outcome: Outcome) -> None:
        """A trial has ended and the record says so: its checkpoints go."""
        self._rank(number, outcome.state, outcome.value)
        self._measure(number)
        self._clear(number)

    def settle(self, open_trials: Iterable[Suggestion]) -> None:
        """Remove the weights that nobody needs.  open_trials: all that run or are queued.  What cannot be removed is left for the
        next time."""
        if self._count == "all":
            return
        best = heapq.nsmallest(self._count, self._ranks, key=self._ranks.__getitem__)
        gone = self._held - set(best) - {trial.parent for trial in open_trials}
        if gone:
            gone -= self._needed()
        for number in sorted(gone):
            place = self._directory.checkpoint(number)
            drop_weights(place)
            if not best_weights(place):
                self._held.discard(number)

    @property
    def due(self) -> bool:
        """Whether it is time for another look at the disk."""
        return time.monotonic() - self._looked >= LOOK_SECONDS

    def lacking(self, running: Sequence[Suggestion], queued: Sequence[Suggestion]) -> str | None:
        """In a line what the disk lacks for the `running` trials; None where it has room. What may be removed is removed first.

        So a disk that fills up is noticed before a write fails on it. Where it fills up between two looks, the failing write
        pauses the sweep as well.
        """
        self._looked = time.monotonic()
        for trial in running:
            self._measure(trial.number)
        each = self._each(running)
        wanted = COPIES * each * len(running) + RESERVE
        if free(self._directory.path) < wanted:
            self.settle([*running, *queued])
        left = free(self._directory.path)
        if left >= wanted:
            return None
        return (
            f"too little room on the disk of {printable(self._directory.path)}: {_words(left)} free, {_words(wanted)} needed "
            f"({COPIES} checkpoints of {_words(each)} for each of {len(running)} trials at a time, {_words(RESERVE)} "
            "for the record and logs)"
        )

    def _rank(self, number: int, state: State, value: float | None) -> None:
        if value is not None:  # complete trials first: the winner is one of them
            self._ranks[number] = state is not State.COMPLETE, self._sign * value, number

    def _measure(self, number: int) -> None:
        with contextlib.suppress(OSError), os.scandir(self._directory.checkpoint(number)) as entries:
            sizes = [entry.stat(follow_symlinks=False).st_size for entry in entries]
            self._sizes[number] = max([self._sizes.get(number, 0), *sizes])

    def _each(self, running: Sequence[Suggestion]) -> float:
        """Bytes of a checkpoint of one of these trials, on average over those that have one; else the largest ever seen. The
        largest for each would ask for ten times what hundreds of trials at a time really take."""
        seen = [self._sizes[trial.number] for trial in running if self._sizes.get(trial.number)]
        return sum(seen) / len(seen) if seen else max(self._sizes.values(), default=0)

    def _clear(self, number: int) -> None:
        """Remove all but the weights of a finished trial."""
        place = self._directory.checkpoint(number)
        drop_partial(place)
        discard(place)
        if best_weights(place):
            self._held.add(number)


def agreed(record: Record, given: Count | None) -> Count:
    """How many trials keep their weights: as `given`, which is noted for the runs that continue the sweep; else as was noted."""
    noted = [event.data.get("trials") for event in record.events("keep")]
    before = next((count for count in reversed(noted) if count == "all" or (type(count) is int and count > 0)), DEFAULT)
    if given is None or given == before:
        return before
    record.event("keep", trials=given)
    return given


def free(path: Path) -> float:
    """Bytes that may still be written to the disk of `path`; infinite where it cannot be told."""
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return float("inf")


def _numbers(directory: Path) -> set[int]:
    """The trials that have a directory there."""
    with contextlib.suppress(OSError):
        return {int(name) for name in os.listdir(directory) if name.isascii() and name.isdigit()}
    return set()


def _words(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"
