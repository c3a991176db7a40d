"""`kill -9` at any moment: nothing acknowledged is lost, nothing is counted twice, nothing is half-made."""

from __future__ import annotations

import json
import random
import sqlite3
import time

import pytest

from imgclf_sweep.record import schema
from imgclf_sweep.record.layout import SweepDir, all_sweeps
from imgclf_sweep.record.read import Reader
from imgclf_sweep.trial import State

KILLS = 10

WORK = """
record = opened(trials=10**6)
say("open", len(record.trials()))
for trial in record.trials():
    if trial.state is State.QUEUED:
        token = record.start(trial.number, "w0", os.getpid())
        record.finish(trial.number, token, Outcome(State.COMPLETE, trial.number / 7, 1, 1, 0.1))
        say("told", trial.number)
number = len(record.trials())
while True:
    with record.transaction():
        record.propose(Suggestion(number, {"filters": (16, 32), "dropout": 0.2 + number * 1e-6}, 5))
        record.keep_state({"oracle": str(number)})
    say("asked", number)
    token = record.start(number, "w0", os.getpid())
    for epoch in (1, 2):
        record.measured(number, token, Measurement(epoch, {"val_accuracy": 0.5, "loss": 1.0}, 0.1))
        say("measured", number, epoch)
    record.finish(number, token, Outcome(State.COMPLETE, number / 7, 1, 2, 0.1))
    say("told", number)
    number += 1
"""


def test_no_commit_is_lost_in_a_row_of_kills(directory: SweepDir, process) -> None:
    chance = random.Random(0)
    told: list[int] = []
    asked: set[int] = set()
    for _ in range(KILLS):
        child = process(WORK)
        assert child.stdout.readline().startswith("open ")
        time.sleep(chance.uniform(0.02, 0.4))
        child.kill()
        lines = child.stdout.read().splitlines(keepends=True)
        said = [line.split() for line in lines if line.endswith("\n")]
        told += [int(words[1]) for words in said if words[0] == "told"]
        asked |= {int(words[1]) for words in said if words[0] == "asked"}
        child.wait()
        check(directory, told, asked)
    assert len(told) > KILLS


def check(directory: SweepDir, told: list[int], asked: set[int]) -> None:
    assert len(told) == len(set(told))  # none was run again after it had been told
    trials = {t.number: t for t in Reader(directory).trials()}
    assert sorted(trials) == list(range(len(trials))) and asked <= set(trials)
    for number in told:
        assert trials[number].state is State.COMPLETE and trials[number].value == number / 7
        assert trials[number].params == {"filters": (16, 32), "dropout": 0.2 + number * 1e-6}
    assert sum(not t.state.finished for t in trials.values()) <= 1
    if trials:
        assert int(Reader(directory).state()["oracle"]) == max(trials)  # in the transaction of the proposal
    database = sqlite3.connect(f"file:{directory.database}?mode=ro", uri=True)
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert database.execute("PRAGMA foreign_key_check").fetchall() == []
    database.close()


@pytest.mark.parametrize(
    "moment",
    [
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)",
        "schema.sqlite3.connect = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)",
        "schema.TABLES = schema.TABLES + 'SELECT die();'; connect = schema.sqlite3.connect\n"
        "def with_die(*a, **k):\n"
        "    c = connect(*a, **k); c.create_function('die', 0, lambda: os.kill(os.getpid(), signal.SIGKILL)); return c\n"
        "schema.sqlite3.connect = with_die",
    ],
    ids=["before it has its name", "before it has tables", "before its tables are committed"],
)
def test_a_kill_while_a_sweep_is_made_leaves_none(directory: SweepDir, opened, process, moment: str) -> None:
    child = process(moment + "\nopened()")
    assert (child.wait(), child.stdout.read()) == (-9, "")
    assert not directory.exists() and all_sweeps(directory.root) == []
    record = opened()
    assert record.trials() == []
    record.close()
    assert sorted(p.name for p in directory.path.iterdir()) == ["sweep.db", "sweep.json", "sweep.lock"]


@pytest.mark.parametrize(
    "moment",
    [
        "opening.sync_directory = lambda *_: os.kill(os.getpid(), signal.SIGKILL)",
        "opening.write_whole = lambda *_: os.kill(os.getpid(), signal.SIGKILL)",
    ],
    ids=["with its name", "before sweep.json"],
)
def test_a_kill_after_that_leaves_a_whole_one(directory: SweepDir, opened, process, moment: str) -> None:
    child = process(moment + "\nopened()")
    assert (child.wait(), child.stdout.read()) == (-9, "")
    assert [d.name for d in all_sweeps(directory.root)] == ["s"]
    made = Reader(directory).info
    record = opened()
    assert record.info.id == made.id and json.loads(directory.declaration.read_text())["id"] == made.id


def test_the_commits_of_a_killed_writer_are_there_and_a_missing_wal_after_a_clean_end_is_no_loss(
    directory, opened, process
) -> None:
    child = process("record = opened(); record.propose(Suggestion(0, {}, 5)); say(1); time.sleep(600)")
    assert child.stdout.readline() == "1\n"
    child.kill()
    child.wait()
    assert schema.wal(directory.database).stat().st_size > 0
    assert len(Reader(directory).trials()) == 1
    with opened() as record:
        assert len(record.trials()) == 1
    assert not schema.wal(directory.database).exists()
    schema.wal(directory.database).touch()  # an empty one means the same
    assert len(Reader(directory).trials()) == 1
    with opened() as record:
        assert len(record.trials()) == 1
