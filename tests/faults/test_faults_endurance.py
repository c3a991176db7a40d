"""Long sweeps: memory, threads, open files and the record stay within bounds.

Each name holds the number of its case in the table of docs/reliability.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fault_hooks import workers_of
from fault_tools import (
    SYNTHETIC,
    finished,
    record,
    running,
)

PLAIN = (*SYNTHETIC, "--pruner", "none", "--workers", 1)


def memory(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def threads(pid: int) -> int:
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/task"))
    return 0


@pytest.mark.fault_slow
def test_case_35_two_hundred_trials_that_leak_end_with_bounded_memory(cli, digits_file):
    """Each trial leaves 15 MB in its process: without replacement the last ones would be trained in 3 GB."""
    leak = 15_000_000
    most: dict[int, int] = {}
    with running(
        cli, "run", digits_file, *PLAIN, "--trials", 200, "--epochs", 2, synthetic={"leak": leak, "delay": 0.02}
    ) as process:
        while process.poll() is None:
            for pid in workers_of(process.pid):
                most[pid] = max(memory(pid), most.get(pid, 0))
            time.sleep(0.01)
        _, err = process.communicate()
        assert process.returncode == 0, err
    trials = record(cli).trials()
    assert [t.attempts for t in trials] == [1] * 200
    least = min(n for n in most.values() if n)  # the spare's at the end, that trained nothing
    assert max(most.values()) < 2 * (least + leak) + 2 * leak, (
        most
    )  # twice what it had after its first, and what was under way
    assert len({record(cli).attempts(n)[0].pid for n in range(200)}) > 20


@pytest.mark.fault_slow
def test_case_35_old_workers_are_replaced_between_trials(cli, digits_file):
    command = ("run", digits_file, *PLAIN, "--trials", 9, "--workers", 1, "--name", "old")
    cli(*command, synthetic={"recycle_after": 3, "delay": 0.2})
    old = [record(cli, "old").attempts(n)[0].pid for n in range(9)]
    assert len(set(old)) >= 2 and old[0] == old[2]


@pytest.mark.slow
@pytest.mark.fault_slow
def test_case_35_two_hundred_real_trials_keep_memory_and_threads_flat(cli, digits_file):
    command = (
        "run",
        digits_file,
        "--trainer",
        "fit",
        "--epochs",
        1,
        "--limit-images",
        200,
        "--workers",
        1,
        "--pruner",
        "none",
    )
    first: dict[int, int] = {}  # process -> its memory after its first trial
    most: dict[int, int] = {}
    own: list[tuple[int, int, int]] = []  # of the coordinator, by trials done: threads, memory
    with running(cli, *command, "--trials", 200, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            done = finished(cli)
            at_work = {a.pid for a in record(cli).attempts(done - 1)[:1]} if done else set()
            for pid in at_work | set(first):
                if now := memory(pid):
                    first.setdefault(pid, now)
                    most[pid] = max(now, most.get(pid, 0))
            if done >= 10 and process.poll() is None:
                own.append((done, threads(process.pid), memory(process.pid)))
            time.sleep(0.2)
        assert process.returncode == 0
    assert len(record(cli).trials()) == 200 and all(t.attempts == 1 for t in record(cli).trials())
    kept = record(cli)
    pids = {kept.attempts(n)[0].pid for n in range(200)}
    assert 5 <= len(pids) <= 20 and len(first) >= 5
    assert all(most[pid] < 2 * first[pid] for pid in first)
    own = [sample for sample in own if sample[2]]  # the last may have been taken of a process on its way out
    assert max(sample[1] for sample in own) <= own[0][1] + 1
    assert own[-1][2] < 1.5 * own[0][2]


@pytest.mark.fault_slow
def test_a_thousand_trials_leave_memory_threads_and_open_files_as_they_were(project):
    command = ["benchmarks.endurance", "--trainer", "synthetic", "--trials", "1000", "--every", "100"]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, cwd=project, timeout=900)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    first, last = rows[0], rows[-1]
    assert len(rows) >= 8 and first["trials"] < 250 and last["trials"] > 900
    assert max(row["files"] for row in rows) <= first["files"] + 4
    assert max(row["threads"] for row in rows) <= first["threads"] + 1
    assert max(row["worker_files"] for row in rows) <= first["worker_files"] + 2
    assert last["coordinator"] < 1.5 * first["coordinator"]
    assert max(row["worker"] for row in rows) < 1.5 * first["worker"]
    assert last["record"] - first["record"] < 0.01 * (
        last["trials"] - first["trials"]
    )  # 10 kB a trial, its log included
