"""Pictures as PNG bytes: images by class, curves, a confusion matrix, predictions, text. Arrays and words in, bytes out.

matplotlib is imported when one is drawn, and drawn on directly: no window system, none of the user's settings. Colours are those
of Okabe and Ito (2008), told apart by colour-blind readers, and never the only sign of anything.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Epochs = Sequence[Mapping[str, float]]
"""The metrics of a training by epoch, as a record gives them: `[{"epoch": 1, "loss": 0.7, "val_loss": 0.9}, ...]`."""

BLUE, ORANGE, SKY, AMBER, GREY = "#0072B2", "#D55E00", "#56B4E9", "#E69F00", "#555555"
LINES = (((BLUE, "-"), (ORANGE, "--")), ((SKY, "-."), (AMBER, ":")))  # group -> train, validation
DPI = 110
CLASSES_SHOWN = 24  # rows of a grid by class
COUNTED = 24  # classes up to which a confusion matrix has numbers in it
PANELS = 4
TEXT_LINES = 150
TILE_PIXELS = 160  # the side to which the images of a grid are made smaller
FALLBACK = (  # families that write what DejaVu cannot, used where they are installed
    *(
        "Noto Sans CJK SC",
        "Noto Sans CJK JP",
        "Source Han Sans SC",
        "WenQuanYi Zen Hei",
        "Microsoft YaHei",
        "Yu Gothic",
    ),
    *(
        "Hiragino Sans",
        "Malgun Gothic",
        "Arial Unicode MS",
        "Noto Sans Devanagari",
        "Noto Sans Thai",
        "Noto Sans Hebrew",
    ),
)


@dataclass(frozen=True)
class Group:
    """Trainings of one kind, drawn alike: what the legend calls them, and the epochs of each."""

    label: str
    trainings: Sequence[Epochs]


def samples(x: np.ndarray, y: np.ndarray, names: Sequence[str], title: str, columns: int = 10, seed: int = 0) -> bytes:
    """A row of images for each class, drawn at random, at most CLASSES_SHOWN classes.

    x: uint8 (N, H, W, C), may be a memory map, of which only what is shown is read.   y: class numbers (N,).
    """
    rng = np.random.default_rng(seed)
    shown = min(len(names), CLASSES_SHOWN)
    rows = []
    for number in range(shown):
        of_class = np.flatnonzero(y == number)
        rows.append(np.sort(rng.choice(of_class, min(columns, len(of_class)), replace=False)))
    columns = max(map(len, rows))
    height, width = _shrunk(x[:1])[0].shape[:2]
    gap = max(1, round(max(height, width) * 0.06))
    canvas = np.full((shown * (height + gap) - gap, columns * (width + gap) - gap, x.shape[3]), 255, dtype="uint8")
    for r, chosen in enumerate(rows):
        for c, image in enumerate(_shrunk(x[chosen])):
            top, left = r * (height + gap), c * (width + gap)
            canvas[top : top + height, left : left + width] = image
    if shown < len(names):
        title += f"\n(the first {shown} of {len(names)} classes)"
    inches = 0.75 * shown * height / max(height, width) + 0.7
    with _figure(0.75 * columns * width / max(height, width) + 2.2, inches) as (figure, png):
        axes = figure.subplots()
        _image(axes, canvas)
        centres = [r * (height + gap) + (height - 1) / 2 for r in range(shown)]
        axes.set_yticks(centres, [label(name, 24) for name in names[:shown]])
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        _title(figure, title)
    return png.getvalue()


def curves(groups: Sequence[Group], title: str, mark: tuple[int, str] | None = None) -> bytes:
    """Loss, accuracy and what else was measured by epoch, train and validation in one panel; at most two groups.

    mark: an epoch to point out, and what it is.
    """
    measured = {n for g in groups for t in g.trainings for e in t for n in e if n != "epoch"}
    bases = sorted({n.removeprefix("val_") for n in measured}, key=lambda n: (n != "loss", n != "accuracy", n))[:PANELS]
    columns = min(len(bases), 2)
    with _figure(4.6 * columns + 0.4, 3.4 * math.ceil(len(bases) / 2) + 1.2) as (figure, png):
        panels = list(figure.subplots(math.ceil(len(bases) / 2), columns, squeeze=False).flat)
        for axes, base in zip(panels, bases, strict=False):
            _panel(axes, base, groups, mark)
        for axes in panels[len(bases) :]:
            axes.set_axis_off()
        entries = {text: line for axes in panels for line, text in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=2, frameon=False)
        _title(figure, title)
    return png.getvalue()


def _panel(axes: Axes, base: str, groups: Sequence[Group], mark: tuple[int, str] | None) -> None:
    from matplotlib.ticker import MaxNLocator

    for group, styles in zip(groups, LINES, strict=False):
        for name, part, (color, style) in zip((base, f"val_{base}"), ("train", "validation"), styles, strict=True):
            for epochs in group.trainings:
                at = [(e["epoch"], e[name]) for e in epochs if name in e]
                if at:
                    axes.plot(
                        *zip(*at, strict=True),
                        style,
                        color=color,
                        linewidth=1.6 if len(group.trainings) == 1 else 1.1,
                        marker="o" if len(at) <= 30 else None,
                        markersize=3,
                        label=f"{label(group.label, 40)}{', ' if group.label else ''}{part}",
                    )
    if mark is not None:
        axes.axvline(mark[0], color=GREY, linewidth=0.9, linestyle=(0, (1, 3)), label=label(mark[1], 60))
    axes.set_title(label(base, 40), fontsize=11)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def confusion(matrix: np.ndarray, names: Sequence[str], title: str) -> bytes:
    """A confusion matrix (classes, classes) of counts, true classes in rows; coloured by the part of its row."""
    n = len(names)
    rows = matrix.sum(axis=1, keepdims=True)
    part = np.divide(matrix, rows, out=np.zeros(matrix.shape), where=rows > 0)
    digits = len(str(int(matrix.max(initial=0))))
    cell = max(0.42, 0.09 * digits + 0.14) if n <= COUNTED else max(8.0 / n, 0.02)
    limit = 24 if n <= 60 else 18
    margin = 0.075 * max((_width(label(name, limit)) for name in names), default=0)
    side = max(n * cell, 2.4)
    with _figure(side + margin + 1.7, side + margin + 1.2) as (figure, png):
        axes = figure.subplots()
        drawn = axes.imshow(part, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        if n <= COUNTED:
            for r, c in np.ndindex(n, n):
                if matrix[r, c]:
                    color = "white" if part[r, c] > 0.55 else "black"
                    axes.text(c, r, str(int(matrix[r, c])), ha="center", va="center", fontsize=8, color=color)
        ticks = range(0, n, math.ceil(n / 60))
        texts = [label(names[i], limit) for i in ticks]
        size = 9 if n <= COUNTED else 7
        axes.set_xticks(ticks, texts, rotation=90 if max(map(_width, texts)) > 2 else 0, fontsize=size)
        axes.set_yticks(ticks, texts, fontsize=size)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        bar = figure.colorbar(drawn, ax=axes, fraction=0.04, pad=0.02, ticks=[0, 0.5, 1])
        bar.set_label("part of the true class", fontsize=9)
        bar.outline.set_visible(False)
        _title(figure, title)
    return png.getvalue()


@dataclass(frozen=True)
class Predictions:
    """Images uint8 (N, H, W, C) under a heading, with their true and predicted class numbers (N,) and the probability (N,)
    of the latter."""

    heading: str
    images: np.ndarray
    true: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray


def predictions(parts: Sequence[Predictions], names: Sequence[str], title: str, columns: int = 6) -> bytes:
    """Test images, each below its true class and what the model says; parts without an image are left out."""
    parts = [part for part in parts if len(part.images)]
    rows = [math.ceil(len(part.images) / columns) for part in parts]
    height, width = parts[0].images.shape[1:3]
    tall = [r * (1.35 * min(2.0, height / width) + 0.5) + 0.35 for r in rows]
    with _figure(columns * 1.6 + 0.2, sum(tall) + 0.5) as (figure, png):
        blocks = figure.subfigures(len(parts), height_ratios=tall, squeeze=False)[:, 0]
        for part, block, r in zip(parts, blocks, rows, strict=True):
            block.suptitle(part.heading, fontsize=10, color=GREY)
            grid = list(block.subplots(r, columns, squeeze=False).flat)
            for axes in grid[len(part.images) :]:
                axes.set_axis_off()
            for i, (axes, image) in enumerate(zip(grid, _shrunk(part.images), strict=False)):
                _predicted(axes, image, names[part.true[i]], names[part.predicted[i]], float(part.probability[i]))
        _title(figure, title)
    return png.getvalue()


def _predicted(axes: Axes, image: np.ndarray, true: str, said: str, probability: float) -> None:
    right = true == said
    _image(axes, image)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(color=BLUE if right else ORANGE, linewidth=1.5 if right else 3)
    text = f"{label(true, 18)}\n{'✓' if right else '✗'} {label(said, 13)} {probability:.2f}"
    axes.set_title(text, fontsize=8, color=BLUE if right else ORANGE, pad=3)


def page(lines: Sequence[str], more: str) -> bytes:
    """Lines in a monospaced face, at most TEXT_LINES; `more` says where the rest is."""
    shown = [label(line, 160) for line in lines[:TEXT_LINES]]
    if len(lines) > len(shown):
        shown.append(f"... {len(lines) - len(shown)} more lines in {more}")
    width = 0.085 * max(map(_width, shown), default=0) + 0.4
    with _figure(max(width, 2.0), 0.165 * len(shown) + 0.4, constrained=False) as (figure, png):
        for i, line in enumerate(shown):
            x, y = 0.2 / figure.get_figwidth(), 1 - (0.3 + 0.165 * i) / figure.get_figheight()
            figure.text(x, y, line, va="baseline", fontsize=10, family=["DejaVu Sans Mono", *_faces()[0]])
    return png.getvalue()


def label(text: object, limit: int) -> str:
    """`text` on one line of at most `limit` characters' width, cut in its middle; what no face at hand can draw is escaped."""
    known = _faces()[1]
    out = "".join(c if ord(c) in known else c.encode("unicode_escape").decode() for c in printable(text))
    if _width(out) <= limit:
        return out
    head, tail = out, ""
    while _width(head) > limit // 2:
        head = head[:-1]
    for c in reversed(out):
        if _width(head + "…" + c + tail) > limit:
            break
        tail = c + tail
    return f"{head}…{tail}"


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _faces() -> tuple[list[str], set[int]]:
    """The families to draw with, and the characters that these have."""
    from matplotlib import font_manager

    there = {entry.name: entry.fname for entry in font_manager.fontManager.ttflist if entry.name in FALLBACK}
    families = ["DejaVu Sans", *(name for name in FALLBACK if name in there)]
    files = [font_manager.findfont("DejaVu Sans"), *(there[name] for name in families[1:])]
    return families, {c for file in files for c in font_manager.get_font(file).get_charmap()}


@contextlib.contextmanager
def _figure(width: float, height: float, constrained: bool = True) -> Iterator[tuple[Figure, io.BytesIO]]:
    """A figure of so many inches to draw on; its PNG is written when the block ends."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # a word about its font cache is of no use to our users
    import matplotlib
    from matplotlib.figure import Figure

    png = io.BytesIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {"text.parse_math": False, "font.family": _faces()[0], "axes.unicode_minus": False, "font.size": 10}
        )
        figure = Figure((width, height), dpi=DPI, layout="constrained" if constrained else None, facecolor="white")
        yield figure, png
        figure.savefig(png, format="png", bbox_inches="tight", pad_inches=0.12, metadata={"Software": None})


def _title(figure: Figure, title: str) -> None:
    import textwrap

    wide = max(20, int(figure.get_figwidth() * 10.5))
    lines = [part for line in title.splitlines() for part in textwrap.wrap(label(line, 4 * wide), wide) or [""]]
    figure.suptitle("\n".join(lines), fontsize=11)


def _image(axes: Axes, image: np.ndarray) -> None:
    gray = image.shape[2] == 1
    shown: Any = image[:, :, 0] if gray else image
    axes.imshow(shown, cmap="gray" if gray else None, vmin=0, vmax=255, interpolation="nearest")


def _shrunk(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, C) made smaller by a whole number, each pixel the mean of a square, to about TILE_PIXELS."""
    images = np.asarray(images)
    n, height, width, channels = images.shape
    k = max(1, min(height, width, max(height, width) // TILE_PIXELS))
    if k == 1:
        return images
    cut = images[:, : height // k * k, : width // k * k]
    return cut.reshape(n, height // k, k, width // k, k, channels).mean(axis=(2, 4)).round().astype("uint8")
