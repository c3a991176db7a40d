"""What this machine has to train on, and which part of it each worker gets."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence

from ..cores import cores
from ..errors import BadInput
from . import memory

WORKER_BYTES = {
    "fit": 1_500_000_000,  # resident size with TensorFlow, a small model and its data, measured on Linux x86-64
    "compiled": 500_000_000,  # with JAX and a dozen programs, measured there too
    "synthetic": 50_000_000,
}
GPU_PART = 0.92  # of a GPU's memory that the workers on it divide; the rest is CUDA's own in each process
GPU_MEMORY = "IMGCLF_SWEEP_GPU_MEMORY"  # megabytes of its GPU that a worker may take; read by training with TensorFlow
SHARES = (GPU_MEMORY, "XLA_PYTHON_CLIENT_MEM_FRACTION")
"""The variables that hold a worker to its share of a GPU."""
NO_GPU = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"
JAX_ON_GPU = ("jax_cuda12_plugin", "jax_cuda13_plugin")


def visible_gpus() -> list[str]:
    """The GPUs that children may be given, as `CUDA_VISIBLE_DEVICES` names them; none where there is no NVIDIA driver."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip() and name.strip() != "-1"]
    listing = _nvidia_smi("-L")
    return [str(i) for i, line in enumerate(line for line in listing.splitlines() if line.startswith("GPU "))]


def _nvidia_smi(*arguments: str) -> str:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    return ""


def gpu_bytes(environment: Mapping[str, str]) -> int | None:
    """The memory of the GPU that a worker with this environment has, or its share of it; None where it has none, or no tensor
    library that shares one among lanes: JAX with its CUDA plugin."""
    gpu = environment.get("CUDA_VISIBLE_DEVICES", "")
    if not gpu or not any(importlib.util.find_spec(name) for name in JAX_ON_GPU):
        return None
    part = float(environment.get("XLA_PYTHON_CLIENT_MEM_FRACTION", GPU_PART))
    with contextlib.suppress(ValueError):
        return int(
            part * 2**20 * int(_nvidia_smi("--query-gpu=memory.total", "--format=csv,noheader,nounits", "-i", gpu))
        )
    return None


def plan(
    workers: int | None,
    gpus: int | None,
    workers_per_gpu: int | None,
    *,
    most: int,
    trainer: str = "fit",
    note: Callable[[str], None] = lambda line: None,
) -> list[dict[str, str]]:
    """The environment variables of each worker to start: its GPU and share of it, or its share of the processor's threads.

    workers, gpus, workers_per_gpu: as asked for; None: one worker a GPU, or one for every two cores, compiled for every core.
    At most `most`, and as many as free memory holds: `note` is told when those are fewer.
    Raises: BadInput for GPUs that are not there.
    """
    there = visible_gpus()
    if gpus is not None and gpus > len(there):
        raise BadInput(f"--gpus {gpus}: this machine has {_gpus(len(there))} to use")
    chosen = there if gpus is None else there[:gpus]
    if workers_per_gpu and not chosen:
        raise BadInput(f"--workers-per-gpu {workers_per_gpu}: this machine has {_gpus(len(there))} to use")
    if trainer == "compiled" and not any(importlib.util.find_spec(name) for name in JAX_ON_GPU):
        chosen = []
    each = 1 if trainer == "compiled" else 2  # compiled, two workers of one thread did twice the work of one with two
    places = len(chosen) * (workers_per_gpu or 1) if chosen else max(1, cores() // each)
    if workers_per_gpu and workers and workers > places:
        raise BadInput(f"--workers {workers}: {_gpus(len(chosen))} with {workers_per_gpu} workers each make {places}")
    wanted = places if workers is None else max(workers, 1)
    count = _held_by_memory(min(wanted, most), trainer, note)
    environments = worker_environments(count, chosen)
    return [NO_GPU | env for env in environments] if there and not chosen else environments


def _held_by_memory(count: int, trainer: str, note: Callable[[str], None]) -> int:
    free = memory.free()
    if free is None or count <= 1:
        return count
    room = max(1, free // WORKER_BYTES[trainer])
    if room < count:
        note(
            f"{room} instead of {count} workers: {free / 1e9:.1f} GB of memory are free, "
            f"and a worker takes about {WORKER_BYTES[trainer] / 1e9:.2g} GB"
        )
    return min(count, room)


def _gpus(count: int) -> str:
    return f"{count or 'no'} GPU{'' if count == 1 else 's'}"


def worker_environments(workers: int, gpus: Sequence[str]) -> list[dict[str, str]]:
    """What each of `workers` processes sees: its own GPU in turn, or its share of the processor's threads.

    Where several share a GPU, each is held to its share of the memory: the first come would else take what the others need.
    """
    if gpus:
        sharing = -(-workers // len(gpus))
        shares = {gpu: _share(gpu, sharing) if sharing > 1 else {} for gpu in gpus}
        return [{"CUDA_VISIBLE_DEVICES": gpu} | shares[gpu] for i in range(workers) for gpu in (gpus[i % len(gpus)],)]
    if workers == 1:
        return [{}]
    share = str(max(1, cores() // workers))
    names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")
    flags = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {ONE_THREAD}".strip()} if share == "1" else {}
    return [dict.fromkeys(names, share) | flags for _ in range(workers)]


def _share(gpu: str, sharing: int) -> dict[str, str]:
    share = {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{GPU_PART / sharing:.3f}"}
    with contextlib.suppress(ValueError):
        total = int(_nvidia_smi("--query-gpu=memory.total", "--format=csv,noheader,nounits", "-i", gpu))
        share[GPU_MEMORY] = str(int(total * GPU_PART / sharing))
    return share
