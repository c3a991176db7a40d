"""One candidate trained as one compiled program, on a sample of the real digits; and its weights in the real Keras model."""

import json
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from coordinator import run

from imgclf_sweep import Float, Objective, SearchSpace, Sweep, datasets
from imgclf_sweep.child import environment
from imgclf_sweep.errors import SweepError
from imgclf_sweep.training import open_trainer
from imgclf_sweep.training.compiled import CACHE, CompiledTrainer
from imgclf_sweep.training.lanes.declared import may_drop
from imgclf_sweep.training.lanes.state import KEEP_SECONDS, asked, resident
from imgclf_sweep.training.protocol import Job, Reply, Setup
from imgclf_sweep.training.weights import BEST_ARRAYS, load_arrays
from imgclf_sweep.trial import Kind, State, Suggestion

LIMIT = 120
EPOCHS = 5
SMALL = {"filters": 2, "dense_units": 8, "kernel_size": 2, "optimizer": "adam", "learning_rate": 0.01, "dropout": 0.3}
MOMENTUM = {**SMALL, "optimizer": "sgd", "momentum": 0.9, "dropout": 0.1}
RISES = Objective("val_loss", "max")  # what training makes worse: the first epoch is the best


def sweep(**changes):
    space = SearchSpace(filters=2, dropout=Float(0.0, 0.5))
    return Sweep(**{"dataset": datasets.digits(), "space": space, "batch_size": 32, "epochs": EPOCHS, **changes})


@pytest.fixture(scope="module")
def setup(digits):
    return Setup(sweep(), str(digits.path), LIMIT, "compiled")


@pytest.fixture(scope="module")
def trainer(setup):
    found = open_trainer(setup)
    assert isinstance(found, CompiledTrainer) and found.recycle_after is None
    return found


def job(directory, params=SMALL, *, epochs=EPOCHS, seed=7, initial_epoch=0, **more):
    return Job(Suggestion(0, dict(params), epochs, initial_epoch), "token", seed, str(directory), **more)


@pytest.fixture(scope="module")
def whole(trainer, tmp_path_factory):
    """SMALL, never interrupted: its outcome, what was heard of it, and its directory."""
    directory = tmp_path_factory.mktemp("whole")
    return *run(trainer, job(directory)), directory


def same(one, other):
    """Equal per-epoch numbers, to 1e-6."""
    assert [e for e, _ in one] == [e for e, _ in other]
    for (_, a), (_, b) in zip(one, other, strict=True):
        assert a == pytest.approx(b, rel=1e-6, abs=1e-6)


def same_weights(one, other):
    for a, b in zip(load_arrays(one / BEST_ARRAYS), load_arrays(other / BEST_ARRAYS), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def left(directory):
    return sorted(p.name for p in Path(directory).iterdir())


def test_the_outcome_is_the_best_epoch_and_keras_measures_the_same_with_its_weights(whole, setup):
    from imgclf_sweep.models.cnn import build_cnn
    from imgclf_sweep.training.images import load
    from imgclf_sweep.training.weights import load_weights

    outcome, heard, directory = whole
    values = [m.metrics["val_accuracy"] for m in heard.measured]
    assert [m.epoch for m in heard.measured] == [1, 2, 3, 4, 5] and len(set(values)) > 1
    assert outcome.state is State.COMPLETE and outcome.epochs == EPOCHS and outcome.kind is None
    assert outcome.value == max(values) and outcome.epoch == values.index(max(values)) + 1
    assert set(heard.measured[0].metrics) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert all(type(v) is float for m in heard.measured for v in m.metrics.values())
    assert outcome.seconds >= sum(m.seconds for m in heard.measured) > 0

    images = load(setup, "train")
    model = build_cnn(SMALL, images.shape, images.classes, setup.sweep.loss)
    load_weights(model, directory / BEST_ARRAYS)
    measured = model.evaluate(images.validation_x, images.validation_y, verbose=0, return_dict=True)
    assert measured["accuracy"] == pytest.approx(outcome.value)
    assert measured["loss"] == pytest.approx(heard.measured[outcome.epoch - 1].metrics["val_loss"], rel=1e-5)


def test_numbers_follow_from_the_seed_alone_also_in_another_process(trainer, setup, whole, tmp_path):
    run(trainer, job(tmp_path / "between", MOMENTUM, epochs=1, seed=1))
    assert run(trainer, job(tmp_path / "again"))[1].curve == whole[1].curve
    assert run(trainer, job(tmp_path / "other", seed=8))[1].curve != whole[1].curve
    assert elsewhere(setup, job(tmp_path / "there"))[0] == [m for _, m in whole[1].curve]


TRAIN = """
import json, os, signal, sys
from imgclf_sweep.training import open_trainer
from imgclf_sweep.training.protocol import Job, Reply, Setup
given, seen = json.loads(sys.argv[1]), []
trainer = open_trainer(Setup.from_json(given["setup"]))
def hear(m):
    seen.append(dict(m.metrics))
    {}
    return Reply.GO
trainer.train(Job.from_json(given["job"]), hear, lambda earlier: Reply.GO)
assert not {{"keras", "tensorflow"}} & set(sys.modules)
print(json.dumps([seen, [trainer.compilations.compiled, trainer.compilations.cached]]))
"""


def elsewhere(setup, given, doing="pass"):
    """What a process of its own hears of a job, doing something in each epoch, and how many programs it compiled and found;
    None where it died of it."""
    told = json.dumps({"setup": setup.to_json(), "job": given.to_json()})
    command = [sys.executable, "-c", TRAIN.format(doing), told]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    if done.returncode == -signal.SIGKILL:
        return None
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_interrupted_twice_it_ends_like_one_that_never_was(trainer, whole, tmp_path):
    ended, undisturbed, directory = whole
    torn = job(tmp_path / "torn")
    assert run(trainer, torn, until=1)[0] is None
    run(trainer, job(tmp_path / "other", MOMENTUM, epochs=1, seed=3))  # another trial in between, in the same process
    outcome, heard = run(trainer, torn, until=3)
    assert outcome is None and [m.epoch for m in heard.measured] == [2, 3]
    assert "epoch-3.checkpoint" in left(tmp_path / "torn")
    outcome, heard = run(trainer, torn)
    assert [len(r) for r in heard.resumed] == [3] and [m.epoch for m in heard.measured] == [4, 5]
    same(heard.curve, undisturbed.curve)
    assert (outcome.state, outcome.epoch, outcome.epochs) == (ended.state, ended.epoch, ended.epochs)
    assert outcome.value == pytest.approx(ended.value, rel=1e-6)
    same_weights(tmp_path / "torn", directory)
    assert outcome.seconds > sum(m.seconds for m in [*heard.resumed[0], *heard.measured])  # of all attempts


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_it_goes_on_from_its_last_checkpoint_and_ends_like_one_that_never_was(trainer, setup, whole, tmp_path):
    """It is killed in its fourth epoch, the third having been told; each epoch long enough to get a checkpoint."""
    slow = f"import time; time.sleep({KEEP_SECONDS}); len(seen) == 3 and os.kill(os.getpid(), signal.SIGKILL)"
    assert elsewhere(setup, job(tmp_path), slow) is None
    assert [name for name in left(tmp_path) if name.endswith(".checkpoint")]
    outcome, heard = run(trainer, job(tmp_path))
    assert heard.resumed and heard.measured[-1].epoch == EPOCHS
    same(heard.curve, whole[1].curve)
    assert (outcome.epoch, outcome.epochs) == (whole[0].epoch, EPOCHS)
    same_weights(tmp_path, whole[2])


def test_momentum_and_the_best_epoch_of_an_earlier_attempt_come_back(digits, tmp_path):
    trainer = CompiledTrainer(Setup(sweep(objective=RISES), str(digits.path), LIMIT, "compiled"))
    ended, undisturbed = run(trainer, job(tmp_path / "whole", MOMENTUM, epochs=3))
    assert ended.epoch == 1
    assert run(trainer, job(tmp_path / "torn", MOMENTUM, epochs=3), until=2)[0] is None
    outcome, heard = run(trainer, job(tmp_path / "torn", MOMENTUM, epochs=3))
    same(heard.curve, undisturbed.curve)
    assert outcome.epoch == 1
    same_weights(tmp_path / "torn", tmp_path / "whole")


def test_a_checkpoint_of_another_network_or_a_torn_one_is_passed_over(trainer, whole, tmp_path, capsys):
    assert run(trainer, job(tmp_path), until=2)[0] is None
    kept = tmp_path / "epoch-2.checkpoint"
    kept.write_bytes(kept.read_bytes()[:-5])
    for other in tmp_path.glob("epoch-1.*"):
        other.unlink()
    outcome, heard = run(trainer, job(tmp_path))
    assert not heard.resumed and "passed over" in capsys.readouterr().out
    same(heard.curve, whole[1].curve)
    assert outcome.state is State.COMPLETE


def test_told_to_prune_it_ends_there_with_its_best_weights(trainer, whole, tmp_path):
    outcome, heard = run(trainer, job(tmp_path / "now"), until=2, last=Reply.PRUNE)
    assert outcome.state is State.PRUNED and outcome.epochs == 2 and outcome.reason
    assert outcome.value == max(metrics["val_accuracy"] for _, metrics in heard.curve)
    assert load_arrays(tmp_path / "now" / BEST_ARRAYS)
    assert run(trainer, job(tmp_path / "later"), until=3)[0] is None
    outcome, heard = run(trainer, job(tmp_path / "later"), until=3, last=Reply.PRUNE)
    assert not heard.measured and outcome.state is State.PRUNED and outcome.epochs == 3
    same(heard.curve, whole[1].curve[:3])


def test_a_promoted_trial_goes_on_from_its_parent_s_weights(trainer, whole, tmp_path):
    start = str(whole[2] / BEST_ARRAYS)
    child, further = run(trainer, job(tmp_path / "child", initial_epoch=2, start_from=start, seed=9))
    assert [m.epoch for m in further.measured] == [3, 4, 5] and child.epochs == 3 and child.epoch in (3, 4, 5)
    assert further.measured[0].metrics["loss"] < whole[1].measured[0].metrics["loss"]  # not from the beginning
    torn = tmp_path / "torn.npz"
    torn.write_bytes(Path(start).read_bytes()[:200])
    failed, _ = run(trainer, job(tmp_path / "x", start_from=str(torn)))
    assert failed.state is State.FAILED and "torn" in failed.reason
    failed, _ = run(trainer, job(tmp_path / "y", {**SMALL, "filters": 3}, start_from=start))
    assert failed.state is State.FAILED and "another network" in failed.reason


def test_on_all_images_the_last_epoch_counts_and_nothing_is_validated(setup, tmp_path):
    trainer = CompiledTrainer(setup)
    outcome, heard = run(trainer, job(tmp_path / "all", epochs=2, part="all"))
    assert outcome.state is State.COMPLETE and outcome.epoch == 2
    assert outcome.value == heard.measured[-1].metrics["accuracy"]
    assert set(heard.measured[0].metrics) == {"loss", "accuracy"}
    _, held = run(trainer, job(tmp_path / "train", epochs=1))  # the other part, in the same process
    assert "val_accuracy" in held.measured[0].metrics


def test_divergence_stops_at_once_and_names_the_epoch_and_the_last_finite_value(trainer, tmp_path):
    wild = {**SMALL, "optimizer": "sgd", "learning_rate": 1e12}
    outcome, heard = run(trainer, job(tmp_path, wild))
    assert outcome.state is State.FAILED and outcome.kind is Kind.DIVERGED
    assert outcome.epochs == len(heard.measured) + 1 < EPOCHS and f"in epoch {outcome.epochs}" in outcome.reason
    assert not (tmp_path / BEST_ARRAYS).exists()


def test_what_makes_no_network_fails_as_it_does_in_keras(trainer, tmp_path):
    outcome, _ = run(trainer, job(tmp_path, {**SMALL, "kernel_size": 20}))
    assert (outcome.state, outcome.kind) == (State.FAILED, Kind.BUILD) and "too small for block 1" in outcome.reason
    outcome, _ = run(trainer, job(tmp_path, {**SMALL, "optimizer": "lion"}))
    assert outcome.kind is Kind.BUILD and "lion" in outcome.reason


def test_what_the_coordinator_raises_is_no_fault_of_the_trial(trainer, tmp_path):
    def gone(measurement):
        raise OSError("the pipe is closed")

    with pytest.raises(OSError, match="the pipe"):
        trainer.train(job(tmp_path), gone)


def test_without_its_images_it_cannot_be_made(tmp_path):
    with pytest.raises(SweepError, match="missing or damaged"):
        CompiledTrainer(Setup(sweep(), str(tmp_path / "gone"), LIMIT, "compiled"))


def test_trials_of_every_rate_share_a_program_but_not_those_without_the_knob(setup, tmp_path):
    images = resident(setup, "train")
    shapes = [asked(setup, job(tmp_path, params), images)[0] for params in (SMALL, {**SMALL, "dropout": 0.0})]
    assert shapes[0] == shapes[1] and shapes[0].dropout == (True, False)
    without = {name: value for name, value in SMALL.items() if name != "dropout"}
    assert asked(setup, job(tmp_path, without), images)[0].dropout == (False, False)
    listed = sweep(space=SearchSpace(filters=[[2, 3], [2, 4]], dropout=[[0.0, 0.2], [0.0, 0.0]]))
    assert [may_drop(listed, "dropout", 0.0, block, True) for block in (0, 1)] == [False, True]


def test_what_it_compiles_is_counted_and_an_earlier_process_s_programs_are_taken(trainer, setup, whole, tmp_path):
    assert trainer.compilations.compiled >= 1 and trainer.compilations.seconds > 0
    later = CompiledTrainer(setup)
    assert run(later, job(tmp_path / "a"))[1].curve == whole[1].curve
    run(later, job(tmp_path / "b", {**SMALL, "dropout": 0.1}, epochs=1))
    assert (later.compilations.compiled, later.compilations.cached) == (0, 1)
    assert later.compilations.words() == "0 programs compiled in 0 s, 1 taken from the cache"


def test_of_two_processes_one_compiles_and_a_torn_program_is_compiled_anew(setup, whole, tmp_path):
    cache, wanted = tmp_path / "cache", [m for _, m in whole[1].curve]
    shutil.copytree(setup.data, cache / "digits")
    here = replace(setup, data=str(cache / "digits"))
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda name: elsewhere(here, job(tmp_path / name)), "ab"))
    assert [seen for seen, _ in found] == [wanted, wanted]
    assert sorted(counts for _, counts in found) == [[0, 1], [1, 0]]
    programs = [path for path in (cache / CACHE).rglob("*") if path.is_file()]
    assert len(programs) == 1 and not list(cache.rglob("*.lock"))
    programs[0].write_bytes(programs[0].read_bytes()[:-100])
    assert elsewhere(here, job(tmp_path / "c")) == [wanted, [1, 0]]
