"""Faults of the disk and what lies on it, done to running sweeps: no room for a checkpoint, images that go, exports cut short.

Each name holds the number of its case in the table of docs/reliability.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from fault_hooks import hooked, workers_of
from fault_tools import (
    FOLDER,
    SYNTHETIC,
    contents,
    finished,
    make_pictures,
    record,
    running,
    sweep_dir,
    told,
    wait_until,
)

from imgclf_sweep.training.weights import NAMES, best_weights
from imgclf_sweep.trial import State

PLAIN = (*SYNTHETIC, "--pruner", "none", "--workers", 1)
REAL = ("--trainer", "fit", "--pruner", "none", "--workers", 1, "--limit-images", 300)


@pytest.fixture
def small_disk():
    """Mounts a disk of so many bytes at a new directory, or gives the one there another size; unmounts it at the end."""
    mounted: list[Path] = []

    def mount(place: Path, size: int) -> None:
        if place in mounted:
            subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True)
            return
        place.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("this user or machine may not mount")
        mounted.append(place)

    yield mount
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)


def weights(cli) -> set[int]:
    """The trials whose best weights are there."""
    return {int(place.name) for place in (sweep_dir(cli) / "checkpoints").glob("[0-9]*") if best_weights(place)}


@pytest.mark.fault_slow
def test_case_19_a_disk_that_runs_low_pauses_the_sweep_before_a_write_fails(cli, digits_file, small_disk):
    command = ("run", digits_file, *PLAIN, "--trials", 40)
    place = sweep_dir(cli)
    small_disk(place, 206_000_000)  # 200 MB stay free: the sweep may fill 6 MB
    paused = cli(*command, "--keep", "all", synthetic={"weights": 300_000}, code=4)
    assert f"paused: too little room on the disk of {place}" in paused.stderr and "MB needed" in paused.stderr
    trials = record(cli).trials()
    states = [t.state for t in trials]
    assert 3 < states.count(State.COMPLETE) < 30 and set(states) <= {State.COMPLETE, State.QUEUED}
    assert weights(cli) == {t.number for t in trials if t.state is State.COMPLETE}
    assert shutil.disk_usage(place).free > 199_000_000
    endings = {a.ending for t in trials for a in record(cli).attempts(t.number)}
    assert endings <= {"COMPLETE", "preempted"}
    cli(*command, "--keep", 3, synthetic={"weights": 300_000})  # it makes the room itself
    assert [t.state for t in record(cli).trials()] == [State.COMPLETE] * 40 and len(weights(cli)) == 3


def test_case_20_a_checkpoint_for_which_there_is_no_room_pauses_and_the_one_before_is_intact(
    cli, digits_file, small_disk
):
    begin = ("run", digits_file, *PLAIN, "--epochs", 6, "--trials")
    command, place = (*begin, 7), sweep_dir(cli) / "checkpoints"
    cli(*command, "--name", "whole")
    cli(*begin, 1)
    small_disk(place, 2_000_000)  # for 6 of 0.3 MB: the weights of a few finished trials and checkpoints of the next
    full = cli(*command, synthetic={"weights": 300_000}, code=4)
    number, epoch = map(int, re.search(r"paused: disk full at \S+/(\d+)/epoch-(\d+)\.tmp ", full.stderr).groups())
    trials = record(cli).trials()
    assert [t.state for t in trials[: number + 1]] == [State.COMPLETE] * number + [State.QUEUED] and number > 2
    assert [a.ending for a in record(cli).attempts(number)] == ["environment"]
    left = os.listdir(place / str(number))
    assert f"epoch-{epoch - 1}.checkpoint" in left and {name.partition(".")[2] for name in left} == {"checkpoint"}
    small_disk(place, 20_000_000)
    out = cli(*command, synthetic={"weights": 300_000}).stdout
    assert f"goes on after epoch {epoch - 1} of 6" in out
    assert told(record(cli).trials()) == told(record(cli, "whole").trials())
    assert len(weights(cli)) == 5


def fill(place: Path) -> None:
    """Somebody else writes until nothing fits any more."""
    with contextlib.suppress(OSError), open(place / "ballast", "ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.slow
@pytest.mark.fault_slow
def test_case_20_real_training_goes_on_from_the_checkpoint_before_the_disk_was_full(cli, digits_file, small_disk):
    begin = ("run", digits_file, *REAL, "--epochs", 60, "--trials")
    command, place = (*begin, 2), sweep_dir(cli) / "checkpoints"
    cli(*command, "--name", "whole")
    cli(*begin, 1)
    small_disk(place, 50_000_000)
    with running(cli, *command) as process:
        wait_until(lambda: record(cli).trials()[-1].number == 1 and record(cli).trials()[-1].epochs >= 2, 300)
        while process.poll() is None:
            fill(place)
        _, err = process.communicate()
        assert process.returncode == 4 and "paused: disk full" in err and "Traceback" not in err, err
    stopped = record(cli).trial(1)
    assert stopped.state is State.QUEUED and 2 <= len(stopped.curve) < 60
    assert record(cli).attempts(1)[-1].ending == "environment"
    assert [name for name in os.listdir(place / "1") if name.endswith(".tmp")] == []
    (place / "ballast").unlink()
    cli(*command)
    (resumed,) = record(cli).events("resumed")
    assert resumed.data["number"] == 1 and resumed.data["epoch"] >= len(stopped.curve) - 1
    for number in (0, 1):
        one, other = record(cli).trial(number), record(cli, "whole").trial(number)
        assert one.curve == pytest.approx(other.curve, rel=1e-6) and one.state is State.COMPLETE


@pytest.mark.slow
@pytest.mark.fault_slow
@pytest.mark.parametrize("trainer", ["fit", "compiled"])
def test_case_20_no_room_for_the_best_weights_pauses_and_none_are_torn(cli, digits_file, small_disk, trainer):
    begin = (
        "run",
        digits_file,
        "--trainer",
        trainer,
        *REAL[2:],
        "--epochs",
        1,
        "--trials",
    )  # one epoch: no checkpoint, only weights
    command, place = (*begin, 3), sweep_dir(cli) / "checkpoints"
    cli(*begin, 1)
    small_disk(place, 50_000_000)
    with running(cli, *command) as process:
        while process.poll() is None:
            fill(place)
        _, err = process.communicate()
        assert process.returncode == 4 and "paused: disk full" in err and "Traceback" not in err, err
    assert [t.state for t in record(cli).trials()] == [State.COMPLETE, State.QUEUED, State.QUEUED]
    assert [a.ending for a in record(cli).attempts(1)] == ["environment"] and weights(cli) == set()
    (place / "ballast").unlink()
    cli(*command)
    assert [t.state for t in record(cli).trials()] == [State.COMPLETE] * 3 and weights(cli) == {1, 2}
    assert {name for folder in place.iterdir() for name in os.listdir(folder)} <= set(NAMES)


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Two classes of twelve images, and beside them `folder.py`, a sweep on them."""
    (tmp_path / "folder.py").write_text(FOLDER.replace("epochs=2, trials=2", "epochs=30, trials=3"))
    return make_pictures(tmp_path / "pictures", each=12)


@pytest.mark.parametrize("fault", ["gone", pytest.param("changed", marks=pytest.mark.fault_slow)])
def test_case_42_a_running_sweep_keeps_to_the_images_it_has_decoded(cli, pictures, fault):
    """They were read once, before it began: what becomes of the files is noticed when it is continued."""
    file, changed = pictures.parent / "folder.py", pictures / "cat" / "0.png"
    before = changed.read_bytes(), changed.stat()
    with running(cli, "run", file, *PLAIN, synthetic={"delay": 0.05}) as process:
        wait_until(lambda: finished(cli, "folder") >= 1, 120)
        if fault == "gone":
            pictures.rename(pictures.with_name("away"))
        else:
            changed.write_bytes((pictures / "dög" / "0.png").read_bytes())
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, out + err
    trials = record(cli, "folder").trials()
    assert [t.state for t in trials] == [State.COMPLETE] * 3
    refused = cli("run", file, *PLAIN, "--trials", 5, code=2).stderr
    assert ("does not exist" if fault == "gone" else "the images changed") in refused
    assert record(cli, "folder").trials() == trials
    if fault == "gone":
        pictures.with_name("away").rename(pictures)
    else:
        changed.write_bytes(before[0])
    cli("run", file, *PLAIN, "--trials", 5)
    assert [t.state for t in record(cli, "folder").trials()] == [State.COMPLETE] * 5


@pytest.mark.slow
@pytest.mark.fault_slow
@pytest.mark.parametrize("fault", ["gone", "cut"])
def test_case_42_decoded_images_that_vanish_under_a_sweep_pause_it_and_fail_nothing(cli, pictures, fault):
    """A worker that is replaced finds no images. The same command decodes them again and goes on."""
    command = ("run", pictures.parent / "folder.py", *REAL[:-2])
    cli(*command, "--name", "whole")
    cache = Path(record(cli, "whole").info.data)
    with running(cli, *command) as process:
        wait_until(lambda: finished(cli, "folder") >= 1, 300)
        if fault == "gone":
            shutil.rmtree(cache)
        else:
            os.truncate(cache / "train_x.npy", 100)
            os.truncate(cache / "meta.json", 10)
        for worker in workers_of(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, 9)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 4 and "Traceback" not in err, out + err
        assert "the decoded data set" in err and "is missing or damaged" in err and "the same `sweep run`" in err
    trials = record(cli, "folder").trials()
    assert trials[0].state is State.COMPLETE and State.FAILED not in {t.state for t in trials}
    cli(*command)
    after = record(cli, "folder").trials()
    assert [t.state for t in after] == [State.COMPLETE] * 3 and after[0] == trials[0]
    for one, other in zip(after, record(cli, "whole").trials(), strict=True):
        assert one.params == other.params and one.curve == pytest.approx(other.curve, rel=1e-6)


CUT = """
import threading
from imgclf_sweep import run
from imgclf_sweep.backends import exports

run.EXPORT_SECONDS = run.EXPORT_SHARE = 0  # it exports all the time
write, timers = exports.write_exports, []

def cut_short(*arguments):
    if not timers and sum(trial.state.finished for trial in arguments[2]) >= {finished}:
        timers.append(threading.Timer({seconds}, die))
        timers[0].start()
    write(*arguments)

exports.write_exports = cut_short
"""
POINTS = {
    "half a study": "from imgclf_sweep.backends import optuna_export as x\n"
    "x._settle = lambda new, path: (os.truncate(new, 8192), die())\n",
    "a study not in its place": "from imgclf_sweep.backends import optuna_export as x\nx._settle = lambda *a: die()\n",
    "half a project": "from imgclf_sweep.backends import keras_tuner_export as x\nx._copy_weights = lambda *a: die()\n",
    "a project not in its place": "from imgclf_sweep.backends import keras_tuner_export as x\nx._exchange = lambda *a: die()\n",
    "the old project not removed": "from imgclf_sweep.backends import keras_tuner_export as x\n"
    "exchange = x._exchange\nx._exchange = lambda *a: (exchange(*a), die())\n",
}
TUNER = ("--backend", "keras-tuner", "--sampler", "random")


def opened_by_optuna(cli) -> int:
    """The number of trials of the exported study, as plain Optuna reads it; finished ones must be the record's."""
    import optuna

    place = sweep_dir(cli)
    study = optuna.load_study(study_name="little", storage=f"sqlite:///{place / 'optuna.db'}")
    ours = {t.number: t.value for t in record(cli).trials()}
    done = [t for t in study.trials if t.state.name == "COMPLETE"]
    assert done and all(t.value == ours[t.number] for t in done)
    assert study.best_value == max(t.value for t in done)
    return len(study.trials)


def opened_by_keras_tuner(cli) -> int:
    """The same of the exported project, as a plain Tuner reloads it."""
    import keras_tuner

    objective = keras_tuner.Objective("val_accuracy", "max")
    tuner = keras_tuner.RandomSearch(
        lambda hp: None, objective, 99, directory=sweep_dir(cli), project_name="keras_tuner", overwrite=False
    )
    ours = {t.number: t.value for t in record(cli).trials()}
    done = [t for t in tuner.oracle.trials.values() if t.status == "COMPLETED"]
    assert done and all(t.score == ours[int(t.trial_id)] for t in done)
    assert tuner.oracle.get_best_trials(1)[0].score == max(t.score for t in done)
    return len(tuner.oracle.trials)


def hidden(cli) -> list[str]:
    return [name for name in os.listdir(sweep_dir(cli)) if name.startswith(".")]


def test_case_52_killed_while_it_exports_the_study_is_the_old_or_the_new_one(cli, digits_file):
    command = ("run", digits_file, *PLAIN, "--trials", 12)
    rng = random.Random(52)
    for number in (2, 5, 8):
        cut = CUT.format(finished=number, seconds=rng.random() / 5)
        killed = hooked(cli, cut, *command, synthetic={"delay": 0.02})
        assert killed.returncode == -9, killed.stderr
        assert number <= opened_by_optuna(cli) <= len(record(cli).trials())
    cli(*command)
    assert opened_by_optuna(cli) == 12 and not hidden(cli)


@pytest.mark.slow
@pytest.mark.fault_slow
@pytest.mark.parametrize("point", POINTS)
def test_case_52_killed_at_the_worst_moments_of_an_export_both_libraries_open_what_is_there(cli, digits_file, point):
    command = ("run", digits_file, *PLAIN, *TUNER, "--trials")
    size = {"weights": 5000}
    cli(*command, 4, synthetic=size)
    before = contents(sweep_dir(cli) / "keras_tuner")
    killed = hooked(cli, POINTS[point], *command, 6, synthetic=size)
    assert killed.returncode == -9, killed.stderr
    assert opened_by_optuna(cli) == (4 if "study" in point else 6)
    assert opened_by_keras_tuner(cli) == (6 if point == "the old project not removed" else 4)
    if point != "the old project not removed":
        assert contents(sweep_dir(cli) / "keras_tuner") == before
    assert "already has 6 of 6" in cli(*command, 6).stdout  # which writes what is missing
    assert opened_by_optuna(cli) == opened_by_keras_tuner(cli) == 6 and not hidden(cli)
    entries = (sweep_dir(cli) / "keras_tuner").glob("trial_*/trial.json")
    assert {json.loads(path.read_text())["status"] for path in entries} == {"COMPLETED"}
