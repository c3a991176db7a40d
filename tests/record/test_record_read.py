"""Readers beside a writer and after it: one moment at a time, no traces, thousands of trials."""

from __future__ import annotations

import dataclasses
import os
import threading

import pytest

from imgclf_sweep import Choice, SearchSpace, Sweep
from imgclf_sweep.errors import StoreError
from imgclf_sweep.record.layout import SweepDir
from imgclf_sweep.record.read import Reader
from imgclf_sweep.trial import Measurement, Outcome, State, Suggestion


def test_a_finished_record_is_read_without_a_trace(directory: SweepDir, opened) -> None:
    with opened() as record:
        record.propose(Suggestion(0, {"filters": (16, 32)}, 5))
    before = {p.name: (p.stat().st_mtime_ns, p.stat().st_size) for p in directory.path.iterdir()}
    with Reader(directory) as reader:
        assert reader.trials()[0].params == {"filters": (16, 32)} and reader.best() is None
        assert reader.info.trials == 4 and reader.holder() is None and reader.metrics(0) == []
    assert {p.name: (p.stat().st_mtime_ns, p.stat().st_size) for p in directory.path.iterdir()} == before


def test_a_reader_sees_commits_as_they_come_across_writers(directory: SweepDir, opened) -> None:
    opened().close()
    reader = Reader(directory)
    for number in range(3):
        with opened() as record:
            record.propose(Suggestion(number, {}, 5))
            assert len(reader.trials()) == number + 1 and reader.holder().pid == os.getpid()
        assert len(reader.trials()) == number + 1 and reader.holder() is None


def test_every_answer_is_of_one_moment_while_a_writer_works(directory: SweepDir, opened) -> None:
    record = opened(trials=1000)
    reader = Reader(directory)
    stop, wrong, answers = threading.Event(), [], 0

    def look() -> None:
        nonlocal answers
        while not stop.is_set():
            for trial in reader.trials():  # a trial and its curve are committed together below
                if (trial.state is State.COMPLETE) != (len(trial.curve) == 2):
                    wrong.append(trial)
            answers += 1

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for number in range(60):
            with record.transaction():
                record.propose(Suggestion(number, {}, 2))
                token = record.start(number, "w0", 1)
                for epoch in (1, 2):
                    record.measured(number, token, Measurement(epoch, {"val_accuracy": 0.5}, 0.1))
                record.finish(number, token, Outcome(State.COMPLETE, 0.5, 1, 2))
    finally:
        stop.set()
        thread.join()
    assert wrong == [] and answers > 0 and len(reader.trials()) == 60


def test_a_reader_never_executes_the_sweep_file(directory: SweepDir, sweep: Sweep, opened, tmp_path) -> None:
    from imgclf_sweep.sweep import BuildFunction

    file = tmp_path / "evil.py"
    file.write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    declared = Sweep(dataset=sweep.dataset, model=BuildFunction(str(file), "build", "1"), epochs=5)
    opened(declared).close()
    assert Reader(directory).sweep == declared
    assert not (tmp_path / "executed").exists()


def test_five_thousand_trials_come_back_whole(directory: SweepDir, sweep: Sweep, opened) -> None:
    sweep = dataclasses.replace(sweep, space=SearchSpace(filters=Choice([16, 32]), dropout=Choice([0.2, 0.3])))
    record = opened(sweep, trials=5000)
    for start in range(0, 5000, 500):
        with record.transaction():
            for number in range(start, start + 500):
                record.propose(Suggestion(number, {"filters": 16, "dropout": 0.3}, 20))
                token = record.start(number, "w0", 1)
                for epoch in range(1, 21):
                    metrics = {
                        "loss": 1 / epoch,
                        "accuracy": 0.1,
                        "val_loss": 2 / epoch,
                        "val_accuracy": number + epoch / 100,
                    }
                    record.measured(number, token, Measurement(epoch, metrics, 0.1))
                record.finish(number, token, Outcome(State.COMPLETE, number + 0.2, 20, 20, 2.0))
    trials = Reader(directory).trials()
    assert trials == record.trials()
    assert [t.number for t in trials] == list(range(5000))
    assert all(t.curve == {e: t.number + e / 100 for e in range(1, 21)} and t.attempts == 1 for t in trials)
    assert Reader(directory).best().number == 4999
    assert Reader(directory).metrics(17)[4] == {
        "epoch": 5,
        "loss": 0.2,
        "accuracy": 0.1,
        "val_loss": 0.4,
        "val_accuracy": 17.05,
    }


def test_there_must_be_a_record_to_read(directory: SweepDir) -> None:
    with pytest.raises(StoreError, match="sweep.db cannot be used: No such file"):
        Reader(directory)
    assert not directory.root.exists()
