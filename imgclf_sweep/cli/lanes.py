"""How many trials each worker of a sweep trains at a time (`--lanes`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import BadInput
from .options import note

if TYPE_CHECKING:
    from ..data.cache import Prepared
    from ..data.split import Parts
    from ..sweep import Sweep

SEVERAL = ("compiled", "synthetic")  # the trainers that train several trials at a time


def lanes(
    given: int | None,
    trainer: str,
    sweep: Sweep,
    prepared: Prepared,
    split: Parts,
    environments: Sequence[Mapping[str, str]],
    trials: int,
) -> int:
    """As `given`, but no more than there are trials for; else 1 on a processor, where several take as long as one after another,
    and on a GPU as many as its memory holds of the largest trial of the space.

    environments: of the workers; none for training in this process.   trials: in all.
    Raises: BadInput for several where only one can be.
    """
    if given is not None and given > 1 and trainer not in SEVERAL:
        raise BadInput(
            f"--lanes {given}: only the compiled trainer trains several trials at a time (--trainer compiled)"
        )
    if given is not None and given > 1 and not environments:
        raise BadInput(f"--lanes {given}: with --workers 0 trials are trained one at a time")
    if not environments:
        return 1
    most = math.ceil(trials / len(environments))
    if given is not None:
        return min(given, most)
    found = _on_gpu(sweep, prepared, split, environments) if trainer == "compiled" and most > 1 else 1
    if found > 1:
        note(f"up to {min(found, most)} trials are trained at a time on each GPU (--lanes)")
    return min(found, most)


def _on_gpu(sweep: Sweep, prepared: Prepared, split: Parts, environments: Sequence[Mapping[str, str]]) -> int:
    from ..executors.devices import gpu_bytes
    from ..training.lanes.count import lanes_for, largest_lane

    devices = [gpu_bytes(environment) for environment in environments]
    counts = len(split.train), len(split.validation)
    lane = largest_lane(sweep, tuple(prepared.shape), len(prepared.classes), *counts)
    if lane is None or None in devices:
        return 1
    return min(lanes_for(device, lane) for device in devices if device is not None)
