"""Real worker processes with the synthetic trainer."""

import json

import pytest
from jobs import SWEEP

from imgclf_sweep.executors.processes import ProcessExecutor
from imgclf_sweep.training.protocol import Setup


@pytest.fixture
def make(tmp_path):
    """Starts an executor, which the test's end closes. `synthetic`: what its trainer is told."""
    made = []

    def start(workers=1, setup=None, sweep=SWEEP, lanes=1, limits=None, **synthetic):
        env = {"IMGCLF_SWEEP_SYNTHETIC": json.dumps(synthetic)}
        setup = setup or Setup(sweep, str(tmp_path), trainer="synthetic", lanes=lanes)
        made.append(ProcessExecutor(setup, [env] * workers, tmp_path / "logs", limits=limits))
        return made[-1]

    yield start
    for executor in made:
        executor.close()
