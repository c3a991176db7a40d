"""Keras Tuner's oracles: the model-based proposals after a restart, Hyperband's schedule, what is private there."""

from __future__ import annotations

import json

import numpy as np
import pytest
from backends_driver import Driver, a_sweep

from imgclf_sweep.backends import open_backend
from imgclf_sweep.backends.keras_tuner_backend import KerasTunerBackend
from imgclf_sweep.backends.keras_tuner_state import whole
from imgclf_sweep.backends.protocol import Exhausted, Wait
from imgclf_sweep.errors import StoreError
from imgclf_sweep.space import Choice, Float, Int, Params, SearchSpace
from imgclf_sweep.sweep import Objective
from imgclf_sweep.trial import Kind, State, Suggestion

SMALL = SearchSpace(
    learning_rate=Float(1e-4, 0.05, log=True), optimizer=Choice(["adam", "sgd"])
)  # 6 random trials, then a model


def bayesian(**changes: object) -> Driver:
    return Driver(a_sweep(SMALL, epochs=3, backend="keras-tuner", sampler="bayesian", seed=4, **changes))


def hyperband(epochs: int = 9) -> Driver:
    return Driver(
        a_sweep(epochs=epochs, backend="keras-tuner", sampler="hyperband", seed=1), failing=lambda params: None
    )


@pytest.mark.parametrize("cut", [7, 9])
def test_the_model_goes_on_as_if_never_closed(cut: int) -> None:
    """Keras Tuner itself keeps neither the model's random state nor its fit."""
    undisturbed, resumed = bayesian(), bayesian()
    undisturbed.run(11)
    resumed.run(cut)
    resumed.cut()
    resumed.run(11)
    assert resumed.proposals() == undisturbed.proposals()
    rates = {t.params["learning_rate"] for t in undisturbed.trials}
    assert len(rates) > 6


def test_the_model_with_open_trials_does_not_need_an_earlier_fit() -> None:
    """Reopened with a trial open, the oracle guesses its result with a process that was never fitted, unless we fit one."""
    first, second = bayesian(), bayesian()
    for driver in (first, second):
        driver.run(8)
        assert isinstance(driver.ask(), Suggestion)
    second.cut()
    proposals = [driver.ask() for driver in (first, second)]
    assert proposals[0] == proposals[1]
    assert isinstance(proposals[0], Suggestion)
    assert proposals[0].params != first.trials[8].params


def test_the_model_looks_where_it_is_good() -> None:
    driver = Driver(
        a_sweep(SMALL, epochs=3, backend="keras-tuner", sampler="bayesian", seed=0), failing=lambda params: None
    )
    driver.run(16)
    distance = [abs(np.log10(t.params["learning_rate"]) + 2.5) for t in driver.trials]
    assert np.median(distance[8:]) < np.median(distance[:6])


def test_hyperband_promotes_to_new_trials_with_a_parent() -> None:
    driver = hyperband()
    driver.run(1000)
    trials = driver.trials
    assert isinstance(driver.ask(), Exhausted)
    assert len(trials) < 100  # it ends by itself
    promoted = [t for t in trials if t.parent is not None]
    assert len(promoted) > 5
    for trial in promoted:
        parent = trials[trial.parent]
        assert parent.number < trial.number
        assert trial.params == parent.params
        assert trial.initial_epoch == parent.epochs_planned < trial.epochs_planned <= 9
    for trial in trials:
        assert trial.parent is not None or trial.initial_epoch == 0
    assert {t.epochs_planned for t in trials} == {1, 3, 9}


def test_hyperband_promotes_the_better_ones() -> None:
    driver = hyperband()
    driver.run(1000)
    first = [t for t in driver.trials if t.initial_epoch == 0 and t.epochs_planned == 1]
    promoted = {t.parent for t in driver.trials}
    values = {True: [], False: []}
    for trial in first:
        values[trial.number in promoted].append(trial.value)
    assert min(values[True]) > np.median(values[False])


def test_hyperband_fills_its_brackets_from_a_small_space_by_repeating_it() -> None:
    space = SearchSpace(a=Choice([1, 2, 3, 4, 5, 6]))
    driver = Driver(a_sweep(space, epochs=9, backend="keras-tuner", sampler="hyperband"), failing=lambda params: None)
    driver.run(1000)
    assert isinstance(driver.ask(), Exhausted)
    firsts = [t for t in driver.trials if t.parent is None]
    assert {t.params["a"] for t in firsts[:6]} == {1, 2, 3, 4, 5, 6}  # none twice while there are others
    assert len(firsts) > 6 and {t.epochs_planned for t in driver.trials} == {1, 3, 9}


def test_hyperband_makes_a_second_worker_wait_for_a_rung() -> None:
    driver = hyperband(epochs=3)
    waited = False
    open_ones: list[int] = []
    for _ in range(200):
        answer = driver.ask()
        if isinstance(answer, Suggestion):
            open_ones.append(answer.number)
            continue
        if not open_ones:
            assert isinstance(answer, Exhausted)
            break
        assert isinstance(answer, Wait)
        waited = True
        number = open_ones.pop()
        driver.finish(number, driver.train(number))
    assert waited
    assert all(t.state is State.COMPLETE for t in driver.trials)


def sometimes(params: Params) -> Kind | None:
    return Kind.DIVERGED if params["dropout"] > 0.4 else None


@pytest.mark.parametrize("epochs", [4, 27])
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("direction", ["max", "min"])
@pytest.mark.parametrize("failing", [lambda params: None, sometimes], ids=["", "failures"])
def test_hyperband_names_all_whose_weights_it_may_still_need_and_few_others(
    epochs, workers, direction, failing
) -> None:
    """Weights are removed as soon as the oracle does not name them and no open trial starts from them."""
    changes = {"backend": "keras-tuner", "sampler": "hyperband", "objective": Objective("val_score", direction)}
    driver = Driver(a_sweep(epochs=epochs, seed=1, **changes), failing=failing)
    rng = np.random.default_rng(epochs)
    weights: set[int] = set()
    open_ones: list[int] = []
    promoted = most = 0
    while True:
        answer = driver.ask() if len(open_ones) < workers else None
        if isinstance(answer, Suggestion):
            assert answer.parent is None or answer.parent in weights
            promoted += answer.parent is not None
            open_ones.append(answer.number)
            continue
        if not open_ones:
            assert isinstance(answer, Exhausted)
            break
        number = open_ones.pop(rng.integers(len(open_ones)))
        if driver.finish(number, driver.train(number)).value is not None:
            weights.add(number)
        if rng.random() < 0.1:
            driver.cut()
        weights &= driver.backend.needed() | {driver.trials[n].parent for n in open_ones}
        most = max(most, len(weights))
    assert promoted and driver.backend.needed() == set()
    assert most <= 0.5 * len(driver.trials)


def test_hyperband_where_all_fail_ends() -> None:
    driver = Driver(
        a_sweep(epochs=9, backend="keras-tuner", sampler="hyperband"),
        failing=lambda params: Kind.BUILD,
    )
    driver.run(1000)
    assert isinstance(driver.ask(), Exhausted)
    assert {t.state for t in driver.trials} == {State.FAILED}


def test_a_small_space_is_exhausted() -> None:
    space = SearchSpace(a=Choice([1, 2]), b=Choice(["x", "y"]))
    for sampler in ("random", "bayesian", "hyperband"):
        driver = Driver(a_sweep(space, epochs=2, backend="keras-tuner", sampler=sampler))
        driver.run(50)
        assert isinstance(driver.ask(), Exhausted)
        tried = [tuple(t.params.values()) for t in driver.trials if t.parent is None]
        assert len(tried) == len(set(tried)) <= 4


def test_the_kept_state_is_small_and_the_librarys_own() -> None:
    driver = Driver(a_sweep(epochs=2, backend="keras-tuner"))
    driver.run(4)
    assert sorted(driver.kept) == ["oracle", "trial/0000", "trial/0001", "trial/0002", "trial/0003"]
    entry = json.loads(driver.kept["trial/0002"])
    assert entry["number"] == 2
    assert entry["trial"]["status"] in ("COMPLETED", "FAILED")
    assert set(json.loads(driver.kept["oracle"])) >= {"hyperparameters", "seed_state", "ongoing_trials"}


@pytest.mark.parametrize("sampler", ["random", "bayesian", "hyperband"])
def test_the_parts_make_up_the_librarys_state(sampler: str) -> None:
    """Open trials, failed ones, and trials that end in another order than they began."""
    driver = Driver(a_sweep(epochs=4, backend="keras-tuner", sampler=sampler))
    asked = [driver.ask() for i in range(5)]
    for suggestion in (asked[3], asked[0], asked[4]):
        assert isinstance(suggestion, Suggestion)
        driver.train(suggestion.number)
        driver.finish(suggestion.number, stopped=False)
    assert isinstance(driver.backend, KerasTunerBackend)
    theirs = json.loads(
        json.dumps({k: list(v) if isinstance(v, set) else v for k, v in _state_of(driver.backend).items()})
    )
    ours = whole(driver.kept)
    assert len(ours["end_order"]) == 3 and len(ours["ongoing_trials"]) == 2
    assert sorted(theirs.pop("tried_so_far")) == ours.pop("tried_so_far")
    assert ours == theirs


def _state_of(backend: KerasTunerBackend) -> dict[str, object]:
    return backend._oracle.get_state()


def test_what_is_kept_for_a_change_does_not_grow() -> None:
    driver = Driver(a_sweep(epochs=1, backend="keras-tuner"))
    driver.run(3)
    small = len(driver.kept["oracle"])
    driver.run(40)
    assert len(driver.kept["oracle"]) < small + 20


def test_a_state_kept_whole_is_read_and_kept_in_parts() -> None:
    driver = Driver(a_sweep(epochs=1, backend="keras-tuner"))
    driver.run(6)
    fresh = whole(driver.kept)
    before = {key: {"number": e["number"], "trial": e["trial"]} for key, e in _loaded(driver.kept) if key != "oracle"}
    driver.kept = {key: json.dumps(entry) for key, entry in before.items()} | {"oracle": json.dumps(fresh)}
    driver.cut()
    driver.keep()
    assert whole(driver.kept) == fresh and "end_order" not in json.loads(driver.kept["oracle"])


def _loaded(kept: dict[str, str]) -> list[tuple[str, dict[str, object]]]:
    return [(key, json.loads(text)) for key, text in kept.items()]


@pytest.mark.parametrize("damage", ["{", "[]", "null", '{"ongoing_trials": {"0": "9"}}'])
def test_a_damaged_state_is_said_to_be(damage: str) -> None:
    driver = Driver(a_sweep(epochs=2, backend="keras-tuner"))
    driver.run(3)
    with pytest.raises(StoreError, match="oracle's state"):
        open_backend(driver.sweep, driver.trials, {**driver.kept, "oracle": damage})
    with pytest.raises(StoreError, match="trial 0 is in the record"):
        open_backend(driver.sweep, driver.trials, {})


def test_nothing_is_written_anywhere(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # type: ignore[arg-type]
    driver = Driver(a_sweep(epochs=3, backend="keras-tuner", sampler="hyperband"))
    driver.run(8)
    driver.cut()
    driver.run(10)
    assert list(tmp_path.iterdir()) == []  # type: ignore[attr-defined]


def test_values_at_the_ends_come_back_into_the_range() -> None:
    """A Gaussian process proposes the very end of a range, where Keras Tuner's whole numbers in logarithms go one too far."""
    from imgclf_sweep.backends.keras_tuner_space import decode, encode, hyperparameters

    space = SearchSpace(
        a=Int(1, 64, log=True),
        b=Float(1e-7, 0.3, log=True),
        c=Float(0.2, 0.5, step=0.1),
        d=Float(0.1, 0.7, step=0.0001),
        e=Int(3, 20, 4),
        f=Choice([True, False]),
        g=Choice(["x", None, [1, 2]]),
        h=Choice([1, 2.5]),
    )
    for hp in hyperparameters(space).space:
        for share in (0.0, 1e-12, 0.3, 0.5, 0.999999, 1.0):
            value = decode(space[hp.name], hp.prob_to_value(share))
            assert space[hp.name].contains(value), (hp.name, share, value)
            assert decode(space[hp.name], encode(space[hp.name], value)) == value
            assert 0 <= hp.value_to_prob(encode(space[hp.name], value)) <= 1


def test_a_build_function_reads_its_own_types_from_an_oracle() -> None:
    space = SearchSpace(
        a=Choice([True, False]), b=Choice([16, 32]), c=Float(0.2, 0.4, step=0.1), d=Choice(["adam", "sgd"])
    )
    backend = open_backend(a_sweep(space, backend="keras-tuner"), [], {})
    assert isinstance(backend, KerasTunerBackend)
    backend.ask(0)
    values = json.loads(backend.state()["trial/0000"])["trial"]["hyperparameters"]["values"]
    assert [type(v) for v in values.values()] == [bool, int, float, str]
