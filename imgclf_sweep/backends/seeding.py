"""Where a proposal's random numbers come from: the sweep's seed and the trial's number, nothing else."""

from __future__ import annotations

import numpy as np


def proposal_seeds(seed: int, number: int) -> np.random.SeedSequence:
    """The seeds of trial `number`'s proposal, so that a sweep that was stopped goes on as if it had not been.

    A sampler that lives as long as its process would start its stream again after a restart and repeat earlier proposals.
    """
    return np.random.SeedSequence([seed, number])


def proposal_seed(seed: int, number: int) -> int:
    """The same as one whole number in [1, 2**32), for libraries that take no more (and read 0 as "no seed")."""
    return int(proposal_seeds(seed, number).generate_state(1)[0]) or 1
