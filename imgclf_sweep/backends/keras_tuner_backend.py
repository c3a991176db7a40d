"""Keras Tuner behind our protocol: random, Bayesian and Hyperband oracles. Keras Tuner 1.4.8, in memory, kept by our record.

Importing Keras Tuner imports Keras and with it Keras's tensor library, which is not used here: Keras's NumPy backend, which
would do, itself needs JAX.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from keras_tuner.engine.trial import Trial as OracleTrial

from ..errors import StoreError, SweepError
from ..sweep import Sweep
from ..text import printable
from ..trial import Outcome, State, Suggestion, Trial
from .keras_tuner_oracles import make_oracle
from .keras_tuner_space import encode, hyperparameters, params_of
from .keras_tuner_state import entries, is_whole, parts, whole
from .protocol import Exhausted, Wait
from .seeding import proposal_seed


class KerasTunerBackend:
    """An oracle driven by hand. An oracle sees no epochs, so nothing is pruned: `report` answers False.

    State: `oracle` holds the oracle's own state, `trial/<its id>` its own state of one trial beside our number, and what the
    oracle knows of that trial (`keras_tuner_state`). Together they are exactly what the library writes into a project folder.

    The key under which an oracle keeps an open trial is our number, not the worker: after a restart another worker may run
    it, and an oracle gives the same key the same trial again until it has ended.
    """

    def __init__(self, sweep: Sweep, history: Sequence[Trial], state: Mapping[str, str]) -> None:
        self._sweep = sweep
        self._ids: dict[int, str] = {}  # our number -> the oracle's trial id
        self._changed: set[str] = set()  # trial ids whose state the record does not have yet
        with _quiet():
            self._oracle = make_oracle(sweep, hyperparameters(sweep.space))
        if "oracle" in state:
            self._restore(state)
        self._catch_up(history)

    def _restore(self, state: Mapping[str, str]) -> None:
        try:
            oracle = whole(state)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for entry in entries(state):
                    trial = OracleTrial.from_state(entry["trial"])
                    self._oracle.trials[trial.trial_id] = trial
                    self._ids[int(entry["number"])] = trial.trial_id
                self._oracle.set_state(oracle)
            if is_whole(json.loads(state["oracle"])):
                self._changed |= set(self._ids.values())
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise StoreError(f"the oracle's state in the record cannot be read: {printable(repr(error))}") from error

    def _catch_up(self, history: Sequence[Trial]) -> None:
        """Tell what was committed as ended just before a kill, and make sure that the two histories are one."""
        for trial in history:
            if trial.number not in self._ids:
                raise StoreError(f"trial {trial.number} is in the record, but not in the oracle's state there")
            if trial.state.finished and self._trial(trial.number).status == "RUNNING":
                self.tell(trial.number, trial.outcome)

    def _trial(self, number: int) -> Any:
        return self._oracle.trials[self._ids[number]]

    def ask(self, number: int) -> Suggestion | Wait | Exhausted:
        if number in self._ids:  # asked just before a kill that kept it from the record's trials
            return self._suggestion(number)
        with _quiet():
            self._oracle.reseed(proposal_seed(self._sweep.seed, number))
            trial = self._oracle.create_trial(str(number))
            if trial.status == "IDLE":
                return Wait()
            if trial.status == "STOPPED":
                return Exhausted()
            self._ids[number] = trial.trial_id
            self._changed.add(trial.trial_id)
            return self._suggestion(number)

    def _suggestion(self, number: int) -> Suggestion:
        values = self._trial(number).hyperparameters.values
        params = params_of(self._sweep.space, values)
        values.update({name: encode(self._sweep.space[name], value) for name, value in params.items()})
        parent = values.get("tuner/trial_id")
        return Suggestion(
            number,
            params,
            epochs=int(values.get("tuner/epochs", self._sweep.epochs)),
            initial_epoch=int(values.get("tuner/initial_epoch", 0)),
            parent=None if parent is None else next(n for n, trial_id in self._ids.items() if trial_id == parent),
        )

    def adopt(self, suggestion: Suggestion) -> None:
        if suggestion.number in self._ids:  # adopted just before a kill that kept it from the record's trials
            return
        space = self._sweep.space
        with _quiet():
            self._oracle.given = {name: encode(space[name], value) for name, value in suggestion.params.items()}
            trial = self._oracle.create_trial(str(suggestion.number))
            self._ids[suggestion.number] = trial.trial_id
            self._changed.add(trial.trial_id)

    def report(self, number: int, epoch: int, value: float) -> bool:
        return False

    def tell(self, number: int, outcome: Outcome) -> None:
        trial = self._trial(number)
        with _quiet():
            if outcome.state is not State.FAILED and outcome.value is not None:
                step = (outcome.epoch or 1) - 1  # a Tuner counts epochs from 0
                self._oracle.update_trial(
                    trial.trial_id, {self._sweep.objective.metric: float(outcome.value)}, step=step
                )
                trial.status = "COMPLETED"
            else:
                trial.status, trial.message = "FAILED", outcome.reason  # never INVALID, which is tried again
            self._oracle.end_trial(trial)
        self._changed.add(trial.trial_id)

    def needed(self) -> set[int]:
        with _quiet():
            promotable = self._oracle.promotable()
        return {number for number, trial_id in self._ids.items() if trial_id in promotable}

    def state(self) -> Mapping[str, str]:
        if not self._changed:
            return {}
        with _quiet():
            numbers = {i: number for number, i in self._ids.items() if i in self._changed}
            changed = {i: (numbers[i], self._oracle.trials[i].get_state()) for i in self._changed}
            out = parts(self._oracle.get_state(), changed)
        self._changed.clear()
        return out

    def close(self) -> None:
        self._ids.clear()


@contextmanager
def _quiet() -> Iterator[None]:
    """No warning of the libraries below reaches the user (old threading names, a Gaussian process at its bounds), and no
    exception of their own type."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise SweepError(f"Keras Tuner failed: {type(error).__name__}: {printable(error)}") from error
