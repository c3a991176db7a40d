"""The declaration: defaults, checks, and JSON there and back."""

import json

import pytest

from imgclf_sweep import Choice, Objective, SearchSpace, Sweep, datasets
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
