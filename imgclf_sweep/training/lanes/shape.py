"""What of a trial of the "cnn" family decides its compiled program (`Shape`), and what is only its input (`Inputs`).

Pure values: no tensor library is imported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import BadInput
from ...models import knobs
from ...models.knobs import CnnKnobs
from ...models.shared_knobs import AUGMENTATION, check_loss

METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")
"""What an epoch measures, in the order of the program's numbers; the last two only with a validation part."""

VALIDATION_BATCH = 1000
"""Images measured at a time: enough to fill a GPU, little enough to bound memory. A larger batch size is used as it is."""

EPSILON = 1e-7  # Keras's default of every optimizer here
ADAM_BETAS = (0.9, 0.999)
RMSPROP_RHO = 0.9
ADAMW_DECAY = 0.004
LEARNING_RATES = {"adam": 1e-3, "adamw": 1e-3, "nadam": 1e-3, "sgd": 1e-2, "rmsprop": 1e-3}
"""Keras's default learning rate of each optimizer that the program knows."""


@dataclass(frozen=True)
class Variable:
    """One weight array. kind: "conv" and "dense" kernels, "zeros", "ones", or the "mean" and "variance" of a normalisation."""

    kind: str
    shape: tuple[int, ...]

    @property
    def trained(self) -> bool:
        return self.kind not in ("mean", "variance")


@dataclass(frozen=True)
class Shape:
    """Everything that changes an array's shape or the program's structure. Trials of equal shape share one compilation.

    image: (H, W, C).  classes: outputs.  batch: images a step, at most `train`.  train, validation: images of each part;
    validation 0: nothing is held out, and the last epoch counts as the best.
    convs to pool_size: one value a block, as in `CnnKnobs`.  dropout: whether each block has dropout, and last the dense
    layer; where it has, the rate is an input and may be 0.  augmented: whether images are changed at random while training; the
    strengths are inputs and may be 0.
    """

    image: tuple[int, int, int]
    classes: int
    batch: int
    train: int
    validation: int
    loss: str
    convs: tuple[int, ...]
    filters: tuple[int, ...]
    kernel_size: tuple[int, ...]
    padding: tuple[str, ...]
    batch_norm: tuple[bool, ...]
    pool_size: tuple[int, ...]
    dense_units: int
    dense_batch_norm: bool
    dropout: tuple[bool, ...]
    augmented: bool

    @property
    def blocks(self) -> int:
        return len(self.convs)

    @property
    def steps(self) -> int:
        """Steps an epoch, the last one possibly short."""
        return math.ceil(self.train / self.batch)

    @property
    def validation_steps(self) -> int:
        return math.ceil(self.validation / max(self.batch, VALIDATION_BATCH))

    @property
    def validation_batch(self) -> int:
        """Images a validation step: as even as can be, so that little is computed for nothing."""
        return math.ceil(self.validation / self.validation_steps) if self.validation else 0

    def conv_output(self, block: int, height: int, width: int) -> tuple[int, int]:
        """Height and width after one convolution of `block`."""
        lost = self.kernel_size[block] - 1 if self.padding[block] == "valid" else 0
        return height - lost, width - lost

    def features(self) -> tuple[tuple[int, int, int], ...]:
        """(H, W, C) after each block."""
        height, width, _ = self.image
        found = []
        for i in range(self.blocks):
            for _ in range(self.convs[i]):
                height, width = self.conv_output(i, height, width)
            height, width = height // self.pool_size[i], width // self.pool_size[i]
            found.append((height, width, self.filters[i]))
        return tuple(found)

    def variables(self) -> list[Variable]:
        """The weights in the order of the Keras model's `get_weights()`."""
        found: list[Variable] = []
        channels = self.image[2]
        for i in range(self.blocks):
            filters, size = self.filters[i], self.kernel_size[i]
            for _ in range(self.convs[i]):
                found += _layer(Variable("conv", (size, size, channels, filters)), self.batch_norm[i])
                channels = filters
        flat = math.prod(self.features()[-1])
        found += _layer(Variable("dense", (flat, self.dense_units)), self.dense_batch_norm)
        return found + _layer(Variable("dense", (self.dense_units, self.classes)), False)

    def lane_bytes(self) -> int:
        """Device memory that one more lane takes, roughly: its weights with the optimizer's two moments, gradient, best and
        a spare copy; and four times each block's largest activation, forward and backward, and each augmented image."""
        weights = sum(math.prod(v.shape) for v in self.variables())
        height, width, _ = self.image
        activations = math.prod(self.image) if self.augmented else 0
        for i, (h, w, _) in enumerate(self.features()):
            size = math.prod(self.conv_output(i, height, width)) * self.filters[i]
            activations += size * (self.convs[i] + 1)
            height, width = h, w
        return 4 * (6 * weights + 4 * activations * max(self.batch, self.validation_batch))


def _layer(kernel: Variable, batch_norm: bool) -> list[Variable]:
    units = kernel.shape[-1:]
    norm = [Variable(kind, units) for kind in ("ones", "zeros", "mean", "variance")] if batch_norm else []
    return [kernel, Variable("zeros", units), *norm]


@dataclass(frozen=True)
class Inputs:
    """What trials of one shape may differ in. Changing it compiles nothing.

    filters, dense_units: of the trial's own network, which may be narrower than its program's (`wide`).
    initializer: as the knob `kernel_initializer`.
    dropout: a rate in [0, 1) for each block and last for the dense layer.  l1, l2: a penalty for each block's kernels.
    weight_decay, label_smoothing: as the knobs, at least 0, and in [0, 1).
    augmentation: the value of each AUGMENTATION knob in their order, a flag as 0 or 1.
    seed: of weights, shuffling, dropout and augmentation, below 2**32.
    """

    filters: tuple[int, ...]
    dense_units: int
    optimizer: str
    initializer: str
    learning_rate: float
    momentum: float
    weight_decay: float
    label_smoothing: float
    dropout: tuple[float, ...]
    l1: tuple[float, ...]
    l2: tuple[float, ...]
    augmentation: tuple[float, ...]
    seed: int

    def arrays(self) -> dict[str, np.ndarray]:
        """The inputs of the program for this lane: optimizers become coefficients of one rule (`steps.update`)."""
        adam = self.optimizer in ("adam", "adamw", "nadam")
        beta, rho = ADAM_BETAS if adam else (self.momentum, RMSPROP_RHO)
        values = {
            "learning_rate": self.learning_rate,
            "beta": beta,
            "gain": 1 - beta if adam else self.learning_rate,
            "rho": rho,
            "fresh": 1 - rho,  # in double precision: 1 - 0.999 in float32 is off by 1e-5
            "decay": self.weight_decay * self.learning_rate,
            "smoothing": self.label_smoothing,
            "dropout": self.dropout,
            "l1": self.l1,
            "l2": self.l2,
            "augmentation": self.augmentation,
        }
        return {
            **{name: np.asarray(value, np.float32) for name, value in values.items()},
            "adam": np.asarray(adam),
            "nadam": np.asarray(self.optimizer == "nadam"),
            "rmsprop": np.asarray(self.optimizer == "rmsprop"),
            "seed": np.asarray(self.seed, np.uint32),
        }


def unsupported(net: CnnKnobs) -> str | None:
    """Why the compiled program cannot train such a network, or None if it can."""
    if net.optimizer not in LEARNING_RATES:
        return f"optimizer {net.optimizer} is not compiled, only {', '.join(LEARNING_RATES)}"
    return None


def shape_of(
    net: CnnKnobs,
    *,
    image: tuple[int, int, int],
    classes: int,
    loss: str,
    batch: int,
    train: int,
    validation: int,
    dropout: Sequence[bool] | None = None,
    augmented: bool | None = None,
) -> Shape:
    """The shape of one configuration.  image: (H, W, C).  train, validation: images of each part, validation 0 for none.

    dropout: which blocks, and last the dense layer, may have dropout in any trial of the sweep, so that trials of rate 0
    share a program with the others; None: those with a rate above 0 here.  augmented: likewise, whether any may be augmented.
    Raises: BadInput for images too small for the network, too few outputs, or label smoothing under a loss that has none.
    """
    knobs.check_image(net, image)
    check_loss(net, loss)
    if net.classes is not None and net.classes < classes:
        raise BadInput(f"knob 'classes' is {net.classes} but the data set has {classes} classes")
    rates = (*net.dropout, net.dense_dropout)
    return Shape(
        image=image,
        classes=net.classes or classes,
        batch=min(batch, train),
        train=train,
        validation=validation,
        loss=loss,
        convs=net.convs,
        filters=net.filters,
        kernel_size=net.kernel_size,
        padding=net.padding,
        batch_norm=net.batch_norm,
        pool_size=net.pool_size,
        dense_units=net.dense_units,
        dense_batch_norm=net.dense_batch_norm,
        dropout=tuple(rate > 0 for rate in rates) if dropout is None else tuple(dropout),
        augmented=net.augmented if augmented is None else augmented,
    )


def inputs_of(net: CnnKnobs, seed: int) -> Inputs:
    """The inputs of one configuration, with Keras's defaults filled in.  Raises: BadInput for what `unsupported` names."""
    problem = unsupported(net)
    if problem:
        raise BadInput(problem)
    decay = ADAMW_DECAY if net.optimizer == "adamw" else 0.0
    return Inputs(
        filters=net.filters,
        dense_units=net.dense_units,
        optimizer=net.optimizer,
        initializer=net.kernel_initializer,
        learning_rate=LEARNING_RATES[net.optimizer] if net.learning_rate is None else net.learning_rate,
        momentum=net.momentum or 0.0,
        weight_decay=decay if net.weight_decay is None else net.weight_decay,
        label_smoothing=net.label_smoothing,
        dropout=(*net.dropout, net.dense_dropout),
        l1=net.l1 if net.l1l2 is None else net.l1l2,  # `L1L2(value)` is an L1 penalty: see models/cnn.py
        l2=net.l2 if net.l1l2 is None else (0.0,) * net.blocks,
        augmentation=tuple(float(getattr(net, name)) for name in AUGMENTATION),
        seed=seed,
    )
