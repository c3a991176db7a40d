"""Optuna: what pruners stop, what failures teach, and how a rebuilt study comes to be the one that was lost."""

from __future__ import annotations

import dataclasses
import statistics

import optuna
import pytest
from backends_driver import Driver, a_sweep

from imgclf_sweep.backends import open_backend
from imgclf_sweep.backends.optuna_backend import OptunaBackend, _rungs
from imgclf_sweep.backends.optuna_study import indexed, readable
from imgclf_sweep.space import Choice, Float, Int, Params, SearchSpace
from imgclf_sweep.sweep import Objective
from imgclf_sweep.trial import Kind, Outcome, State, Suggestion, Trial

LINE = SearchSpace(x=Float(0.0, 1.0), y=Choice(["a", "b"]))


def score_line(driver: Driver, fails: Kind | None, upto: int = 60) -> list[Trial]:
    """Search y = x, where everything above 0.7 fails."""
    while len(driver.trials) < upto:
        answer = driver.ask()
        assert isinstance(answer, Suggestion)
        x = answer.params["x"]
        outcome = Outcome(State.COMPLETE, x, 1, 1)
        if fails and x > 0.7:
            outcome = Outcome(State.FAILED, kind=fails, reason="no")
        driver.backend.tell(answer.number, outcome)
        driver.trials[-1] = dataclasses.replace(
            driver.trials[-1], state=outcome.state, value=outcome.value, kind=outcome.kind
        )
    return driver.trials


def count_failed(kind: Kind) -> float:
    counts = []
    for seed in range(5):
        trials = score_line(Driver(a_sweep(LINE, epochs=1, pruner="none", seed=seed)), kind)
        counts.append(sum(t.state is State.FAILED for t in trials))
    return statistics.median(counts)


def test_deterministic_failures_steer_tpe_away_and_lost_ones_do_not() -> None:
    told, untold = count_failed(Kind.DIVERGED), count_failed(Kind.LOST)
    assert told < 0.6 * untold
    assert count_failed(Kind.OUT_OF_MEMORY) == told


def test_failures_steer_as_well_after_reopening() -> None:
    undisturbed = score_line(Driver(a_sweep(LINE, epochs=1, seed=1)), Kind.BUILD, 40)
    driver = Driver(a_sweep(LINE, epochs=1, seed=1))
    score_line(driver, Kind.BUILD, 25)
    driver.cut()
    assert [t.params for t in score_line(driver, Kind.BUILD, 40)] == [t.params for t in undisturbed]


def test_tpe_finds_more_than_random_search() -> None:
    found = {
        sampler: statistics.median(
            max(t.value or 0 for t in score_line(Driver(a_sweep(LINE, epochs=1, sampler=sampler, seed=s)), None))
            for s in range(3)
        )
        for sampler in ("tpe", "random")
    }
    assert found["tpe"] > found["random"]


def scored(params: Params, epoch: int) -> float:
    return params["x"] * (1 - 0.5**epoch)


def prune_run(driver: Driver, upto: int) -> list[Trial]:
    """A search on y = x in which `report` is obeyed."""
    while len(driver.trials) < upto:
        answer = driver.ask()
        assert isinstance(answer, Suggestion)
        curve: dict[int, float] = {}
        stopped = False
        for epoch in range(1, answer.epochs + 1):
            curve[epoch] = scored(answer.params, epoch)
            stopped = driver.backend.report(answer.number, epoch, curve[epoch])
            if stopped:
                break
        outcome = Outcome(State.PRUNED if stopped else State.COMPLETE, max(curve.values()), max(curve), max(curve))
        driver.backend.tell(answer.number, outcome)
        driver.trials[-1] = dataclasses.replace(
            driver.trials[-1], state=outcome.state, value=outcome.value, epochs=outcome.epochs, curve=curve
        )
    return driver.trials


@pytest.mark.parametrize("pruner", ["median", "successive-halving", "none"])
@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_pruning_stops_the_worse_and_goes_on_as_if_never_closed(pruner: str, sampler: str) -> None:
    space = SearchSpace(x=Choice([1 - k / 50 for k in range(50)]), y=Choice(["a", "b"]))
    undisturbed, resumed = (Driver(a_sweep(space, epochs=5, sampler=sampler, pruner=pruner, seed=2)) for _ in range(2))
    trials = prune_run(undisturbed, 30)
    for cut in (2, 9, 10, 21):
        prune_run(resumed, cut)
        resumed.cut()
    prune_run(resumed, 30)
    assert resumed.proposals() == undisturbed.proposals()
    pruned = [t for t in trials if t.state is State.PRUNED]
    assert bool(pruned) == (pruner != "none")
    assert all(t.epochs < 5 for t in pruned)
    assert all(t.epochs == 5 for t in trials if t.state is State.COMPLETE)
    if pruner == "median":
        assert all(t.epochs >= 2 for t in pruned)
        assert not any(t.state is State.PRUNED for t in trials[:5])
    if pruned and sampler == "random":
        done = [t.params["x"] for t in trials if t.state is State.COMPLETE]
        assert statistics.mean(t.params["x"] for t in pruned) < statistics.mean(done)


@pytest.mark.parametrize("direction", ["min", "max"])
def test_pruning_knows_the_direction(direction: str) -> None:
    sweep = a_sweep(LINE, epochs=5, sampler="random", seed=2, objective=Objective("val_score", direction))
    trials = prune_run(Driver(sweep), 30)
    by_state = {
        s: statistics.mean(t.params["x"] for t in trials if t.state is s) for s in (State.PRUNED, State.COMPLETE)
    }
    assert (by_state[State.PRUNED] < by_state[State.COMPLETE]) == (direction == "max")


def test_the_halving_pruner_notes_what_we_rebuild() -> None:
    driver = Driver(a_sweep(LINE, epochs=20, sampler="random", pruner="successive-halving", seed=2))
    trials = prune_run(driver, 25)
    assert isinstance(driver.backend, OptunaBackend)
    noted = [
        {k: v for k, v in t.system_attrs.items() if k.startswith("completed_rung_")}
        for t in driver.backend._study.trials
    ]
    assert noted == [_rungs(t.curve) for t in trials]
    assert max(map(len, noted)) == 3  # epochs 1, 4 and 16


def test_a_grid_under_a_pruner_is_still_the_grid() -> None:
    space = SearchSpace(a=Choice([4, 3, 2, 1]), x=Float(0, 1, step=0.25))
    driver = Driver(a_sweep(space, epochs=5, sampler="grid", pruner="successive-halving"))
    assert [t.params for t in prune_run(driver, 20)] == list(space.grid())
    assert State.PRUNED in {t.state for t in driver.trials}


@pytest.mark.parametrize("pruner", ["median", "successive-halving"])
def test_a_trial_started_again_reports_again(pruner: str) -> None:
    """Its epochs up to the kill were answered before, the last of them perhaps not."""
    driver = Driver(a_sweep(SearchSpace(x=Float(0, 1)), epochs=9, sampler="random", pruner=pruner))
    prune_run(driver, 12)
    answer = driver.ask()
    assert isinstance(answer, Suggestion)
    number = answer.number
    for epoch in (1, 2, 3):
        driver.backend.report(number, epoch, 10.0 * epoch)  # the best there was
    driver.trials[number] = dataclasses.replace(driver.trials[number], curve={1: 10.0, 2: 20.0, 3: -1.0})
    assert [driver.backend.report(number, epoch, 0.0) for epoch in (1, 2, 3)] == [False] * 3
    driver.cut()
    again = [driver.backend.report(number, epoch, 0.0) for epoch in (1, 2, 3)]
    assert again == [False] * 3  # its best report, 20, still counts
    assert isinstance(driver.backend, OptunaBackend)
    assert driver.backend._study.trials[number].intermediate_values == {1: 10.0, 2: 20.0, 3: -1.0}
    driver.backend.report(number, 4, 0.5)
    driver.backend.tell(number, Outcome(State.COMPLETE, 20.0, 2, 4))


def test_a_kill_before_the_answer_does_not_spare_a_trial() -> None:
    space = SearchSpace(x=Float(0, 1))
    for pruner in ("median", "successive-halving"):
        driver = Driver(a_sweep(space, epochs=9, sampler="random", pruner=pruner))
        prune_run(driver, 12)
        answer = driver.ask()
        assert isinstance(answer, Suggestion)
        number, epoch = answer.number, 2 if pruner == "median" else 1
        driver.trials[number] = dataclasses.replace(
            driver.trials[number], curve=dict.fromkeys(range(1, epoch + 1), -1.0)
        )
        driver.cut()
        assert [driver.backend.report(number, e, -1.0) for e in range(1, epoch + 1)] == [False] * (epoch - 1) + [True]


def test_our_numbers_hold_where_the_history_skips_some() -> None:
    driver = Driver(a_sweep(epochs=4))
    driver.run(14)
    history = [t for t in driver.trials if t.number % 3]
    history[2] = dataclasses.replace(history[2], state=State.RUNNING, value=None)
    history[5] = dataclasses.replace(history[5], state=State.QUEUED, value=None, curve={})
    backend = open_backend(driver.sweep, history, {})
    asked = backend.ask(14)
    assert isinstance(asked, Suggestion)
    for number in (history[5].number, 14, history[2].number):
        backend.report(number, 4, 0.5)
        backend.tell(number, Outcome(State.COMPLETE, float(number), 4, 4))
    assert isinstance(backend, OptunaBackend)
    told = {t.value for t in backend._study.trials if t.state is optuna.trial.TrialState.COMPLETE}
    assert {14.0, float(history[2].number), float(history[5].number)} <= told
    assert not any(t.state is optuna.trial.TrialState.RUNNING for t in backend._study.trials)
    with pytest.raises(KeyError):
        backend.tell(3, Outcome(State.COMPLETE, 0.5, 1, 1))


@pytest.mark.parametrize(
    "parameter",
    [
        Choice([1, True, "1", None, 1.5, [1], ["x", None]]),
        Choice([1, 2.5]),
        Choice(["[1]", [1]]),
        Float(0.2, 0.5, step=0.1),
        Float(0, 1, step=1 / 3),
        Float(0.1, 0.75, step=0.3),
        Int(1, 10, step=4),
        Int(1, 512, log=True),
        Float(1e-5, 1e-1, log=True),
    ],
)
@pytest.mark.parametrize("code", [indexed, readable])
def test_values_survive_optuna(parameter: object, code: object) -> None:
    coded = code(parameter)  # type: ignore[operator]
    values = parameter.values() or parameter.grid()  # type: ignore[attr-defined]
    for value in values:
        internal = coded.distribution.to_internal_repr(coded.encode(value))
        back = coded.decode(coded.distribution.to_external_repr(internal))
        assert type(back) is type(value)
        assert back == pytest.approx(value) if isinstance(value, float) else back == value
        optuna.trial.create_trial(params={"p": coded.encode(value)}, distributions={"p": coded.distribution}, value=0.0)
