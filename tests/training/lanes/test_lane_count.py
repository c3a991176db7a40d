"""How many lanes a device holds, worked out without a tensor library."""

import subprocess
import sys
from pathlib import Path

import pytest

from imgclf_sweep import Choice, Int, SearchSpace, Sweep, datasets
from imgclf_sweep.cli import lanes as cli_lanes
from imgclf_sweep.data.split import parts
from imgclf_sweep.errors import BadInput
from imgclf_sweep.executors import devices
from imgclf_sweep.models import knobs
from imgclf_sweep.training.lanes.count import MOST, PART, lanes_for, largest_lane
from imgclf_sweep.training.lanes.shape import shape_of

GRAY = {"image": (32, 32, 1), "classes": 10, "train": 40_000, "validation": 10_000}


def sweep(**space):
    return Sweep(dataset=datasets.cifar10(color="gray"), space=SearchSpace(**space), batch_size=500)


def bytes_of(params):
    wanted = {**GRAY, "loss": "sparse_categorical_crossentropy", "batch": 500}
    return shape_of(knobs.resolve(params), **wanted).lane_bytes()


def test_the_largest_network_of_the_space_counts():
    space = {"filters": Choice([16, 64, 32]), "dense_units": Choice([256, 512]), "pool_size": Choice([2, 4])}
    found = largest_lane(sweep(**space), *GRAY.values())
    assert found == bytes_of({"filters": 64, "dense_units": 512, "pool_size": 2})


def test_ranges_and_known_configurations_count_too():
    found = largest_lane(sweep(dense_units=Int(8, 4096)), *GRAY.values())
    assert bytes_of({"dense_units": 3900}) < found <= bytes_of({"dense_units": 4096})
    known = sweep(filters=Choice([2, 4])).replaced(known=[{"filters": 200}])
    assert largest_lane(known, *GRAY.values()) == bytes_of({"filters": 200})


def test_what_can_be_no_network_for_the_images_is_left_out():
    small = Sweep(dataset=datasets.digits(), space=SearchSpace(kernel_size=Choice([2, 30])))
    assert largest_lane(small, (8, 8, 1), 10, 1000, 200) is not None
    none = Sweep(dataset=datasets.digits(), space=SearchSpace(kernel_size=Choice([20, 30])))
    assert largest_lane(none, (8, 8, 1), 10, 1000, 200) is None


def test_a_large_gpu_holds_dozens_of_the_grids_largest_and_any_device_one():
    largest = bytes_of({"filters": 64, "dense_units": 512, "pool_size": 2, "kernel_size": 2})
    assert lanes_for(int(139e9), largest) >= 40
    assert lanes_for(1, 10**9) == 1 and lanes_for(10**15, 1) == MOST
    assert lanes_for(10**10, 10**9) == int(PART * 10)


@pytest.fixture
def given(digits, monkeypatch):
    declared = Sweep(dataset=datasets.digits(), space=SearchSpace(filters=Choice([16, 32])))
    split = parts(digits, declared.validation, declared.seed, None, declared.validation_part)

    def lanes(given=None, trainer="compiled", environments=({},), trials=100):
        return cli_lanes.lanes(given, trainer, declared, digits, split, environments, trials)

    return lanes


def test_a_processor_has_one_lane_unless_told(given):
    assert given() == 1 and given(4) == 4 and given(trainer="fit") == 1
    assert given(64, trials=10) == 10 and given(64, environments=({}, {}), trials=10) == 5
    assert given(1, environments=()) == 1 and given(1, trainer="fit") == 1


def test_a_gpu_has_as_many_as_its_memory_holds_but_no_more_than_trials(given, monkeypatch, capsys):
    monkeypatch.setattr(devices, "gpu_bytes", lambda environment: int(environment["size"]))
    assert given(environments=({"size": "80000000000"},)) == 100
    assert "100 trials are trained at a time" in capsys.readouterr().err
    small, large = {"size": "40000000"}, {"size": "80000000000"}
    few = given(environments=(small, large))
    assert 1 <= few < 50  # the smallest decides
    assert given(trainer="fit", environments=(large,)) == 1 and given(1, environments=(large,)) == 1


def test_several_lanes_are_refused_in_one_line_where_there_is_one(given):
    with pytest.raises(BadInput, match="--lanes 4: only the compiled trainer"):
        given(4, trainer="fit")
    with pytest.raises(BadInput, match="--lanes 4: with --workers 0"):
        given(4, environments=())


def test_a_gpus_memory_is_asked_of_its_driver(monkeypatch):
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: name == "jax_cuda12_plugin" or None)
    monkeypatch.setattr(devices, "_nvidia_smi", lambda *arguments: "81559\n" if arguments[-1] == "3" else "")
    assert devices.gpu_bytes({"CUDA_VISIBLE_DEVICES": "3"}) == int(devices.GPU_PART * 81559 * 2**20)
    shared = {"CUDA_VISIBLE_DEVICES": "3", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5"}
    assert devices.gpu_bytes(shared) == 81559 * 2**19
    assert devices.gpu_bytes({"CUDA_VISIBLE_DEVICES": "4"}) is None
    assert devices.gpu_bytes({}) is None and devices.gpu_bytes({"CUDA_VISIBLE_DEVICES": ""}) is None


def test_no_tensor_library_is_loaded_for_it():
    code = "import sys, imgclf_sweep.training.lanes.count; assert not {'jax', 'keras', 'tensorflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
