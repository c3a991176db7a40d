"""How much disk the kept features of frozen backbones will take: announced, and refused where there is none, before a sweep.

As a module (`python -m`) this is the child that builds the backbones to know: without their weights, which are not needed.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..child import Child, connect
from ..data.cache import Prepared
from ..errors import BadInput, StoreError
from ..models.shared_knobs import AUGMENTATION
from ..models.transfer_knobs import KNOBS
from ..space import Params
from ..sweep import Sweep
from ..text import printable

BUILD_SECONDS = 600.0
SPARE = 0.05  # part of the disk's free room that is left alone
META = "meta.json"
DECIDING = ("backbone", "image_size", "pooling", "preprocessing")  # the knobs that make one trunk another


def announce(sweep: Sweep, prepared: Prepared, images: int | None) -> Iterator[str]:
    """A line for each set of features that trials of `sweep` may want kept and that is not there yet.

    images: how many at most are searched on (--limit-images).  Raises: BadInput where the disk has no room for one of them.
    """
    trunks = list(_trunks(sweep))
    if not trunks:
        return
    directory = prepared.path.parent / "features"
    count = min(prepared.train_images, images or prepared.train_images)
    there = list(_there(directory, prepared.fingerprint))
    for made_of, width in _widths(trunks, prepared):
        if (made_of, count, width) in there:
            continue
        size = 2 * count * width
        check_room(size, directory, made_of)
        yield f"features of {made_of} are computed once and kept: {size_words(size)} under {printable(directory)}"


def _trunks(sweep: Sweep) -> Iterator[Params]:
    """The frozen backbones that trials may have, each as params of its own; none where nothing can be kept."""
    if sweep.model != "transfer":
        return
    possible = {name: _values(sweep, name) for name in KNOBS}
    unchanged = all(any(not value for value in possible[name]) for name in AUGMENTATION)
    weights = next((v for v in possible["weights"] if v is not None), None)
    if "none" not in possible["thaw"] or weights is None or not unchanged:
        return
    for values in itertools.product(*(possible[name] for name in DECIDING)):
        yield {**dict(zip(DECIDING, values, strict=True)), "thaw": "none", "weights": weights}


def _values(sweep: Sweep, name: str) -> tuple[Any, ...]:
    """The values that a knob can take in a trial, of a range both ends."""
    searched = tuple(sweep.space[name].grid()) if name in sweep.space else (KNOBS[name].default,)
    known = tuple(s.params[name] for s in sweep.known_suggestions if name in s.params)
    return tuple(dict.fromkeys(searched + known))


def _there(directory: Path, fingerprint: str) -> Iterator[tuple[str, int, int]]:
    for path in directory.glob(f"*/{META}"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            meta = json.loads(path.read_bytes())
            if meta["data"] == fingerprint:
                yield (meta["made_of"], *meta["shape"])


def _widths(trunks: list[Params], prepared: Prepared) -> list[tuple[str, int]]:
    """What each trunk is in words, and how many features it makes of an image; one that cannot be built is left out."""
    with tempfile.TemporaryFile() as output, Child(__name__, output=output) as child:
        child.send({"type": "widths", "trunks": trunks, "shape": prepared.shape})
        try:
            answer = next(child.messages(BUILD_SECONDS), None)
        except TimeoutError:
            answer = None
    if answer is None:
        raise StoreError("the process that builds backbones to know their size ended without an answer")
    return [(made_of, width) for made_of, width in answer["widths"]]


def check_room(size: int, directory: Path, made_of: str) -> None:
    """Refuse to write `size` bytes of features under `directory`.  Raises: BadInput where the disk has no room for them."""
    there = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if size > free * (1 - SPARE):
        raise BadInput(
            f"the features of {made_of} take {size_words(size)} under {printable(directory)}, where {size_words(free)} are "
            "free: choose a smaller image_size, pooling='avg' or fewer images (--limit-images)"
        )


def size_words(size: int) -> str:
    """Bytes as people read them: "13.1 GB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def main() -> None:
    channel = connect()
    request = channel.receive()
    from ..models.transfer import (
        build_transfer,
    )  # here, not above: the channel must live before the tensor library loads

    widths = []
    for params in request["trunks"]:
        with contextlib.suppress(BadInput):  # too small an image, say: the trial itself says so
            frozen = build_transfer(params, tuple(request["shape"]), 2, "categorical_crossentropy", pretrained=False)[1]
            assert frozen is not None
            widths.append((frozen.made_of, int(frozen.trunk.output_shape[-1])))
    channel.send(type="widths", widths=widths)


if __name__ == "__main__":
    main()
