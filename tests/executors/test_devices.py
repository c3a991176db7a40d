"""Which part of the machine each worker gets, on a machine whose `nvidia-smi` is ours."""

import importlib.util
import os
import signal

import pytest

from imgclf_sweep.errors import BadInput
from imgclf_sweep.executors import devices, logs, memory
from imgclf_sweep.executors.devices import plan

NVIDIA_SMI = """#!/bin/sh
case "$1" in
-L) echo "GPU 0: A (UUID: x)"; echo "GPU 1: A (UUID: y)";;
--query-gpu=memory.total) echo 10000;;
esac
"""


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(NVIDIA_SMI)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_one_worker_a_gpu_with_all_its_memory(two_gpus):
    assert plan(None, None, None, most=9, trainer="synthetic") == [{"CUDA_VISIBLE_DEVICES": n} for n in "01"]
    assert plan(None, 1, None, most=9, trainer="synthetic") == [{"CUDA_VISIBLE_DEVICES": "0"}]


def test_workers_that_share_a_gpu_are_held_to_their_share(two_gpus):
    shared = plan(None, 1, 2, most=9, trainer="synthetic")
    assert [env["CUDA_VISIBLE_DEVICES"] for env in shared] == ["0", "0"]
    assert all(env["IMGCLF_SWEEP_GPU_MEMORY"] == "4600" for env in shared)
    assert all(env["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.460" for env in shared)
    assert [env["CUDA_VISIBLE_DEVICES"] for env in plan(3, None, None, most=9, trainer="synthetic")] == ["0", "1", "0"]


def test_no_gpu_when_told_so(two_gpus):
    environments = plan(2, 0, None, most=9, trainer="synthetic")
    assert [env["CUDA_VISIBLE_DEVICES"] for env in environments] == ["", ""]
    assert all(env["TF_NUM_INTRAOP_THREADS"] for env in environments)


@pytest.mark.parametrize(
    ("workers", "gpus", "each", "says"),
    [
        (None, 3, None, "--gpus 3: this machine has 2 GPUs to use"),
        (None, 0, 2, "--workers-per-gpu 2: this machine has 2 GPUs to use"),
        (5, 2, 2, "--workers 5: 2 GPUs with 2 workers each make 4"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(two_gpus, workers, gpus, each, says):
    with pytest.raises(BadInput, match=says):
        plan(workers, gpus, each, most=9, trainer="synthetic")


def test_memory_caps_the_workers_with_a_note(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv(memory.VARIABLE, "2000000000")
    notes = []
    assert len(plan(8, None, None, most=9, note=notes.append)) == 1
    assert notes == ["1 instead of 8 workers: 2.0 GB of memory are free, and a worker takes about 1.5 GB"]
    notes.clear()
    assert len(plan(1, None, None, most=9, note=notes.append)) == 1 and not notes


def test_memory_is_what_the_system_says():
    assert 0 < memory.resident(os.getpid()) < memory.limit()
    assert 0 < memory.free() <= memory.limit()
    assert memory.oom_kills() >= 0 and memory.resident(2**30) == 0


def test_a_log_that_grew_too_long_is_begun_again_with_its_end_kept(tmp_path):
    log = tmp_path / "w0.log"
    with open(log, "ab", buffering=0) as writer:
        writer.write(b"x" * logs.LIMIT)
        logs.cap(log)
        assert log.stat().st_size == logs.LIMIT
        writer.write(b"the end")
        logs.cap(log)
        assert log.stat().st_size == 0
        assert (tmp_path / "w0.log.1").read_bytes().endswith(b"the end")
        writer.write(b"more")
    assert log.read_bytes() == b"more"


def test_signals_have_names():
    from imgclf_sweep.executors.processes import describe

    assert describe(-signal.SIGKILL) == "was killed by SIGKILL" and describe(3) == "exited with status 3"


def test_compiled_trials_have_a_worker_of_one_thread_for_every_core(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    monkeypatch.setattr(devices, "cores", lambda: 4)
    compiled = plan(None, None, None, most=9, trainer="compiled")
    assert len(compiled) == 4 and len(plan(None, None, None, most=9, trainer="synthetic")) == 2
    assert {env["NPROC"] for env in compiled} == {"1"}
    assert {env["XLA_FLAGS"] for env in compiled} == {"--xla_dump_to=x --xla_cpu_multi_thread_eigen=false"}
    assert all(
        env["NPROC"] == "2" and "XLA_FLAGS" not in env for env in plan(2, None, None, most=9, trainer="compiled")
    )
    assert plan(1, None, None, most=9, trainer="compiled") == [{}]


def test_without_its_cuda_plugin_jax_trains_on_the_processor(two_gpus, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for env in plan(2, None, None, most=9, trainer="compiled"):
        assert (env["CUDA_VISIBLE_DEVICES"], env["JAX_PLATFORMS"]) == ("", "cpu")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert plan(None, None, None, most=9, trainer="compiled") == [{"CUDA_VISIBLE_DEVICES": n} for n in "01"]
