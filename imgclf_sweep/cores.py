"""How many cores these processes may use, which on a shared machine is fewer than it has."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def cores() -> int:
    """The cores to divide among threads and workers: those our affinity names (`taskset`, Slurm), or fewer where the container
    is held to a share of processor time (`docker run --cpus`). At least 1; a share is rounded up."""
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(ours, _quota())))


def _quota() -> float:
    """Cores' worth of time that the container's cgroup gives us, version 2 or 1; infinite where it does not say."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (CGROUPS / "cpu.max").read_text().split()
        return int(quota) / int(period)  # "max" for none is no number: ValueError
    with contextlib.suppress(OSError, ValueError):
        quota, period = (int((CGROUPS / "cpu" / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return quota / period if quota > 0 else math.inf
    return math.inf
