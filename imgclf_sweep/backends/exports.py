"""What the ecosystem expects of a sweep, written beside the record: an Optuna study and a Keras Tuner project.

They are copies for other programs. Nothing of ours reads them back, so a damaged one costs nothing: the next write replaces it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..sweep import Sweep
from ..trial import Trial


def load_libraries() -> None:
    """Import what `write_exports` needs, half a second's work, while workers import theirs and nothing else is to be done."""
    from . import optuna_export  # noqa: F401


def write_exports(directory: Path, sweep: Sweep, trials: Sequence[Trial], state: Mapping[str, str]) -> None:
    """Rewrite `directory`/optuna.db, and `directory`/keras_tuner/ for a sweep that Keras Tuner's oracles propose.

    trials: all recorded ones by number.   state: what the backend asked to be kept.   The study is named as the directory.
    Raises: OSError, sqlite3.Error.
    """
    from .optuna_export import write_study

    write_study(directory / "optuna.db", directory.name, sweep, trials)
    if sweep.backend == "keras-tuner" and sweep.sampler_name != "grid":
        from .keras_tuner_export import write_project

        write_project(directory / "keras_tuner", directory / "checkpoints", sweep, state)
