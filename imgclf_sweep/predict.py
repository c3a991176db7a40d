"""Naming the class of image files with an exported model, read exactly as the data set's images were."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .data.image import read_image
from .errors import BadInput
from .export import LABELS, MANIFEST, MODEL
from .quiet import without_native_chatter
from .score import classes_of
from .text import printable

BATCH = 256


@dataclass(frozen=True)
class Prediction:
    """The class that the model gives an image file, and the probability it gives it, in [0, 1]."""

    path: Path
    label: str
    probability: float


def predict(model: Path, images: Sequence[Path]) -> list[Prediction]:
    """One `Prediction` an image, in order. `model` is an export's directory or the model.keras in it.

    Images of any size and format that a data set may hold are converted and resized as the manifest says.
    Raises: BadInput naming the image or the part of the export that cannot be used.
    """
    if not model.exists():
        raise BadInput(f"no such model: {printable(model)}")
    directory = model if model.is_dir() else model.parent
    size, color = _reading(directory)
    labels = _labels(directory)
    for image in images:
        if not image.exists():
            raise BadInput(f"no such image: {printable(image)}")
    network: Any = None
    predictions: list[Prediction] = []
    for start in range(0, len(images), BATCH):
        paths = list(images[start : start + BATCH])
        x = np.stack([read_image(path, size, color) for path in paths])
        with without_native_chatter():
            if network is None:  # not before an image was read: a bad one should not cost the library's start
                network = _load(directory / MODEL if model.is_dir() else model)
            outputs = _outputs(network, x, labels)
        for path, number, row in zip(paths, classes_of(outputs), outputs, strict=True):
            share = row[number] if len(row) > 1 else (row[0] if number else 1 - row[0])
            predictions.append(Prediction(path, labels[number], float(share)))
    return predictions


def _reading(directory: Path) -> tuple[tuple[int, int], str]:
    path = directory / MANIFEST
    try:
        reading = json.loads(path.read_text(encoding="utf-8"))["images"]
        height, width = (int(n) for n in reading["size"])
        return (height, width), str(reading["color"])
    except FileNotFoundError:
        raise BadInput(f"no export here: {printable(path)} is missing") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{printable(path)} does not say how images are read: {_line(error)}") from None


def _labels(directory: Path) -> list[str]:
    path = directory / LABELS
    try:
        labels = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise BadInput(f"{printable(path)} cannot be read: {_line(error)}") from None
    return labels[:-1] if labels[-1] == "" else labels


def _load(path: Path) -> Any:
    """The model, with nothing in it allowed to run code of its own. Keras's reason for a torn file is not the true one
    ("File not found"), so the archive is looked at first."""
    if not path.is_file():
        raise BadInput(f"no model here: {printable(path)} is missing")
    try:
        with zipfile.ZipFile(path) as archive:
            outside = [name for name in archive.namelist() if name.startswith(("/", "\\")) or ".." in Path(name).parts]
            torn = None if outside else archive.testzip()
            code = (
                not outside
                and torn is None
                and "config.json" in archive.namelist()
                and _holds_code(archive.read("config.json"))
            )
    except (OSError, zipfile.BadZipFile, EOFError) as error:
        raise BadInput(f"{printable(path)} is torn or no Keras model: {_line(error)}") from None
    if outside:
        raise BadInput(
            f"{printable(path)} is no model to be trusted: it holds a file for outside of it, '{printable(outside[0])}'"
        )
    if torn is not None:
        raise BadInput(f"{printable(path)} is torn: {printable(torn)} in it is damaged")
    if code:  # Keras refuses it too, with a reason that speaks of something else
        raise BadInput(
            f"{printable(path)} holds a Lambda layer, which is code of whoever made it: such a model is not loaded"
        )
    import keras

    try:
        return keras.models.load_model(path, safe_mode=True, compile=False)
    except Exception as error:  # Keras raises whatever the archive makes it meet
        raise BadInput(f"{printable(path)} cannot be loaded: {_line(error)}") from None


def _holds_code(config: bytes) -> bool:
    """Whether a model's configuration has a layer whose code lies in the file."""
    try:
        rest = [json.loads(config)]
    except ValueError:
        return False
    while rest:
        part = rest.pop()
        if isinstance(part, dict):
            if part.get("class_name") in ("Lambda", "__lambda__"):
                return True
            rest += part.values()
        elif isinstance(part, list):
            rest += part
    return False


def _outputs(network: Any, x: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    try:
        outputs = np.asarray(network.predict(x, batch_size=BATCH, verbose=0))
    except (ValueError, TypeError) as error:
        raise BadInput(f"the model does not take images {x.shape[1:]}: {_line(error)}") from None
    wanted = 1 if len(labels) == 2 and outputs.shape[-1] == 1 else len(labels)
    if outputs.ndim != 2 or outputs.shape[1] != wanted:
        raise BadInput(f"the model gives {outputs.shape[-1]} outputs but {LABELS} names {len(labels)} classes")
    return outputs


def _line(error: BaseException) -> str:
    """The first line of the reason, printable. Keras puts its own heading before some."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {printable(lines[0]) if lines else 'no message'}"
