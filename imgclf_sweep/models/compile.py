"""How a family's network is compiled: the optimizer its knobs name, the sweep's loss, and accuracy."""

from __future__ import annotations

import keras

from .shared_knobs import Training, check_loss


def compiled(model: keras.Model, net: Training, loss: str) -> keras.Model:
    """`model`, compiled to be trained as `net` says with Keras's loss of that name; it measures "accuracy" beside the loss.

    Raises: BadInput for label smoothing under a loss that has none.
    """
    asked = ("learning_rate", "momentum", "weight_decay")
    config = {name: getattr(net, name) for name in asked if getattr(net, name) is not None}
    optimizer = keras.optimizers.get({"class_name": net.optimizer, "config": config})
    model.compile(optimizer=optimizer, loss=_loss(net, loss), metrics=["accuracy"])
    return model


def _loss(net: Training, loss: str) -> str | keras.losses.Loss:
    check_loss(net, loss)
    if not net.label_smoothing:
        return loss
    words = loss.removeprefix("sparse_").split("_")  # which has no smoothing: the same of one-hot labels has
    name = "".join(word.capitalize() for word in words)  # "categorical_crossentropy" is CategoricalCrossentropy
    return keras.losses.get({"class_name": name, "config": {"label_smoothing": net.label_smoothing}})
