"""An export: a directory with a model that stands alone, made whole under another name and then put in place.

model.keras   stock Keras layers; takes raw uint8 (N, H, W, C) images of the size and colour in the manifest
architecture.json, model.weights.h5: the same model in two files, for `keras.models.model_from_json` and `load_weights`
labels.txt    one class name a line, in the order of the model's outputs
manifest.json how the model came to be, how its images are read, its score
score.json, classification_report.txt, confusion_matrix.csv, summary.txt (the layers), and pictures of these and of the training
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .child import Child
from .data.datasets import Dataset
from .errors import StoreError, SweepError
from .text import printable

MODEL, LABELS, MANIFEST, SUMMARY = "model.keras", "labels.txt", "manifest.json", "summary.txt"
FORMAT = 1
TOLERANCE = 1e-5
RELOAD_SECONDS = 600.0
PACKAGES = (
    "imgclf-sweep",
    "keras",
    "tensorflow",
    "jax",
    "numpy",
    "opencv-python-headless",
    "opencv-python",
    "scikit-learn",
)

EXACT = {"NVIDIA_TF32_OVERRIDE": "0"}
"""For the processes whose numbers are compared: NVIDIA's 19-bit floats would differ by more than the tolerance."""


@contextlib.contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A new directory beside `target` that takes its place, and that of an old one, when the block ends without an error.

    Raises: StoreError where the disk refuses.
    """
    stage = target.with_name(f".{target.name}.new-{os.getpid()}")
    try:
        stage.parent.mkdir(parents=True, exist_ok=True)
        _tidy(target)
        stage.mkdir()
        yield stage
        _replace(stage, target)
    except OSError as error:
        raise StoreError(f"cannot write {printable(target)}: {printable(error.strerror or error)}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _tidy(target: Path) -> None:
    """Undo what a kill left half done: we hold the sweep's lock, so nobody is at it now."""
    for old in target.parent.glob(f".{target.name}.old-*"):
        if not target.exists():
            os.rename(old, target)
    for left in target.parent.glob(f".{target.name}.*-*"):
        shutil.rmtree(left, ignore_errors=True)


def _replace(stage: Path, target: Path) -> None:
    for file in stage.iterdir():
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    moved = target.exists()
    if moved:
        os.rename(target, old)
    try:
        os.rename(stage, target)
    except OSError:
        if moved:
            os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)
    parent = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def prove(model: Path, images: Path, expected: Path, log: Path) -> float:
    """Reload `model` in a fresh process with plain Keras and compare its outputs for raw images with the expected ones.

    Returns the largest absolute difference.  Raises: SweepError where it does not load, or differs by more than TOLERANCE.
    """
    with open(log, "ab") as output, Child("imgclf_sweep.training.reload", output=output, env=EXACT) as child:
        child.send({"type": "reload", "model": str(model), "images": str(images), "expected": str(expected)})
        try:
            answer = next(child.messages(RELOAD_SECONDS), {"type": "failed", "reason": "the process died"})
        except TimeoutError:
            answer = {"type": "failed", "reason": f"no answer in {RELOAD_SECONDS:.0f} seconds"}
    if answer["type"] != "reloaded":
        raise SweepError(f"the exported model does not load with plain Keras: {printable(answer.get('reason'))}")
    if not answer["difference"] <= TOLERANCE:
        raise SweepError(
            f"the exported model differs from the trained one by {answer['difference']:.2g}, allowed is {TOLERANCE:g}"
        )
    return float(answer["difference"])


def versions() -> dict[str, str]:
    """What computes here, for the manifest; a package that is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def reading(dataset: Dataset) -> dict[str, Any]:
    """How an image file becomes the model's input: the arguments of `data.image.read_image`, and in words what it does."""
    height, width, channels = dataset.shape
    return {
        "size": [height, width],
        "color": dataset.color,
        "channels": channels,
        "channel_order": "RGB" if channels == 3 else "gray",
        "dtype": "uint8",
        "range": [0, 255],
        "reader": "OpenCV",
        "interpolation": "area along a side that shrinks, then linear along one that grows",
    }


def label_names(classes: Sequence[str], outputs: int) -> list[str]:
    """One name an output. A single output stands for two classes; outputs beyond the classes (`classes` knob) get a name."""
    return [*classes, *(f"(output {i})" for i in range(len(classes), outputs))]


def write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False, default=_plain) + "\n")


def _plain(value: object) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"cannot be written as JSON: {value!r}")
