"""Random search in a screenful, with no library: the reference that the other backends are held to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterator, Sequence

import numpy as np

from ..space import Params, SearchSpace
from ..sweep import Sweep
from ..trial import Suggestion, Trial
from .protocol import Exhausted, Unlearned
from .seeding import proposal_seeds

REDRAWS = 20
"""How often a configuration that was tried already is drawn again (Keras Tuner's number) before it is accepted."""

ENUMERABLE = 10_000
"""Up to this many configurations a space is small enough to list the untried ones when drawing hits none."""


class RandomBackend(Unlearned):
    """Independent draws from the space, every parameter by its own distribution; trial n draws from `proposal_seeds(seed, n)`.

    A configuration is not proposed twice while an untried one is at hand: a draw that repeats one is drawn again, a bounded
    number of times; in a small finite space one of the untried is then taken, and when there is none left the search is
    Exhausted. In a large or continuous space a repeat is accepted after the last draw.
    """

    def __init__(self, sweep: Sweep, history: Sequence[Trial]) -> None:
        self._space = sweep.space
        self._seed = sweep.seed
        self._epochs = sweep.epochs
        self._small = _is_small(sweep.space)
        self._keys = {trial.number: _key(trial.params) for trial in history}
        self._tried = Counter(self._keys.values())

    def ask(self, number: int) -> Suggestion | Exhausted:
        self._forget(number)  # asked before, and not used
        params = self._draw(np.random.default_rng(proposal_seeds(self._seed, number)), self._tried)
        if params is None:
            return Exhausted()
        self._note(number, params)
        return Suggestion(number, params, self._epochs)

    def _forget(self, number: int) -> None:
        key = self._keys.pop(number, None)
        if key is not None:
            self._tried[key] -= 1
            if not self._tried[key]:
                del self._tried[key]

    def _note(self, number: int, params: Params) -> None:
        self._keys[number] = _key(params)
        self._tried[self._keys[number]] += 1

    def _draw(self, rng: np.random.Generator, tried: Container[str]) -> Params | None:
        for _ in range(1 + REDRAWS):
            params = self._space.sample(rng)
            if _key(params) not in tried:
                return params
        if not self._small:
            return params
        untried = list(_untried(self._space, tried))
        return untried[int(rng.integers(len(untried)))] if untried else None

    def adopt(self, suggestion: Suggestion) -> None:
        self._forget(suggestion.number)
        self._note(suggestion.number, suggestion.params)


def _is_small(space: SearchSpace) -> bool:
    """Whether the grid is the whole space, and short enough to walk."""
    size = 1
    for parameter in space.values():
        values = parameter.values()
        size *= len(values) if values is not None else ENUMERABLE + 1
        if size > ENUMERABLE:
            return False
    return True


def _untried(space: SearchSpace, tried: Container[str]) -> Iterator[Params]:
    return (params for params in space.grid() if _key(params) not in tried)


def _key(params: Params) -> str:
    """A configuration as text: equal for equal ones, whether its lists are tuples or came back from JSON."""
    return json.dumps(params, sort_keys=True)
