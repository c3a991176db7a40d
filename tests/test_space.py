"""Parameters, conditions and the grid."""

import json
import math

import numpy as np
import pytest

from imgclf_sweep import Choice, Fixed, Float, Int, SearchSpace
from imgclf_sweep.errors import BadInput

SPACE = SearchSpace(
    optimizer=Choice(["adam", "sgd"]),
    momentum=Float(0.5, 0.9, when={"optimizer": "sgd"}),
    nesterov=Choice([True, False], when={"momentum": [0.5, 0.9]}),
    filters=Choice([16, [16, 32]]),
    units=Int(8, 32, step=8),
    rate=Float(1e-4, 1e-1, log=True),
    padding="same",
)


def test_grid_takes_every_choice_every_step_and_both_ends_of_a_range():
    grid = list(SPACE.grid())
    assert len(grid) == SPACE.grid_size() == (1 + 2 * 2) * 2 * 4 * 2
    assert len({json.dumps(p, sort_keys=True) for p in grid}) == len(grid)
    assert all(SPACE.contains(p) for p in grid)
    assert {p["units"] for p in grid} == {8, 16, 24, 32}
    assert {p["rate"] for p in grid} == {1e-4, 1e-1}
    assert {p.get("momentum") for p in grid} == {None, 0.5, 0.9}


def test_grid_order_is_fixed_and_the_last_parameter_changes_fastest():
    space = SearchSpace(a=Choice([1, 2]), b=Choice(["x", "y"]))
    assert list(space.grid()) == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]


def test_an_inactive_parameter_is_absent():
    rng = np.random.default_rng(0)
    for _ in range(50):
        params = SPACE.sample(rng)
        assert SPACE.contains(params)
        assert ("momentum" in params) == (params["optimizer"] == "sgd")
    assert not SPACE.contains({**SPACE.defaults(), "momentum": 0.7})
    assert SPACE.defaults()["filters"] == 16 and "momentum" not in SPACE.defaults()


def test_sampling_stays_in_range_and_covers_it():
    rng = np.random.default_rng(1)
    drawn = [Int(1, 3, log=True).sample(rng) for _ in range(200)]
    assert set(drawn) == {1, 2, 3}
    rates = [Float(1e-4, 1e-1, log=True).sample(rng) for _ in range(500)]
    assert all(1e-4 <= r <= 1e-1 for r in rates)
    assert 0.4 < np.mean([r < math.sqrt(1e-4 * 1e-1) for r in rates]) < 0.6
    assert {Float(0, 0.3, step=0.1).sample(rng) for _ in range(100)} == {0.0, 0.1, 0.2, 0.3}


def test_json_keeps_everything():
    assert SearchSpace.from_json(json.loads(json.dumps(SPACE.to_json()))) == SPACE
    assert list(SearchSpace.from_json(SPACE.to_json())) == list(SPACE)


def test_true_is_not_one():
    assert Choice([True, 1, 0]).contains(True)
    assert not Choice([1, 2]).contains(True)
    assert Choice([1, 2]).contains(1.0)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Int(5, 2), "low 5 above high 2"),
        (lambda: Float(0, 1, log=True), "needs low above 0"),
        (lambda: Float(float("nan"), 1), "finite"),
        (lambda: Float(0, float("inf")), "finite"),
        (lambda: Float("a", 1), "must be a number"),
        (lambda: Int(1.5, 3), "whole number"),
        (lambda: Int(1, 10**30), "within -2**53 and 2**53"),
        (lambda: Int(1, 3, step=0), "step must be above 0"),
        (lambda: Int(1, 8, step=2, log=True), "not both"),
        (lambda: Choice([]), "no values"),
        (lambda: Choice("adam"), "list of values"),
        (lambda: Choice([1, 1.0]), "twice"),
        (lambda: Choice([{}]), "must be a number, text"),
        (lambda: Fixed(object()), "must be a number, text"),
        (lambda: SearchSpace(a=Choice([1], when={"b": 1}), b=Choice([1, 2])), "not declared before it"),
        (lambda: SearchSpace(a=Choice([1, 2]), b=Int(0, 1, when={"a": 3})), "can never be"),
        (lambda: SearchSpace({"a\n": 1}), "printable"),
        (lambda: SearchSpace({"tuner/epochs": 1}), "Keras Tuner"),
        (lambda: SearchSpace(a=Int(1, 10**9)).grid_size(), "more than 1,000,000"),
        (lambda: SearchSpace(a=Int(1, 5000), b=Int(1, 5000)).grid_size(), "more than 1,000,000"),
        (lambda: SearchSpace.from_json({"a": {"kind": "thing"}}), "unknown kind"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(make, says):
    with pytest.raises(BadInput) as caught:
        make()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_widening_makes_other_configurations_possible():
    space = SearchSpace(a=Int(2, 8, step=2), b=Float(0.1, 0.2), c=Choice(["x"], when={"a": 4}))
    wide = space.widened([{"a": 3, "b": 0.5, "d": (1, 2)}])
    assert wide["a"].contains(3) and wide["a"].contains(8) and wide["b"].contains(0.5)
    assert wide["c"] == space["c"] and wide["d"].contains((1, 2))
    assert space.widened([{"a": 4, "b": 0.1, "c": "x"}]) == space


def test_widening_keeps_a_range_of_numbers_and_each_other_value_once():
    space = SearchSpace(l2=Float(1e-5, 1e-2, log=True), dropout=Float(0.0, 0.5), flag=Choice([True]))
    wide = space.widened([{"l2": 0.0, "dropout": (0.1, 0.2), "flag": 1}, {"l2": 1, "dropout": 0.3}, {"dropout": 0.3}])
    assert wide["l2"] == Float(0.0, 1.0)  # no logarithm of 0
    assert wide["dropout"] == Choice([0.0, 0.5, (0.1, 0.2), 0.3])
    assert wide["flag"].choices == (True, 1) and wide["flag"].choices[0] is True


def test_a_default_is_what_a_configuration_starts_from():
    space = SearchSpace(
        a=Choice([1, 2, 4], default=4), b=Float(0, 1, default=0.5), c=Int(2, 9, default=3), d=Choice([5, 6])
    )
    assert space.defaults() == {"a": 4, "b": 0.5, "c": 3, "d": 5}
    assert SearchSpace.from_json(json.loads(json.dumps(space.to_json()))).defaults() == space.defaults()
    for kind, arguments in ((Choice, [[1, 2]]), (Int, [1, 2]), (Float, [1, 2])):
        with pytest.raises(BadInput, match="has default 3, which is none of its values"):
            kind(*arguments, default=3)
    assert repr(Int(2, 9, default=3.0).start()) == "3" and repr(Float(0, 1, default=1).start()) == "1.0"
