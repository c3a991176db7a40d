"""The knobs of the "cnn" family: what each may hold, and which contradict each other. Without Keras."""

import contextlib
import subprocess
import sys

import pytest

from imgclf_sweep import Choice, Fixed, Float, Int, SearchSpace, Sweep, datasets
from imgclf_sweep.errors import BadInput
from imgclf_sweep.models import knobs
from imgclf_sweep.models.knobs import check_space, resolve
from imgclf_sweep.models.shared_knobs import WITH_SMOOTHING
from imgclf_sweep.sweep import LOSSES

ALLOWED = {
    "blocks": [1, 3, 100],
    "convs": [1, 2, [1, 2]],
    "filters": [1, 512, [16, 32, 64]],
    "kernel_size": [1, 5, [3, 5]],
    "kernel_initializer": list(knobs.INITIALIZERS),
    "padding": ["valid", "same", ["same", "valid"]],
    "batch_norm": [True, False, [True, False]],
    "pool_size": [1, 4, [2, 1]],
    "dropout": [0, 0.5, [0.2, 0.25, 0.35]],
    "l1": [0, 0.01, [0.1, 0.0]],
    "l2": [0.0, 3.0, [0.1, 0]],
    "l1l2": [0.001, [0.1, 0.2]],
    "dense_units": [1, 512],
    "dense_batch_norm": [True, False],
    "dense_dropout": [0.0, 0.99],
    "classes": [2, 100],
    "optimizer": list(knobs.OPTIMIZERS),
    "learning_rate": [None, 1e-5, 1, 0.1],
    "momentum": [0, 0.9],
    "weight_decay": [None, 0, 0.004, 2],
    "label_smoothing": [0, 0.1, 0.99],
    "rotation": [0, 20, 180.0],
    "width_shift": [0, 0.2],
    "height_shift": [0.0, 0.99],
    "horizontal_flip": [True, False],
    "shear": [0, 0.2, 1],
    "zoom": [0, 0.2],
}
REFUSED = {
    "blocks": [0, 101, 1.0, True, "2", [1, 2], None],
    "convs": [0, 101, 1.5, [1, 0], []],
    "filters": [0, -1, 16.0, True, "16", None, [16, None], [[16]], [32] * 101],
    "kernel_size": [0, 3.0, [3, 0]],
    "kernel_initializer": ["HeUniform", "he_unifrom", None, ["he_uniform"]],
    "padding": ["full", "SAME", None, 0, ["same", "no"]],
    "batch_norm": [0, 1, "yes", None, [True, 1]],
    "pool_size": [0, 2.5, [2, -2]],
    "dropout": [1, 1.0, -0.1, None, True, "0.5", [0.5, 1.0]],
    "l1": [-1e-9, None, False, [0.1, -0.1]],
    "l2": [-1, "0", True],
    "l1l2": [-0.1, None, [0.1, "x"]],
    "dense_units": [0, 12.0, [128, 64], None],
    "dense_batch_norm": [0, None, [True]],
    "dense_dropout": [1, -1, [0.5]],
    "classes": [1, 0, 10.0, None, True],
    "optimizer": ["Adam", "adamn", None, 1, ["adam"]],
    "learning_rate": [0, -0.1, "auto", True, [0.1]],
    "momentum": [1, -0.1, None, [0.9], True],
    "weight_decay": [-1e-9, "0.1", True, [0.1]],
    "label_smoothing": [1, -0.1, None, True, [0.1]],
    "rotation": [-1, 181, None, True, [20]],
    "width_shift": [1, -0.1, True, [0.1]],
    "height_shift": [1.0, "0.2", None],
    "horizontal_flip": [0, None, "left", [True]],
    "shear": [-0.1, 1.1, True, None],
    "zoom": [1, -0.2, [0.1, 0.2]],
}


def test_the_tables_cover_every_knob():
    assert set(ALLOWED) == set(REFUSED) == set(knobs.KNOBS)


def _beside(name):
    return {"optimizer": "sgd"} if name == "momentum" else {}


@pytest.mark.parametrize("name", ALLOWED)
def test_a_knob_holds_what_it_may(name):
    for value in ALLOWED[name]:
        resolve({**_beside(name), name: value})
        check_space(SearchSpace(**_beside(name), **{name: Fixed(value)}))
    check_space(SearchSpace(**_beside(name), **{name: Choice(ALLOWED[name][:2])}))


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_a_knob_refuses_what_it_cannot_hold(name, value):
    with pytest.raises(BadInput, match=name) as one:
        resolve({**_beside(name), name: value})
    assert "\n" not in str(one.value)
    good = ALLOWED[name][0]
    with pytest.raises(BadInput, match=name):  # also as the last of several choices
        check_space(SearchSpace(**_beside(name), **{name: Choice([good, value]) if value != good else Fixed(value)}))


@pytest.mark.parametrize(
    ("name", "parameter", "good"),
    [
        ("dropout", Float(0.0, 1.0), False),
        ("dropout", Float(0.0, 0.9), True),
        ("dropout", Float(0.0, 1.0, step=0.3), True),  # its last value is 0.9
        ("filters", Int(0, 64), False),
        ("filters", Int(16, 64, step=16), True),
        ("filters", Int(1, 10**12), True),
        ("filters", Float(16, 64, step=16), False),  # 16.0 is no number of filters
        ("learning_rate", Float(1e-5, 1e-1, log=True), True),
        ("learning_rate", Float(0.0, 0.1), False),
        ("l2", Float(-0.1, 0.1), False),
        ("blocks", Int(1, 1000), False),
        ("padding", Int(1, 2), False),
    ],
)
def test_both_ends_of_a_range_must_fit(name, parameter, good):
    space = SearchSpace({name: parameter})
    with contextlib.nullcontext() if good else pytest.raises(BadInput, match=f"knob '{name}' must be"):
        check_space(space)


def test_unknown_names_are_guessed():
    with pytest.raises(BadInput, match="unknown knob of model cnn 'filter'.*did you mean 'filters'"):
        check_space(SearchSpace(filter=[16, 32]))
    with pytest.raises(BadInput, match="unknown optimizer 'adamn'.*did you mean 'adam"):
        check_space(SearchSpace(optimizer=["adam", "adamn"]))
    with pytest.raises(BadInput, match="unknown knob of model cnn"):
        resolve({"filtres": 3})


def test_one_value_serves_all_blocks_and_a_list_makes_their_number():
    net = resolve({"filters": [16, 32, 64], "dropout": 0.5})
    assert (net.blocks, net.filters, net.dropout) == (3, (16, 32, 64), (0.5, 0.5, 0.5))
    assert net.kernel_size == (3, 3, 3) and net.convs == (1, 1, 1) and net.padding == ("valid",) * 3
    assert resolve({}).blocks == 1 and resolve({}).filters == (32,)
    assert resolve({"blocks": 4, "filters": 8}).filters == (8, 8, 8, 8)
    assert resolve({"blocks": 2, "filters": [8, 16]}).blocks == 2
    assert resolve({"filters": [8]}).blocks == 1
    assert resolve({}).l1l2 is None and resolve({"l1l2": 0.1, "blocks": 2}).l1l2 == (0.1, 0.1)


@pytest.mark.parametrize(
    "params",
    [
        {"filters": [16, 32], "dropout": [0.1, 0.2, 0.3]},
        {"filters": [16, 32], "blocks": 3},
        {"filters": [16, 32], "pool_size": [2]},
        {"optimizer": "adam", "momentum": 0.9},
        {"momentum": 0.9},
        {"l1l2": 0.1, "l1": 0.1},
        {"l1l2": 0.1, "l2": 0.1},
    ],
)
def test_contradictions_are_refused(params):
    with pytest.raises(BadInput):
        resolve(params)
    with pytest.raises(BadInput, match="possible in this space"):
        check_space(SearchSpace({name: Fixed(value) for name, value in params.items()}))
    with pytest.raises(BadInput):
        Sweep(datasets.digits(), space=SearchSpace({name: Fixed(value) for name, value in params.items()}))


def test_a_contradiction_in_one_corner_of_a_space_is_found():
    with pytest.raises(BadInput, match=r"'filters' has 2 values but 'dropout' has 3.*filters=\[16, 32\]"):
        check_space(SearchSpace(filters=Choice([8, [16, 32]]), dropout=Choice([0.5, [0.1, 0.2], [0.1, 0.2, 0.3]])))
    with pytest.raises(BadInput, match="'blocks' is [13] but 'filters' has 2"):
        check_space(SearchSpace(blocks=Int(1, 3), filters=Fixed([16, 32])))
    with pytest.raises(BadInput, match="the optimizer adam has none"):
        check_space(SearchSpace(optimizer=["sgd", "rmsprop", "adam"], momentum=Float(0.0, 0.9)))
    with pytest.raises(BadInput, match="the optimizer adam has none"):
        check_space(SearchSpace(momentum=Float(0.0, 0.9)))


def test_conditions_keep_contradictions_apart():
    check_space(
        SearchSpace(
            optimizer=["adam", "sgd", "rmsprop"], momentum=Float(0, 0.9, when={"optimizer": ["sgd", "rmsprop"]})
        )
    )
    check_space(SearchSpace(l1=Float(0, 0.1), l2=Float(0, 0.1)))
    check_space(
        SearchSpace(
            padding=["valid", "same"],
            l1l2=Float(0.001, 0.1, when={"padding": "valid"}),
            l1=Float(0.001, 0.1, when={"padding": "same"}),
        )
    )
    check_space(
        SearchSpace(
            blocks=[2, 3],
            filters=Choice([[16, 32], [32, 64]], when={"blocks": 2}),
            kernel_size=Choice([[3, 3, 3], [5, 3, 3]], when={"blocks": 3}),
        )
    )
    with pytest.raises(BadInput, match="the optimizer adam has none"):
        check_space(SearchSpace(optimizer=["adam", "sgd"], momentum=Float(0, 0.9, when={"optimizer": ["adam", "sgd"]})))
    with pytest.raises(BadInput, match="adam has none"):  # where padding is valid no optimizer is chosen: Adam
        check_space(
            SearchSpace(
                padding=["same", "valid"],
                optimizer=Choice(["sgd", "rmsprop"], when={"padding": "same"}),
                momentum=0.9,
            )
        )
    with pytest.raises(BadInput, match="excludes 'l2'"):
        check_space(
            SearchSpace(
                dense_units=Int(1, 10**9),
                l1l2=Float(0.001, 0.1, when={"dense_units": [1, 2]}),
                l2=Float(0.001, 0.1, when={"dense_units": [2, 10**9]}),
            )
        )


def test_a_condition_on_the_ends_of_a_range_leaves_its_inside():
    check_space(
        SearchSpace(
            dropout=Float(0.1, 0.5),
            optimizer=Choice(["sgd"], when={"dropout": [0.1, 0.5]}),
            momentum=Fixed(0.9, when={"dropout": [0.1, 0.5]}),
        )
    )
    with pytest.raises(BadInput, match="adam has none"):
        check_space(
            SearchSpace(dropout=Float(0.1, 0.5), optimizer=Choice(["sgd"], when={"dropout": [0.1, 0.5]}), momentum=0.9)
        )


def test_label_smoothing_is_only_for_losses_that_have_it():
    for loss in LOSSES:
        Sweep(datasets.digits(), space=SearchSpace(label_smoothing=0), loss=loss)
        if loss in WITH_SMOOTHING:
            Sweep(datasets.digits(), space=SearchSpace(label_smoothing=Float(0.0, 0.2)), loss=loss)
    said = "label_smoothing' is 0.1.*the loss mean_squared_error has none, only sparse_categorical_crossentropy, "
    for changes in ({"space": SearchSpace(label_smoothing=Choice([0, 0.1]))}, {"known": [{"label_smoothing": 0.1}]}):
        with pytest.raises(BadInput, match=said):
            Sweep(datasets.digits(), loss="mean_squared_error", **changes)
    with pytest.raises(BadInput, match="the loss kl_divergence has none"):
        Sweep(
            datasets.cifar10(scale=None),
            model="transfer",
            loss="kl_divergence",
            space=SearchSpace(label_smoothing=Float(0.0, 0.2)),
        )


def test_large_spaces_are_checked_in_no_time():
    many = {name: Choice([[1, 2, 3], *range(4, 400)]) for name in ("filters", "kernel_size", "pool_size")}
    check_space(SearchSpace(many, dropout=Float(0, 0.9, step=0.0001), l1=Float(0, 1), l2=Float(0, 1)))


def test_an_image_may_be_too_small():
    knobs.check_image(resolve({"blocks": 5, "padding": "same"}), (32, 32, 1))
    with pytest.raises(BadInput, match="image 8x8 is too small for block 2: 1x1 is left"):
        knobs.check_image(resolve({"blocks": 3}), (8, 8, 1))
    with pytest.raises(
        BadInput, match="image 16x16 is too small for block 5: 1x1 is left of it there, less than 2x2 pooling"
    ):
        knobs.check_image(resolve({"blocks": 5, "padding": "same"}), (16, 16, 1))
    with pytest.raises(BadInput, match="block 1: 32x3 is left of it there, less than a 4x4 convolution takes"):
        knobs.check_image(resolve({"kernel_size": 4}), (32, 3, 1))


def test_knobs_load_no_tensor_library():
    code = (
        "import sys; from imgclf_sweep import *; Sweep(datasets.digits(), space=SearchSpace(filters=[1, 2]));"
        "assert not {'keras', 'tensorflow', 'keras_tuner', 'jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
