"""A trial that was interrupted and resumed ends with the numbers of one that never was; real Keras, real files."""

import json
import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from coordinator import Heard, run

from imgclf_sweep import Fixed, Objective, SearchSpace, Sweep, datasets
from imgclf_sweep.child import environment
from imgclf_sweep.sweep import BuildFunction
from imgclf_sweep.sweepfile import digest, execute
from imgclf_sweep.training import checkpoint
from imgclf_sweep.training.batches import Batches
from imgclf_sweep.training.checkpoint import Checkpoint, Checkpoints, discard, identity
from imgclf_sweep.training.fit import FitTrainer
from imgclf_sweep.training.protocol import Job, Reply, Setup
from imgclf_sweep.training.weights import BEST
from imgclf_sweep.trial import Kind, State, Suggestion

LIMIT = 120
SMALL = {"filters": 2, "dense_units": 8}
EPOCHS = 5
ADAM = {**SMALL, "optimizer": "adam", "learning_rate": 0.01, "dropout": 0.3, "dense_dropout": 0.4, "batch_norm": True}
MOMENTUM = {**SMALL, "optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.02, "dense_dropout": 0.5}


def sweep(**changes):
    given = {"dataset": datasets.digits(), "space": SearchSpace(filters=Fixed(4)), "batch_size": 32, "epochs": EPOCHS}
    return Sweep(**{**given, **changes})


@pytest.fixture(scope="module")
def setup(digits):
    return Setup(sweep(), str(digits.path), LIMIT)


@pytest.fixture(scope="module")
def trainer(setup):
    return FitTrainer(setup)


def job(directory, params=ADAM, *, epochs=EPOCHS, seed=7, initial_epoch=0, **more):
    return Job(Suggestion(0, dict(params), epochs, initial_epoch), "token", seed, str(directory), **more)


@pytest.fixture(scope="module")
def whole(trainer, tmp_path_factory):
    """ADAM, never interrupted: its outcome, what was heard of it, and its directory."""
    directory = tmp_path_factory.mktemp("whole")
    return *run(trainer, job(directory)), directory


def same(one, other):
    """Equal per-epoch numbers, to 1e-6."""
    assert [e for e, _ in one] == [e for e, _ in other]
    for (_, a), (_, b) in zip(one, other, strict=True):
        assert a == pytest.approx(b, rel=1e-6, abs=1e-6)


def same_end(one, other):
    assert (one.state, one.epoch, one.epochs) == (other.state, other.epoch, other.epochs)
    assert one.value == pytest.approx(other.value, rel=1e-6)


def same_weights(one, other):
    a, b = _weights(one), _weights(other)
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-6)


def _weights(directory):
    found = {}
    with h5py.File(Path(directory) / BEST) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    assert found
    return found


def left(directory):
    return sorted(p.name for p in Path(directory).iterdir())


def test_interrupted_twice_it_ends_like_one_that_never_was(trainer, whole, tmp_path):
    ended, undisturbed, directory = whole
    torn = job(tmp_path / "torn")
    assert run(trainer, torn, until=1)[0] is None
    run(trainer, job(tmp_path / "other", {**SMALL}, epochs=1, seed=3))  # another trial in between, in the same process
    outcome, heard = run(trainer, torn, until=3)
    assert outcome is None and [m.epoch for m in heard.measured] == [2, 3]
    assert left(tmp_path / "torn") == ["epoch-2.checkpoint", "epoch-3.checkpoint"]
    outcome, heard = run(trainer, torn)
    assert [len(r) for r in heard.resumed] == [3] and [m.epoch for m in heard.measured] == [4, 5]
    same(heard.curve, undisturbed.curve)
    same_end(outcome, ended)
    same_weights(tmp_path / "torn", directory)
    assert outcome.seconds > sum(m.seconds for m in [*heard.resumed[0], *heard.measured])  # of all attempts
    discard(tmp_path / "torn")
    assert left(tmp_path / "torn") == [BEST]


def test_momentum_comes_back(trainer, tmp_path):
    ended, undisturbed = run(trainer, job(tmp_path / "whole", MOMENTUM, epochs=3))
    assert run(trainer, job(tmp_path / "torn", MOMENTUM, epochs=3), until=1)[0] is None
    outcome, heard = run(trainer, job(tmp_path / "torn", MOMENTUM, epochs=3))
    assert len(heard.resumed[0]) == 1
    same(heard.curve, undisturbed.curve)
    same_end(outcome, ended)


def test_the_best_epoch_of_an_earlier_attempt_stays_the_best(digits, tmp_path):
    # the highest validation loss: an objective that training makes worse
    trainer = FitTrainer(Setup(sweep(objective=Objective("val_loss", "max")), str(digits.path), LIMIT))
    given = {**SMALL, "learning_rate": 0.01}
    ended, _ = run(trainer, job(tmp_path / "whole", given, epochs=3))
    assert ended.epoch == 1
    assert run(trainer, job(tmp_path / "torn", given, epochs=3), until=2)[0] is None
    outcome, _ = run(trainer, job(tmp_path / "torn", given, epochs=3))
    same_end(outcome, ended)
    same_weights(tmp_path / "torn", tmp_path / "whole")


def test_a_promoted_trial_resumes_from_its_own_checkpoint_not_from_its_parent(trainer, whole, tmp_path):
    start = str(whole[2] / BEST)
    ended, undisturbed = run(trainer, job(tmp_path / "whole", initial_epoch=2, start_from=start))
    child = job(tmp_path / "child", initial_epoch=2, start_from=start)
    assert run(trainer, child, until=3)[0] is None
    outcome, heard = run(trainer, child)
    assert [m.epoch for m in heard.resumed[0]] == [3] and [m.epoch for m in heard.measured] == [4, 5]
    same(heard.curve, undisturbed.curve)
    same_end(outcome, ended)
    assert outcome.epochs == 3


def test_told_to_prune_on_resuming_it_ends_there(trainer, whole, tmp_path):
    assert run(trainer, job(tmp_path / "torn"), until=3)[0] is None
    outcome, heard = run(trainer, job(tmp_path / "torn"), until=3, last=Reply.PRUNE)
    assert not heard.measured and outcome.state is State.PRUNED and outcome.epochs == 3
    same(heard.curve, whole[1].curve[:3])
    assert outcome.value == max(metrics["val_accuracy"] for _, metrics in heard.curve)
    assert (tmp_path / "torn" / BEST).exists()


SCHEDULED = """
import keras
from imgclf_sweep import Sweep, datasets

def build(hp):
    rate = keras.optimizers.schedules.ExponentialDecay(0.05, decay_steps=4, decay_rate=hp.Float("decay", 0.5, 0.9))
    model = keras.Sequential([
        keras.Input((8, 8, 1)), keras.layers.RandomTranslation(0.2, 0.2), keras.layers.GaussianNoise(0.2),
        keras.layers.Flatten(), keras.layers.Dense(16, "relu"), keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.4), keras.layers.Dense(10, "softmax"),
    ])
    optimizer = keras.optimizers.AdamW(rate, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=3)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model

sweep = Sweep(dataset=datasets.digits(), model=build)
"""


def test_schedules_augmentation_noise_and_averaged_weights_come_back(digits, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(SCHEDULED)
    model = BuildFunction(str(file), "build", digest(file, execute(file).model))
    trainer = FitTrainer(Setup(sweep(model=model, space=SearchSpace()), str(digits.path), LIMIT))
    ended, undisturbed = run(trainer, job(tmp_path / "whole", {"decay": 0.6}, epochs=4))
    assert run(trainer, job(tmp_path / "torn", {"decay": 0.6}, epochs=4), until=2)[0] is None
    outcome, heard = run(trainer, job(tmp_path / "torn", {"decay": 0.6}, epochs=4))
    assert len(heard.resumed[0]) == 2
    same(heard.curve, undisturbed.curve)
    same_end(outcome, ended)


IN_A_PROCESS = """
import json, os, signal, sys
from imgclf_sweep.training import fit, open_trainer
from imgclf_sweep.training.protocol import Job, Reply, Setup

given = json.load(sys.stdin)
epoch, step = given["kill"]
batch = fit.Watch.on_train_batch_end
def die(self, index, logs=None):
    if len(self._course.progress.measurements) == epoch and index >= step:
        os.kill(os.getpid(), signal.SIGKILL)
    batch(self, index, logs)
fit.Watch.on_train_batch_end = die
trainer = open_trainer(Setup.from_json(given["setup"]))
trainer.train(Job.from_json(given["job"]), lambda m: Reply.GO, lambda m: Reply.GO)
"""


def test_killed_in_mid_epoch_it_goes_on_in_another_process(trainer, setup, whole, tmp_path):
    torn = job(tmp_path / "torn")
    given = json.dumps({"setup": setup.to_json(), "job": torn.to_json(), "kill": [3, 1]})
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS],
        input=given,
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    outcome, heard = run(trainer, torn)
    assert len(heard.resumed[0]) == 3  # only the epoch in progress is lost
    same(heard.curve, whole[1].curve)
    same_end(outcome, whole[0])
    same_weights(tmp_path / "torn", whole[2])


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def truncate_the_head(path):
    path.write_bytes(path.read_bytes()[:90])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def no_json(path):
    path.write_bytes(b"0" * 64 + b"\n{not json\n")


@pytest.mark.parametrize("damage", [truncate, truncate_the_head, empty, flip, no_json])
def test_a_damaged_checkpoint_is_passed_over_with_a_note(tmp_path, damage):
    notes = []
    kept = Checkpoints(tmp_path, "mine", notes.append)
    for epoch in (1, 2, 3):
        kept.save(Checkpoint(epoch, {"at": epoch}, {"w": np.full((2, 3), epoch, "float32"), "n": np.array(epoch)}))
    assert left(tmp_path) == ["epoch-1.checkpoint", "epoch-2.checkpoint", "epoch-3.checkpoint"]
    damage(tmp_path / "epoch-3.checkpoint")
    found = kept.newest()
    assert found.epoch == 2 and found.progress == {"at": 2}
    np.testing.assert_array_equal(found.arrays["w"], np.full((2, 3), 2, "float32"))
    assert found.arrays["n"].shape == () and found.arrays["n"] == 2
    assert len(notes) == 1 and "epoch-3.checkpoint" in notes[0] and "\n" not in notes[0]
    for epoch in (1, 2):
        damage(tmp_path / f"epoch-{epoch}.checkpoint")
    assert kept.newest() is None


def test_training_falls_back_to_the_one_before_then_to_the_beginning(trainer, whole, tmp_path, capsys):
    torn = job(tmp_path / "torn")
    run(trainer, torn, until=3)
    truncate(tmp_path / "torn" / "epoch-3.checkpoint")
    outcome, heard = run(trainer, torn, until=3)
    assert len(heard.resumed[0]) == 2 and "passed over" in capsys.readouterr().out
    same(heard.curve, whole[1].curve[:3])
    for path in (tmp_path / "torn").iterdir():
        empty(path)
    outcome, heard = run(trainer, torn, until=2)
    assert not heard.resumed
    same(heard.curve, whole[1].curve[:2])


def test_two_are_kept_and_one_that_the_disk_has(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SYNC_SECONDS", math.inf)
    kept = Checkpoints(tmp_path, "mine")
    for epoch in range(1, 6):
        kept.save(Checkpoint(epoch, {}, {}))
    assert left(tmp_path) == ["epoch-1.checkpoint", "epoch-4.checkpoint", "epoch-5.checkpoint"]  # 1 was waited for
    monkeypatch.setattr(checkpoint, "SYNC_SECONDS", 0)
    kept.save(Checkpoint(6, {}, {}))
    kept.save(Checkpoint(7, {}, {}))
    assert left(tmp_path) == ["epoch-6.checkpoint", "epoch-7.checkpoint"]


@pytest.mark.parametrize("change", ["params", "seed", "epochs", "batch_size", "part", "data"])
def test_a_checkpoint_of_another_job_is_none(setup, tmp_path, change):
    kept = Checkpoints(tmp_path, identity(setup, job(tmp_path)), lambda line: None)
    kept.save(Checkpoint(1, {}, {}))
    assert kept.newest() is not None
    other, given = setup, job(tmp_path)
    if change == "params":
        given = job(tmp_path, MOMENTUM)
    elif change == "seed":
        given = job(tmp_path, seed=8)
    elif change == "epochs":
        given = job(tmp_path, epochs=9)
    elif change == "part":
        given = job(tmp_path, part="all")
    elif change == "batch_size":
        other = Setup(sweep(batch_size=16), setup.data, LIMIT)
    else:
        other = Setup(setup.sweep, setup.data + "x", LIMIT)
    assert Checkpoints(tmp_path, identity(other, given), lambda line: None).newest() is None
    again = Job.from_json(json.loads(json.dumps({**job(tmp_path).to_json(), "token": "another"})))
    assert Checkpoints(tmp_path, identity(setup, again)).newest() is not None  # another attempt of the same job


def test_a_full_disk_leaves_the_one_before_and_is_the_environments_fault(trainer, tmp_path):
    torn = job(tmp_path / "torn")
    run(trainer, torn, until=2)
    before = {p: p.read_bytes() for p in (tmp_path / "torn").iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / "torn" / "epoch-2.checkpoint").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))  # the kernel refuses in the middle of the write
    try:
        outcome, heard = run(trainer, torn)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert outcome.state is State.FAILED and outcome.kind is Kind.ENVIRONMENT and "disk full" in outcome.reason
    assert len(heard.resumed[0]) == 2 and not heard.measured
    assert {p: p.read_bytes() for p in (tmp_path / "torn").iterdir()} == before


def test_discarding_takes_nothing_else(tmp_path):
    for name in ("epoch-1.checkpoint", "epoch-2.tmp", BEST, "epoch-x.checkpoint", "notes.tmp"):
        (tmp_path / name).write_bytes(b"")
    discard(tmp_path)
    assert left(tmp_path) == sorted([BEST, "epoch-x.checkpoint", "notes.tmp"])
    discard(tmp_path / "never was")
    Checkpoints(tmp_path / "only", "mine").save(Checkpoint(1, {}, {}))
    discard(tmp_path / "only")
    assert not os.path.lexists(tmp_path / "only")


def test_the_order_of_an_epoch_depends_on_no_other(tmp_path):
    rows, targets = np.arange(50, dtype="uint8").reshape(50, 1), np.arange(50)

    def order(batches, epoch):
        batches.begin(epoch)
        pairs = [batches[i] for i in range(len(batches))]
        assert all(x.dtype == np.float32 and np.array_equal(x[:, 0], y) for x, y in pairs)
        return [y.tolist() for _, y in pairs]

    straight = Batches(rows, None, targets, 16, 5)
    epochs = [order(straight, e) for e in range(4)]
    assert order(Batches(rows, None, targets, 16, 5), 3) == epochs[3]
    assert sorted(sum(epochs[0], [])) == list(range(50)) and [len(b) for b in epochs[0]] == [16, 16, 16, 2]
    assert len({str(e) for e in epochs}) == 4
    assert order(Batches(rows, None, targets, 16, 6), 3) != epochs[3]
    assert sum(order(Batches(rows, None, targets, 16, None), 3), []) == list(range(50))
    assert sum(order(Batches(rows, np.array([3, 1, 2]), np.array([3, 1, 2]), 2, 1), 0), []) != []


def test_a_trainer_that_may_not_resume_keeps_nothing(trainer, tmp_path):
    heard = Heard()
    trainer.train(job(tmp_path, epochs=2), heard.on_epoch)
    assert left(tmp_path) == [BEST]
