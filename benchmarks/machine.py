"""On what a measurement was taken: processor, cores, memory, versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

LIBRARIES = ("tensorflow", "keras", "keras-tuner", "optuna", "tensorboard", "jax", "numpy")


def machine() -> dict[str, Any]:
    """processor, cores, memory in GiB, system, and the versions of Python and of what was compared."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "system": platform.platform(),
        "versions": versions,
    }


def machine_line() -> str:
    """The same on one line."""
    found = machine()
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return f"{found['cores']} cores of {found['processor']}, {found['memory_gib']} GiB, {found['system']}; {versions}"


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
