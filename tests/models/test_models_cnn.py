"""The "cnn" family built with Keras: exact sizes, what each knob does, and one line for what cannot be built."""

import keras
import numpy as np
import pytest

from imgclf_sweep.errors import BadInput
from imgclf_sweep.models import knobs
from imgclf_sweep.models.build import count_parameters
from imgclf_sweep.models.cnn import build_cnn
from imgclf_sweep.models.shared_knobs import WITH_SMOOTHING
from imgclf_sweep.sweep import LOSSES

SPARSE = "sparse_categorical_crossentropy"


def build(shape=(8, 8, 1), classes=3, loss=SPARSE, **params):
    return build_cnn(params, shape, classes, loss)


@pytest.mark.parametrize(
    ("params", "shape", "total", "trainable"),
    [
        ({"filters": [64, 32], "kernel_size": 2, "padding": "same", "dense_units": 256}, (32, 32, 1), 535_658, 535_658),
        (
            {"filters": [64, 128, 256], "kernel_size": 2, "padding": "same", "dropout": 0.2, "dense_units": 512},
            (32, 32, 1),
            2_267_338,
            2_267_338,
        ),
        ({"filters": [16, 32, 64], "padding": "same"}, (32, 32, 3), 156_074, 156_074),
        (
            {
                "filters": [64, 128, 128],
                "convs": 2,
                "kernel_size": 4,
                "padding": "same",
                "batch_norm": True,
                "dropout": [0.2, 0.25, 0.35],
                "dense_units": 256,
                "dense_batch_norm": True,
                "dense_dropout": 0.5,
            },
            (32, 32, 3),
            1_517_450,
            1_515_658,
        ),
        ({"dense_units": 100}, (28, 28, 1), 542_230, 542_230),
    ],
)
def test_published_networks_have_their_published_size(params, shape, total, trainable):
    model = build_cnn(params, shape, 10, SPARSE)
    assert count_parameters(model) == (total, trainable)
    assert model.output_shape == (None, 10)


def test_layers_stand_in_order_under_readable_names():
    model = build(
        (16, 16, 1),
        filters=[4, 8],
        convs=[1, 2],
        padding="same",
        batch_norm=[False, True],
        dropout=[0.0, 0.3],
        dense_units=7,
        dense_batch_norm=True,
        dense_dropout=0.1,
    )
    assert [layer.name for layer in model.layers] == [
        "image",
        "block1_conv1",
        "block1_pool",
        "block2_conv1",
        "block2_conv1_norm",
        "block2_conv2",
        "block2_conv2_norm",
        "block2_pool",
        "block2_dropout",
        "flatten",
        "dense",
        "dense_norm",
        "dense_dropout",
        "classes",
    ]
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
    assert model.get_layer("block2_dropout").rate == 0.3
    assert model.get_layer("block1_conv1").activation is keras.activations.relu
    assert model.get_layer("classes").activation is keras.activations.softmax
    assert model.get_layer("block1_pool").strides == (2, 2)


def test_each_block_takes_its_own_values():
    model = build((32, 32, 1), filters=[4, 8], kernel_size=[5, 3], padding=["same", "valid"], pool_size=[4, 2])
    first, second = model.get_layer("block1_conv1"), model.get_layer("block2_conv1")
    assert (first.filters, first.kernel_size, first.padding) == (4, (5, 5), "same")
    assert (second.filters, second.kernel_size, second.padding) == (8, (3, 3), "valid")
    assert model.get_layer("block1_pool").pool_size == model.get_layer("block1_pool").strides == (4, 4)
    assert tuple(model.get_layer("block2_pool").output.shape) == (None, 3, 3, 8)


def test_penalties_act_on_the_convolutions_alone():
    def penalties(layer):
        found = layer.kernel_regularizer
        return found and (float(found.l1), float(found.l2))

    model = build((16, 16, 1), filters=[4, 8], l1=[0.1, 0.0], l2=[0.2, 0.0])
    assert penalties(model.get_layer("block1_conv1")) == pytest.approx((0.1, 0.2))
    assert penalties(model.get_layer("block2_conv1")) is None
    assert penalties(model.get_layer("dense")) is None
    model = build(l1l2=0.25)
    assert penalties(model.get_layer("block1_conv1")) == (0.25, 0.0)  # as keras.regularizers.L1L2(0.25)
    reference = keras.regularizers.L1L2(0.25)
    assert penalties(model.get_layer("block1_conv1")) == (float(reference.l1), float(reference.l2))


@pytest.mark.parametrize("name", knobs.INITIALIZERS)
def test_kernels_start_as_the_initializer_says_but_for_the_softmax(name):
    model = build((16, 16, 1), filters=[4, 8], kernel_initializer=name)
    for layer in ("block1_conv1", "block2_conv1", "dense"):
        assert keras.initializers.serialize(model.get_layer(layer).kernel_initializer) == keras.initializers.serialize(
            keras.initializers.get(name)
        )
    assert type(model.get_layer("classes").kernel_initializer).__name__ == "GlorotUniform"
    default = build((16, 16, 1), filters=[4, 8])
    assert type(default.get_layer("dense").kernel_initializer).__name__ == "GlorotUniform"


@pytest.mark.parametrize("name", knobs.OPTIMIZERS)
def test_every_optimizer_is_known_to_keras(name):
    default = build(optimizer=name).optimizer
    assert type(default).__name__.lower() == name
    assert float(default.learning_rate) == pytest.approx(float(type(default)().learning_rate))
    assert float(build(optimizer=name, learning_rate=0.5).optimizer.learning_rate) == 0.5
    assert hasattr(default, "momentum") == (name in knobs.WITH_MOMENTUM)
    if name in knobs.WITH_MOMENTUM:
        assert build(optimizer=name, momentum=0.75).optimizer.momentum == 0.75
        assert default.momentum == type(default)().momentum


@pytest.mark.parametrize("name", knobs.OPTIMIZERS)
def test_every_optimizer_takes_a_weight_decay(name):
    assert build(optimizer=name).optimizer.weight_decay == keras.optimizers.get(name).weight_decay
    assert build(optimizer=name, weight_decay=0.25).optimizer.weight_decay == 0.25
    assert not build(optimizer=name, weight_decay=0).optimizer.weight_decay


@pytest.mark.parametrize("loss", LOSSES)
def test_label_smoothing_goes_to_the_loss_or_is_refused(loss):
    assert build(loss=loss, label_smoothing=0).loss == loss
    if loss not in WITH_SMOOTHING:
        with pytest.raises(BadInput, match=f"'label_smoothing' is 0.2, but the loss {loss} has none, only sparse"):
            build(loss=loss, label_smoothing=0.2)
        return
    smoothed = build(loss=loss, label_smoothing=0.2, filters=2, dense_units=2)
    assert smoothed.loss.label_smoothing == 0.2 and smoothed.loss.name == loss.removeprefix("sparse_")
    y = np.eye(3, dtype="float32")[[0, 1, 2, 0]]
    measured = smoothed.evaluate(np.zeros((4, 8, 8, 1), "float32"), y, verbose=0, return_dict=True)
    assert set(measured) == {"accuracy", "loss"} and measured["accuracy"] in (0.25, 0.5)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_measures_accuracy_under_that_name(loss):
    model = build(loss=loss, filters=2, dense_units=2)
    y = np.array([0, 1, 2, 0])
    y = y if LOSSES[loss] else np.eye(3, dtype="float32")[y]
    measured = model.evaluate(np.zeros((4, 8, 8, 1), "float32"), y, verbose=0, return_dict=True)
    assert set(measured) == {"accuracy", "loss"}
    assert measured["accuracy"] in (0.25, 0.5)  # one answer for all four: a fraction of labels, not of outputs


def test_it_learns_and_saves_as_a_stock_model(tmp_path):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 64)
    x = (rng.uniform(0, 0.2, (64, 8, 8, 1)) + 0.6 * y[:, None, None, None]).astype("float32")
    model = build(classes=2, filters=4, dense_units=8, learning_rate=0.01)
    model.fit(x, y, epochs=8, verbose=0)
    assert model.evaluate(x, y, verbose=0, return_dict=True)["accuracy"] > 0.9
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)


def test_classes_may_be_more_than_the_data_set_has_but_not_fewer():
    assert build(classes=3, **{}).output_shape == (None, 3)
    assert build_cnn({"classes": 12}, (8, 8, 1), 10, SPARSE).output_shape == (None, 12)
    with pytest.raises(BadInput, match="knob 'classes' is 5 but the data set has 10 classes"):
        build_cnn({"classes": 5}, (8, 8, 1), 10, SPARSE)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"blocks": 3}, r"image 8x8 is too small for block 2: .* \(blocks=3\)"),
        ({"filters": [4, 8], "pool_size": 8}, r"too small for block 1: 6x6 .* 8x8 pooling takes \(filters=\[4, 8\]"),
        ({"kernel_size": 9}, "less than a 9x9 convolution takes"),
        ({"momentum": 0.5}, "the optimizer adam has none"),
        ({"nonsense": 1}, "unknown knob"),
    ],
)
def test_what_cannot_be_built_is_one_line(params, said):
    with pytest.raises(BadInput, match=said) as one:
        build_cnn(params, (8, 8, 1), 10, SPARSE)
    assert "\n" not in str(one.value)


def test_our_reckoning_of_sizes_agrees_with_keras():
    """Whatever `check_image` lets through Keras builds, and what it refuses Keras could not."""
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(40):
        params = {
            "blocks": int(rng.integers(1, 4)),
            "convs": int(rng.integers(1, 3)),
            "kernel_size": int(rng.integers(1, 5)),
            "pool_size": int(rng.integers(1, 4)),
            "padding": str(rng.choice(["same", "valid"])),
            "filters": 2,
            "dense_units": 2,
        }
        shape = (int(rng.integers(4, 14)), int(rng.integers(4, 14)), 1)
        try:
            model = build_cnn(params, shape, 3, SPARSE)
        except BadInput:
            refused += 1
            x = keras.Input(shape)
            with pytest.raises(ValueError):  # noqa: PT012
                for _ in range(params["blocks"]):
                    for _ in range(params["convs"]):
                        x = keras.layers.Conv2D(2, params["kernel_size"], padding=params["padding"])(x)
                    x = keras.layers.MaxPooling2D(params["pool_size"])(x)
                    if 0 in x.shape:
                        raise ValueError("nothing is left") from None
        else:
            assert model.predict(np.zeros((1, *shape), "float32"), verbose=0).shape == (1, 3)
    assert 5 < refused < 35
