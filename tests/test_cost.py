"""What training costs: learned from epochs, better than the median where the cost depends on the configuration."""

import math

import numpy as np
import pytest

from imgclf_sweep import Choice, Fixed, Float, Int, SearchSpace
from imgclf_sweep.cost import MOST, Costs, Encoding, fit
from imgclf_sweep.trial import Measurement, Outcome, State, Suggestion

SPACE = SearchSpace(
    filters=Choice([16, 32, 64, 128]),
    layers=Int(1, 4),
    rate=Float(1e-4, 1e-1, log=True),
    optimizer=Choice(["adam", "sgd"]),
    momentum=Float(0.0, 0.9, when={"optimizer": "sgd"}),
    batch=Fixed(64),
)


def truth(params):
    """Seconds of an epoch: a part that does not depend on the configuration, and one like a convolution's."""
    return 0.5 + 0.002 * params["filters"] ** 1.5 * params["layers"] * (1.2 if params["optimizer"] == "adam" else 1.0)


def learned(count, seed=0, epochs=4, noise=0.05, slow_first=1.0, overhead=0.0):
    """Costs that have seen `count` finished trials of a random search, and the generator for more."""
    rng, costs = np.random.default_rng(seed), Costs(SPACE)
    for number in range(count):
        params = SPACE.sample(rng)
        seconds = {e: truth(params) * math.exp(noise * rng.normal()) for e in range(1, epochs + 1)}
        seconds[1] += slow_first
        costs.learn(Suggestion(number, params, epochs), seconds, sum(seconds.values()) + overhead)
    return costs, rng


def new(rng, number=10_000, epochs=4):
    return Suggestion(number, SPACE.sample(rng), epochs)


def test_nothing_is_known_before_an_epoch_is_measured():
    costs = Costs(SPACE)
    suggestion = new(np.random.default_rng(0))
    assert costs.left(suggestion, 0.5) is None and costs.epoch(suggestion, 0.5) is None and costs.overhead(0.5) == 0
    costs.ended(suggestion, Outcome(State.FAILED, seconds=3.0))
    assert costs.left(suggestion, 0.5) is None and list(costs.totals) == [3.0]


def test_one_trial_gives_its_median_with_doubt():
    costs = Costs(SPACE)
    rng = np.random.default_rng(0)
    costs.learn(new(rng, 0), {1: 9.0, 2: 2.0, 3: 2.0, 4: 2.0}, 17.0)
    low, middle, high = (costs.epoch(new(rng), q) for q in (0.1, 0.5, 0.9))
    assert middle == pytest.approx(2.0) and 1.0 < low < 2.0 < high < 4.0
    assert costs.overhead(0.5) == pytest.approx(9.0)  # the first epoch's 7 s more, and 2 s besides the epochs
    assert costs.left(new(rng), 0.5) == pytest.approx(4 * 2.0 + 9.0)


@pytest.mark.parametrize("count", [10, 30, 200])
def test_where_the_cost_depends_on_the_configuration_it_beats_the_median(count):
    costs, rng = learned(count)
    fresh = [new(rng) for _ in range(200)]
    real = np.log([truth(s.params) for s in fresh])
    predicted = np.log([costs.epoch(s, 0.5) for s in fresh])
    median = np.median(np.log([truth(s.params) for s in (new(np.random.default_rng(i)) for i in range(200))]))
    off, off_median = np.abs(predicted - real).mean(), np.abs(median - real).mean()
    assert off < off_median / (2 if count < 30 else 4)


@pytest.mark.parametrize("count", [3, 8, 30, 200])
def test_the_range_holds_as_often_as_it_says(count):
    inside = []
    for seed in range(12):
        costs, rng = learned(count, seed)
        for suggestion in (new(rng) for _ in range(25)):
            real = truth(suggestion.params)
            inside.append(costs.epoch(suggestion, 0.1) <= real <= costs.epoch(suggestion, 0.9))
    assert np.mean(inside) >= (0.55 if count == 3 else 0.7)  # 0.8 is meant; three trials say little of 24 kinds


def test_where_it_does_not_depend_on_the_configuration_the_median_stays():
    rng = np.random.default_rng(1)
    rows = np.asarray([Encoding(SPACE).row(SPACE.sample(rng)) for _ in range(40)])
    model = fit(rows, np.log(2.0) + 0.1 * rng.normal(size=40))
    same = fit(rows, np.full(40, np.log(2.0)))
    assert not same.slopes.any() and same.predict(rows[0], 0.5) == pytest.approx(2.0)
    assert np.abs([model.predict(row, 0.5) - 2.0 for row in rows]).max() < 0.25


def test_a_trial_that_the_machine_was_too_busy_for_does_not_bend_the_rest():
    costs, rng = learned(40)
    for number in (500, 501):
        slow = new(rng, number)
        costs.learn(slow, {e: 50 * truth(slow.params) for e in range(1, 5)}, 1000.0)
    fresh = [new(rng) for _ in range(50)]
    assert np.median([abs(math.log(costs.epoch(s, 0.5) / truth(s.params))) for s in fresh]) < 0.25


def test_a_running_trial_is_judged_by_its_own_epochs():
    costs, rng = learned(20)
    odd = new(rng, 77, epochs=6)
    costs.measured(odd, Measurement(1, {}, 40.0))
    assert costs.epoch(odd, 0.5) < 20.0  # its first epoch also compiled: the others know better
    costs.measured(odd, Measurement(2, {}, 30.0))
    costs.measured(odd, Measurement(3, {}, 31.0))
    assert costs.done(odd) == 3
    assert costs.left(odd, 0.5, running=True) == pytest.approx(3 * 30.5, rel=0.1)
    assert costs.left(odd, 0.5) > costs.left(odd, 0.5, running=True)  # begun anew it is built anew
    costs.measured(odd, Measurement(1, {}, 40.0))  # its checkpoint was lost: from the start
    assert costs.done(odd) == 1


def test_epochs_that_a_promoted_trial_went_on_from_are_not_its_own():
    costs, _ = learned(10, epochs=4)
    params = {"filters": 16, "layers": 1, "rate": 0.01, "optimizer": "adam", "batch": 64}
    whole, promoted = Suggestion(90, params, 9), Suggestion(91, params, 9, initial_epoch=3, parent=5)
    each = costs.epoch(whole, 0.5)
    assert costs.left(whole, 0.5) - costs.left(promoted, 0.5) == pytest.approx(3 * each)


def test_single_epochs_are_better_than_nothing():
    costs = Costs(SPACE)
    rng = np.random.default_rng(3)
    for number in range(20):
        s = new(rng, number, epochs=1)
        costs.learn(s, {1: truth(s.params)}, truth(s.params) + 2.0)
    assert costs.overhead(0.5) == pytest.approx(2.0)
    s = new(rng, epochs=1)
    assert costs.left(s, 0.5) == pytest.approx(truth(s.params) + 2.0, rel=0.35)


def test_a_configuration_outside_the_space_is_predicted_from_what_it_shares():
    costs, _ = learned(30)
    outside = {"filters": 4096, "layers": 2, "kind": "resnet", "optimizer": "lion"}
    assert math.isfinite(costs.epoch(Suggestion(999, outside, 4), 0.9))
    assert costs.epoch(Suggestion(999, {}, 4), 0.5) > 0


def test_rows_lie_within_0_and_1_in_the_space():
    rng, encoding = np.random.default_rng(5), Encoding(SPACE)
    rows = np.asarray([encoding.row(SPACE.sample(rng)) for _ in range(200)])
    assert rows.min() >= 0 and rows.max() <= 1 and rows.shape[1] == 2 + 2 + 2 + 2 + 3
    assert Encoding(SearchSpace(a=Fixed(3))).row({"a": 3}) == []


def test_many_trials_are_learned_from_the_latest():
    costs = Costs(SearchSpace(filters=Choice([16, 32])))
    for number in range(2 * MOST):
        each = 1.0 if number < MOST else 7.0
        costs.learn(Suggestion(number, {"filters": 16 if number % 2 else 32}, 2), {1: each, 2: each}, 2 * each)
    assert costs.epoch(Suggestion(9999, {"filters": 16}, 2), 0.5) == pytest.approx(7.0)
