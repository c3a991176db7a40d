"""One candidate trained with real Keras on a sample of the real digits."""

import json
import math
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from imgclf_sweep import Fixed, Objective, SearchSpace, Sweep, datasets
from imgclf_sweep.child import environment
from imgclf_sweep.data.split import parts
from imgclf_sweep.errors import SweepError
from imgclf_sweep.models.cnn import build_cnn
from imgclf_sweep.sweep import BuildFunction
from imgclf_sweep.sweepfile import digest, execute
from imgclf_sweep.training import open_trainer
from imgclf_sweep.training.fit import FitTrainer
from imgclf_sweep.training.images import fitted, load, targets
from imgclf_sweep.training.protocol import Job, Reply, Setup
from imgclf_sweep.training.weights import BEST, load_weights
from imgclf_sweep.trial import Kind, State, Suggestion

LIMIT = 200
SMALL = {"filters": 4, "dense_units": 16, "learning_rate": 0.01}


def sweep(**changes):
    given = {"dataset": datasets.digits(), "space": SearchSpace(filters=Fixed(4)), "batch_size": 32, "epochs": 3}
    return Sweep(**{**given, **changes})


@pytest.fixture(scope="module")
def setup(digits):
    return Setup(sweep(), str(digits.path), LIMIT)


@pytest.fixture(scope="module")
def trainer(setup):
    return open_trainer(setup)


def job(directory, params=SMALL, *, epochs=3, seed=7, **more):
    suggestion = Suggestion(0, dict(params), epochs, more.pop("initial_epoch", 0))
    return Job(suggestion, "token", seed, str(directory), **more)


def run(trainer, job, replies=()):
    seen, replies = [], iter(replies)

    def on_epoch(measurement):
        seen.append(measurement)
        return next(replies, Reply.GO)

    return trainer.train(job, on_epoch), seen


def curve(seen):
    return [dict(m.metrics) for m in seen]


def test_the_outcome_is_the_best_epoch_and_its_weights_are_on_disk(trainer, setup, tmp_path):
    outcome, seen = run(trainer, job(tmp_path))
    values = [m.metrics["val_accuracy"] for m in seen]
    assert [m.epoch for m in seen] == [1, 2, 3]
    assert outcome.state is State.COMPLETE and outcome.epochs == 3 and outcome.kind is None
    assert outcome.value == max(values) and outcome.epoch == values.index(max(values)) + 1
    assert all(type(v) is float and math.isfinite(v) for m in seen for v in m.metrics.values())
    assert all(m.seconds > 0 for m in seen) and outcome.seconds >= sum(m.seconds for m in seen)

    images = load(setup, "train")
    model = build_cnn(SMALL, images.shape, images.classes, setup.sweep.loss)
    load_weights(model, tmp_path / BEST)
    measured = model.evaluate(images.validation_x, images.validation_y, verbose=0, return_dict=True)
    assert measured["accuracy"] == pytest.approx(outcome.value)
    assert measured["loss"] == pytest.approx(seen[outcome.epoch - 1].metrics["val_loss"], rel=1e-5)


def test_the_best_epoch_need_not_be_the_last(digits, tmp_path):
    # the highest validation loss: an objective that training makes worse, so that the first epoch is the best
    setup = Setup(sweep(objective=Objective("val_loss", "max")), str(digits.path), LIMIT)
    outcome, seen = run(FitTrainer(setup), job(tmp_path))
    losses = [m.metrics["val_loss"] for m in seen]
    assert losses[0] == max(losses) > losses[-1]
    assert (outcome.epoch, outcome.value) == (1, losses[0])
    images = load(setup, "train")
    model = build_cnn(SMALL, images.shape, images.classes, setup.sweep.loss)
    load_weights(model, tmp_path / BEST)
    assert model.evaluate(images.validation_x, images.validation_y, verbose=0)[0] == pytest.approx(losses[0], rel=1e-5)


def test_numbers_follow_from_the_seed_alone_also_in_another_process(trainer, setup, tmp_path):
    params = {**SMALL, "dropout": 0.3}
    _, first = run(trainer, job(tmp_path, params, epochs=2))
    run(trainer, job(tmp_path, SMALL, epochs=1, seed=1))
    _, again = run(trainer, job(tmp_path, params, epochs=2))
    _, other = run(trainer, job(tmp_path, params, epochs=2, seed=8))
    assert curve(first) == curve(again)
    assert curve(first) != curve(other)

    code = (
        "import json, sys; from imgclf_sweep.training import open_trainer\n"
        "from imgclf_sweep.training.protocol import Job, Reply, Setup\n"
        "given, seen = json.load(sys.stdin), []\n"
        "trainer = open_trainer(Setup.from_json(given['setup']))\n"
        "trainer.train(Job.from_json(given['job']), lambda m: (seen.append(dict(m.metrics)), Reply.GO)[1])\n"
        "print(json.dumps(seen))"
    )
    given = {"setup": setup.to_json(), "job": job(tmp_path, params, epochs=2).to_json()}
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    )
    assert json.loads(done.stdout) == curve(first)


def test_told_to_stop_it_is_pruned_with_its_best_weights(trainer, tmp_path):
    outcome, seen = run(trainer, job(tmp_path, epochs=5), [Reply.GO, Reply.PRUNE])
    assert outcome.state is State.PRUNED and outcome.epochs == len(seen) == 2 and outcome.reason
    assert outcome.value == max(m.metrics["val_accuracy"] for m in seen)
    assert (tmp_path / BEST).exists()


def test_interrupted_it_has_no_outcome(trainer, tmp_path):
    outcome, seen = run(trainer, job(tmp_path, epochs=5), [Reply.INTERRUPT])
    assert outcome is None and len(seen) == 1


def test_a_promoted_trial_goes_on_from_its_parent_s_weights(trainer, tmp_path):
    parent, seen = run(trainer, job(tmp_path / "parent", epochs=2))
    child, further = run(
        trainer, job(tmp_path / "child", epochs=4, initial_epoch=2, start_from=str(tmp_path / "parent" / BEST), seed=9)
    )
    assert [m.epoch for m in further] == [3, 4] and child.epochs == 2 and child.epoch in (3, 4)
    assert further[0].metrics["loss"] < seen[0].metrics["loss"]  # not from the beginning
    torn = tmp_path / "torn.weights.h5"
    torn.write_bytes(b"no weights")
    failed, _ = run(trainer, job(tmp_path / "x", start_from=str(torn)))
    assert failed.state is State.FAILED and "Error" in failed.reason


def test_on_all_images_the_last_epoch_counts_and_nothing_is_validated(setup, tmp_path):
    trainer = FitTrainer(setup)
    outcome, seen = run(trainer, job(tmp_path, epochs=2, part="all"))
    assert outcome.state is State.COMPLETE and outcome.epoch == 2
    assert outcome.value == seen[-1].metrics["accuracy"]
    assert not any(name.startswith("val_") for m in seen for name in m.metrics)
    assert (tmp_path / BEST).exists()
    _, measured = run(trainer, job(tmp_path, epochs=1))  # the other part, in the same process
    assert "val_accuracy" in measured[0].metrics


def test_divergence_stops_at_once_and_names_the_epoch_and_the_last_finite_value(digits, tmp_path):
    diverging = {**SMALL, "optimizer": "sgd", "learning_rate": 1e20}
    outcome, seen = run(FitTrainer(Setup(sweep(), str(digits.path), LIMIT)), job(tmp_path, diverging, epochs=4))
    assert outcome.state is State.FAILED and outcome.kind is Kind.DIVERGED and outcome.epochs == len(seen) + 1
    assert outcome.value is None and "loss is" in outcome.reason and f"in epoch {len(seen) + 1}" in outcome.reason
    assert all(math.isfinite(v) for m in seen for v in m.metrics.values())


def test_a_model_that_cannot_be_built_fails_and_the_next_trial_runs(trainer, tmp_path):
    outcome, seen = run(trainer, job(tmp_path, {"kernel_size": 9}))
    assert outcome.state is State.FAILED and outcome.kind is Kind.BUILD and not seen
    assert "\n" not in outcome.reason and "9" in outcome.reason
    assert run(trainer, job(tmp_path, epochs=1))[0].state is State.COMPLETE


def test_want_of_memory_is_named(trainer, tmp_path, monkeypatch):
    def too_big(*_, **__):
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr(keras.Model, "fit", too_big)
    outcome, _ = run(trainer, job(tmp_path))
    assert outcome.kind is Kind.OUT_OF_MEMORY and outcome.reason == "MemoryError: Unable to allocate 9 TiB"


def test_what_the_coordinator_s_end_raises_is_no_fault_of_the_trial(trainer, tmp_path):
    def gone(measurement):
        raise BrokenPipeError("the coordinator is gone")

    with pytest.raises(BrokenPipeError):
        trainer.train(job(tmp_path), gone)


@pytest.mark.parametrize("loss", ["categorical_crossentropy", "binary_crossentropy"])
def test_labels_are_one_hot_where_the_loss_wants_them(digits, tmp_path, loss):
    outcome, seen = run(FitTrainer(Setup(sweep(loss=loss), str(digits.path), LIMIT)), job(tmp_path, epochs=2))
    assert outcome.state is State.COMPLETE and seen[-1].metrics["loss"] < seen[0].metrics["loss"]


def test_targets():
    y = np.array([0, 2])
    np.testing.assert_array_equal(targets(y, 3, True), y)
    np.testing.assert_array_equal(targets(y, 3, False), [[1, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(targets(np.array([0, 1]), 1, True), [[0.0], [1.0]])


def test_scaling_is_fitted_on_the_images_being_fitted(digits):
    setup = Setup(sweep(dataset=datasets.digits(scale="standard")), str(digits.path), LIMIT)
    x, _ = digits.train()
    split = parts(digits, setup.sweep.validation, setup.sweep.seed, LIMIT)
    train, both = fitted(setup, "train"), fitted(setup, "all")
    assert train.affine.scale[0] == pytest.approx(1 / x[split.train].std())
    assert both.affine.scale[0] == pytest.approx(1 / x[split.both].std())
    assert train.affine != both.affine and both.validation is None and len(both.train) == LIMIT
    assert load(setup, "train").x.mean() == pytest.approx(0, abs=1e-3)


def test_data_that_is_gone_is_said_before_the_first_job(tmp_path):
    with pytest.raises(SweepError, match="missing"):
        open_trainer(Setup(sweep(), str(tmp_path / "gone"), None))


BUILD = """
import keras
from imgclf_sweep import Objective, Sweep, datasets

def build(hp):
    units = hp.Int("units", 8, 32, step=8)
    if units == 24:
        raise RuntimeError("no model\\nof 24")
    rate = hp.Float("rate", 0.0, 0.5)
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model

sweep = Sweep(dataset=datasets.digits(), model=build, batch_size=32, objective=Objective("val_accuracy", "max"))
"""


def test_a_build_function_is_trained_as_compiled_and_what_it_asks_for_anew_is_found(digits, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(BUILD)
    model = BuildFunction(str(file), "build", digest(file, execute(file).model))
    trainer = FitTrainer(Setup(sweep(model=model, space=SearchSpace()), str(digits.path), LIMIT))
    outcome, _ = run(trainer, job(tmp_path, {"units": 8}, epochs=1))
    assert outcome.state is State.COMPLETE and outcome.found == {"rate": 0.0}
    failed, _ = run(trainer, job(tmp_path, {"units": 24}, epochs=1))
    assert failed.kind is Kind.BUILD and "mine.py, line 8" in failed.reason and "RuntimeError" in failed.reason

    unmeasured = sweep(model=model, space=SearchSpace(), objective=Objective("val_f1", "max"))
    outcome, _ = run(FitTrainer(Setup(unmeasured, str(digits.path), LIMIT)), job(tmp_path, {"units": 8}, epochs=2))
    assert outcome.state is State.FAILED and "'val_f1'" in outcome.reason and "val_accuracy" in outcome.reason


def test_the_synthetic_trainer_needs_no_data(tmp_path):
    trainer = open_trainer(Setup(sweep(), str(tmp_path / "gone"), None, "synthetic"))
    assert run(trainer, job(tmp_path, epochs=2))[0].state is State.COMPLETE
    assert not Path(tmp_path / BEST).exists()
