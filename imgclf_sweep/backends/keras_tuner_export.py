"""The project folder that a plain Keras Tuner reloads. Written from the oracle's kept state, without importing Keras Tuner."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ..sweep import Sweep
from .keras_tuner_state import entries, whole

WEIGHTS = 5
"""Best trials whose weights are copied along, for `Tuner.get_best_models(n)`: copies, since a Tuner writes over them."""

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def write_project(path: Path, checkpoints: Path, sweep: Sweep, state: Mapping[str, str]) -> None:
    """Write the project folder `path` whole, so that `Tuner(directory=path.parent, project_name=path.name)` sees every trial.

    Reload it with `overwrite=False`. `checkpoints` holds `<number>/best.weights.h5`. The new folder is built beside the old
    one and exchanged with it in one step, so that a kill leaves the old or the new.
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
