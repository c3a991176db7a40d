"""The parent's side of `training.finish`: one process exports the model, proves it, and opens the sealed test part once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import export, pictures, score
from .child import Child, ProtocolError
from .errors import StoreError, SweepError
from .space import Params
from .text import printable
from .training.protocol import Setup

FINISH_SECONDS = 12 * 3600.0


@dataclass(frozen=True)
class Finished:
    """What the child left: labels (N,) int64 of the test part, and the classes (N,) that each seed's model predicts.

    sure: the first seed's probabilities (N,) of the classes it predicts.   images: the test images `shown`.
    parameters: (all, trainable).   summary: lines.   difference: of the reloaded model's outputs, the largest.
    """

    labels: np.ndarray
    predicted: list[np.ndarray]
    sure: np.ndarray
    shown: pictures.Shown
    images: np.ndarray
    parameters: tuple[int, int]
    summary: list[str]
    outputs: int
    scale: list[float]
    offset: list[float]
    difference: float


def finish(
    setup: Setup,
    part: str,
    params: Params,
    weights: Sequence[Path],
    commit: Callable[[], None],
    log: Path,
    work: Path,
    stage: Path,
) -> Finished:
    """Export the model of the first weights to `stage` and prove it, then predict the test part with all of them.

    commit: called before the test part is opened, to put that on record.   log: of what the child prints.
    work: an empty directory.
    Raises: SweepError where the model cannot be exported or proved; StoreError where the child fails.
    """
    request = {
        "type": "finish",
        "setup": setup.to_json(),
        "part": part,
        "params": dict(params),
        "weights": [str(path.absolute()) for path in weights],
        "model": str((stage / export.MODEL).absolute()),
        "work": str(work.absolute()),
    }
    exported: Mapping[str, Any] = {}
    difference = float("inf")
    done = False
    with open(log, "wb") as output, Child("imgclf_sweep.training.finish", output=output, env=export.EXACT) as child:
        child.send(request)
        for message in _messages(child, log):
            if message["type"] == "exported":
                exported = message
                difference = export.prove(stage / export.MODEL, work / "images.npy", work / "expected.npy", log)
            elif message["type"] == "open_test":
                commit()
                child.send({"type": "opened"})
            elif message["type"] == "predicted":
                labels, predicted, sure = _predicted(work, len(weights))
                shown = pictures.choose(labels, predicted[0], sure, setup.sweep.seed)
                child.send({"type": "show", "images": shown.all})
            elif message["type"] == "failed":
                raise SweepError(f"the retrained model cannot be finished: {printable(message.get('reason'))}")
            done = message["type"] == "done"
    if not done:
        raise StoreError(f"the process that scores the model died; its output is in {printable(log)}")
    return Finished(
        labels,
        predicted,
        sure,
        shown,
        images=np.load(work / "shown.npy", allow_pickle=False),
        parameters=(exported["parameters"][0], exported["parameters"][1]),
        difference=difference,
        **{name: exported[name] for name in ("summary", "outputs", "scale", "offset")},
    )


def _predicted(work: Path, seeds: int) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Labels (N,), each seed's predicted classes (N,), and the first one's probabilities (N,) of them."""
    labels = np.load(work / "labels.npy", allow_pickle=False)
    outputs = [np.load(work / f"probabilities-{s}.npy", allow_pickle=False) for s in range(seeds)]
    return labels, [score.classes_of(p) for p in outputs], score.sureness(outputs[0])


def _messages(child: Child, log: Path) -> Iterator[dict[str, Any]]:
    try:
        yield from child.messages(FINISH_SECONDS)
    except (TimeoutError, ProtocolError) as error:
        why = str(error) or f"no end in {FINISH_SECONDS:.0f} seconds"
        raise StoreError(
            f"the process that scores the model failed ({why}); its output is in {printable(log)}"
        ) from None
