"""Faults of worker processes, done to real sweeps through the command line; the synthetic trainer stands in for training.

Each name holds the number of its case in the table of docs/reliability.md.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
from pathlib import Path

import pytest
from fault_hooks import gone, hooked, processes
from fault_tools import (
    SOMEBODY,
    SYNTHETIC,
    another_user,
    endings,
    finished,
    kill,
    record,
    running,
    states,
    told,
    trains,
    wait_until,
)

from imgclf_sweep.trial import State

PLAIN = (*SYNTHETIC, "--pruner", "none")


@pytest.mark.fault_slow
def test_case_05_one_of_four_workers_killed_costs_its_attempt_only(cli, digits_file):
    command = ("run", digits_file, *PLAIN, "--trials", 8, "--sampler", "random", "--workers", 4, "--epochs", 6)
    cli(*command, "--workers", 1, "--name", "whole")
    with running(cli, *command, synthetic={"delay": 0.3}) as process:
        wait_until(lambda: all(trains(cli, n, epochs=2) for n in range(4)))
        first = [record(cli).attempts(n)[-1] for n in range(4)]
        assert len({attempt.pid for attempt in first}) == 4
        measured = record(cli).trials()[1].epochs
        os.kill(first[1].pid, signal.SIGKILL)
        assert process.wait(60) == 0
    assert [endings(cli, n) for n in range(8)] == [["COMPLETE"], ["lost", "COMPLETE"], *[["COMPLETE"]] * 6]
    (resumed,) = record(cli).events("resumed")  # from its checkpoint; what it sent last may have been on its way
    assert resumed.data["number"] == 1 and resumed.data["epoch"] in (measured, measured + 1)
    again = {record(cli).attempts(n)[0].pid for n in range(4, 8)}
    assert again & {first[n].pid for n in (0, 2, 3)}  # the others went on in their processes
    assert told(record(cli).trials()) == told(record(cli, "whole").trials())


def test_case_06_a_trial_that_always_crashes_is_given_up_after_two_attempts(cli, digits_file):
    cli("run", digits_file, *PLAIN, "--trials", 4, synthetic={"faults": {"1": ["segv", 1, 99]}})
    assert endings(cli, 1) == ["crash", "crash"]
    trial = record(cli).trials()[1]
    assert trial.state is State.FAILED and trial.kind == "crash" and "SIGSEGV" in trial.reason
    assert states(cli).count(State.COMPLETE) == 3


@pytest.mark.fault_slow
def test_case_07_a_trial_lost_three_times_is_given_up_with_its_exits(cli, digits_file):
    cli("run", digits_file, *PLAIN, "--trials", 4, synthetic={"faults": {"1": ["kill", 1, 99]}})
    trial = record(cli).trials()[1]
    assert trial.state is State.FAILED and trial.attempts == 3
    assert trial.reason == "the worker was killed by SIGKILL; so did all its 3 attempts"
    assert states(cli).count(State.COMPLETE) == 3


@pytest.mark.fault_slow
def test_case_18_a_queue_of_sixty_is_run_once_each_by_eight_workers(cli, digits_file):
    known = ", ".join(
        f"dict(filters=4, dense_units={4 + n % 16 * 4}, dropout={n / 200}, optimizer='adam')" for n in range(60)
    )
    digits_file.write_text(digits_file.read_text().replace("epochs=4,", f"epochs=1, known=[{known}],"))
    cli("run", digits_file, *SYNTHETIC, "--trials", 60, "--workers", 8, "--pruner", "none")
    trials = record(cli).trials()
    assert [(t.state, t.attempts) for t in trials] == [(State.COMPLETE, 1)] * 60
    assert len({repr(t.params) for t in trials}) == 60
    workers = {a.worker for t in trials for a in record(cli).attempts(t.number)}
    assert len(workers) > 1


def test_case_10_a_silent_worker_is_replaced_and_a_late_result_is_dropped(cli, digits_file):
    faults = {"0": ["stale", 1, 1], "1": ["stop", 2, 1]}
    cli("run", digits_file, *PLAIN, "--trials", 3, "--stall-timeout", "3s", synthetic={"faults": faults})
    assert [endings(cli, n) for n in range(3)] == [["COMPLETE"], ["timeout (stalled)", "COMPLETE"], ["COMPLETE"]]
    assert "3 s (--stall-timeout)" in record(cli).attempts(1)[0].reason
    assert [event.data["what"] for event in record(cli).events("late")] == ["Ended"]
    assert all(t.value < 0.9 for t in record(cli).trials())  # the stale result was 0.999


def test_case_10_a_worker_that_lives_but_trains_no_more_is_replaced(cli, digits_file):
    synthetic = {"faults": {"1": ["hang", 3, 1]}, "delay": 0.05}
    cli("run", digits_file, *PLAIN, "--trials", 3, "--stall-timeout", "3s", synthetic=synthetic)
    assert [endings(cli, n) for n in range(3)] == [["COMPLETE"], ["timeout (stalled)", "COMPLETE"], ["COMPLETE"]]
    reason = record(cli).attempts(1)[0].reason
    assert reason.startswith("its epoch had not ended after ") and "none before took more than" in reason
    assert [event.data for event in record(cli).events("resumed")] == [{"number": 1, "epoch": 2}]


def test_case_11_a_sign_of_life_that_fails_once_harms_nothing(cli, digits_file):
    synthetic = {"faults": {"0": ["deaf", 1, 1]}, "delay": 0.6}
    cli("run", digits_file, *PLAIN, "--trials", 1, "--stall-timeout", "4s", synthetic=synthetic)
    assert endings(cli, 0) == ["COMPLETE"]
    assert "a sign of life failed" in (cli.root / "sweeps" / "little" / "workers" / "w0.log").read_text()


def started_by(worker: int) -> list[int]:
    """What a worker with the fault "children" has started, also what has left its process group and its parent."""
    return processes(lambda command, _: f"started-by-{worker}" in command.split())


def test_case_32_a_hanging_trial_is_killed_with_all_it_started(cli, digits_file):
    command = ("run", digits_file, *PLAIN, "--trials", 3, "--max-trial-time", "8s", "--workers", 1)
    with running(cli, *command, synthetic={"faults": {"1": ["children", 1, 99]}}) as process:
        wait_until(lambda: trains(cli, 1, epochs=0))
        worker = record(cli).attempts(1)[0].pid
        wait_until(lambda: len(started_by(worker)) == 3)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    trial = record(cli).trials()[1]
    assert endings(cli, 1) == ["timeout"] and trial.state is State.FAILED and "8 s (--max-trial-time)" in trial.reason
    assert gone(lambda: started_by(worker)) and not processes(lambda command, its: its == worker)
    assert states(cli).count(State.COMPLETE) == 2


def test_case_32_what_a_trial_started_dies_with_a_killed_coordinator(cli, digits_file):
    faults = {"0": ["children", 1, 99]}
    with running(
        cli, "run", digits_file, *PLAIN, "--trials", 2, "--workers", 1, synthetic={"faults": faults}
    ) as process:
        wait_until(lambda: trains(cli, 0, epochs=0))
        worker = record(cli).attempts(0)[0].pid
        wait_until(lambda: len(started_by(worker)) == 3)
        kill(process)
        assert gone(lambda: started_by(worker) + processes(lambda command, its: its == worker))


def test_case_32_what_a_trial_started_dies_with_a_worker_that_is_killed(cli, digits_file):
    command = ("run", digits_file, *PLAIN, "--trials", 2, "--workers", 1)
    with running(cli, *command, synthetic={"faults": {"0": ["children", 1, 1]}}) as process:
        wait_until(lambda: trains(cli, 0, epochs=0))
        worker = record(cli).attempts(0)[0].pid
        wait_until(lambda: len(started_by(worker)) == 3)
        os.kill(worker, signal.SIGKILL)
        assert process.wait(60) == 0
    assert gone(lambda: started_by(worker))
    assert endings(cli, 0) == ["lost", "COMPLETE"] and endings(cli, 1) == ["COMPLETE"]


def test_case_33_a_flood_of_output_is_capped_and_disturbs_nothing(cli, digits_file):
    cli("run", digits_file, *PLAIN, "--trials", 3, synthetic={"faults": {"1": ["print", 2, 1]}})
    assert [endings(cli, n) for n in range(3)] == [["COMPLETE"]] * 3
    logs = cli.root / "sweeps" / "little" / "workers"
    assert (logs / "w0.log.1").stat().st_size > 0
    assert sum(path.stat().st_size for path in logs.iterdir()) < 10 * 2**20


def test_case_34_rubbish_on_the_message_channel_fails_the_attempt_only(cli, digits_file):
    faults = {"0": ["rubbish", 1, 1], "1": ["half_json", 1, 1], "2": ["long_line", 2, 1]}
    cli("run", digits_file, *PLAIN, "--trials", 4, "--stall-timeout", "4s", synthetic={"faults": faults})
    assert [endings(cli, n) for n in range(4)] == [["crash", "COMPLETE"]] * 3 + [["COMPLETE"]]
    assert all("protocol" in record(cli).attempts(n)[0].reason for n in range(3))


@pytest.mark.parametrize("files", [64, pytest.param(22, marks=pytest.mark.fault_slow)])
def test_case_46_few_open_files_are_enough_or_a_clear_message(cli, digits_file, files):
    cli("run", digits_file, *PLAIN, "--trials", 1)  # the images are there
    limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))  # noqa: E731
    done = cli("run", digits_file, *PLAIN, "--trials", 12, "--workers", 8, code=None, preexec_fn=limit)
    if done.returncode == 0:
        assert states(cli) == [State.COMPLETE] * 12
    else:
        assert done.returncode == 4 and done.stderr.strip(), done.stderr
        assert "Too many open files" in done.stderr or "cannot be opened" in done.stderr
        cli("run", digits_file, *PLAIN, "--trials", 12)
        assert states(cli) == [State.COMPLETE] * 12


FEW_PROCESSES = """
import errno, subprocess
real, made = subprocess.Popen, []
class Popen(real):
    def __init__(self, command, *rest, **options):
        if "imgclf_sweep.executors.worker" in command:
            made.append(command)
            if len(made) > {room}: raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        super().__init__(command, *rest, **options)
subprocess.Popen = Popen
"""


def test_case_46_few_processes_make_fewer_workers_or_a_clear_message(cli, digits_file):
    command = ("run", digits_file, *PLAIN, "--trials", 12, "--workers", 8)
    none = hooked(cli, FEW_PROCESSES.format(room=0), *command)
    assert none.returncode == 4 and "Traceback" not in none.stderr
    assert "the system refuses another process (Resource temporarily unavailable)" in none.stderr
    few = hooked(cli, FEW_PROCESSES.format(room=3), *command)
    assert few.returncode == 0 and "3 instead of 8 workers" in few.stderr, few.stderr
    assert states(cli) == [State.COMPLETE] * 12


def test_case_48_devices_that_are_not_there_are_refused_before_anything_is_made(cold, digits_file):
    none = {"CUDA_VISIBLE_DEVICES": ""}
    for options in (["--gpus", 4], ["--workers-per-gpu", 2]):
        refused = cold("run", digits_file, *PLAIN, *options, env=none, code=2)
        assert f"{options[0]} {options[1]}: this machine has no GPUs to use" in refused.stderr
    refused = cold("run", digits_file, *PLAIN, "--gpus", 4, env={"CUDA_VISIBLE_DEVICES": "0,1"}, code=2)
    assert "--gpus 4: this machine has 2 GPUs to use" in refused.stderr
    assert not cold.root.exists()


def test_case_48_workers_are_as_many_as_memory_holds(cli, digits_file):
    short = {"IMGCLF_SWEEP_MEMORY": "120000000"}
    done = cli("run", digits_file, *PLAIN, "--trials", 8, "--workers", 8, env=short)
    assert "2 instead of 8 workers: 0.1 GB of memory are free" in done.stderr
    assert states(cli) == [State.COMPLETE] * 8
    assert {record(cli).attempts(n)[0].worker for n in range(8)} <= {"w0", "w1"}


@pytest.mark.fault_slow
@pytest.mark.parametrize("most", [30, 16, 8])
def test_case_46_a_user_who_may_have_few_processes(cli, digits_file, open_place, most):
    """Really: as a user without privileges, to whom the kernel refuses more processes and threads than that."""
    cli.root = Path(shutil.copytree(cli.root, open_place / "root"))
    file = shutil.copy(digits_file, open_place / "little.py")
    if os.geteuid() == 0:
        for path in (open_place, *open_place.rglob("*")):
            os.chown(path, SOMEBODY, SOMEBODY)
    command = ("run", file, *PLAIN, "--trials", 8, "--workers", 8)
    env = {"OPENBLAS_NUM_THREADS": "1", "HOME": str(open_place)}
    few = cli(*command, code=None, env=env, **another_user(most))
    if few.returncode:
        assert few.returncode == 4
        assert "the system refuses another process" in few.stderr or "dies while starting" in few.stderr
    else:
        assert states(cli) == [State.COMPLETE] * 8
    cli(*command)
    assert states(cli) == [State.COMPLETE] * 8


@pytest.mark.fault_slow
def test_case_18_eight_workers_at_random_do_what_one_does(cli, digits_file):
    command = ("run", digits_file, *PLAIN, "--sampler", "random", "--trials", 60, "--epochs", 1)
    cli(*command, "--workers", 8)
    trials = record(cli).trials()
    assert len(trials) == 60 and all(t.attempts == 1 and t.state is State.COMPLETE for t in trials)
    cli(*command, "--workers", 1, "--name", "one")
    assert told(record(cli, "one").trials()) == told(trials)
    assert finished(cli, "one") == 60
