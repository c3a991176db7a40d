"""The closing table of several sweeps: model, parameters, training time, validation value, final score.

From the records and from what `retrain` wrote beside each model. Nothing is executed or loaded that could run code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .errors import StoreError
from .export import MANIFEST
from .record.layout import SweepDir
from .record.read import Reader
from .space import Params, frozen
from .sweep import Sweep
from .text import listed, printable
from .trial import Trial


@dataclass(frozen=True)
class Row:
    """One model: a sweep's exported winner, another trial of it that was retrained, or its winner so far, not yet retrained.

    seconds: of the exported model's training, else of the trial's.   validation: the trial's best `objective`.
    parameters, trainable, score (mean), low, high (its 95 % interval), over, seeds, images (test), directory: known once
    retrained, else None.   fingerprint: of the data set's images.
    """

    sweep: str
    trial: int | None
    model: str
    params: Params
    objective: str
    validation: float | None
    seconds: float | None
    fingerprint: str
    parameters: int | None = None
    trainable: int | None = None
    score: float | None = None
    low: float | None = None
    high: float | None = None
    over: str | None = None
    seeds: int | None = None
    images: int | None = None
    directory: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def rows(directory: SweepDir) -> list[Row]:
    """The models of one sweep: the exported winner first, then other retrained trials by number; at least one row.

    Raises: StoreError for a record or a manifest that cannot be read.
    """
    reader = Reader(directory)
    trials = {t.number: t for t in reader.trials()}
    exported = [path for path in _exports(directory) if (path / MANIFEST).is_file()]
    found = [_exported(directory, reader, trials, path) for path in exported]
    if directory.best not in exported:
        found.insert(0, _searched(directory, reader, reader.best()))
    return found


def remarks(directories: Sequence[SweepDir], found: Sequence[Row]) -> Iterator[str]:
    """What a reader should know before comparing these rows, a line each."""
    for directory in directories:
        best = Reader(directory).best()
        first = next(row for row in found if row.sweep == directory.name)
        if best is not None and first.directory is not None and first.trial != best.number:
            yield f"{directory.name}: trial {best.number} is the best by now; retrain again to score it"
    if len({row.fingerprint for row in found if row.score is not None}) > 1:
        yield "the scores are on different images: they do not compare directly"
    objectives = {row.objective for row in found}
    if len(objectives) > 1:
        yield f"the validation values are of different metrics: {listed(sorted(objectives))}"


def _exports(directory: SweepDir) -> Iterator[Path]:
    yield directory.best
    retrained = directory.retrained(0).parent
    if retrained.is_dir():
        yield from sorted((p for p in retrained.iterdir() if p.name.isdecimal()), key=lambda p: int(p.name))


def _searched(directory: SweepDir, reader: Reader, trial: Trial | None) -> Row:
    return Row(
        directory.name,
        None if trial is None else trial.number,
        _model(reader.sweep),
        {} if trial is None else trial.params,
        reader.sweep.objective.metric,
        None if trial is None else trial.value,
        None if trial is None else trial.seconds,
        reader.info.fingerprint,
    )


def _exported(directory: SweepDir, reader: Reader, trials: dict[int, Trial], path: Path) -> Row:
    file = path / MANIFEST
    try:
        told = json.loads(file.read_bytes())
        score = told["score"]
        counts = told.get("parameters") or {}
        trial = trials.get(told["trial"])
        seconds = told.get("seconds") or [None if trial is None else trial.seconds]
        return Row(
            directory.name,
            int(told["trial"]),
            _model(reader.sweep),
            {str(name): frozen(value) for name, value in told["params"].items()},
            reader.sweep.objective.metric,
            None if trial is None else trial.value,
            None if seconds[0] is None else float(seconds[0]),
            str(told["data"]["fingerprint"]),
            *(None if name not in counts else int(counts[name]) for name in ("total", "trainable")),
            *(float(score[name]) for name in ("accuracy", "low", "high")),
            over=str(score["over"]),
            seeds=len(score["accuracies"]),
            images=int(score["images"]),
            directory=str(path),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        why = f"{type(error).__name__}: {printable(error)}"
        raise StoreError(f"{printable(file)} cannot be read ({why}); `sweep retrain` writes it anew") from None


def _model(sweep: Sweep) -> str:
    return sweep.model if isinstance(sweep.model, str) else f"{sweep.model.name}(hp)"
