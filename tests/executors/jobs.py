"""A small sweep, and jobs of it for an executor."""

from imgclf_sweep import Choice, SearchSpace, Sweep, datasets
from imgclf_sweep.training.protocol import Job
from imgclf_sweep.trial import Suggestion

SWEEP = Sweep(dataset=datasets.digits(), space=SearchSpace(filters=Choice([2, 4])), epochs=3)


def job(number, tmp_path, epochs=3):
    return Job(Suggestion(number, {"filters": 2}, epochs), f"token{number}", 1, str(tmp_path / str(number)))
