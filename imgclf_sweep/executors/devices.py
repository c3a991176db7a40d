"""What this machine has to train on."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

WORKER_BYTES = (
    1_500_000_000  # resident size of a worker with TensorFlow, a small model and its data, measured on Linux x86-64
)


def visible_gpus() -> list[str]:
    """The GPUs that children may be given, as `CUDA_VISIBLE_DEVICES` names them; none where there is no NVIDIA driver."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip() and name.strip() != "-1"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
        return [str(i) for i, line in enumerate(line for line in listing.splitlines() if line.startswith("GPU "))]
    return []


def free_bytes() -> int | None:
    """Memory that new processes can have, or None where the system does not say."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def default_workers(gpus: list[str]) -> int:
    """One worker a GPU; without one, a worker for every two cores, as many as memory holds."""
    if gpus:
        return len(gpus)
    workers = max(1, (os.cpu_count() or 1) // 2)
    free = free_bytes()
    return workers if free is None else max(1, min(workers, free // WORKER_BYTES))
