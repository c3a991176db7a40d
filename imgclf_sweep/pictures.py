"""What a sweep shows its readers: sample images before it; of a retrained model its curves, its confusions and its predictions.

Pictures are for looking at: one that cannot be drawn or written is said and left out, and costs no score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import figures
from .data.cache import Prepared
from .figures import Epochs, Group
from .record.layout import write_whole
from .text import printable

RANDOM, MISTAKES = 18, 12  # test images shown: drawn at random, and the surest mistakes
PNG = ".png"

Note = Callable[[str], None]


def save_samples(prepared: Prepared, kind: str, path: Path) -> None:
    """Write a grid of training images by class to `path`.  Raises: OSError."""
    x, y = prepared.train()
    size = "x".join(map(str, prepared.shape))
    png = figures.samples(x, y, prepared.classes, f"{kind}: {prepared.train_images:,} training images, {size}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, png)


@dataclass(frozen=True)
class Shown:
    """Which test images are shown, as indices into the test part."""

    random: np.ndarray
    mistakes: np.ndarray

    @property
    def all(self) -> list[int]:
        return [int(i) for i in (*self.random, *self.mistakes)]


def choose(labels: np.ndarray, predicted: np.ndarray, sure: np.ndarray, seed: int) -> Shown:
    """Which test images to show, of true and predicted classes (N,) and the probabilities (N,) of the latter."""
    rng = np.random.default_rng(seed)
    random = np.sort(rng.choice(len(labels), min(RANDOM, len(labels)), replace=False))
    wrong = np.flatnonzero(predicted != labels)
    return Shown(random, wrong[np.argsort(-sure[wrong], kind="stable")][:MISTAKES])


@dataclass(frozen=True)
class Story:
    """All that the pictures of one retrained model tell.

    trainings: the epochs of each seed's.   search: the trial's own.   best: the best epoch by `objective`, of the exported
    model where a validation part was held out from it, else of the trial.
    names: of the outputs, the data set's `classes` first.   labels, predicted: class numbers (N,) of the test part, true and by
    the exported model; `sure` (N,): the probabilities of the latter.   images: those of `shown`, uint8 (M, H, W, C).
    summary, report: lines.
    """

    title: str
    trainings: Sequence[Epochs]
    search: Epochs
    best: int | None
    objective: str
    names: Sequence[str]
    classes: int
    labels: np.ndarray
    predicted: np.ndarray
    sure: np.ndarray
    shown: Shown
    images: np.ndarray
    summary: Sequence[str]
    report: Sequence[str]

    @property
    def scored(self) -> str:
        """What the exported model came to, in words."""
        accuracy = float((self.labels == self.predicted).mean())
        return f"{len(self.labels):,} test images, accuracy {accuracy:.4f} (the exported model, seed 0)"

    def draw(self, note: Note) -> dict[str, bytes]:
        """The pictures as PNG by name."""
        parts: dict[str, Callable[[], bytes]] = {
            "curves": self._curves,
            "confusion_matrix": self._confusion,
            "predictions": self._predictions,
            "summary": lambda: figures.page([self.title, *self.summary], "summary.txt"),
            "classification_report": lambda: figures.page(
                [self.title, self.scored, "", *self.report], "classification_report.txt"
            ),
        }
        drawn = {}
        for name, part in parts.items():
            try:
                drawn[name] = part()
            except Exception as error:  # the test part is open and the score is known: no picture is worth losing it
                note(f"no {name}{PNG}: {type(error).__name__}: {printable(error)}")
        return drawn

    def _curves(self) -> bytes:
        seeds = len(self.trainings)
        groups = [Group("retrained" + (f", {seeds} seeds" if seeds > 1 else ""), self.trainings)]
        if self.search:
            groups.append(Group("in the search", [self.search]))
        return figures.curves(groups, self.title, _mark(self.best, self.objective))

    def _confusion(self) -> bytes:
        matrix = np.zeros((len(self.names), len(self.names)), dtype="int64")
        np.add.at(matrix, (self.labels, self.predicted), 1)
        used = (np.arange(len(self.names)) < self.classes) | matrix.any(axis=0)
        title = f"{self.title}\n{self.scored}"
        return figures.confusion(matrix[used][:, used], [n for n, u in zip(self.names, used, strict=True) if u], title)

    def _predictions(self) -> bytes:
        def part(heading: str, chosen: np.ndarray, images: np.ndarray) -> figures.Predictions:
            return figures.Predictions(heading, images, self.labels[chosen], self.predicted[chosen], self.sure[chosen])

        split = len(self.shown.random)
        wrong = int((self.labels != self.predicted).sum())
        parts = [
            part("test images drawn at random", self.shown.random, self.images[:split]),
            part(f"the surest of {wrong:,} mistakes", self.shown.mistakes, self.images[split:]),
        ]
        title = f"{self.title}\nabove each image its true class, then what the model says and how surely"
        return figures.predictions(parts, self.names, title)


def trial_curves(epochs: Epochs, title: str, best: int | None, objective: str) -> bytes:
    """The curves of one trial of the search as PNG."""
    return figures.curves([Group("", [epochs])], title, _mark(best, objective))


def _mark(best: int | None, objective: str) -> tuple[int, str] | None:
    return None if best is None else (best, f"best epoch by {objective} ({best})")


def log(directory: Path, pictures: Mapping[str, bytes], step: int, note: Note) -> None:
    """Put pictures into a run of TensorBoard's that is no trial: it has no parameters, so that HParams leaves it out."""
    from .tracking.events import RunWriter

    try:
        writer = RunWriter(directory, step=step)
        for name, png in pictures.items():
            writer.image(step, name, png)
        writer.close()
    except OSError as error:
        note(f"the pictures could not be written for TensorBoard: {printable(error)}")
