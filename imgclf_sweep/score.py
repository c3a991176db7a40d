"""The final score on the sealed test part: accuracy with an honest interval, a report a class, a confusion matrix."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
Z = 1.959963984540054  # the normal quantile of LEVEL

OVER_BOTH = "seeds and test images"
OVER_IMAGES = "test images alone"


@dataclass(frozen=True)
class Score:
    """Test accuracy in [0, 1].

    accuracy: the mean over the seeds.   low, high: its 95 % interval, and `over` says what varies in it: "seeds and test
    images" (two-level bootstrap), or with one seed "test images alone" (Wilson).   accuracies: one a seed, the exported
    model's first.   images: how many test images.
    """

    accuracy: float
    low: float
    high: float
    over: str
    method: str
    accuracies: tuple[float, ...]
    images: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"accuracies": list(self.accuracies), "level": LEVEL}

    def words(self) -> str:
        """The score on one line."""
        seeds = f"{len(self.accuracies)} seed{'s' if len(self.accuracies) > 1 else ''}"
        return (
            f"test accuracy {self.accuracy:.4f} (95% interval {self.low:.4f} to {self.high:.4f} over {self.over}; "
            f"{self.images} images, {seeds})"
        )


def classes_of(probabilities: np.ndarray) -> np.ndarray:
    """The class numbers (N,) that outputs (N, classes) name; a single output (N, 1) is the probability of class 1."""
    if probabilities.shape[1] == 1:
        return (probabilities[:, 0] > 0.5).astype("int64")
    return probabilities.argmax(axis=1)


def sureness(probabilities: np.ndarray) -> np.ndarray:
    """The probabilities (N,) of the classes that `classes_of` names."""
    if probabilities.shape[1] == 1:
        return np.maximum(probabilities[:, 0], 1 - probabilities[:, 0])
    return probabilities.max(axis=1)


def score(labels: np.ndarray, predicted: Sequence[np.ndarray], seed: int) -> Score:
    """Score the predictions of S models, class numbers (N,) each, against `labels` (N,). `seed` is of the bootstrap."""
    correct = np.stack([np.asarray(p) == labels for p in predicted]).astype("float64")
    accuracies = tuple(float(a) for a in correct.mean(axis=1))
    mean = float(correct.mean())
    images = int(correct.shape[1])
    if len(accuracies) == 1:
        low, high = wilson(int(correct.sum()), images)
        return Score(mean, low, high, OVER_IMAGES, "Wilson", accuracies, images)
    low, high = bootstrap(correct, seed)
    return Score(mean, low, high, OVER_BOTH, f"two-level bootstrap, {RESAMPLES} resamples", accuracies, images)


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson 1927): right near 1 too, where resampling would give no width."""
    p = hits / n
    centre = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap(correct: np.ndarray, seed: int) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of `correct` (S, N), rows and columns both drawn with replacement.

    Seeds and images are crossed (every model sees every image), so each resample draws both independently and keeps the
    products (Owen 2007, the pigeonhole bootstrap).
    """
    rng = np.random.default_rng(seed)
    seeds, images = correct.shape
    means = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        rows = rng.multinomial(seeds, np.full(seeds, 1 / seeds))
        columns = np.bincount(rng.integers(images, size=images), minlength=images)
        means[i] = rows @ correct @ columns / (seeds * images)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def report(labels: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> str:
    """Precision, recall and F1 a class as text, for one model."""
    from sklearn.metrics import classification_report

    return classification_report(
        labels, predicted, labels=list(range(len(names))), target_names=list(names), digits=4, zero_division=0.0
    )


def confusion_csv(labels: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> str:
    """The confusion matrix of one model: a row for each true class, a column for each predicted one, counts."""
    from sklearn.metrics import confusion_matrix

    matrix = confusion_matrix(labels, predicted, labels=list(range(len(names))))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["true \\ predicted", *names])
    writer.writerows([name, *map(int, row)] for name, row in zip(names, matrix, strict=True))
    return text.getvalue()
