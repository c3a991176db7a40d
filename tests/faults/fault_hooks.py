"""Faults in the real coordinator process: it runs the command line after a few lines of ours. And who lives on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
DIE = "import os, signal\ndie = lambda: os.kill(os.getpid(), signal.SIGKILL)\n"


def hooked(cli, hook: str, *arguments: object, synthetic: dict | None = None, seconds: float = 120):
    """Run `sweep ARGUMENTS` in a process that executes `hook` first. Returns the ended process with its output."""
    command = [*map(str, arguments), "--root", str(cli.root)]
    code = f"{DIE}{hook}\nimport sys\nsys.argv = ['sweep', *{command!r}]\nfrom imgclf_sweep.cli import main\nmain()\n"
    environment = {**os.environ, "IMGCLF_SWEEP_SYNTHETIC": json.dumps(synthetic or {})}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=PROJECT, timeout=seconds
    )


def processes(wanted) -> list[int]:
    """The living processes for which wanted(command line, process group) is true; what is dead but not collected is not."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                command = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                state, _, group = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:3]
            except (OSError, ValueError):
                continue
            if state != "Z" and wanted(command, int(group)):
                found.append(int(entry))
    return found


def workers_of(coordinator: int) -> list[int]:
    """The workers that a coordinator started, the spare one too; it is named in their command line, alive or dead."""
    return processes(lambda command, _: "executors.worker" in command and str(coordinator) in command.split())


def gone(living, seconds: float = 5) -> bool:
    """Whether `living()` is empty at last."""
    deadline = time.monotonic() + seconds
    while living() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not living()
