"""Augmentation in Keras: stock layers that change images at random while a model is fitted and leave them alone otherwise.

They hold no weights. A kept or exported model has them too: they do nothing when it predicts, and work again if somebody
trains it further.
"""

from __future__ import annotations

from keras import layers

from .shared_knobs import Augmentation

FILL = "nearest"
"""What lies outside the image: its border, repeated, as in `ImageDataGenerator`."""


def augmentation(net: Augmentation) -> list[layers.Layer]:
    """The layers for float32 images (N, H, W, C) on any scale, in order; none for a knob at 0 or False."""
    found: list[layers.Layer] = []
    if net.rotation:
        found.append(layers.RandomRotation(net.rotation / 360, fill_mode=FILL, name="rotation"))
    if net.height_shift or net.width_shift:
        found.append(layers.RandomTranslation(net.height_shift, net.width_shift, fill_mode=FILL, name="shift"))
    if net.horizontal_flip:
        found.append(layers.RandomFlip("horizontal", name="horizontal_flip"))
    if net.shear:  # Keras draws the sign itself, and cannot reload the negative bound it would make of one number
        found.append(layers.RandomShear((0.0, net.shear), fill_mode=FILL, name="shear"))
    if net.zoom:
        found.append(layers.RandomZoom(net.zoom, net.zoom, fill_mode=FILL, name="zoom"))
    return found
