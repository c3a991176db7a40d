"""The grid: every configuration once, in a fixed order. One enumeration of ours, whichever library a sweep names.

Keras Tuner's own grid cannot be resumed (keras-team/keras-tuner#1055); this one has nothing to resume.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from ..space import Params, SearchSpace
from ..sweep import Sweep
from ..trial import Suggestion
from .protocol import Exhausted, Unlearned


class GridBackend(Unlearned):
    """Trial n tries the n-th configuration of `space.grid()`, counted after the known ones; after the last, Exhausted.

    Needs no history and no state.
    """

    def __init__(self, sweep: Sweep) -> None:
        self._space: SearchSpace = sweep.space
        self._epochs = sweep.epochs
        self._first = len(sweep.known)
        self._rest: Iterator[Params] = iter(())
        self._next = -1  # the number of the configuration that `_rest` yields next
        self._last: tuple[int, Params | None] = (-1, None)

    def ask(self, number: int) -> Suggestion | Exhausted:
        params = self._configuration(number - self._first)
        return Exhausted() if params is None else Suggestion(number, dict(params), self._epochs)

    def _configuration(self, number: int) -> Params | None:
        if self._last[0] == number:  # the number asked before was not used
            return self._last[1]
        if not 0 <= self._next <= number:
            self._rest, self._next = self._space.grid(), 0
        params = next(itertools.islice(self._rest, number - self._next, None), None)
        self._next = number + 1
        self._last = (number, params)
        return params

    def adopt(self, suggestion: Suggestion) -> None:
        pass
