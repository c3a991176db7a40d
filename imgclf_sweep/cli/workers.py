"""The workers that a verb trains with: how many, each on what, and what runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadInput
from .options import note

if TYPE_CHECKING:
    from ..executors.protocol import Executor
    from ..executors.worker_process import Limits
    from ..training.protocol import Setup


def environments_for(options: dict[str, Any], trials: int) -> list[dict[str, str]]:
    """One entry a worker process; none where training is to be in this one.

    Raises: BadInput for GPUs that are not there, and for a limit that nobody could enforce.
    """
    from ..executors.devices import plan

    workers, gpus, each = options["workers"], options["gpus"], options["workers_per_gpu"]
    if workers == 0 and options["max_trial_time"] is not None:
        raise BadInput("--max-trial-time: with --workers 0 there is no worker that could be stopped")
    planned = plan(workers, gpus, each, most=trials, trainer=options["trainer"], note=note)
    return [] if workers == 0 else planned


def make_executor(setup: Setup, logs: Path, workers: int | None, gpus: int | None, most: int) -> Executor:
    """The executor for `workers` processes (None: what fits the machine, 0: this process), at most `most`, on `gpus` GPUs."""
    from ..executors.devices import plan

    planned = plan(workers, gpus, None, most=most, trainer=setup.trainer, note=note)
    return open_executor(setup, [] if workers == 0 else planned, logs)


def open_executor(
    setup: Setup, environments: Sequence[Mapping[str, str]], logs: Path, limits: Limits | None = None
) -> Executor:
    """An executor with one worker process for each of `environments`, or without any, this process."""
    if not environments:
        from ..executors.in_process import InProcessExecutor

        return InProcessExecutor(setup)
    from ..executors.processes import ProcessExecutor

    return ProcessExecutor(setup, environments, logs, limits=limits, note=note)
