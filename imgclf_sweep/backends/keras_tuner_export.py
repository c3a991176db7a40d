"""The project folder that a plain Keras Tuner reloads. Written from the oracle's kept state, without importing Keras Tuner."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..sweep import Sweep
from .keras_tuner_state import entries, whole

WEIGHTS = 5
"""Best trials whose weights are copied along, for `Tuner.get_best_models(n)`: copies, since a Tuner writes over them."""

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def write_project(path: Path, checkpoints: Path, sweep: Sweep, state: Mapping[str, str]) -> None:
    """Write the project folder `path` whole, so that `Tuner(directory=path.parent, project_name=path.name)` sees every trial.

    Reload it with `overwrite=False`. `checkpoints` holds `<number>/best.weights.h5`, or plain arrays in `.npz`, which become
    such a file. The new folder is built beside the old one and exchanged with it in one step, so that a kill leaves the old or
    the new.
    """
    if "oracle" not in state:
        return
    new = path.with_name(f".{path.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    (new / "oracle.json").write_text(json.dumps(whole(state)), encoding="utf-8")
    (new / "tuner0.json").write_text(
        "{}", encoding="utf-8"
    )  # without it a Tuner sees no trial and writes over them all
    trials = sorted(entries(state), key=lambda entry: int(entry["number"]))  # among equals the first keeps its weights
    for entry in trials:
        folder = new / f"trial_{entry['trial']['trial_id']}"
        folder.mkdir()
        (folder / "trial.json").write_text(json.dumps(entry["trial"]), encoding="utf-8")
    scored = [e for e in trials if e["trial"]["status"] == "COMPLETED"]
    scored.sort(key=lambda e: e["trial"]["score"], reverse=sweep.objective.direction == "max")
    for entry in scored[:WEIGHTS]:
        _copy_weights(checkpoints / str(entry["number"]), new / f"trial_{entry['trial']['trial_id']}")
    _exchange(new, path)
    shutil.rmtree(new, ignore_errors=True)


def _copy_weights(source: Path, folder: Path) -> None:
    for name, called in (("best.weights.h5", "checkpoint.weights.h5"), ("build_config.json", "build_config.json")):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / called)
    arrays = source / "best.weights.npz"
    with contextlib.suppress(ValueError, KeyError, EOFError, zipfile.BadZipFile):  # torn: the rest is of use without
        if arrays.is_file():
            with open(arrays, "rb") as opened, np.load(opened, allow_pickle=False) as archive:
                write_keras([archive[f"arr_{i}"] for i in range(len(archive.files))], folder / "checkpoint.weights.h5")


def write_keras(weights: Sequence[np.ndarray], path: Path) -> None:
    """Write plain arrays, in the order of `get_weights()` of a network of the family "cnn", as Keras's `.weights.h5`.

    Keras finds a layer's variables by its class and how many of that class there were before: `layers/conv2d_1/vars/0`.
    """
    import h5py  # Keras's own requirement

    counts: dict[str, int] = {}
    rest = list(weights)
    with h5py.File(path, "w") as file:
        while rest:
            norm = rest[0].ndim == 1  # what begins with no kernel: gamma, beta, mean, variance
            name = "batch_normalization" if norm else {4: "conv2d", 2: "dense"}[rest[0].ndim]
            count, counts[name] = counts.get(name, 0), counts.get(name, 0) + 1
            group = file.create_group(f"layers/{name}_{count}/vars" if count else f"layers/{name}/vars")
            for i in range(4 if norm else 2):
                group[str(i)] = rest.pop(0)


def _exchange(new: Path, path: Path) -> None:
    """Make `new` stand at `path`; what stood there stands at `new` afterwards, if anything did."""
    if not path.exists():
        os.rename(new, path)
        return
    if not _exchange_at_once(new, path):  # not Linux, or a file system without it: for an instant neither is there
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.rename(path, old)
        os.rename(new, path)
        os.rename(old, new)


def _exchange_at_once(a: Path, b: Path) -> bool:
    """Exchange two names atomically (Linux's renameat2), or say that it cannot be done here."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0
