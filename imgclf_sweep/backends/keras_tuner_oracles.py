"""Keras Tuner's oracles without a Tuner and without files: driven by hand, seeded by number, kept as JSON. Keras Tuner 1.4.8.

What is private there and used here: `_set_project_dir`'s files are never written (`save`, `_save_trial` are replaced),
`_seed_state`, `_random_state` and `_make_gpr` for the seeds, `_vectorize_trials` for a fault of it,
`_brackets` and `_get_size` for what Hyperband may still promote, `_random_values` and `_duplicate` for what it may repeat.
Contract tests pin them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras_tuner import HyperParameters, Objective
from keras_tuner.oracles import BayesianOptimizationOracle, HyperbandOracle, RandomSearchOracle
from threadpoolctl import threadpool_limits

from ..sweep import Sweep
from .seeding import proposal_seed

NEVER = 10**9
"""Failures in a row after which Keras Tuner would give up (holding its lock): when to give up is the caller's decision."""


class InMemory:
    """An oracle's saving, left out: its state is taken from `get_state` and kept in the record.

    given: values that the next trial has instead of a proposal.
    """

    given: dict[str, Any] | None = None

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        values, self.given = self.given, None
        if values is not None:
            return {"status": "RUNNING", "values": values}
        return super().populate_space(trial_id)  # type: ignore[misc]

    def save(self, *_: object) -> None:
        pass

    def _save_trial(self, trial: object) -> None:
        pass

    def reseed(self, seed: int) -> None:
        """Make the next proposal depend on `seed` alone, not on how many numbers were drawn before."""
        self._seed_state = seed

    def promotable(self) -> set[str]:
        """The ids of the completed trials that a later one may start from."""
        return set()


class RandomOracle(InMemory, RandomSearchOracle):
    """Uniform draws, none twice; exhausted after 20 draws in a row that were tried before."""


class HyperbandRungs(InMemory, HyperbandOracle):
    """Brackets of successive halving over epochs. A small space is used up before they are full: then a configuration may come
    again, as a trial of its own, where Keras Tuner would end with no trial ever promoted."""

    _again = False

    def _random_values(self) -> dict[str, Any]:
        values = super()._random_values()
        if values is None:
            self._again = True
            try:
                values = super()._random_values()
            finally:
                self._again = False
        return values

    def _duplicate(self, values: dict[str, Any]) -> bool:
        return not self._again and super()._duplicate(values)

    def promotable(self) -> set[str]:
        """In each rung of each open bracket, the best of those not promoted yet: as many as may still get a place in the next.

        As `populate_space` promotes: the best completed first, ties in the order of the rung, and only while more of them are
        left than the rung loses. A trial that has not ended yet can only push out one of these.
        """
        found: set[str] = set()
        for bracket in self._brackets:
            sizes = [self._get_size(bracket["bracket_num"], number) for number in range(len(bracket["rounds"]))]
            coming = sizes[0] - len(bracket["rounds"][0])  # trials that this rung may still get
            for size, next_size, rung, after in zip(
                sizes, sizes[1:], bracket["rounds"], bracket["rounds"][1:], strict=False
            ):
                promoted = {entry["past_id"] for entry in after}
                left = [self.trials[entry["id"]] for entry in rung if entry["id"] not in promoted]
                done = [trial for trial in left if trial.status == "COMPLETED"]
                coming += len(done) + sum(trial.status == "RUNNING" for trial in left)
                coming = max(0, min(coming - (size - next_size), next_size - len(after)))
                done.sort(key=lambda trial: trial.score, reverse=self.objective.direction == "max")
                found |= {trial.trial_id for trial in done[:coming]}
        return found


class BayesianOracle(InMemory, BayesianOptimizationOracle):
    """A Gaussian process over the trials told, one proposal at its best upper confidence bound."""

    def reseed(self, seed: int) -> None:
        super().reseed(seed)
        self._random_state = np.random.RandomState(seed)
        self.gpr = self._make_gpr()  # what an earlier fit left behind is not in the kept state

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """One proposal, on one thread: the matrices are small, the cores belong to the workers (measured at 20 trials beside
        a busy core: 1.2 s against 6), and the sums come out the same on every machine with the same library."""
        with threadpool_limits(1):
            return super().populate_space(trial_id)

    def _vectorize_trials(self) -> tuple[np.ndarray, np.ndarray]:
        """The trials told and, at pessimistic guesses, the open ones, as Keras Tuner has it.

        It guesses with whatever process was fitted before, which after a restart is none; so one is fitted first to the
        trials told.
        """
        if self.ongoing_trials:
            trials, self.trials = self.trials, {i: t for i, t in self.trials.items() if t.status == "COMPLETED"}
            try:
                x, y = super()._vectorize_trials()
            finally:
                self.trials = trials
            self.gpr.fit(x, y)
        return super()._vectorize_trials()


def make_oracle(sweep: Sweep, hp: HyperParameters) -> Any:
    """The oracle of `sweep.sampler_name` over `hp`, with nothing tried yet."""
    common = {
        "objective": Objective(sweep.objective.metric, sweep.objective.direction),
        "hyperparameters": hp,
        "seed": proposal_seed(sweep.seed, 0),
        "allow_new_entries": False,
        "tune_new_entries": True,
        "max_retries_per_trial": 0,
        "max_consecutive_failed_trials": NEVER,
    }
    if sweep.sampler_name == "hyperband":
        oracle: Any = HyperbandRungs(max_epochs=sweep.epochs, **common)
    elif sweep.sampler_name == "bayesian":
        searched = sum(len(p.values() or (0, 1)) > 1 for p in sweep.space.values())
        # three random trials for each dimension, as Keras Tuner says; it counts what is fixed as well
        oracle = BayesianOracle(max_trials=None, num_initial_points=max(3 * searched, 3), **common)
    else:
        oracle = RandomOracle(max_trials=None, **common)
    oracle.verbose = 0
    return oracle
