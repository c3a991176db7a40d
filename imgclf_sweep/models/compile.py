"""How a family's network is compiled: the optimizer its knobs name, the sweep's loss, and accuracy."""

from __future__ import annotations

from typing import Any

import keras

from .shared_knobs import Training


def compiled(model: keras.Model, net: Training, loss: str) -> keras.Model:
    """`model`, compiled to be trained as `net` says with Keras's loss of that name; it measures "accuracy" beside the loss."""
    asked: dict[str, Any] = {"learning_rate": net.learning_rate, "momentum": net.momentum}
    config = {name: value for name, value in asked.items() if value is not None}
    optimizer = keras.optimizers.get({"class_name": net.optimizer, "config": config})
    model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
    return model
