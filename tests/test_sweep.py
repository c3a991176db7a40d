"""The declaration: defaults, checks, and JSON there and back."""

import json

import pytest

from imgclf_sweep import Choice, Fixed, Objective, SearchSpace, Sweep, datasets
from imgclf_sweep.errors import BadInput
from imgclf_sweep.sweep import BuildFunction


def declare(**changes):
    return Sweep(**{"dataset": datasets.digits(), "space": SearchSpace(filters=Choice([8, 16]))} | changes)


def test_defaults_are_the_documented_ones():
    sweep = declare()
    assert (sweep.model, sweep.loss, sweep.epochs, sweep.batch_size) == (
        "cnn",
        "sparse_categorical_crossentropy",
        10,
        64,
    )
    assert (sweep.trials, sweep.seed, sweep.backend, sweep.validation, sweep.test) == (20, 0, "optuna", 0.2, 0.2)
    assert sweep.objective == Objective("val_accuracy", "max")
    assert (sweep.sampler_name, sweep.pruner_name) == ("tpe", "median")
    assert declare(backend="keras-tuner").sampler_name == "random"


def test_an_objectives_direction_follows_from_its_name():
    assert declare(objective="val_loss").objective.direction == "min"
    assert Objective("val_loss", "min").better(0.1, 0.2)
    assert Objective("val_accuracy", "max").better(0.1, None)
    assert not Objective("val_accuracy", "max").better(0.1, 0.1)


def test_a_grid_is_not_pruned_unless_a_pruner_is_named():
    assert declare(sampler="grid").pruner_name == "none"
    assert declare(sampler="grid", pruner="median").pruner_name == "median"


def test_json_there_and_back():
    sweep = declare(objective="val_loss", sampler="random", seed=7)
    assert Sweep.from_json(json.loads(json.dumps(sweep.to_json()))) == sweep
    built = declare(model=BuildFunction("/a/b.py", "build", "00"), objective=Objective("val_f1", "max"))
    assert Sweep.from_json(json.loads(json.dumps(built.to_json()))) == built


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dataset": "digits"}, "datasets.digits()"),
        ({"model": "resnet"}, "unknown model 'resnet'"),
        ({"model": 3}, "model must be"),
        ({"space": SearchSpace(filter=3)}, "did you mean 'filters'"),
        ({"space": SearchSpace(optimizer=Choice(["adam", "addam"]))}, "addam"),
        ({"space": 3}, "must be a SearchSpace"),
        ({"objective": "val_accurracy"}, "cannot tell"),
        ({"objective": "val_auc"}, "unknown metric 'val_auc'"),
        ({"objective": Objective}, "objective must be"),
        ({"loss": "hinge"}, "unknown loss"),
        ({"epochs": 0}, "epochs must be"),
        ({"epochs": 10**30}, "epochs must be at most 4,294,967,295"),
        ({"batch_size": 1.5}, "batch_size must be"),
        ({"trials": True}, "trials must be"),
        ({"seed": -1}, "seed must be"),
        ({"validation": 0}, "validation must be"),
        ({"test": 1.0}, "test must be"),
        ({"backend": "ray"}, "unknown backend 'ray'"),
        ({"sampler": "bayesian"}, "unknown sampler for backend optuna 'bayesian'; allowed: tpe"),
        ({"backend": "keras-tuner", "pruner": "median"}, "unknown pruner for backend keras-tuner"),
        ({"model": lambda hp: None}, "leave space= out"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(changes, says):
    with pytest.raises(BadInput) as caught:
        declare(**changes)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_objectives_direction_must_be_known():
    with pytest.raises(BadInput, match="'min' or 'max'"):
        Objective("val_loss", "down")


KNOWN = [{"filters": 8}, {"filters": [32, 16], "padding": "same", "epochs": 3}]


def test_known_configurations_are_the_first_trials_and_widen_only_what_is_shown():
    space = SearchSpace(filters=Choice([8, 16]), kernel_size=2)
    sweep = declare(space=space, known=KNOWN)
    first, second = sweep.known_suggestions
    assert (first.number, first.params, first.epochs) == (0, {"kernel_size": 2, "filters": 8}, 10)
    assert second.params == {"kernel_size": 2, "filters": (32, 16), "padding": "same"} and second.epochs == 3
    assert sweep.space == space and space.contains(first.params) and not space.contains(second.params)
    assert sweep.shown_space.contains(first.params) is False  # padding is shown too
    assert sweep.shown_space["filters"].choices == (8, 16, (32, 16))
    assert Sweep.from_json(json.loads(json.dumps(sweep.to_json()))) == sweep
    assert [s.epochs for s in sweep.replaced(epochs=4).known_suggestions] == [4, 4]
    assert [s.epochs for s in sweep.replaced(seed=4).known_suggestions] == [10, 3]


def test_a_known_configuration_takes_the_fixed_values_that_are_active_beside_it():
    optimizers = Choice(["adam", "sgd"])
    space = SearchSpace(optimizer=optimizers, momentum=Fixed(0.9, when={"optimizer": "sgd"}), learning_rate=Fixed(0.05))
    sweep = declare(space=space, known=[{"optimizer": "sgd"}, {"optimizer": "adam"}])
    first, second = (s.params for s in sweep.known_suggestions)
    assert first == {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.05} and space.contains(first)
    assert second == {"optimizer": "adam", "learning_rate": 0.05} and space.contains(second)


@pytest.mark.parametrize(
    ("known", "says"),
    [
        ([3], "known configuration 0 must be a dict"),
        ([{"filters": 8}, {"filter": 8}], "known configuration 1: unknown knob"),
        ([{"filters": -8}], "known configuration 0"),
        ([{"epochs": 0}], "known configuration 0: epochs"),
    ],
)
def test_a_known_configuration_that_is_none_is_refused(known, says):
    with pytest.raises(BadInput, match=says):
        declare(known=known)


def test_a_known_configuration_of_a_build_function_is_made_whole():
    space = SearchSpace(a=Choice([1, 2]), b=Choice([3, 4], when={"a": 2}))
    sweep = declare(model=BuildFunction("/a/b.py", "build", "00"), space=space, known=[{"a": 2}])
    assert sweep.known_suggestions[0].params == {"a": 2, "b": 3}
    with pytest.raises(BadInput, match="unknown parameter of build"):
        declare(model=BuildFunction("/a/b.py", "build", "00"), space=space, known=[{"c": 2}])
