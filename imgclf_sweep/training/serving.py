"""The trained model as others use it: raw uint8 images in, probabilities out, made of stock Keras layers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from ..data.preprocess import Affine


def serving_model(model: Any, affine: Affine, shape: tuple[int, int, int]) -> Any:
    """A functional model of uint8 images (N, H, W, C) in [0, 255], sharing the layers and weights of `model`.

    Its first layer scales as `affine` does, and a model that was compiled with a loss on logits gets the missing softmax or
    sigmoid at its end, so that the outputs are what `probabilities` gives.
    """
    images = keras.Input(shape=shape, dtype="uint8", name="raw_images")
    x = keras.layers.Rescaling(list(affine.scale), list(affine.offset), dtype="float32", name="scale_raw_images")(
        images
    )
    chain = _chain(model)
    if chain is None:  # as one layer, without its optimizer: whose state would be asked for when the weights are loaded
        chain = [keras.Model(model.inputs, model.outputs, name=model.name)]
    for layer in chain:
        x = layer(x)
    if gives_logits(model):
        kind = "sigmoid" if model.output_shape[-1] == 1 else "softmax"
        x = keras.layers.Activation(kind, dtype="float32", name="raw_images_probabilities")(x)
    return keras.Model(images, x, name="imgclf_sweep_model")


def _chain(model: Any) -> list[Any] | None:
    """The layers of a model that is one plain chain, so that the export is one flat model; None of any other."""
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    try:
        linear = all(after.input is before.output for before, after in zip(layers, layers[1:], strict=False))
        whole = bool(layers) and layers[0].input is model.inputs[0] and layers[-1].output is model.outputs[0]
    except (AttributeError, ValueError, IndexError):  # a layer used twice or never, several inputs, a subclassed model
        return None
    return layers if linear and whole else None


def gives_logits(model: Any) -> bool:
    """Whether the model was compiled with a loss that takes logits."""
    return bool(getattr(model.loss, "from_logits", False))


def predict(model: Any, affine: Affine, x: np.ndarray, batch: int = 256) -> np.ndarray:
    """What the training pipeline gives for uint8 images `x` (N, H, W, C): probabilities (N, outputs) float32.

    Scaled in slices, so that a large test part is never in memory as float32.
    """
    slices = [x[i : i + 16 * batch] for i in range(0, len(x), 16 * batch)]
    outputs = np.concatenate([model.predict(affine.apply(s), batch_size=batch, verbose=0) for s in slices])
    if gives_logits(model):
        outputs = np.asarray(keras.ops.sigmoid(outputs) if outputs.shape[-1] == 1 else keras.ops.softmax(outputs))
    return outputs.astype("float32")
