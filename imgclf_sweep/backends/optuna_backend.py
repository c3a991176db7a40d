"""Optuna behind our protocol: TPE or random proposals, and pruners that stop trials. Optuna 5, in memory, kept by our record."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import optuna

from ..errors import SweepError
from ..space import Params
from ..sweep import Sweep
from ..text import printable
from ..trial import Outcome, State, Suggestion, Trial
from .grid_backend import GridBackend
from .optuna_study import DETERMINISTIC, VIOLATED, frozen_trial, indexed, searched
from .protocol import Exhausted
from .seeding import proposal_seed

STARTUP_TRIALS = 5  # trials that complete before the median pruner stops any: Optuna's default
FIRST_JUDGED_EPOCH = 2  # the median pruner lets every trial have its first epoch: it says little about the tenth
FIRST_RUNG, REDUCTION = (
    1,
    4,
)  # successive halving compares at epochs 1, 4, 16, ... and keeps the best quarter, by default

DRAWN = "tpe:relative_params:0"  # TPE's name for what it drew for a trial; a contract test holds it to that


class OptunaBackend:
    """A study in memory, rebuilt from the recorded trials; it keeps no state of its own.

    Each proposal comes from a fresh sampler with its own seed, and every active parameter is suggested before anything else,
    so a study that was rebuilt proposes what one that was never closed does. A trial in its last epoch is never stopped:
    nothing would be saved, and a complete trial would be lost. Samplers may propose a configuration twice, as Optuna's do.
    With sampler "grid" the proposals are the grid's, and Optuna only prunes.
    """

    def __init__(self, sweep: Sweep, history: Sequence[Trial]) -> None:
        self._sweep = sweep
        self._codes = searched(sweep.space, indexed)
        self._grid = GridBackend(sweep) if sweep.sampler_name == "grid" else None
        self._open: dict[int, optuna.trial.Trial] = {}
        self._reported: dict[int, int] = {}  # number -> the last epoch reported
        self._unanswered: set[int] = set()  # reopened trials whose last report may not have been answered
        with _quiet():
            optuna.logging.set_verbosity(optuna.logging.WARNING)
            self._study = optuna.create_study(
                direction="maximize" if sweep.objective.direction == "max" else "minimize",
                sampler=optuna.samplers.RandomSampler(seed=0),  # never asked: each ask brings its own
                pruner=_pruner(sweep.pruner_name),
            )
            for trial in history:
                self._add(trial)

    def _add(self, trial: Trial) -> None:
        if trial.state.finished:
            rungs = _rungs(trial.curve) if self._sweep.pruner_name == "successive-halving" else {}
            self._study.add_trial(frozen_trial(trial, self._codes, steer=True, rungs=rungs, notes={}))
            return
        self._start(trial.number, trial.params)
        for epoch in sorted(trial.curve):
            if trial.number in self._reported:
                self._open[trial.number].should_prune()  # it was let go on then; the pruner notes the rung
            self._open[trial.number].report(float(trial.curve[epoch]), epoch)
            self._reported[trial.number] = epoch
            self._unanswered.add(trial.number)

    def _start(self, number: int, params: Params) -> None:
        """An open trial with exactly these parameters."""
        self._study.enqueue_trial({n: self._codes[n].encode(v) for n, v in params.items() if n in self._codes})
        trial = self._study.ask()
        for name in params:
            if name in self._codes:
                self._suggest(trial, name)
        self._open[number] = trial

    def _suggest(self, trial: optuna.trial.Trial, name: str) -> object:
        """The value, encoded, of one parameter by its distribution."""
        d = self._codes[name].distribution
        if isinstance(d, optuna.distributions.CategoricalDistribution):
            return trial.suggest_categorical(name, d.choices)
        if isinstance(d, optuna.distributions.IntDistribution):
            return trial.suggest_int(name, d.low, d.high, step=d.step, log=d.log)
        assert isinstance(d, optuna.distributions.FloatDistribution)
        return trial.suggest_float(name, d.low, d.high, log=d.log)

    def ask(self, number: int) -> Suggestion | Exhausted:
        with _quiet():
            if self._grid is not None:
                proposed = self._grid.ask(number)
                if not isinstance(proposed, Exhausted):
                    self._start(number, proposed.params)
                return proposed
            return Suggestion(number, self._propose(number), self._sweep.epochs)

    def _propose(self, number: int) -> Params:
        seed = proposal_seed(self._sweep.seed, number)
        self._study.sampler = (
            optuna.samplers.RandomSampler(seed=seed)
            if self._sweep.sampler_name == "random"
            else optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
        )
        trial = self._study.ask()
        params: Params = {}
        for name, parameter in self._sweep.space.items():
            if not self._sweep.space.is_active(name, params):
                continue
            code = self._codes.get(name)
            params[name] = parameter.start() if code is None else code.decode(self._suggest(trial, name))
        # TPE notes with an open trial all values that it drew, also of parameters that are not active in it, and models those
        # when it is asked meanwhile. A study that was rebuilt cannot have them, so nobody has.
        self._study._storage.set_trial_system_attr(trial._trial_id, DRAWN, "")
        self._open[number] = trial
        return params

    def adopt(self, suggestion: Suggestion) -> None:
        with _quiet():
            self._start(suggestion.number, suggestion.params)

    def report(self, number: int, epoch: int, value: float) -> bool:
        trial, last = self._open[number], self._reported.get(number, 0)
        if epoch < last or (epoch == last and number not in self._unanswered):
            return False  # started again: it was let go on here before
        self._unanswered.discard(number)
        with _quiet():
            if epoch > last:
                trial.report(float(value), epoch)
                self._reported[number] = epoch
            return trial.should_prune() and epoch < self._sweep.epochs

    def tell(self, number: int, outcome: Outcome) -> None:
        trial = self._open.pop(number)
        states = optuna.trial.TrialState
        with _quiet():
            if outcome.state is State.COMPLETE and outcome.value is not None:
                self._study.tell(trial, float(outcome.value))
            elif outcome.state is State.PRUNED:
                self._study.tell(trial, state=states.PRUNED)
            elif outcome.kind in DETERMINISTIC:
                for name, violation in VIOLATED.items():
                    trial.set_constraint(name, violation)
                self._study.tell(trial, state=states.PRUNED)
            else:
                self._study.tell(trial, state=states.FAIL)

    def needed(self) -> set[int]:
        return set()

    def state(self) -> Mapping[str, str]:
        return {}

    def close(self) -> None:
        self._open.clear()


def _pruner(name: str) -> optuna.pruners.BasePruner:
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=FIRST_JUDGED_EPOCH)
    if name == "successive-halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=FIRST_RUNG, reduction_factor=REDUCTION)
    return optuna.pruners.NopPruner()


def _rungs(curve: Mapping[int, float]) -> dict[str, float]:
    """What the successive-halving pruner notes with a trial: its value at the first epoch at or after each rung.

    The pruner keeps this under names of its own; a contract test holds them to what it really writes.
    """
    noted: dict[str, float] = {}
    for epoch in sorted(curve):
        if epoch >= FIRST_RUNG * REDUCTION ** len(noted):
            noted[f"completed_rung_{len(noted)}"] = float(curve[epoch])
    return noted


@contextmanager
def _quiet() -> Iterator[None]:
    """No word of Optuna's about experimental arguments reaches the user, and no exception of its own type."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (optuna.exceptions.OptunaError, ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise SweepError(f"Optuna failed: {type(error).__name__}: {printable(error)}") from error
