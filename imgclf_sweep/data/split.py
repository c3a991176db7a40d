"""Who is trained on, who is held out: stratified, seeded splits that never part byte-identical images.

The random order comes from raw PCG64 output, whose stream NumPy promises never to change (NEP 19), so that a sweep continued
under a later NumPy keeps its split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import BadInput
from ..text import printable

if TYPE_CHECKING:
    from .cache import Prepared

HOLD_OUT, SAMPLE = 1, 2  # what a random order is for: one seed gives unrelated orders


@dataclass(frozen=True)
class Parts:
    """Sorted int64 indices into the prepared training part; the two share no image and no duplicate of one."""

    train: np.ndarray
    validation: np.ndarray

    @property
    def both(self) -> np.ndarray:
        """Train and validation together, sorted: what the winner is retrained on."""
        return np.sort(np.concatenate([self.train, self.validation]))


def parts(
    prepared: Prepared, validation: float, seed: int, limit_images: int | None = None, part: str = "stratified"
) -> Parts:
    """Hold `validation` (in (0, 1)) of the training images out, after cutting them to `limit_images` if given.

    part: "stratified", or "last": the last ones in their order, duplicates and classes as they fall (`validation_split` of
    Keras's `fit` does that).
    Reads labels and groups only.  Raises: BadInput where a class cannot be in both parts.
    """
    labels, groups, classes = prepared.labels(), prepared.groups(), prepared.classes
    chosen = np.arange(len(labels))
    if limit_images is not None:
        chosen = sample(labels, groups, limit_images, seed)
    if part == "last":
        cut = len(chosen) - max(1, round(validation * len(chosen)))
        if cut < 1:
            raise BadInput(f"{len(chosen)} images are too few to hold {validation:g} of them out")
        for kept, what in ((chosen[:cut], "train"), (chosen[cut:], "validate")):
            absent = np.setdiff1d(labels, labels[kept])
            if len(absent):
                raise BadInput(
                    f"validation_part='last' leaves no image of class '{_named(int(absent[0]), classes)}' to {what} on: images "
                    "may lie in the order of their classes; use 'stratified'"
                )
        return Parts(chosen[:cut], chosen[cut:])
    kept, held = hold_out(labels[chosen], groups[chosen], validation, seed, classes=classes)
    return Parts(chosen[kept], chosen[held])


def hold_out(
    labels: np.ndarray,
    groups: np.ndarray,
    part: float,
    seed: int,
    *,
    keep: int = 1,
    classes: Sequence[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Split N images into (kept, held): sorted index arrays, about `part` of every class held, whole groups only.

    labels, groups: (N,) int; images with one group id are byte-identical.    keep: the fewest distinct images of a class kept.
    classes: names for messages.

    Raises: BadInput naming the class that has too few distinct images to be in both parts.
    """
    first, group_of = np.unique(groups, return_index=True, return_inverse=True)[1:]
    sizes = np.bincount(group_of)
    owner = labels[first]  # a group with several labels goes with its first image
    order = _order(len(sizes), seed, HOLD_OUT)
    present, counts = np.unique(labels, return_counts=True)
    wanted = _apportioned(counts, round(part * len(labels)), order=_order(len(present), seed, HOLD_OUT))
    held_groups = np.zeros(len(sizes), bool)
    for label, count in zip(present, wanted, strict=True):
        mine = order[owner[order] == label]
        if len(mine) < keep + 1:
            raise BadInput(
                f"class '{_named(label, classes)}' has {len(mine)} distinct images to split; at least {keep + 1} are needed"
            )
        held_groups[_picked(mine, sizes, int(count), keep)] = True
    held = held_groups[group_of]
    return np.flatnonzero(~held), np.flatnonzero(held)


def sample(labels: np.ndarray, groups: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Sorted indices of a stratified sample of `limit` of N images; all of them where there are no more.

    Every class keeps its share, at least two images, and distinct ones come before duplicates, so that a hold-out is possible.

    Raises: BadInput where `limit` cannot hold two images a class.
    """
    if limit >= len(labels):
        return np.arange(len(labels))
    present, counts = np.unique(labels, return_counts=True)
    if limit < 2 * len(present):
        raise BadInput(
            f"an image limit of {limit} is too small: {len(present)} classes need at least {2 * len(present)} images, "
            "one each for training and one for validation"
        )
    wanted = _apportioned(counts, limit, order=_order(len(present), seed, SAMPLE), least=2)
    order = _order(len(labels), seed, SAMPLE)
    duplicate = np.ones(len(labels), bool)
    duplicate[np.unique(groups[order], return_index=True)[1]] = False
    order = order[np.argsort(duplicate, kind="stable")]
    chosen = [order[labels[order] == label][:count] for label, count in zip(present, wanted, strict=True)]
    return np.sort(np.concatenate(chosen))


def _order(count: int, seed: int, purpose: int) -> np.ndarray:
    """A seeded random permutation of `count` numbers."""
    raw = np.random.PCG64(np.random.SeedSequence([seed, purpose])).random_raw(count)
    return np.argsort(raw, kind="stable")


def _apportioned(counts: np.ndarray, total: int, *, order: np.ndarray, least: int = 1) -> np.ndarray:
    """Shares of `total` in proportion to `counts`, each from `least` to its count: the largest remainder method, equal
    remainders in `order`. They add up to `total` where those bounds allow it."""
    exact = counts * (total / counts.sum())
    least = np.minimum(least, counts)
    shares = np.clip(np.floor(exact).astype(np.int64), least, counts)
    by_remainder = order[np.argsort(-(exact - np.floor(exact))[order], kind="stable")]
    while shares.sum() != total:
        step = 1 if shares.sum() < total else -1
        movable = by_remainder if step > 0 else by_remainder[::-1]
        movable = [i for i in movable if least[i] <= shares[i] + step <= counts[i]]
        if not movable:
            break
        for i in movable[: abs(total - int(shares.sum()))]:
            shares[i] += step
    return shares


def _picked(mine: np.ndarray, sizes: np.ndarray, count: int, keep: int) -> list[int]:
    """Groups from `mine`, in its order, of about `count` images: at least one, and leaving at least `keep` groups."""
    picked: list[int] = []
    total = 0
    for group in mine:
        if len(picked) == len(mine) - keep or total == count:
            break
        if total + sizes[group] <= count:
            picked.append(int(group))
            total += sizes[group]
    return picked or [int(min(mine, key=lambda group: sizes[group]))]


def _named(label: int, classes: Sequence[str] | None) -> str:
    return printable(classes[label]) if classes is not None else str(label)
