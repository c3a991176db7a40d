"""Faults of the coordinator and its workers, done to real sweeps through the command line; the synthetic trainer stands in for
training. Each name holds the number of its case in the table of docs/reliability.md."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest
from fault_hooks import gone, hooked, processes, workers_of
from fault_tools import SYNTHETIC, finished, kill, record, running, told, wait_until

from imgclf_sweep.trial import State

PLAIN = (*SYNTHETIC, "--pruner", "none")


def endings(cli, number: int, name: str = "little") -> list[str]:
    return [attempt.ending for attempt in record(cli, name).attempts(number)]


def states(cli) -> list[State]:
    return [t.state for t in record(cli).trials()]


def trains(cli, number: int) -> bool:
    """Whether this trial runs and has measured an epoch."""
    if not (cli.root / "sweeps" / "little" / "sweep.db").exists():
        return False
    return any(t.number == number and t.state is State.RUNNING and t.epochs for t in record(cli).trials())


def test_case_01_a_killed_coordinator_loses_no_finished_trial_and_leaves_no_worker(cli, digits_file):
    command = ("run", digits_file, *PLAIN, "--trials", 10, "--workers", 1)
    with running(cli, *command, synthetic={"delay": 0.3}) as process:
        wait_until(lambda: trains(cli, 3))
        params = record(cli).trials()[3].params
        kill(process)
        assert gone(lambda: workers_of(process.pid))
    cli(*command)
    trials = record(cli).trials()
    assert [t.state for t in trials] == [State.COMPLETE] * 10
    assert trials[3].params == params
    assert [len(endings(cli, n)) for n in range(10)] == [1, 1, 1, 2, 1, 1, 1, 1, 1, 1]
    assert endings(cli, 3) == ["lost", "COMPLETE"]


KILL_BEFORE_START = """
from imgclf_sweep.run import Loop
start = Loop._start
Loop._start = lambda self, slot, suggestion, alone: (suggestion.number == 2 and die()) or start(self, slot, suggestion, alone)
"""


def test_case_02_killed_between_proposal_and_start_the_trial_runs_once(cli, digits_file):
    command = ("run", digits_file, *PLAIN, "--trials", 4, "--workers", 1)
    assert hooked(cli, KILL_BEFORE_START, *command).returncode == -signal.SIGKILL
    proposed = record(cli).trials()[2]
    assert proposed.state is State.QUEUED and proposed.attempts == 0
    cli(*command)
    assert record(cli).trials()[2].params == proposed.params
    assert [endings(cli, n) for n in range(4)] == [["COMPLETE"]] * 4


KILL_AT_RESULT = """
from imgclf_sweep.record.write import Record
finish = Record.finish
def kill(self, number, token, outcome):
    if number == 2 and {early}: die()
    kept = finish(self, number, token, outcome)
    if number == 2: die()
    return kept
Record.finish = kill
"""


@pytest.mark.parametrize(
    "early",
    [True, pytest.param(False, marks=pytest.mark.fault_slow)],
    ids=["before it is written", "written but not committed"],
)
def test_case_03_killed_with_a_result_in_hand_exactly_one_counts(cli, digits_file, early):
    command = ("run", digits_file, *PLAIN, "--trials", 4, "--workers", 1)
    assert hooked(cli, KILL_AT_RESULT.format(early=early), *command).returncode == -signal.SIGKILL
    assert states(cli) == [State.COMPLETE, State.COMPLETE, State.RUNNING]
    cli(*command)
    assert endings(cli, 2) == ["lost", "COMPLETE"]
    assert states(cli) == [State.COMPLETE] * 4


@pytest.mark.fault_slow
def test_case_05_one_of_four_workers_killed_costs_its_attempt_only(cli, digits_file):
    command = ("run", digits_file, *PLAIN, "--trials", 8, "--workers", 4)
    with running(cli, *command, synthetic={"delay": 0.4}) as process:
        wait_until(lambda: trains(cli, 1))
        os.kill(record(cli).attempts(1)[-1].pid, signal.SIGKILL)
        assert process.wait(60) == 0
    assert states(cli) == [State.COMPLETE] * 8
    assert endings(cli, 1) == ["lost", "COMPLETE"]
    assert [len(endings(cli, n)) for n in range(8)] == [1, 2, 1, 1, 1, 1, 1, 1]


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
def test_case_09_a_suspended_coordinator_fails_nobody(cli, digits_file):
    command = (
        "run",
        digits_file,
        *PLAIN,
        "--trials",
        6,
        "--workers",
        2,
        "--stall-timeout",
        "1s",
        "--max-trial-time",
        "4s",
    )
    with running(cli, *command, synthetic={"delay": 0.3}) as process:
        wait_until(lambda: trains(cli, 1))
        process.send_signal(signal.SIGSTOP)
        time.sleep(6)
        process.send_signal(signal.SIGCONT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0 and "Traceback" not in err
    assert [endings(cli, n) for n in range(6)] == [["COMPLETE"]] * 6


def test_case_10_a_silent_worker_is_replaced_and_a_late_result_is_dropped(cli, digits_file):
    faults = {"0": ["stale", 1, 1], "1": ["stop", 2, 1]}
    cli("run", digits_file, *PLAIN, "--trials", 3, "--stall-timeout", "3s", synthetic={"faults": faults})
    assert [endings(cli, n) for n in range(3)] == [["COMPLETE"], ["timeout (stalled)", "COMPLETE"], ["COMPLETE"]]
    assert "3 s (--stall-timeout)" in record(cli).attempts(1)[0].reason
    assert [event.data["what"] for event in record(cli).events("late")] == ["Ended"]
    assert all(t.value < 0.9 for t in record(cli).trials())  # the stale result was 0.999


def test_case_11_a_sign_of_life_that_fails_once_harms_nothing(cli, digits_file):
    synthetic = {"faults": {"0": ["deaf", 1, 1]}, "delay": 0.6}
    cli("run", digits_file, *PLAIN, "--trials", 1, "--stall-timeout", "4s", synthetic=synthetic)
    assert endings(cli, 0) == ["COMPLETE"]
    assert "a sign of life failed" in (cli.root / "sweeps" / "little" / "workers" / "w0.log").read_text()


@pytest.mark.slow
@pytest.mark.fault_slow
def test_case_12_a_signal_in_a_trial_and_the_same_command_goes_on_behind_it(cli, digits_file):
    command = ("run", digits_file, "--trials", 1, "--epochs", 60, "--workers", 1, "--limit-images", 300)
    with running(cli, *command) as process:
        wait_until(lambda: trains(cli, 0) and record(cli).trials()[0].epochs >= 3, 120)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
    stopped = record(cli).trials()[0]
    before = dict(record(cli).trials()[0].curve)
    assert stopped.state is State.QUEUED and 3 <= len(before) < 60
    assert endings(cli, 0) == ["preempted"]
    with running(cli, *command) as process:
        wait_until(lambda: trains(cli, 0) and len(record(cli).attempts(0)) == 2, 120)
        first = dict(record(cli).trials()[0].curve)
        assert len(first) > len(before) or first == before  # they are there at once, not measured again one by one
        assert process.wait(120) == 0
    trial = record(cli).trials()[0]
    assert trial.state is State.COMPLETE and list(trial.curve) == list(range(1, 61))
    assert {epoch: trial.curve[epoch] for epoch in before} == before


@pytest.mark.fault_slow
def test_case_13_two_signals_stop_at_once(cli, digits_file):
    with running(cli, "run", digits_file, *PLAIN, "--trials", 4, "--workers", 2, synthetic={"delay": 20}) as process:
        wait_until(lambda: len(states(cli) if (cli.root / "sweeps/little/sweep.db").exists() else []) == 2)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert gone(lambda: workers_of(process.pid))
    assert states(cli) == [State.QUEUED, State.QUEUED]
    cli("run", digits_file, *PLAIN, "--trials", 4)
    assert states(cli) == [State.COMPLETE] * 4


def test_case_32_a_hanging_trial_is_killed_with_all_it_started(cli, digits_file):
    faults = {"1": ["children", 1, 99]}
    cli("run", digits_file, *PLAIN, "--trials", 3, "--max-trial-time", "2s", synthetic={"faults": faults})
    trial = record(cli).trials()[1]
    assert endings(cli, 1) == ["timeout"] and trial.state is State.FAILED and "2 s (--max-trial-time)" in trial.reason
    group = record(cli).attempts(1)[0].pid
    assert not processes(lambda command, its: its == group)
    assert states(cli).count(State.COMPLETE) == 2


def test_promise_6_what_a_trial_started_dies_with_a_killed_coordinator(cli, digits_file):
    faults = {"0": ["children", 1, 99]}
    with running(
        cli, "run", digits_file, *PLAIN, "--trials", 2, "--workers", 1, synthetic={"faults": faults}
    ) as process:
        wait_until(lambda: (cli.root / "sweeps/little/sweep.db").exists() and record(cli).trials())
        wait_until(lambda: record(cli).attempts(0))
        group = record(cli).attempts(0)[0].pid
        wait_until(lambda: len(processes(lambda command, its: its == group)) == 3)
        kill(process)
        assert gone(lambda: processes(lambda command, its: its == group))


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


@pytest.mark.fault_slow
def test_case_35_leaking_and_old_workers_are_replaced_between_trials(cli, digits_file):
    cli("run", digits_file, *PLAIN, "--trials", 8, "--workers", 1, synthetic={"leak": 60_000_000})
    leaking = [record(cli).attempts(n)[0].pid for n in range(8)]
    assert 2 <= len(set(leaking)) < 8 and [len(endings(cli, n)) for n in range(8)] == [1] * 8
    command = ("run", digits_file, *PLAIN, "--trials", 9, "--workers", 1, "--name", "old")
    cli(*command, synthetic={"recycle_after": 3, "delay": 0.2})
    old = [record(cli, "old").attempts(n)[0].pid for n in range(9)]
    assert len(set(old)) >= 2 and old[0] == old[2]


def memory(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return 0


def threads(pid: int) -> int:
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/task"))
    return 0


@pytest.mark.slow
@pytest.mark.fault_slow
def test_case_35_two_hundred_real_trials_keep_memory_and_threads_flat(cli, digits_file):
    command = ("run", digits_file, "--pruner", "none", "--epochs", 1, "--limit-images", 200, "--workers", 1)
    first: dict[int, int] = {}  # process -> its memory after its first trial
    most: dict[int, int] = {}
    own: list[tuple[int, int, int]] = []  # of the coordinator, by trials done: threads, memory
    with running(cli, *command, "--trials", 200, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            done = finished(cli)
            at_work = {a.pid for n in range(done) for a in record(cli).attempts(n)[:1]} if done % 5 == 0 else set(first)
            for pid in at_work:
                if now := memory(pid):
                    first.setdefault(pid, now)
                    most[pid] = max(now, most.get(pid, 0))
            if done >= 10 and process.poll() is None:
                own.append((done, threads(process.pid), memory(process.pid)))
            time.sleep(0.2)
        assert process.returncode == 0
    assert len(record(cli).trials()) == 200 and all(t.attempts == 1 for t in record(cli).trials())
    pids = {record(cli).attempts(n)[0].pid for n in range(200)}
    assert 5 <= len(pids) <= 20 and len(first) >= 5
    assert all(most[pid] < 2 * first[pid] for pid in first)
    own = [sample for sample in own if sample[2]]  # the last may have been taken of a process on its way out
    assert max(sample[1] for sample in own) <= own[0][1] + 1
    assert own[-1][2] < 1.5 * own[0][2]


TURN_BACK = """
import time
from imgclf_sweep.record.write import Record
real, back, start = time.time, [], Record.start
time.time = lambda: real() - 3600 * len(back)
def turn(self, number, *rest):
    if number == 3: back.append(True)
    return start(self, number, *rest)
Record.start = turn
"""


@pytest.mark.fault_slow
def test_case_45_a_clock_set_back_changes_nothing(cli, digits_file):
    command = ("run", digits_file, *PLAIN, "--trials", 6, "--workers", 1, "--stall-timeout", "4s", "--timeout", "60s")
    done = hooked(cli, TURN_BACK, *command, synthetic={"delay": 0.2})
    assert done.returncode == 0, done.stderr
    assert [endings(cli, n) for n in range(6)] == [["COMPLETE"]] * 6
    assert all(t.seconds >= 0 for t in record(cli).trials())
    began = [record(cli).attempts(n)[0].started for n in range(6)]
    assert began[-1] < began[0]  # it did go back in the middle


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


def test_case_47_a_reader_that_leaves_stops_nothing_or_leaves_it_resumable(cli, digits_file):
    command = ("run", digits_file, *PLAIN, "--trials", 5, "--workers", 1)
    process = cli.start(*command, synthetic={"delay": 0.1})
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.wait(60)
    process.stderr.close()
    assert "BrokenPipeError" not in err and "Traceback" not in err
    assert gone(lambda: workers_of(process.pid))
    cli(*command)
    assert states(cli) == [State.COMPLETE] * 5


@pytest.mark.fault_slow
def test_case_47_a_closed_terminal_stops_it_resumable(cli, digits_file):
    command = ("run", digits_file, *PLAIN, "--trials", 4, "--workers", 1)
    with running(cli, *command, synthetic={"delay": 0.3}) as process:
        wait_until(lambda: trains(cli, 0))
        process.send_signal(signal.SIGHUP)
        assert process.wait(20) == 128 + signal.SIGHUP
    assert State.RUNNING not in states(cli)
    cli(*command)
    assert states(cli) == [State.COMPLETE] * 4


def test_case_47_a_dumb_terminal_and_no_locale_are_enough(cli, digits_file):
    plain = {"TERM": "dumb", "LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    done = cli("run", digits_file, *PLAIN, "--trials", 3, env=plain, stdin=subprocess.DEVNULL)
    assert "3 of 3 trials done" in done.stdout and done.stdout.isascii()


def test_case_48_devices_that_are_not_there_are_refused_before_anything_is_made(cli, digits_file, tmp_path):
    none = {"CUDA_VISIBLE_DEVICES": ""}
    for options in (["--gpus", 4], ["--workers-per-gpu", 2]):
        refused = cli("run", digits_file, *PLAIN, *options, env=none, code=2)
        assert f"{options[0]} {options[1]}: this machine has no GPUs to use" in refused.stderr
    refused = cli("run", digits_file, *PLAIN, "--gpus", 4, env={"CUDA_VISIBLE_DEVICES": "0,1"}, code=2)
    assert "--gpus 4: this machine has 2 GPUs to use" in refused.stderr
    assert not cli.root.exists() or not any(cli.root.iterdir())


def test_case_48_workers_are_as_many_as_memory_holds(cli, digits_file):
    short = {"IMGCLF_SWEEP_MEMORY": "120000000"}
    done = cli("run", digits_file, *PLAIN, "--trials", 8, "--workers", 8, env=short)
    assert "2 instead of 8 workers: 0.1 GB of memory are free" in done.stderr
    assert states(cli) == [State.COMPLETE] * 8
    assert {record(cli).attempts(n)[0].worker for n in range(8)} <= {"w0", "w1"}


@pytest.mark.fault_slow
def test_case_08_and_18_workers_never_share_a_trial(cli, digits_file):
    command = ("run", digits_file, *PLAIN, "--sampler", "random", "--trials", 60, "--epochs", 1)
    cli(*command, "--workers", 8)
    trials = record(cli).trials()
    assert len(trials) == 60 and all(t.attempts == 1 and t.state is State.COMPLETE for t in trials)
    cli(*command, "--workers", 1, "--name", "one")
    assert told(record(cli, "one").trials()) == told(trials)
    assert finished(cli, "one") == 60
