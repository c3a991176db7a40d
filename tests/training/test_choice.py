"""Which trainer a sweep has: a pure rule. What is installed is told by the test."""

import importlib.util

import pytest

from imgclf_sweep import Choice, Float, SearchSpace, Sweep, datasets
from imgclf_sweep.errors import BadInput
from imgclf_sweep.models import knobs
from imgclf_sweep.sweep import LOSSES, BuildFunction
from imgclf_sweep.training import choice
from imgclf_sweep.training.choice import AUTO, COMPILED, FIT, Chosen, choose, unsuited


def sweep(dataset=None, **changes):
    return Sweep(**{"dataset": dataset or datasets.digits(), "space": SearchSpace(filters=Choice([8, 16])), **changes})


@pytest.fixture
def installed(monkeypatch):
    """A set of modules: what is found of JAX."""
    found = {"jax"}

    def find(name, package=None):
        return object() if name in found else None

    monkeypatch.setattr(importlib.util, "find_spec", find)
    return found


def test_small_networks_are_compiled_and_large_ones_are_not(installed):
    small = choose(AUTO, sweep(), gpu=False)
    assert small.trainer == COMPILED and "--trainer fit" in small.line
    large = choose(AUTO, sweep(datasets.cifar10(), space=SearchSpace(filters=[[64, 128]])), gpu=False)
    assert large.trainer == FIT and "times as long (--trainer compiled" in large.line
    assert (
        choose(COMPILED, sweep(datasets.cifar10(), space=SearchSpace(filters=[[64, 128]])), False).trainer == COMPILED
    )
    assert choose(FIT, sweep(), gpu=False) == Chosen(FIT)
    assert choose("synthetic", sweep(), gpu=False) == Chosen("synthetic")


def test_the_rule_tells_the_search_spaces_apart_as_measured(installed, project, monkeypatch):
    from imgclf_sweep.sweepfile import execute

    monkeypatch.setenv("IMGCLF_SWEEP_IMAGES", str(project))
    found = {
        name: choose(AUTO, execute(project / "search_spaces" / f"{name}.py"), gpu=False).trainer
        for name in ("digits", "mnist", "cifar_gray", "cifar_batchnorm", "image_folder", "cifar_augment")
    }
    assert found == dict.fromkeys(found, FIT) | dict.fromkeys(["digits", "mnist", "cifar_gray"], COMPILED)


def test_on_a_gpu_what_can_be_compiled_is_if_jax_sees_it(installed):
    large = sweep(datasets.cifar10(), space=SearchSpace(filters=[[64, 128]]))
    without = choose(AUTO, large, gpu=True)
    assert without.trainer == FIT and "CUDA plugin" in without.line
    installed.add("jax_cuda12_plugin")
    assert choose(AUTO, large, gpu=True).trainer == COMPILED


def test_without_jax_keras_fits_and_compiled_is_refused(installed):
    installed.clear()
    chosen = choose(AUTO, sweep(), gpu=False)
    assert chosen.trainer == FIT and "JAX is not installed" in chosen.line
    with pytest.raises(BadInput, match="--trainer compiled: JAX is not installed"):
        choose(COMPILED, sweep(), gpu=False)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model": BuildFunction("/x.py", "build", "0")}, "build"),
        (
            {"model": "transfer", "space": SearchSpace(thaw="all"), "dataset": datasets.cifar10(scale=None)},
            "family transfer",
        ),
        ({"space": SearchSpace(optimizer=Choice(["adam", "lion"]))}, "optimizer lion"),
        ({"known": [{"optimizer": "ftrl"}]}, "optimizer ftrl"),
    ],
)
def test_what_cannot_be_compiled_is_named(installed, changes, why):
    asked = sweep(**changes)
    with pytest.raises(BadInput, match=f"--trainer compiled: .*{why}"):
        choose(COMPILED, asked, gpu=False)
    chosen = choose(AUTO, asked, gpu=False)
    assert chosen.trainer == FIT and "Keras fit, not one compiled program" in chosen.line


def test_every_knob_is_compiled_or_refused(installed):
    """A knob that is added later has to be thought of: with a value of its own each is either an input, a shape, or refused."""
    known = {
        "blocks", "convs", "filters", "kernel_size", "kernel_initializer", "padding", "batch_norm", "pool_size", "dropout",
        "l1", "l2", "l1l2", "dense_units", "dense_batch_norm", "dense_dropout", "classes", "optimizer", "learning_rate",
        "momentum", "weight_decay", "label_smoothing",
        "rotation", "width_shift", "height_shift", "horizontal_flip", "shear", "zoom",
    }  # fmt: skip
    assert set(knobs.KNOBS) == known
    for name in LOSSES:
        assert unsuited(sweep(loss=name)) is None
    for name in knobs.INITIALIZERS:
        assert unsuited(sweep(space=SearchSpace(kernel_initializer=name))) is None


def test_augmentation_is_compiled(installed):
    strong = {"rotation": Float(0, 20), "width_shift": 0.2, "height_shift": 0.1, "horizontal_flip": True, "zoom": 0.2}
    assert unsuited(sweep(space=SearchSpace(**strong))) is None
    assert unsuited(sweep(known=[{"shear": 0.1}])) is None
    chosen = choose(AUTO, sweep(space=SearchSpace(filters=16, **strong)), gpu=False)
    assert chosen.trainer == COMPILED
    assert choose(COMPILED, sweep(space=SearchSpace(**strong)), gpu=False).trainer == COMPILED


def test_a_space_is_judged_by_the_same_configurations_every_time():
    asked = sweep(
        space=SearchSpace(filters=Choice([1, 2, 3]), dropout=Float(0.0, 0.5)), known=[{"filters": 99}], trials=9
    )
    one, two = choice.configurations(asked), choice.configurations(asked)
    assert one == two and len(one) == 9 and one[0] == {"filters": 99}
