"""The "cnn" family in Keras: plain blocks of convolutions and pooling, a dense layer, a softmax. Stock layers only."""

from __future__ import annotations

from collections.abc import Mapping

import keras
from keras import layers, regularizers

from ..errors import BadInput
from ..space import Value
from ..text import printable
from . import knobs
from .augment import augmentation
from .compile import compiled


def build_cnn(params: Mapping[str, Value], shape: tuple[int, int, int], classes: int, loss: str) -> keras.Model:
    """A compiled network for float32 images (N, H, W, C), scaled already, that gives probabilities (N, classes).

    params: the active knobs; the others take their defaults.  shape: (H, W, C).  classes: how many the data set has;
    the knob `classes` may ask for more outputs.  loss: Keras's name. It measures "accuracy" beside the loss.

    Raises: BadInput for knobs that make no network for such images.
    """
    net = knobs.resolve(params)
    outputs = net.classes or classes
    if outputs < classes:
        raise BadInput(f"knob 'classes' is {net.classes} but the data set has {classes} classes")
    try:
        knobs.check_image(net, shape)
    except BadInput as error:
        raise BadInput(f"{error} ({knobs.words(params)})") from None
    try:
        return compiled(_network(net, shape, outputs), net, loss)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadInput(f"no network can be built with {knobs.words(params)}: {printable(error)}") from error


def _network(net: knobs.CnnKnobs, shape: tuple[int, int, int], outputs: int) -> keras.Model:
    image = x = keras.Input(shape, dtype="float32", name="image")
    for layer in augmentation(net):
        x = layer(x)
    for i in range(net.blocks):
        block = f"block{i + 1}"
        for j in range(net.convs[i]):
            conv = f"{block}_conv{j + 1}"
            x = layers.Conv2D(
                net.filters[i],
                net.kernel_size[i],
                padding=net.padding[i],
                activation="relu",
                kernel_initializer=net.kernel_initializer,
                kernel_regularizer=_regularizer(net, i),
                name=conv,
            )(x)
            if net.batch_norm[i]:
                x = layers.BatchNormalization(name=f"{conv}_norm")(x)
        x = layers.MaxPooling2D(net.pool_size[i], name=f"{block}_pool")(x)
        if net.dropout[i] > 0:
            x = layers.Dropout(net.dropout[i], name=f"{block}_dropout")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(net.dense_units, activation="relu", kernel_initializer=net.kernel_initializer, name="dense")(x)
    if net.dense_batch_norm:
        x = layers.BatchNormalization(name="dense_norm")(x)
    if net.dense_dropout > 0:
        x = layers.Dropout(net.dense_dropout, name="dense_dropout")(x)
    return keras.Model(image, layers.Dense(outputs, activation="softmax", name="classes")(x), name="cnn")


def _regularizer(net: knobs.CnnKnobs, block: int) -> regularizers.Regularizer | None:
    if net.l1l2 is not None:
        return regularizers.L1L2(net.l1l2[block])  # its first argument alone: an L1 penalty, whatever the name says
    if net.l1[block] or net.l2[block]:
        return regularizers.L1L2(l1=net.l1[block], l2=net.l2[block])
    return None
