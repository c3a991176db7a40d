"""The torture loop, case 4 of docs/reliability.md: coordinator and workers are killed at random moments until all trials are
done. After each kill the promises are checked; at the end the record is the one of a sweep that nobody touched."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time

import pytest
from fault_hooks import gone, workers_of
from fault_tools import KERAS_TUNER, SYNTHETIC, record, told

from imgclf_sweep.trial import State

DELAY = {"delay": 0.05}


TPE = ("--sampler", "tpe")


@pytest.mark.parametrize(
    ("trials", "kills", "search"),
    [
        pytest.param(40, 10, TPE, id="small"),
        pytest.param(200, 50, TPE, id="whole", marks=pytest.mark.fault_slow),
        pytest.param(40, 8, KERAS_TUNER, id="keras-tuner", marks=pytest.mark.fault_slow),
    ],
)
def test_case_04_killed_again_and_again_it_ends_as_if_undisturbed(cli, digits_file, trials, kills, search):
    command = ("run", digits_file, *SYNTHETIC, "--pruner", "none", *search, "--epochs", 3, "--workers", 1)
    command += ("--trials", trials)
    cli(*command, "--name", "whole", synthetic=DELAY)
    torn = Torn(cli, (*command, "--name", "torn"), random.Random(trials))
    while torn.kills < kills:
        assert torn.rounds < 5 * kills, "the sweep was done before it was killed often enough"
        torn.round(limit=0.9 * trials * (torn.kills + 1) / kills)
    cli(*command, "--name", "torn", synthetic=DELAY)
    torn.check()
    assert torn.kills >= kills and torn.coordinators >= kills // 4 and torn.workers >= kills // 8
    assert [t[:1] + t[2:] for t in told(record(cli, "torn").trials())] == [
        t[:1] + t[2:] for t in told(record(cli, "whole").trials())
    ]
    assert all(t.state is State.COMPLETE for t in record(cli, "torn").trials())


class Torn:
    """A sweep that is started, killed, looked at, and started again."""

    def __init__(self, cli, command, rng: random.Random) -> None:
        self.cli, self.command, self.rng = cli, command, rng
        self.kills = self.coordinators = self.workers = self.rounds = 0
        self.seen: dict[int, tuple] = {}  # what was reported finished, for good

    @property
    def database(self):
        return self.cli.root / "sweeps" / "torn" / "sweep.db"

    def round(self, limit: float) -> None:
        """Start it, kill workers at random, and at last the coordinator: at random, or with `limit` trials finished."""
        self.rounds += 1
        process = self.cli.start(*self.command, synthetic=DELAY)
        try:
            self._wait_for_a_trial(process)
            while process.poll() is None:
                time.sleep(self.rng.uniform(0.1, 1.0))
                if self.rng.random() < 0.5 or len(self.seen) >= limit:
                    break
                for worker in workers_of(process.pid)[:1] if self._may_lose_its_worker() else ():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker, signal.SIGKILL)
                        self.kills += 1
                        self.workers += 1
                self.check()
            if process.poll() is None:
                process.kill()
                self.kills += 1
                self.coordinators += 1
            assert gone(lambda: workers_of(process.pid)), "promise 6: a worker outlived its coordinator"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        self.check()

    def _wait_for_a_trial(self, process) -> None:
        """Until this run has started a trial of its own, or is over."""
        while process.poll() is None:
            if self.database.exists() and any(t.state is State.RUNNING for t in record(self.cli, "torn").trials()):
                holder = record(self.cli, "torn").holder()
                if holder is not None and holder.pid == process.pid and len(workers_of(process.pid)):
                    return
            time.sleep(0.05)

    def _may_lose_its_worker(self) -> bool:
        """Whether no running trial has lost two already: by the third it is rightly given up."""
        reader = record(self.cli, "torn")
        running = [t.number for t in reader.trials() if t.state is State.RUNNING]
        lost = [sum(a.ending == "lost" and "killed by" in a.reason for a in reader.attempts(n)) for n in running]
        return max(lost, default=0) < 2

    def check(self) -> None:
        """Promises 1 and 2, on the record as it lies there now."""
        if not self.database.exists():
            return
        trials = record(self.cli, "torn").trials()
        assert [t.number for t in trials] == list(range(len(trials)))
        now = {row[0]: row for row in told(trials) if row[1].finished}
        for number, row in self.seen.items():
            assert now.get(number) == row, f"promise 1: trial {number} was finished, and is now another"
        self.seen = now
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            again = connection.execute(
                "SELECT trial FROM attempt WHERE ending IN ('COMPLETE', 'PRUNED', 'FAILED') GROUP BY trial HAVING count(*) > 1"
            ).fetchall()
            assert not again, f"promise 2: finished twice: {again}"
            later = connection.execute(
                "SELECT a.trial FROM attempt a JOIN attempt b ON a.trial = b.trial AND a.n < b.n WHERE a.ending = 'COMPLETE'"
            ).fetchall()
            assert not later, f"promise 2: finished and run again: {later}"
