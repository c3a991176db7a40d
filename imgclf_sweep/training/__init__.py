"""One candidate: data + model + training -> measurements."""

from __future__ import annotations

from .protocol import LaneTrainer, Setup, Trainer


def open_trainer(setup: Setup) -> Trainer:
    """The trainer that `setup` names. "fit" loads the tensor library, so only a process that trains calls this.

    Raises: SweepError where the prepared data cannot be used.
    """
    if setup.trainer == "synthetic":
        from .synthetic import SyntheticTrainer

        return SyntheticTrainer(setup)
    if setup.trainer == "compiled":
        from .compiled import CompiledTrainer

        return CompiledTrainer(setup)
    from .fit import FitTrainer

    return FitTrainer(setup)


def open_lanes(setup: Setup) -> LaneTrainer:
    """The trainer of several jobs at a time that `setup` names.  Raises: SweepError, as `open_trainer` does."""
    if setup.trainer == "synthetic":
        from .synthetic_lanes import SyntheticLanes

        return SyntheticLanes(setup)
    from .fused import FusedTrainer

    return FusedTrainer(setup)


def preload(trainer: str) -> None:
    """Import what `open_trainer` will need, and touch no device: which ones it may use is not known yet."""
    if trainer == "fit":
        from . import fit  # noqa: F401
    elif trainer == "compiled":
        from . import compiled  # noqa: F401
