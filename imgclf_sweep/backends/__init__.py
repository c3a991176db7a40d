"""The search side: what to try next, when to stop a trial. `open_backend` makes the one a sweep names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..quiet import without_native_chatter
from ..sweep import Sweep
from ..trial import Trial
from .protocol import Backend


def open_backend(sweep: Sweep, history: Sequence[Trial], state: Mapping[str, str]) -> Backend:
    """The backend of `sweep`, as far as `history` (all recorded trials, by number) and its kept `state` have brought it.

    Trials outside the space are passed over, for they mean nothing to a search library: known configurations, trials from before
    the space was changed, and those of which a repaired record has lost the parameters.

    A grid is the same enumeration on every backend; Optuna's pruners work with it where one is named.
    The library named is imported here and not before. Raises: StoreError for a `state` that does not fit `history`.
    """
    history = [t for t in history if sweep.space.contains(t.params)]
    grid = sweep.sampler_name == "grid"
    if grid and sweep.pruner_name == "none":
        from .grid_backend import GridBackend

        return GridBackend(sweep)
    if sweep.backend == "random":
        from .random_backend import RandomBackend

        return RandomBackend(sweep, history)
    if sweep.backend == "keras-tuner":
        with without_native_chatter():
            from .keras_tuner_backend import KerasTunerBackend

        return KerasTunerBackend(sweep, history, state)
    from .optuna_backend import OptunaBackend

    return OptunaBackend(sweep, history)
