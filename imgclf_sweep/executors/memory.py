"""How much memory there is, who has it, and whether the kernel has killed for it. Nothing here fails: unknown is None or 0."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "IMGCLF_SWEEP_MEMORY"  # bytes a sweep may use, where that is less than the machine or container has


def resident(pid: int) -> int:
    """Bytes of memory that a process has just now, shared pages included; 0 if it is gone or the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def limit() -> int | None:
    """Bytes that all our processes together may have: of the machine, the container, or as told by the environment."""
    return min((n for n in (_told(), _meminfo("MemTotal"), *(n for n, _ in _cgroup_memory())) if n), default=None)


def free() -> int | None:
    """Bytes that new processes can have."""
    left = [n - used for n, used in _cgroup_memory()]
    return min((max(n, 0) for n in (_told(), _meminfo("MemAvailable"), *left) if n is not None), default=None)


def oom_kills() -> int:
    """How many processes the kernel has killed for want of memory: here since the machine started, and in our container."""
    counts = [_count(Path("/proc/vmstat"))]
    for directory in _cgroups():
        counts += [_count(directory / "memory.events"), _count(directory / "memory.oom_control")]
    return sum(counts)


def _told() -> int | None:
    with contextlib.suppress(KeyError, ValueError):
        return int(os.environ[VARIABLE])
    return None


def _meminfo(name: str) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    return None


def _cgroups() -> Iterator[Path]:
    """Our memory cgroup, version 2 or 1, and those above it. In a container the path may be the outside's."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            root = Path("/sys/fs/cgroup") / controllers
            own = root / name.lstrip("/")
            yield from (d for d in (own, *own.parents) if d.is_relative_to(root))


def _cgroup_memory() -> list[tuple[int, int]]:
    """(limit, used) of every cgroup that limits us. Version 1 says "no limit" by a number beyond any machine."""
    found = []
    for directory in _cgroups():
        for most, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with contextlib.suppress(OSError, ValueError):
                pair = int((directory / most).read_text()), int((directory / used).read_text())
                if pair[0] < 2**60:
                    found.append((pair[0], max(0, pair[1] - _reclaimable(directory))))
    return found


def _reclaimable(directory: Path) -> int:
    """Bytes of file cache that the kernel gives back when asked: they count as used, but are free to us."""
    with contextlib.suppress(OSError, ValueError):
        for line in (directory / "memory.stat").read_text().splitlines():
            name, count = line.split()
            if name in ("inactive_file", "total_inactive_file"):
                return int(count)
    return 0


def _count(path: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            name, count = line.split()
            if name == "oom_kill":
                return int(count)
    return 0
