"""The "transfer" family in Keras: a network of `keras.applications` under a head of dense layers. Stock layers only."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from keras import layers

from ..errors import BadInput
from ..space import Value
from ..text import printable, unknown
from .augment import augmentation
from .compile import compiled
from .family import words
from .transfer_knobs import BACKBONES, TransferKnobs, resolve

BGR_MEAN = (103.939, 116.779, 123.68)  # of ImageNet's pixels, as Caffe's networks and so `mode="caffe"` take them
RGB_MEAN, RGB_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet in [0, 1]: `mode="torch"`
STALLED = 30.0  # seconds without an answer from the server that has the weights


@dataclass(frozen=True)
class Frozen:
    """A network cut in two that share its layers, where the first never changes.

    trunk: images to features (N, F).  head: features to probabilities, compiled.  made_of: the trunk in words.
    """

    trunk: keras.Model
    head: keras.Model
    made_of: str


def build_transfer(
    params: Mapping[str, Value], shape: tuple[int, int, int], classes: int, loss: str, *, pretrained: bool = True
) -> tuple[keras.Model, Frozen | None]:
    """A compiled network for float32 images (N, H, W, C) in [0, 255] that gives probabilities (N, classes).

    params: the active knobs; the others take their defaults.  shape: (H, W, C), C 1 or 3.  classes: how many the data set
    has.  loss: Keras's name.  pretrained: False leaves the backbone's weights random, whatever the knob says.

    The second is the same network in two parts where the features of an image are the same in every epoch and trial.
    Raises: BadInput for knobs that make no network for such images, and for weights that cannot be had.
    """
    net = resolve(params)
    outputs = net.classes or classes
    if outputs < classes:
        raise BadInput(f"knob 'classes' is {net.classes} but the data set has {classes} classes")
    try:
        return _network(net, shape, outputs, loss, net.weights if pretrained else None)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadInput(f"no network can be built with {words(params)}: {printable(_first_line(error))}") from error


def _network(
    net: TransferKnobs, shape: tuple[int, int, int], outputs: int, loss: str, weights: str | None
) -> tuple[keras.Model, Frozen | None]:
    image = x = keras.Input(shape, dtype="float32", name="image")
    for layer in augmentation(net):
        x = layer(x)
    x = _enlarged(_preprocessed(x, net), net.image_size)
    backbone = _backbone(net.backbone, tuple(x.shape[1:]), weights)
    _thaw(backbone, net)
    features = _pooled(backbone(x), net.pooling)
    head = _head(net, outputs)
    model = keras.Model(image, _through(head, features), name="transfer")
    if not net.features_kept:
        return compiled(model, net, loss), None
    trunk = keras.Model(image, features, name="trunk")
    given = keras.Input(features.shape[1:], dtype="float32", name="features")
    top = keras.Model(given, _through(head, given), name="head")
    return compiled(model, net, loss), Frozen(trunk, compiled(top, net, loss), _made_of(net, trunk))


def _made_of(net: TransferKnobs, trunk: keras.Model) -> str:
    size = "x".join(str(side) for side in trunk.get_layer("backbone").input_shape[1:3])
    raw = "" if net.preprocessing else ", pixels as they come"
    return f"{net.backbone} ({size}, {net.pooling}{raw})"


def _through(chain: list[layers.Layer], x: Any) -> Any:
    for layer in chain:
        x = layer(x)
    return x


def _preprocessed(x: Any, net: TransferKnobs) -> Any:
    """Three channels in the range that the backbone's weights were trained on."""
    if x.shape[-1] == 1:
        x = layers.Concatenate(name="gray_to_rgb")([x, x, x])
    mode = BACKBONES[net.backbone] if net.preprocessing else "own"
    if mode == "caffe":
        x = keras.ops.flip(x, axis=-1)  # RGB to BGR
        return layers.Rescaling(1.0, [-mean for mean in BGR_MEAN], name="preprocess")(x)
    if mode == "tf":
        return layers.Rescaling(1 / 127.5, -1.0, name="preprocess")(x)
    if mode == "torch":
        scale = [1 / (255 * deviation) for deviation in RGB_DEVIATION]
        offset = [-mean / deviation for mean, deviation in zip(RGB_MEAN, RGB_DEVIATION, strict=True)]
        return layers.Rescaling(scale, offset, name="preprocess")(x)
    return x


def _enlarged(x: Any, side: int | None) -> Any:
    height, width = x.shape[1:3]
    if side is None or (height, width) == (side, side):
        return x
    factor = side // height
    if height == width and side == factor * height and factor & (factor - 1) == 0:  # 2, 4, 8: as repeated doubling
        return layers.UpSampling2D(factor, name="enlarge")(x)
    return layers.Resizing(side, side, name="enlarge")(x)


def _pooled(x: Any, pooling: str) -> Any:
    kinds = {"flatten": layers.Flatten, "avg": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}
    return kinds[pooling](name=pooling)(x)


def _head(net: TransferKnobs, outputs: int) -> list[layers.Layer]:
    chain: list[layers.Layer] = []
    for i, (units, dropout) in enumerate(zip(net.dense_units, net.dropout, strict=True), start=1):
        if net.head_batch_norm:
            chain.append(layers.BatchNormalization(name=f"norm{i}"))
        chain.append(layers.Dense(units, activation="relu", name=f"dense{i}"))
        if dropout > 0:
            chain.append(layers.Dropout(dropout, name=f"dropout{i}"))
    if net.head_batch_norm:
        chain.append(layers.BatchNormalization(name=f"norm{len(net.dense_units) + 1}"))
    return [*chain, layers.Dense(outputs, activation="softmax", name="classes")]


def _thaw(backbone: keras.Model, net: TransferKnobs) -> None:
    """Set what of the backbone is trained. A layer that is not runs as it does when predicting, batch norm included."""
    if net.thaw == "all":
        return
    if net.thaw == "none":
        backbone.trainable = False
        return
    names = [layer.name for layer in backbone.layers]
    if isinstance(net.thaw, int):
        first = max(0, len(names) - net.thaw)
    elif net.thaw in names:
        first = names.index(net.thaw)
    else:
        raise BadInput(unknown(f"layer of {net.backbone} to thaw from", net.thaw, ["all", "none", *names]))
    for layer in backbone.layers[:first]:
        layer.trainable = False


def _backbone(name: str, shape: tuple[int, int, int], weights: str | None) -> keras.Model:
    """The network without its top, named "backbone".  Raises: BadInput where its weights cannot be had."""
    make = getattr(keras.applications, name)
    given: dict[str, Any] = {"include_top": False, "input_shape": shape, "weights": None}
    if weights is None:
        backbone = make(**given)
    elif weights == "imagenet":
        backbone = _downloaded(make, name, given)
    else:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise BadInput(f"knob 'weights': no such file: {printable(path)}")
        backbone = make(**given)
        try:
            backbone.load_weights(path)
        except Exception as error:  # h5py and Keras raise many kinds for a file of another network or none
            raise BadInput(
                f"knob 'weights': {printable(path)} is no weights file of {name} without its top: "
                f"{printable(_first_line(error))}"
            ) from error
    backbone.name = "backbone"
    return backbone


def _downloaded(make: Any, name: str, given: dict[str, Any]) -> keras.Model:
    try:
        with _impatient():
            return make(**{**given, "weights": "imagenet"})
    except ValueError:  # of the size of the images, say
        raise
    except Exception as error:
        found = re.search(r"https?://\S+", str(error))
        url = found.group().rstrip(":.,") if found else ""
        file = url.rsplit("/", 1)[-1] or "the file"
        raise BadInput(
            f"{name}'s imagenet weights could not be downloaded ({printable(_first_line(error))}); fetch {printable(file)} "
            f"on a machine with a network and put it into ~/.keras/models/, or name it: weights='/path/{printable(file)}'"
        ) from error


@contextmanager
def _impatient() -> Iterator[None]:
    """A server that does not answer ends a download instead of holding it for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALLED)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
