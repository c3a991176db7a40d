"""Worker processes, driven through the executor protocol with the synthetic trainer."""

import os
import signal
import time

import pytest
from jobs import SWEEP, job

from imgclf_sweep.errors import StoreError
from imgclf_sweep.executors.devices import worker_environments
from imgclf_sweep.executors.in_process import InProcessExecutor
from imgclf_sweep.executors.protocol import Ended, Gone, Measured
from imgclf_sweep.training.protocol import Reply, Setup
from imgclf_sweep.trial import Kind, State


def collect(executor, until, reply=Reply.GO, seconds=30):
    """Events until one of type `until`, replying to each measurement."""
    events, deadline = [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        for event in executor.wait(0.2):
            events.append(event)
            if isinstance(event, Measured):
                executor.reply(event.slot, event.token, reply)
            if isinstance(event, until):
                return events
    raise AssertionError(f"no {until} within {seconds} s, only {events}")


def test_a_job_measures_each_epoch_and_ends(make, tmp_path):
    executor = make()
    executor.start("w0", job(0, tmp_path))
    events = collect(executor, Ended)
    assert [e.measurement.epoch for e in events[:-1]] == [1, 2, 3]
    assert events[-1].outcome.state is State.COMPLETE and events[-1].outcome.epoch == 3
    executor.start("w0", job(1, tmp_path))
    assert collect(executor, Ended)[-1].token == "token1"


@pytest.mark.parametrize(("reply", "state"), [(Reply.PRUNE, State.PRUNED), (Reply.INTERRUPT, None)])
def test_a_reply_stops_the_job_at_once(make, tmp_path, reply, state):
    executor = make()
    executor.start("w0", job(0, tmp_path))
    events = collect(executor, Ended, reply=reply)
    assert len(events) == 2
    outcome = events[-1].outcome
    assert outcome is None if state is None else outcome.state is state


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        ("kill", Kind.LOST, "SIGKILL"),
        ("segv", Kind.CRASH, "SIGSEGV"),
        ("exit", Kind.CRASH, "status 7"),
        ("rubbish", Kind.CRASH, "protocol"),
    ],
)
def test_a_worker_that_vanishes_is_explained_and_replaced(make, tmp_path, fault, kind, says):
    executor = make(faults={"0": [fault, 2, 1]})
    first = executor.pid("w0")
    executor.start("w0", job(0, tmp_path))
    gone = collect(executor, Gone)[-1]
    assert gone.kind is kind and says in gone.reason
    assert executor.pid("w0") != first
    executor.start("w0", job(1, tmp_path))
    assert collect(executor, Ended)[-1].outcome.state is State.COMPLETE


def test_a_worker_lost_while_idle_is_replaced_without_a_word(make, tmp_path):
    executor = make()
    executor.start("w0", job(0, tmp_path))
    collect(executor, Ended)
    os.kill(executor.pid("w0"), signal.SIGKILL)
    assert executor.wait(1) == []
    executor.start("w0", job(1, tmp_path))
    assert collect(executor, Ended)[-1].outcome.state is State.COMPLETE


def test_data_that_is_gone_is_one_clear_error(make, tmp_path):
    executor = make(setup=Setup(SWEEP, str(tmp_path / "nothing")))
    executor.start("w0", job(0, tmp_path))
    with pytest.raises(StoreError, match="worker w0 cannot start: .*nothing"):
        collect(executor, Ended, seconds=120)


def test_closing_leaves_no_process(make, tmp_path):
    executor = make(workers=2, delay=30)
    for i, slot in enumerate(executor.slots):
        executor.start(slot, job(i, tmp_path))
    pids = [executor.pid(slot) for slot in executor.slots]
    time.sleep(0.5)
    executor.close()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    executor.close()


def test_one_slot_in_this_process(tmp_path):
    executor = InProcessExecutor(Setup(SWEEP, str(tmp_path), trainer="synthetic"))
    executor.start("w0", job(0, tmp_path))
    events = collect(executor, Ended)
    assert len(events) == 4 and events[-1].outcome.state is State.COMPLETE
    executor.close()


def test_each_worker_gets_its_gpu_or_its_share_of_threads():
    assert [e["CUDA_VISIBLE_DEVICES"] for e in worker_environments(3, ["0", "2"])] == ["0", "2", "0"]
    assert worker_environments(1, []) == [{}]
    shares = worker_environments(2, [])
    assert len(shares) == 2 and int(shares[0]["TF_NUM_INTRAOP_THREADS"]) >= 1


def test_the_spare_worker_takes_the_place_of_one_that_died(make, tmp_path):
    executor = make()
    for number in range(2):
        executor.start("w0", job(number, tmp_path))
        collect(executor, Ended)
    spare = executor._spare
    assert spare is not None  # since the second job
    deadline = time.monotonic() + 30
    while not spare.warm and time.monotonic() < deadline:
        executor.wait(0.1)
    os.kill(executor.pid("w0"), signal.SIGKILL)
    executor.wait(1)
    assert executor.pid("w0") == spare.pid
    executor.start("w0", job(2, tmp_path))
    assert collect(executor, Ended)[-1].outcome.state is State.COMPLETE


def test_a_spare_that_dies_is_no_loss(make, tmp_path):
    executor = make()
    for number in range(4):
        executor.start("w0", job(number, tmp_path))
        collect(executor, Ended)
        if executor._spare is not None:
            while not executor._spare.warm:
                executor.wait(0.1)
            os.kill(executor._spare.pid, signal.SIGKILL)
            assert executor.wait(1) == [] and executor._spare is None
