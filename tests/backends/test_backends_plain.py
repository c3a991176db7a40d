"""The two backends without a library, and a double that fails."""

from __future__ import annotations

import itertools

import pytest
from backends_driver import Driver, a_sweep
from failing_backend import FailingBackend

from imgclf_sweep.backends.grid_backend import GridBackend
from imgclf_sweep.backends.protocol import Exhausted
from imgclf_sweep.errors import SweepError
from imgclf_sweep.space import Choice, Float, Int, SearchSpace
from imgclf_sweep.trial import Suggestion

SPACE = SearchSpace(
    a=Choice([1, 2]), b=Choice(["x", "y"], when={"a": 1}), c=Float(0.1, 0.3, step=0.1), d=Float(0.0, 1.0)
)


@pytest.mark.parametrize("backend", ["optuna", "keras-tuner", "random"])
def test_a_grid_is_every_configuration_once_in_order_on_every_backend(backend: str) -> None:
    driver = Driver(a_sweep(SPACE, epochs=2, backend=backend, sampler="grid"))
    assert isinstance(driver.backend, GridBackend)
    driver.run(1000)
    assert [t.params for t in driver.trials] == list(SPACE.grid())
    assert len(driver.trials) == SPACE.grid_size() == 18
    assert isinstance(driver.ask(), Exhausted)
    driver.cut()
    assert isinstance(driver.ask(), Exhausted)


def test_a_grid_is_asked_in_any_order() -> None:
    grid = GridBackend(a_sweep(SPACE, backend="random", sampler="grid"))
    whole = list(SPACE.grid())
    for number in (0, 0, 5, 5, 17, 3, 4, 18, 0, 99, 17):
        answer = grid.ask(number)
        assert isinstance(answer, Exhausted) if number >= 18 else answer == Suggestion(number, whole[number], 10)


def test_a_grid_of_two_whole_number_ends() -> None:
    space = SearchSpace(a=Int(1, 100, log=True))
    assert [t.params for t in Driver(a_sweep(space, epochs=1, backend="random", sampler="grid")).run(9)] == [
        {"a": 1},
        {"a": 100},
    ]


def test_random_covers_a_finite_space_once_and_ends() -> None:
    space = SearchSpace(a=Int(1, 12), b=Choice(["x", "y"], when={"a": [1, 2]}), c=Float(0, 1, step=0.5))
    driver = Driver(a_sweep(space, epochs=1, backend="random"))
    driver.run(1000)
    tried = [tuple(t.params.items()) for t in driver.trials]
    assert sorted(tried) == sorted(tuple(p.items()) for p in space.grid())
    assert isinstance(driver.ask(), Exhausted)


def test_random_goes_on_in_a_large_space_after_repeats() -> None:
    """A log whole number has few values that are likely; the draw that repeats one is accepted in the end."""
    driver = Driver(a_sweep(SearchSpace(a=Int(1, 2, log=True)), epochs=1, backend="random"))
    assert len(driver.run(20)) == 20
    assert {t.params["a"] for t in driver.trials} == {1, 2}


def test_random_is_even() -> None:
    driver = Driver(a_sweep(SearchSpace(a=Choice(["x", "y", "z"]), b=Float(0, 1)), epochs=1, backend="random"))
    driver.run(600)
    counts = [sum(t.params["a"] == v for t in driver.trials) for v in "xyz"]
    assert sum(counts) == 600
    assert min(counts) > 150
    places = sorted(t.params["b"] for t in driver.trials)
    assert max(b - a for a, b in itertools.pairwise([0.0, *places, 1.0])) < 0.05


@pytest.mark.parametrize("step", ["ask", "report", "tell", "state"])
def test_a_search_that_broke_off_anywhere_goes_on_from_what_was_kept(step: str) -> None:
    undisturbed = Driver(a_sweep(epochs=3, backend="keras-tuner", seed=8))
    undisturbed.run(8)
    driver = Driver(a_sweep(epochs=3, backend="keras-tuner", seed=8))
    driver.backend = FailingBackend(driver.backend, step, 4)
    with pytest.raises(SweepError, match=f"in {step} of trial 4"):
        driver.run(8)
    driver.cut()
    if driver.trials and not driver.trials[-1].state.finished:
        number = driver.trials[-1].number
        driver.finish(number, driver.train(number))
    driver.run(8)
    assert driver.proposals() == undisturbed.proposals()
