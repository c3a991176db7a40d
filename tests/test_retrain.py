"""The end of a sweep on the real digits: retrained, scored on the sealed part, exported, proved. Real processes."""

import csv
import json
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest

from imgclf_sweep import Fixed, SearchSpace, Sweep, datasets, figures
from imgclf_sweep.board import serve
from imgclf_sweep.child import environment
from imgclf_sweep.compare import remarks, rows
from imgclf_sweep.data.cache import prepare
from imgclf_sweep.errors import BadInput, SweepError
from imgclf_sweep.executors.in_process import InProcessExecutor
from imgclf_sweep.executors.protocol import Ended, Gone, Measured
from imgclf_sweep.pictures import Story
from imgclf_sweep.record.layout import SweepDir
from imgclf_sweep.record.write import Record
from imgclf_sweep.retrain import retrain
from imgclf_sweep.score import bootstrap, classes_of, confusion_csv, report, score, sureness, wilson
from imgclf_sweep.tracking.protocol import SweepInfo
from imgclf_sweep.tracking.tensorboard import TensorBoardTracker
from imgclf_sweep.training.protocol import Reply
from imgclf_sweep.trial import Kind, Measurement, Outcome, State, Suggestion

PARAMS = {"filters": 8, "dense_units": 32, "learning_rate": 0.01}
LIMIT = 400
PICTURES = ["curves", "confusion_matrix", "predictions", "summary", "classification_report"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return prepare(datasets.digits(), cache=cache, data_dir=None, test=0.2, seed=0, note=lambda line: None)


def finished_sweep(root, prepared, **changes):
    """A record with trial 0 COMPLETE (0.5), 1 COMPLETE (0.9, best epoch 3), 2 PRUNED (0.7, epoch 1), 3 FAILED, 4 QUEUED."""
    space = SearchSpace(**{name: Fixed(value) for name, value in PARAMS.items()})
    sweep = Sweep(**{"dataset": datasets.digits(), "space": space, "batch_size": 32, "epochs": 4, **changes})
    record = Record.open(SweepDir(root, "ends"), sweep, trials=5, limit_images=LIMIT, data=prepared)
    outcomes = [
        Outcome(State.COMPLETE, 0.5, 1, 2, 1.0),
        Outcome(State.COMPLETE, 0.9, 3, 4, 1.0),
        Outcome(State.PRUNED, 0.7, 1, 2, 1.0, reason="stopped by the pruner"),
        Outcome(State.FAILED, kind=Kind.ERROR, reason="RuntimeError: no"),
    ]
    for number in range(5):
        record.propose(Suggestion(number, dict(PARAMS), 4))
    for number, outcome in enumerate(outcomes):
        token = record.start(number, "w0", 1)
        record.measured(number, token, Measurement(1, {"val_accuracy": 0.5}, 0.1))
        record.finish(number, token, outcome)
    return record


@pytest.fixture(scope="module")
def ended(tmp_path_factory, prepared):
    """(directory, record, score, notes) of a sweep whose winner was retrained with two seeds."""
    notes = []
    with finished_sweep(tmp_path_factory.mktemp("root"), prepared) as record:
        tracker = TensorBoardTracker(record.directory.logs)
        tracker.opened(SweepInfo("ends", record.sweep, 5, record.trials()))
        tracker.closed("")
        result = retrain(record.directory, record, InProcessExecutor, prepared=prepared, seeds=2, note=notes.append)
        yield record.directory, record, result, notes


def test_the_winner_is_trained_for_its_best_epoch_and_scored(ended, prepared):
    directory, record, result, notes = ended
    assert result.images == prepared.test_images and len(result.accuracies) == 2
    assert result.accuracy == pytest.approx(np.mean(result.accuracies)) and result.accuracy > 0.5
    assert result.low < result.accuracy < result.high and result.over == "seeds and test images"
    assert "trial 1 on train+validation: 3 epochs, 2 seeds" in notes[0]
    assert [e.data["number"] for e in record.events("test_opened")] == [1]
    (retrained,) = record.events("retrained")
    assert retrained.data["score"]["accuracy"] == result.accuracy
    assert len(list((directory.path / "retrain").glob("*/best.weights.h5"))) == 2


def test_the_export_is_whole_and_its_manifest_true(ended, prepared):
    directory, _, result, _ = ended
    names = {p.name for p in directory.best.iterdir()}
    texts = {"labels.txt", "manifest.json", "score.json", "classification_report.txt", "confusion_matrix.csv"}
    models = {"model.keras", "architecture.json", "model.weights.h5"}
    assert names == {*models, *texts, "summary.txt", *(f"{name}.png" for name in PICTURES)}
    assert not [p for p in directory.path.iterdir() if p.name.startswith(".")]
    manifest = json.loads((directory.best / "manifest.json").read_text())
    assert manifest["trial"] == 1 and manifest["params"] == PARAMS and manifest["epochs"] == 3
    assert manifest["test_opened"] == 1 and manifest["reload_difference"] <= 1e-5
    assert manifest["images"]["size"] == [8, 8] and manifest["images"]["color"] == "gray"
    assert manifest["data"]["fingerprint"] == prepared.fingerprint and "keras" in manifest["versions"]
    assert (directory.best / "labels.txt").read_text().split() == [str(n) for n in range(10)]
    written = json.loads((directory.best / "score.json").read_text())
    assert written == manifest["score"] and written["accuracies"] == list(result.accuracies)
    with open(directory.best / "confusion_matrix.csv", newline="") as file:
        header, *rows = csv.reader(file)
    counts = np.array([[int(v) for v in row[1:]] for row in rows])
    assert header[1:] == [row[0] for row in rows] and counts.sum() == prepared.test_images
    assert np.trace(counts) / counts.sum() == pytest.approx(result.accuracies[0])  # seed 0's, not the best one's
    assert "macro avg" in (directory.best / "classification_report.txt").read_text()


def test_the_manifest_counts_parameters_and_seconds_and_lists_the_pictures(ended):
    directory, _, _, notes = ended
    manifest = json.loads((directory.best / "manifest.json").read_text())
    # conv 3x3 of 8 on 1 channel, pooled by 2 to 4x4 or 3x3, dense 32, 10 classes
    counts = {(3 * 3 + 1) * 8 + (side * side * 8 + 1) * 32 + (32 + 1) * 10 for side in (3, 4)}
    total = manifest["parameters"]["total"]
    assert total in counts and manifest["parameters"]["trainable"] == total
    assert len(manifest["seconds"]) == 2 and min(manifest["seconds"]) > 0
    assert manifest["epochs_kept"] == [manifest["epochs"]] * 2  # nothing was held out to choose another by
    assert manifest["pictures"] == [f"{name}.png" for name in PICTURES]
    assert not [line for line in notes if ".png" in line or "TensorBoard" in line]
    summary = (directory.best / "summary.txt").read_text()
    assert (
        "(Conv2D)" in summary
        and "Param #" in summary
        and f"{total:,} parameters: {total:,} trainable, 0 not" in summary
    )
    assert all(line[-1:] in "┓┃┩│┤┘" for line in summary.splitlines() if line[0] in "┏┃┡│├└")  # no column is cut off


def test_the_shown_images_are_those_of_the_test_part_in_its_one_opening(tmp_path, prepared, monkeypatch):
    told = []
    draw = Story.draw
    monkeypatch.setattr(Story, "draw", lambda self, note: told.append(self) or draw(self, note))
    with finished_sweep(tmp_path, prepared) as record:
        retrain(record.directory, record, InProcessExecutor, prepared=prepared, number=0, epochs=2, on="train")
        assert len(record.events("test_opened")) == 1
    (story,) = told
    x, y = (np.load(prepared.path / f"test_{part}.npy") for part in "xy")
    assert (story.images == x[story.shown.all]).all() and (story.labels == y).all()
    assert (story.predicted[story.shown.mistakes] != y[story.shown.mistakes]).all()
    assert (np.diff(story.sure[story.shown.mistakes]) <= 0).all() and story.sure.min() >= 0.1
    (training,) = story.trainings
    assert [e["epoch"] for e in training] == [1, 2] and {"loss", "val_loss", "val_accuracy"} <= set(training[0])
    assert story.search == [{"epoch": 1, "val_accuracy": 0.5}]
    assert story.best == max(training, key=lambda e: e["val_accuracy"])["epoch"]


def test_tensorboard_shows_the_pictures_and_no_trial_more(ended):
    directory, record, _, _ = ended
    with serve(directory.logs, 0, reload_interval=1, load_fast="false") as server:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def ask(path, body=None):
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(f"{server.url}data/plugin/{path}", data=body, headers=headers)
            with opener.open(request, timeout=60) as answer:
                return answer.read()

        deadline = time.monotonic() + 60
        while len(json.loads(ask("images/tags")).get("_best", {})) < 5 and time.monotonic() < deadline:
            time.sleep(0.2)
        tags = json.loads(ask("images/tags"))
        assert set(tags["_best"]) == set(PICTURES) and not [
            run for run in tags if run.startswith("ends-") and tags[run]
        ]
        for name in PICTURES:
            (image,) = json.loads(ask(f"images/images?run=_best&tag={name}&sample=0"))
            png = ask(f"images/individualImage?{image['query']}")
            assert png == (directory.best / f"{name}.png").read_bytes()
            assert image["step"] == 1  # the first opening of the test part
        body = json.dumps({"allowedStatuses": ["STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_UNKNOWN"], "sliceSize": 99})
        groups = json.loads(ask("hparams/session_groups", body.encode()))["sessionGroups"]
        finished = [t.number for t in record.trials() if t.state.finished]
        assert sorted(group["name"] for group in groups) == [f"ends-{number:04d}" for number in finished]


def test_a_stranger_s_plain_keras_gets_the_same_score_from_raw_images(ended, prepared, tmp_path):
    directory, _, result, _ = ended
    code = (
        "import sys, keras, numpy as np\n"
        "model = keras.models.load_model(sys.argv[1], safe_mode=True)\n"
        "x, y = np.load(sys.argv[2]), np.load(sys.argv[3])\n"
        "assert x.dtype == 'uint8' and 'imgclf_sweep' not in sys.modules\n"
        "assert all(type(layer).__module__.startswith('keras.') for layer in model.layers)\n"
        "print((model.predict(x, verbose=0).argmax(1) == y).mean())"
    )
    files = [directory.best / "model.keras", prepared.path / "test_x.npy", prepared.path / "test_y.npy"]
    env = environment() | {"PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, files)],
        capture_output=True,
        text=True,
        env=env,
        cwd=tmp_path,
        check=True,
    )
    assert float(done.stdout.split()[-1]) == pytest.approx(result.accuracies[0])


def test_another_trial_goes_beside_the_winner_and_counts_again(ended, prepared, monkeypatch):
    directory, record, _, _ = ended
    before = (directory.best / "manifest.json").read_bytes()
    marks, notes = [], []
    draw = figures.curves
    monkeypatch.setattr(figures, "curves", lambda groups, title, mark: marks.append(mark) or draw(groups, title, mark))
    options = {"number": 2, "on": "train", "epochs": 3, "note": notes.append}
    result = retrain(directory, record, InProcessExecutor, prepared=prepared, **options)
    manifest = json.loads((directory.retrained(2) / "manifest.json").read_text())
    assert manifest["trial"] == 2 and manifest["trained_on"] == "train" and manifest["epochs"] == 3
    told = {int(n.split()[3]): float(n.split("val_accuracy ")[1].split(",")[0]) for n in notes if "val_accuracy" in n}
    best = max(told, key=told.get)
    assert len(told) == 3 and best > 1  # the trial's own best epoch was the first
    assert manifest["epochs_kept"] == [best] and marks == [(best, f"best epoch by val_accuracy ({best})")]
    assert f"seed 0: epoch {best} of 3 was the best; its weights are kept" in notes
    assert manifest["test_opened"] == 2 and len(record.events("test_opened")) == 2
    assert result.over == "test images alone" and result.low < result.accuracy < result.high
    assert (directory.best / "manifest.json").read_bytes() == before
    winner, other = rows(directory)
    assert (winner.trial, other.trial) == (1, 2) and winner.parameters == other.parameters > 1000
    assert winner.score == json.loads(before)["score"]["accuracy"] and other.score == result.accuracy
    assert (winner.validation, other.validation) == (0.9, 0.7) and winner.seeds == 2 and other.seeds == 1
    assert winner.seconds == json.loads(before)["seconds"][0]
    assert {p.name for p in directory.logs.iterdir() if p.name.startswith("_")} == {
        "_sweep",
        "_best",
        "_retrained-0002",
    }
    assert not list(remarks([directory], [winner, other]))


class Scripted:
    """An executor whose jobs end as told, without training: one `Ended` or `Gone` outcome a started job, in order."""

    slots = ("w0", "w1")

    def __init__(self, endings):
        self.endings, self.events, self.started, self.replies, self.closed = list(endings), [], [], [], False

    def __call__(self, setup):
        return self

    def start(self, slot, job):
        self.started.append(job)
        ending = self.endings.pop(0)
        self.events.append(Measured(slot, job.token, Measurement(1, {"loss": 1.0}, 0.1)))
        if isinstance(ending, Outcome):
            self.events.append(Ended(slot, job.token, ending))
        else:
            self.events.append(Gone(slot, job.token, ending, "the worker was killed by SIGKILL"))

    def wait(self, timeout):
        events, self.events = self.events, []
        return events

    def reply(self, slot, token, reply):
        self.replies.append(reply)

    def close(self):
        self.closed = True


def test_a_failing_seed_ends_it_in_one_line_and_the_test_part_stays_sealed(tmp_path, prepared):
    with finished_sweep(tmp_path, prepared) as record:
        diverged = Outcome(State.FAILED, kind=Kind.DIVERGED, reason="loss is nan in epoch 2")
        executor = Scripted([Outcome(State.COMPLETE, 0.9, 3, 3), diverged])
        with pytest.raises(SweepError, match="seed 1 failed: diverged: loss is nan in epoch 2"):
            retrain(record.directory, record, executor, prepared=prepared, seeds=2)
        assert executor.closed and set(executor.replies) == {Reply.GO}
        assert not record.events("test_opened") and not record.directory.best.exists()


def test_a_lost_worker_is_replaced_a_bounded_number_of_times(tmp_path, prepared):
    with finished_sweep(tmp_path, prepared) as record:
        executor = Scripted([Kind.LOST] * 3)
        with pytest.raises(SweepError, match="SIGKILL"):
            retrain(record.directory, record, executor, prepared=prepared)
        seeds = {job.seed for job in executor.started}
        assert len(executor.started) == len({job.token for job in executor.started}) == 3 and len(seeds) == 1
        assert executor.started[0].suggestion == Suggestion(1, PARAMS, 3) and executor.started[0].part == "all"


def test_weights_that_are_gone_are_noticed_before_the_test_part_is_opened(tmp_path, prepared):
    with finished_sweep(tmp_path, prepared) as record:
        executor = Scripted([Outcome(State.COMPLETE, 0.9, 3, 3)])
        with pytest.raises(SweepError, match="cannot be finished"):
            retrain(record.directory, record, executor, prepared=prepared)
        assert not record.events("test_opened") and not record.directory.best.exists()
        assert [p.name for p in (record.directory.path / "retrain").iterdir()] == ["finish.log"]


def test_what_cannot_be_retrained_is_refused_before_anything_is_made(tmp_path, prepared):
    with finished_sweep(tmp_path, prepared) as record:
        before = sorted(record.directory.path.rglob("*"))

        def refused(match, **asked):
            with pytest.raises(BadInput, match=match):
                retrain(record.directory, record, Scripted([]), **{"prepared": prepared, **asked})

        refused("trial 3 is FAILED; trials that can be retrained: 0, 1, 2", number=3)
        refused("trial 4 is QUEUED", number=4)
        refused("there is no trial 9", number=9)
        refused("seeds must be at least 1", seeds=0)
        refused("epochs must be at least 1", epochs=0)
        refused("on must be", on="test")
        other = prepare(
            datasets.digits(), cache=tmp_path / "c", data_dir=None, test=0.3, seed=0, note=lambda line: None
        )
        refused("has changed", prepared=other)
        assert sorted(record.directory.path.rglob("*")) == before


def test_without_a_complete_trial_there_is_no_winner(tmp_path, prepared):
    sweep = Sweep(dataset=datasets.digits())
    record = Record.open(SweepDir(tmp_path, "new"), sweep, trials=5, limit_images=None, data=prepared)
    with record, pytest.raises(BadInput, match="no trial"):
        retrain(record.directory, record, Scripted([]), prepared=prepared)


def test_the_interval_over_images_alone_is_wilson_s():
    low, high = wilson(95, 100)  # Wilson (1927), by hand: (0.95 + z2/200 -+ z sqrt(...)) / (1 + z2/100)
    assert (low, high) == (pytest.approx(0.8882, abs=1e-4), pytest.approx(0.9785, abs=1e-4))
    assert wilson(20, 20)[1] == 1.0 and wilson(20, 20)[0] < 0.9 and wilson(0, 20)[0] == 0.0
    single = score(np.arange(4), [np.array([0, 1, 2, 0])], 0)
    assert (single.accuracy, single.over, single.method) == (0.75, "test images alone", "Wilson")


def test_the_bootstrap_takes_both_seeds_and_images_for_chance():
    rng = np.random.default_rng(0)
    images = rng.random((1, 4000)) < 0.8
    same = np.repeat(images, 5, axis=0).astype(float)
    low, high = bootstrap(same, 0)
    spread = 1.96 * np.sqrt(0.8 * 0.2 / 4000)  # equal models: images alone
    assert high - low == pytest.approx(2 * spread, rel=0.15)
    apart = (rng.random((5, 4000)) < np.array([0.6, 0.7, 0.8, 0.9, 1.0])[:, None]).astype(float)
    wide = bootstrap(apart, 0)
    assert wide[1] - wide[0] == pytest.approx(2 * 1.96 * np.std([0.6, 0.7, 0.8, 0.9, 1.0]) / np.sqrt(5), rel=0.2)
    assert bootstrap(apart, 0) == wide != bootstrap(apart, 1)


def test_a_single_output_stands_for_two_classes():
    assert classes_of(np.array([[0.2], [0.7]])).tolist() == [0, 1]
    assert classes_of(np.array([[0.2, 0.8], [0.7, 0.3]])).tolist() == [1, 0]
    assert sureness(np.array([[0.25], [0.75]])).tolist() == [0.75, 0.75]
    assert sureness(np.array([[0.2, 0.8], [0.7, 0.3]])).tolist() == [0.8, 0.7]


def test_report_and_matrix_name_every_class_also_one_never_seen():
    names = ["cat", "dog, wet", "(output 2)"]
    assert "dog, wet" in report(np.array([0, 1]), np.array([0, 0]), names)
    rows = list(csv.reader(confusion_csv(np.array([0, 1]), np.array([0, 0]), names).splitlines()))
    assert rows[0][1:] == names and rows[2] == ["dog, wet", "1", "0", "0"]


def test_nothing_here_imports_a_tensor_library():
    code = (
        "import sys, imgclf_sweep.retrain, imgclf_sweep.predict\n"
        "print(sorted({'keras', 'tensorflow', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.strip() == "[]"
