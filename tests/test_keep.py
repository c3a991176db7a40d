"""What stays on a sweep's disk: the best trials' weights, those that a trial starts from, and room for what comes."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time

import click
import pytest
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from imgclf_sweep import Objective, keep
from imgclf_sweep.cli.options import CountOrAll
from imgclf_sweep.keep import Keep
from imgclf_sweep.record.layout import SweepDir
from imgclf_sweep.record.read import Reader
from imgclf_sweep.training.weights import BEST, NAMES, drop_weights
from imgclf_sweep.trial import Outcome, State, Suggestion, Trial

SYNTHETIC = ("--trainer", "synthetic", "--pruner", "none")
HYPERBAND = ("--trainer", "synthetic", "--backend", "keras-tuner", "--sampler", "hyperband")
MAX = Objective("val_accuracy", "max")


@pytest.fixture
def directory(tmp_path) -> SweepDir:
    return SweepDir(tmp_path, "s")


def put(directory: SweepDir, number: int, *names: str, size: int = 10) -> None:
    place = directory.checkpoint(number)
    place.mkdir(parents=True, exist_ok=True)
    for name in names or (BEST,):
        (place / name).write_bytes(b"x" * size)


def there(directory: SweepDir) -> set[int]:
    """The trials whose weights are there."""
    return {int(path.parent.name) for path in directory.checkpoints.glob(f"*/{BEST}")}


def trial(number: int, value: float | None, state: State = State.COMPLETE) -> Trial:
    return Trial(number, state, {}, 3, value=value)


def a_history(directory: SweepDir, *values: float | None) -> list[Trial]:
    """Finished trials with their weights; FAILED where there is no value."""
    history = [trial(n, v, State.FAILED if v is None else State.COMPLETE) for n, v in enumerate(values)]
    for one in history:
        put(directory, one.number)
    return history


def kept(directory, history, count, objective=MAX, needed=frozenset(), open_trials=()) -> set[int]:
    Keep(directory, objective, history, count, lambda: set(needed)).settle(open_trials)
    return there(directory)


def test_the_best_stay_and_the_first_among_equals(directory):
    history = a_history(directory, 0.1, 0.7, 0.5, None, 0.7, 0.5, 0.2)
    assert kept(directory, history, "all") == set(range(7))
    assert kept(directory, history, 4) == {1, 2, 4, 5}
    assert kept(directory, history, 3) == {1, 2, 4}
    assert kept(directory, history, 1) == {1}
    assert not directory.checkpoint(0).exists()


def test_the_lowest_are_the_best_where_the_objective_is_to_fall(directory):
    history = a_history(directory, 0.1, 0.7, 0.5, 0.05)
    assert kept(directory, history, 2, Objective("val_loss", "min")) == {0, 3}


def test_the_winner_is_a_complete_trial_however_good_a_pruned_one_is(directory):
    history = a_history(directory, 0.1, 0.7, 0.5)
    history[1] = trial(1, 0.7, State.PRUNED)
    assert kept(directory, history, 2) == {0, 2}
    put(directory, 1)
    assert kept(directory, history, 5) == {0, 1, 2}


def test_what_the_search_or_an_open_trial_may_start_from_stays(directory):
    history = a_history(directory, 0.1, 0.7, 0.5, 0.2, 0.3)
    child = Suggestion(5, {}, 3, 1, parent=0)
    assert kept(directory, history, 1, needed={3, 9}, open_trials=[child]) == {0, 1, 3}
    assert kept(directory, history, 1) == {1}


def test_the_search_is_asked_only_before_something_goes(directory):
    history = a_history(directory, 0.1, 0.7)
    disk = Keep(directory, MAX, history, 2, lambda: pytest.fail("asked"))
    disk.settle([])
    assert there(directory) == {0, 1}


def test_as_trials_end_the_losers_go_and_their_checkpoints_with_them(directory):
    disk = Keep(directory, MAX, [], 2, set)
    for number, value in enumerate((0.3, 0.1, 0.2, 0.4)):
        put(directory, number, "epoch-2.checkpoint", "epoch-3.checkpoint", BEST)
        disk.ended(number, Outcome(State.COMPLETE, value, 1, 3))
        disk.settle([])
    assert there(directory) == {0, 3}
    assert sorted(os.listdir(directory.checkpoints)) == ["0", "3"]
    assert os.listdir(directory.checkpoint(3)) == [BEST]


def test_what_a_kill_left_is_removed_at_the_next_start_and_nothing_of_others(directory):
    history = a_history(directory, 0.1, 0.7, 0.5)
    put(directory, 1, f".123.{BEST}", "epoch-3.checkpoint", "epoch-4.tmp")
    put(directory, 3, BEST, "epoch-1.checkpoint", f".124.{BEST}")  # still open: it was writing when it was killed
    put(directory, 7, BEST)  # no trial of the record
    put(directory, 0, "notes.txt")
    (directory.checkpoints / "mine").mkdir()
    history.append(trial(3, None, State.QUEUED))
    for _ in range(2):
        assert kept(directory, history, 1, open_trials=[history[3].suggestion]) == {1, 3, 7}
        assert os.listdir(directory.checkpoint(1)) == [BEST]
        assert len(os.listdir(directory.checkpoint(3))) == 3
        assert os.listdir(directory.checkpoint(0)) == ["notes.txt"] and (directory.checkpoints / "mine").is_dir()


def test_a_disk_that_fills_up_is_told_of_in_one_line_and_cleared_first(directory, monkeypatch):
    history = a_history(directory, 0.1, 0.7, 0.5)
    running = [Suggestion(3, {}, 3), Suggestion(4, {}, 3, 1, parent=0)]
    disk = Keep(directory, MAX, history, 1, set)
    put(directory, 3, "epoch-1.checkpoint", size=50_000_000)
    monkeypatch.setattr(keep, "free", lambda path: 600_000_000)
    assert disk.lacking(running, []) is None and there(directory) == {0, 1, 2}
    monkeypatch.setattr(keep, "free", lambda path: 599_999_999 if 2 in there(directory) else 600_000_000)
    assert disk.lacking(running, []) is None and there(directory) == {0, 1}  # a running trial starts from 0
    monkeypatch.setattr(keep, "free", lambda path: 599_000_000)
    line = disk.lacking(running, [])
    assert "599.0 MB free, 600.0 MB needed" in line and "4 checkpoints of 50.0 MB for each of 2 trials" in line
    assert str(directory.path) in line and "\n" not in line
    assert disk.lacking(running[:1], []) is None


def record(cli, name="little"):
    return Reader(SweepDir(cli.root, name))


def best_numbers(cli, count, name="little"):
    trials = [t for t in record(cli, name).trials() if t.state is State.COMPLETE]
    return {t.number for t in sorted(trials, key=lambda t: (-t.value, t.number))[:count]}


def in_place(cli, name="little"):
    """Every trial's directory there is, and what is in it."""
    places = SweepDir(cli.root, name).checkpoints
    return {int(place.name): sorted(os.listdir(place)) for place in places.iterdir()}


def test_a_sweep_ends_with_exactly_the_best_trials_weights(cli, digits_file):
    command = ("run", digits_file, *SYNTHETIC, "--trials", 12, "--workers", 2)
    wrong = cli(*command, "--keep", 0, code=2)
    assert (
        "--keep" in wrong.stderr
        and "'0' is neither a number of trials from 1 nor 'all'" in wrong.stderr
        and not cli.root.exists()
    )
    for given in ("-1", "2.5", "some", "", "1" * 12, "³"):
        with pytest.raises(click.BadParameter):
            CountOrAll().convert(given, None, None)
    cli(*command, synthetic={"weights": 1000})
    assert in_place(cli) == {number: [BEST] for number in best_numbers(cli, 5)}
    more = ("run", digits_file, *SYNTHETIC, "--trials", 20, "--workers", 2)
    cli(*more, "--keep", "all", synthetic={"weights": 1000})
    assert set(in_place(cli)) == best_numbers_of(cli, range(12), 5) | set(range(12, 20))
    cli(*more)  # as was said last
    assert len(in_place(cli)) == 13
    assert "already has 20" in cli(*more, "--keep", 3).stdout
    assert set(in_place(cli)) == best_numbers(cli, 3)
    cli("run", digits_file, *SYNTHETIC, "--trials", 24, synthetic={"weights": 1000})
    assert len(in_place(cli)) <= 3 and set(in_place(cli)) <= best_numbers(cli, 3)


def test_no_graph_and_no_histogram_is_written(cli, digits_file):
    cli("run", digits_file, *SYNTHETIC, "--trials", 2, "--workers", 1)
    plugins, files = set(), list(SweepDir(cli.root, "little").logs.rglob("*tfevents*"))
    for file in files:
        for event in LegacyEventFileLoader(str(file)).Load():
            assert not event.graph_def and not event.meta_graph_def and not event.HasField("tagged_run_metadata")
            assert all(value.WhichOneof("value") == "tensor" for value in event.summary.value)
            plugins |= {value.metadata.plugin_data.plugin_name for value in event.summary.value}
    assert len(files) > 2 and plugins - {""} == {"hparams", "scalars"}


def best_numbers_of(cli, numbers, count):
    trials = [t for t in record(cli).trials() if t.number in numbers]
    return {t.number for t in sorted(trials, key=lambda t: (-t.value, t.number))[:count]}


def killed(cli, command, synthetic, rng, times=4):
    """Run the command, killed with all its workers at random moments, then to its end."""
    kills = 0
    for _ in range(times):
        process = cli.start(*command, synthetic=synthetic)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=2 + 3 * rng.random())
        kills += process.poll() is None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    cli(*command, synthetic=synthetic)
    assert kills


def test_killed_at_any_moment_it_ends_with_the_same_weights(cli, digits_file):
    command = ("run", digits_file, *SYNTHETIC, "--trials", 14, "--workers", 1, "--keep", 3)
    synthetic = {"weights": 1000, "delay": 0.06}
    killed(cli, command, synthetic, random.Random(5))
    assert [t.state for t in record(cli).trials()] == [State.COMPLETE] * 14
    assert in_place(cli) == {number: [BEST] for number in best_numbers(cli, 3)}


def test_every_promoted_trial_finds_the_weights_it_starts_from(cli, digits_file):
    command = ("run", digits_file, *HYPERBAND, "--epochs", 4, "--trials", 200, "--keep", 1, "--workers", 3)
    process = cli.start(*command, synthetic={"weights": 1000, "delay": 0.03})
    most = 0
    while process.poll() is None:
        time.sleep(0.05)
        with contextlib.suppress(FileNotFoundError):
            most = max(most, len(list(SweepDir(cli.root, "little").checkpoints.glob(f"*/{BEST}"))))
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    trials = record(cli).trials()
    assert {t.state for t in trials} == {State.COMPLETE} and any(t.parent is not None for t in trials)
    assert 1 < most < len(trials)
    assert in_place(cli) == {number: [BEST] for number in best_numbers(cli, 1)}


@pytest.mark.long
def test_a_killed_hyperband_loses_no_weights_that_it_needs(cli, digits_file):
    command = ("run", digits_file, *HYPERBAND, "--epochs", 9, "--trials", 200, "--keep", 1, "--workers", 2)
    synthetic = {"weights": 1000, "delay": 0.1}
    cut = ("run", digits_file, *HYPERBAND, "--epochs", 9, "--trials", 8, "--keep", 1, "--workers", 2)
    cli(*cut, synthetic=synthetic)
    cli(*cut)  # nothing is removed that more trials would start from
    killed(cli, command, synthetic, random.Random(7))
    trials = record(cli).trials()
    assert {t.state for t in trials} == {State.COMPLETE} and sum(t.parent is not None for t in trials) > 3
    assert in_place(cli) == {number: [BEST] for number in best_numbers(cli, 1)}


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["fit", "compiled"])
def test_real_trials_start_from_real_weights_and_two_are_left(cli, digits_file, trainer):
    command = (
        "run",
        digits_file,
        *HYPERBAND[2:],
        "--trainer",
        trainer,
        "--epochs",
        3,
        "--trials",
        50,
        "--keep",
        2,
        "--limit-images",
        200,
    )
    cli(*command, "--workers", 1)
    trials = record(cli).trials()
    assert {t.state for t in trials} == {State.COMPLETE} and any(t.parent is not None for t in trials)
    assert set(in_place(cli)) == best_numbers(cli, 2)
    assert all(len(names) == 1 and names[0] in NAMES for names in in_place(cli).values())


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["fit", "compiled"])
def test_weights_that_somebody_removed_are_said_to_be_gone(cli, digits_file, trainer):
    command = (
        "run",
        digits_file,
        *HYPERBAND[2:],
        "--trainer",
        trainer,
        "--epochs",
        3,
        "--limit-images",
        200,
        "--workers",
        1,
        "--trials",
    )
    cli(*command, 3)  # the first rung: the next trial is a promoted one
    for place in SweepDir(cli.root, "little").checkpoints.iterdir():
        drop_weights(place)
    cli(*command, 50, code=None)
    failed = [t for t in record(cli).trials() if t.state is State.FAILED]
    assert failed and all("the weights to start from are gone: " in t.reason and t.parent is not None for t in failed)
