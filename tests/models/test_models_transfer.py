"""The "transfer" family: exact sizes, what each knob does, pixels as the backbones' own functions prepare them."""

import importlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from imgclf_sweep import Choice, Fixed, SearchSpace, Sweep, datasets
from imgclf_sweep.data.preprocess import Affine
from imgclf_sweep.errors import BadInput
from imgclf_sweep.models import transfer
from imgclf_sweep.models.build import Builder, count_parameters
from imgclf_sweep.models.transfer import build_transfer
from imgclf_sweep.models.transfer_knobs import BACKBONES, TRANSFER, resolve
from imgclf_sweep.training.serving import predict, serving_model

BINARY = "binary_crossentropy"
TINY = {"backbone": "MobileNet", "weights": None, "pooling": "avg", "dense_units": (8, 4)}


def build(shape=(32, 32, 3), classes=3, **params):
    return build_transfer({**TINY, **params}, shape, classes, BINARY)[0]


@pytest.mark.parametrize(
    ("backbone", "alone", "total", "trainable"),
    [
        ("ResNet50", 23_587_712, 40_899_018, 40_583_370),
        ("VGG16", 14_714_688, 19_049_866, 18_983_946),
        ("InceptionV3", 21_802_784, 31_544_682, 31_362_410),
    ],
)
def test_published_networks_have_their_published_size(backbone, alone, total, trainable):
    params = {"backbone": backbone, "image_size": 256, "weights": None}
    model, frozen = build_transfer(params, (32, 32, 3), 10, BINARY)
    assert model.get_layer("backbone").count_params() == alone
    assert count_parameters(model) == (total, trainable)
    assert model.output_shape == (None, 10) and frozen is None
    assert model.get_layer("enlarge").output.shape[1:] == (256, 256, 3)
    keras.utils.clear_session()


def test_the_head_and_the_optimizer_are_the_study_s():
    model = build(backbone="MobileNet", pooling="flatten", dense_units=(128, 64))
    names = [layer.name for layer in model.layers]
    assert names[names.index("backbone") :] == [
        *("backbone", "flatten", "norm1", "dense1", "dropout1", "norm2", "dense2", "dropout2", "norm3", "classes")
    ]
    assert [model.get_layer(n).units for n in ("dense1", "dense2", "classes")] == [128, 64, 3]
    assert model.get_layer("dropout1").rate == model.get_layer("dropout2").rate == 0.5
    assert type(model.optimizer) is keras.optimizers.RMSprop and float(model.optimizer.learning_rate) == pytest.approx(
        2e-5
    )
    assert model.loss == BINARY


def test_knobs_of_the_head():
    model = build(dense_units=16, dropout=0.0, head_batch_norm=False, optimizer="sgd", momentum=0.5, learning_rate=0.1)
    names = [layer.name for layer in model.layers]
    assert names[names.index("backbone") :] == ["backbone", "avg", "dense1", "classes"]
    assert model.optimizer.momentum == 0.5
    model = build(weight_decay=0.1, label_smoothing=0.2)
    assert model.optimizer.weight_decay == 0.1 and model.loss.label_smoothing == 0.2 and model.loss.name == BINARY
    model = build(dense_units=[4, 5, 6], dropout=[0.1, 0.2, 0.3])
    assert [model.get_layer(f"dropout{i}").rate for i in (1, 2, 3)] == [0.1, 0.2, 0.3]
    assert build(classes=3, **{}).output_shape == (None, 3)
    assert build_transfer({**TINY, "classes": 7}, (32, 32, 3), 3, BINARY)[0].output_shape == (None, 7)


@pytest.mark.parametrize(
    ("shape", "side", "kind"),
    [
        ((16, 16, 3), 32, keras.layers.UpSampling2D),
        ((8, 8, 3), 64, keras.layers.UpSampling2D),
        ((32, 32, 3), 48, keras.layers.Resizing),
        ((32, 32, 3), 96, keras.layers.Resizing),
        ((64, 64, 3), 32, keras.layers.Resizing),
        ((32, 16, 3), 32, keras.layers.Resizing),
    ],
)
def test_images_are_brought_to_size_inside_the_model(shape, side, kind):
    model = build(shape, image_size=side)
    assert type(model.get_layer("enlarge")) is kind
    assert model.get_layer("backbone").input_shape == (None, side, side, 3)
    assert model.predict(np.zeros((1, *shape), "float32"), verbose=0).shape == (1, 3)


def test_enlarging_is_repeated_doubling():
    x = np.random.default_rng(0).uniform(size=(2, 4, 4, 3)).astype("float32")
    out = x
    for _ in range(3):
        out = keras.layers.UpSampling2D(2)(out)
    np.testing.assert_array_equal(transfer._enlarged(keras.ops.convert_to_tensor(x), 32), out)


MODULES = {
    "caffe": ("ResNet50", "resnet"),
    "tf": ("MobileNetV2", "mobilenet_v2"),
    "torch": ("DenseNet121", "densenet"),
    "own": ("EfficientNetB0", "efficientnet"),
}


@pytest.mark.parametrize("mode", MODULES)
def test_pixels_are_prepared_as_the_backbone_s_own_function_does(mode):
    backbone, module = MODULES[mode]
    assert BACKBONES[backbone] == mode
    x = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype("float32")
    image = keras.Input((8, 8, 3))
    ours = keras.Model(image, transfer._preprocessed(image, resolve({"backbone": backbone})))
    theirs = importlib.import_module(f"keras.applications.{module}").preprocess_input(x.copy())
    np.testing.assert_allclose(ours.predict(x, verbose=0), theirs, atol=1e-4)
    raw = keras.Model(image, transfer._preprocessed(image, resolve({"backbone": backbone, "preprocessing": False})))
    np.testing.assert_array_equal(raw.predict(x, verbose=0), x)


def test_the_table_has_every_network_keras_publishes_with_its_way_of_pixels():
    published = {n for n in dir(keras.applications) if n[0].isupper()}
    assert set(BACKBONES) == published
    x = np.full((1, 2, 2, 3), 255.0, "float32")
    modes = {(1.0, 1.0, 1.0): "tf", (255.0, 255.0, 255.0): "own"}
    for name, mode in BACKBONES.items():
        found = importlib.import_module(getattr(keras.applications, name).__module__)
        pixel = tuple(float(v) for v in found.preprocess_input(x.copy())[0, 0, 0])
        expected = modes.get(pixel) or ("caffe" if pixel[0] > 100 else "torch")
        assert mode == expected, name


@pytest.mark.parametrize(
    ("thaw", "trained"),
    [("all", 54), ("none", 0), ("conv_pw_13", 2), (3, 2), (10_000, 54)],
)
def test_what_is_thawed_is_trained(thaw, trained):
    backbone = build(thaw=thaw).get_layer("backbone")
    layers = [layer.name for layer in backbone.layers if layer.trainable_weights]
    assert len(layers) == trained
    assert trained != 2 or layers == ["conv_pw_13", "conv_pw_13_bn"]


def test_frozen_layers_do_not_move(tmp_path):
    weights = weights_file(tmp_path)
    x = np.random.default_rng(0).uniform(0, 255, (8, 32, 32, 3)).astype("float32")
    y = np.eye(3, dtype="float32")[np.arange(8) % 3]
    model = build(thaw="none", weights=str(weights), learning_rate=0.1)
    before = model.get_layer("backbone").get_weights()
    head = model.get_layer("dense1").get_weights()
    model.fit(x, y, verbose=0)
    for old, new in zip(before, model.get_layer("backbone").get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not np.array_equal(head[0], model.get_layer("dense1").get_weights()[0])


def weights_file(directory, backbone="MobileNet"):
    """A file of random weights whose layers pass something on: their normalisation fits random images."""
    keras.utils.set_random_seed(5)
    model = getattr(keras.applications, backbone)(include_top=False, input_shape=(32, 32, 3), weights=None)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(np.random.default_rng(0).uniform(-1, 1, (16, 32, 32, 3)).astype("float32"), training=True)
    model.save_weights(path := directory / "backbone.weights.h5")
    return path


def test_weights_come_from_a_file_and_only_if_wanted(tmp_path):
    path = weights_file(tmp_path)
    first, second = build(weights=str(path)), build(weights=str(path))
    for a, b in zip(first.get_layer("backbone").get_weights(), second.get_layer("backbone").get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    params = {**TINY, "weights": str(tmp_path / "gone.h5")}
    with pytest.raises(BadInput, match=r"knob 'weights': no such file: .*gone\.h5"):
        build_transfer(params, (32, 32, 3), 3, BINARY)
    build_transfer(params, (32, 32, 3), 3, BINARY, pretrained=False)
    sweep = Sweep(
        datasets.cifar10(scale=None), "transfer", SearchSpace({n: Fixed(v) for n, v in params.items()}), loss=BINARY
    )
    assert Builder(sweep, pretrained=False).build(params, (32, 32, 3), 10).sparse_labels is False
    with pytest.raises(BadInput, match="is no weights file of VGG16 without its top"):
        build(backbone="VGG16", weights=str(path))


def test_without_a_network_one_line_says_what_to_supply(monkeypatch):
    url = "https://storage.googleapis.com/some/mobilenet_no_top.h5"

    def offline(*args, weights=None, **kwargs):
        raise Exception(f"URL fetch failure on {url}: None -- [Errno -2] Name or service not known")

    monkeypatch.setattr(keras.applications, "MobileNet", offline)
    with pytest.raises(
        BadInput, match=r"could not be downloaded .*fetch mobilenet_no_top\.h5 .*weights='/path/mobilenet_no_top"
    ) as one:
        build(weights="imagenet")
    assert "\n" not in str(one.value)


def test_gray_images_become_three_channels():
    model = build((32, 32, 1))
    assert model.get_layer("gray_to_rgb").output.shape == (None, 32, 32, 3)
    assert model.predict(np.zeros((2, 32, 32, 1), "float32"), verbose=0).shape == (2, 3)


@pytest.mark.parametrize("backbone", ["ResNet50", "MobileNet"])  # with and without the channels flipped
def test_the_exported_model_is_stock_keras_and_the_same(backbone, tmp_path):
    keras.utils.set_random_seed(1)
    model = build((16, 16, 1), backbone=backbone, image_size=32, rotation=10, zoom=0.1, horizontal_flip=True)
    affine = Affine((1.0,), (0.0,))
    x = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 1), dtype="uint8")
    served = serving_model(model, affine, (16, 16, 1))
    served.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys, keras, numpy as np; d = sys.argv[1]\n"
        "y = keras.models.load_model(d + '/model.keras', safe_mode=True).predict(np.load(d + '/x.npy'), verbose=0)\n"
        "np.save(d + '/y.npy', y); assert not any(m.startswith('imgclf_sweep') for m in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, timeout=300)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), predict(model, affine, x), atol=1e-5)


def test_a_frozen_backbone_is_the_whole_in_two_parts(tmp_path):
    path = str(weights_file(tmp_path))
    model, frozen = build_transfer({**TINY, "thaw": "none", "weights": path}, (32, 32, 3), 3, BINARY)
    x = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype("float32")
    apart = frozen.head.predict(frozen.trunk.predict(x, verbose=0), verbose=0)
    np.testing.assert_allclose(apart, model.predict(x, verbose=0), atol=1e-6)
    frozen.head.layers[-1].set_weights([w + 1 for w in frozen.head.layers[-1].get_weights()])
    np.testing.assert_array_equal(frozen.head.get_weights()[-1], model.get_weights()[-1])  # one layer, not two
    assert frozen.made_of == "MobileNet (32x32, avg)"
    for changed in ({"thaw": "all"}, {"thaw": 3}, {"weights": None}, {"rotation": 5}, {"horizontal_flip": True}):
        assert build_transfer({**TINY, "thaw": "none", "weights": path, **changed}, (32, 32, 3), 3, BINARY)[1] is None


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"backbone": "InceptionV3"}, "no network can be built with .*75"),
        ({"backbone": "ResNet51"}, "unknown backbone 'ResNet51'.*did you mean"),
        ({"thaw": "conv_pw_14"}, "unknown layer of MobileNet to thaw from 'conv_pw_14'.*did you mean 'conv_pw_4'"),
        ({"thaw": 0}, "knob 'thaw' must be"),
        ({"thaw": True}, "knob 'thaw' must be"),
        ({"pooling": "sum"}, "knob 'pooling' must be"),
        (
            {"dropout": [0.1, 0.2, 0.3]},
            "'dense_units' has 2 values but 'dropout' has 3: a list needs one value a dense",
        ),
        ({"optimizer": "adam", "momentum": 0.5}, "the optimizer adam has none"),
        ({"weights": ""}, "knob 'weights' must be"),
        ({"image_size": 0}, "knob 'image_size' must be"),
        ({"filters": 3}, "unknown knob of model transfer 'filters'"),
    ],
)
def test_what_cannot_be_built_is_one_line(params, said):
    with pytest.raises(BadInput, match=said) as one:
        build(**params)
    assert "\n" not in str(one.value)


def test_fewer_outputs_than_classes_are_refused():
    with pytest.raises(BadInput, match="knob 'classes' is 2 but the data set has 3 classes"):
        build_transfer({**TINY, "classes": 2}, (32, 32, 3), 3, BINARY)


def test_a_sweep_declares_it_and_says_when_the_pixels_are_scaled_already():
    space = SearchSpace(backbone=Choice(["ResNet50", "VGG16"]), thaw=Choice(["all", "none", 20]))
    sweep = Sweep(datasets.cifar10(scale=None), model="transfer", space=space)
    assert Sweep.from_json(sweep.to_json()) == sweep
    with pytest.raises(BadInput, match=r"scaled by 'minmax': write scale=None there, or preprocessing=False"):
        Sweep(datasets.cifar10(), model="transfer", space=space)
    with pytest.raises(BadInput, match="scale=None"):
        Sweep(datasets.cifar10(), model="transfer", space=SearchSpace(preprocessing=[False, True]))
    Sweep(datasets.cifar10(scale="standard"), model="transfer", space=SearchSpace(preprocessing=False))
    with pytest.raises(BadInput, match="unknown backbone 'VGG17'"):
        Sweep(datasets.cifar10(scale=None), model="transfer", space=SearchSpace(backbone=["VGG16", "VGG17"]))
    with pytest.raises(BadInput, match="known configuration 0: .*scale=None"):
        Sweep(
            datasets.cifar10(),
            model="transfer",
            space=SearchSpace(preprocessing=False),
            known=[{"preprocessing": True}],
        )


def test_every_default_is_allowed():
    for name, knob in TRANSFER.knobs.items():
        assert knob.default is None or knob.allows(knob.default), name
    assert resolve({}).dense_units == (128, 64) and resolve({}).dropout == (0.5, 0.5)
    assert resolve({"dense_units": 7}).dropout == (0.5,)
