"""The knobs of the "transfer" family as plain values: a published backbone under a head of dense layers. No Keras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..space import Value
from .family import Family, Knob, Rule, lengths_rule, whole
from .shared_knobs import (
    AUGMENTATION,
    CLASSES,
    FLAG,
    LABEL_SMOOTHING,
    RATE,
    Augmentation,
    Training,
    loss_rule,
    momentum_rule,
    optimizer_knobs,
)

if TYPE_CHECKING:
    from ..data.datasets import Dataset

_CAFFE = ("ResNet50", "ResNet101", "ResNet152", "VGG16", "VGG19")
_TF = (
    *("ResNet50V2", "ResNet101V2", "ResNet152V2", "InceptionV3", "InceptionResNetV2", "Xception"),
    *("MobileNet", "MobileNetV2", "NASNetMobile", "NASNetLarge"),
)
_TORCH = ("DenseNet121", "DenseNet169", "DenseNet201")
_OWN = (
    *("MobileNetV3Small", "MobileNetV3Large"),
    *(f"EfficientNetB{n}" for n in range(8)),
    *(f"EfficientNetV2{n}" for n in ("B0", "B1", "B2", "B3", "S", "M", "L")),
    *(f"ConvNeXt{n}" for n in ("Tiny", "Small", "Base", "Large", "XLarge")),
)
BACKBONES: Mapping[str, str] = {
    **dict.fromkeys(_CAFFE, "caffe"),
    **dict.fromkeys(_TF, "tf"),
    **dict.fromkeys(_TORCH, "torch"),
    **dict.fromkeys(_OWN, "own"),
}
"""Every network of `keras.applications`, and how its weights were trained to see pixels in [0, 255]: "caffe" BGR less
ImageNet's mean, "tf" [-1, 1], "torch" [0, 1] standardised; "own": its first layers do it themselves.
Source: the `preprocess_input` of each module."""

POOLINGS = ("flatten", "avg", "max")

KNOBS: Mapping[str, Knob] = {
    "backbone": Knob(
        "ResNet50",
        lambda v: isinstance(v, str) and v in BACKBONES,
        "the name of a network in keras.applications",
        named="backbone",
        names=tuple(BACKBONES),
    ),
    "image_size": Knob(None, lambda v: v is None or whole(1, 4096)(v), "a whole number from 1 to 4096, or None"),
    "weights": Knob("imagenet", lambda v: v is None or (isinstance(v, str) and bool(v)), "'imagenet', a file or None"),
    "thaw": Knob(
        "all",
        lambda v: whole(1)(v) or (isinstance(v, str) and bool(v)),
        "'all', 'none', how many of the backbone's last layers, or the name of one",
    ),
    "preprocessing": Knob(True, *FLAG),
    "pooling": Knob("flatten", lambda v: v in POOLINGS, "'flatten', 'avg' or 'max'"),
    "head_batch_norm": Knob(True, *FLAG),
    "dense_units": Knob((128, 64), whole(1), "a whole number of at least 1", each=True),
    "dropout": Knob(0.5, *RATE, each=True),
    "classes": CLASSES,
    "label_smoothing": LABEL_SMOOTHING,
    **optimizer_knobs("rmsprop", 2e-5),
    **AUGMENTATION,
}
"""image_size: the side, in pixels, to which images are brought inside the model; None leaves them.
weights: "imagenet" is downloaded by Keras; a file is one made for this backbone without its top.
thaw: what of the backbone is trained: "all", "none", its last N layers, or the layer of that name and those after it.
preprocessing: whether pixels are brought into the backbone's own range; False takes them as the data set scales them.
pooling: how the backbone's last feature maps become one vector.
"""


@dataclass(frozen=True)
class TransferKnobs(Augmentation, Training):
    """One configuration with every knob filled in. Tuples hold one value a dense layer."""

    backbone: str
    image_size: int | None
    weights: str | None
    thaw: str | int
    preprocessing: bool
    pooling: str
    head_batch_norm: bool
    dense_units: tuple[int, ...]
    dropout: tuple[float, ...]
    classes: int | None

    @property
    def features_kept(self) -> bool:
        """Whether what the backbone makes of an image is the same in every epoch and trial, and so computed only once.
        A backbone of random weights is another one in every trial."""
        return self.thaw == "none" and not self.augmented and self.weights is not None


def resolve(params: Mapping[str, Value]) -> TransferKnobs:
    """The network that `params` (active knobs only; the others take their defaults) asks for.

    Raises: BadInput for an unknown knob, a value it cannot hold, or knobs that contradict each other.
    """
    values: dict[str, Any] = TRANSFER.filled(params)
    units, dropout = values["dense_units"], values["dropout"]
    if not isinstance(units, tuple):
        units = (units,) * (len(dropout) if isinstance(dropout, tuple) else 1)
    if not isinstance(dropout, tuple):
        dropout = (dropout,) * len(units)
    return TransferKnobs(**{**values, "dense_units": units, "dropout": dropout})


def _lengths() -> Rule:
    """As for every family, but that the default of `dense_units` is a list already."""
    plain = lengths_rule(KNOBS, None, "dense layer")
    defaults = {"dense_units": KNOBS["dense_units"].default}
    return Rule(plain.names, lambda params: plain.problem({**defaults, **params}), plain.part)


def _on_data(dataset: Dataset) -> Sequence[Rule]:
    def problem(params: Mapping[str, Value]) -> str | None:
        if dataset.scale is None or not params.get("preprocessing", KNOBS["preprocessing"].default):
            return None
        return (
            f"model transfer brings pixels into its backbone's own range, but the data set is scaled by "
            f"'{dataset.scale}': write scale=None there, or preprocessing=False in the space"
        )

    return (Rule(["preprocessing"], problem, lambda name, v: v),)


TRANSFER = Family(
    "transfer",
    KNOBS,
    (_lengths(), momentum_rule(KNOBS["optimizer"].default)),
    part="dense layer",
    on_data=_on_data,
    on_loss=loss_rule,
)
