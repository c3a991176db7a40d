"""Files that are not what they should be, disks that are full, directories that may not be written: one line, exit 4."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgclf_sweep.errors import StoreError
from imgclf_sweep.record import schema
from imgclf_sweep.record.layout import SweepDir
from imgclf_sweep.record.read import Reader
from imgclf_sweep.record.write import Record
from imgclf_sweep.trial import Measurement, Outcome, State, Suggestion


def files(directory: SweepDir) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in directory.path.iterdir() if p.is_file() and p != directory.lock}


def filled(record: Record, trials: int = 60) -> None:
    with record.transaction():
        for number in range(trials):
            record.propose(Suggestion(number, {"filters": 16, "dropout": 0.3}, 5))
            token = record.start(number, "w0", 1)
            for epoch in range(1, 6):
                record.measured(number, token, Measurement(epoch, {"val_accuracy": 0.5, "loss": 1.0}, 0.1))
            record.finish(number, token, Outcome(State.COMPLETE, 0.5, 1, 5, 0.5))
    record.close()


def refused(directory: SweepDir, opened, line: str, reader_too: bool = True) -> None:
    before = files(directory)
    for attempt in (
        opened,
        lambda: Record.reopen(directory),
        *([lambda: Reader(directory).trials()] if reader_too else []),
    ):
        with pytest.raises(StoreError, match=line) as error:
            attempt()
        assert str(directory.path) in str(error.value) and str(error.value).isprintable()
    assert error.value.exit_code == 4
    assert files(directory) == before


def test_a_truncated_database_is_refused_untouched(directory: SweepDir, opened) -> None:
    filled(opened())
    size = directory.database.stat().st_size
    os.truncate(directory.database, size // 2)
    refused(directory, opened, "is damaged .*: nothing was changed", reader_too=False)
    os.truncate(directory.database, 50)
    refused(directory, opened, "is damaged, or not a SQLite database")
    os.truncate(directory.database, 0)
    refused(directory, opened, "is empty: nothing was changed")


def test_what_is_no_record_is_refused_untouched(directory: SweepDir, opened) -> None:
    opened().close()
    directory.database.write_bytes(b"notes of mine, of no format\n" * 10)
    refused(directory, opened, "is damaged, or not a SQLite database")
    directory.database.unlink()
    other = sqlite3.connect(directory.database)
    other.execute("CREATE TABLE trials (x)")
    other.commit()
    other.close()
    refused(directory, opened, "is a SQLite database of another program")
    directory.database.unlink()
    os.mkfifo(directory.database)
    with pytest.raises(StoreError, match="is not a regular file"):
        opened()


@pytest.mark.parametrize(
    ("version", "line"), [(7, "newer version .* its format is 7, this program knows 1"), (0, "unknown format 0")]
)
def test_another_format_is_refused_untouched(directory: SweepDir, opened, version: int, line: str) -> None:
    opened().close()
    database = sqlite3.connect(directory.database)
    database.execute(f"PRAGMA user_version = {version}")
    database.close()
    refused(directory, opened, line)


def test_overwritten_bytes_are_told_or_harmless_but_never_a_crash(directory: SweepDir, opened) -> None:
    filled(opened())
    whole = directory.database.read_bytes()
    pages = len(whole) // 4096
    chance = random.Random(1)
    told = 0
    for page in range(1, pages):
        start = page * 4096 + chance.choice([0, 0, 8, chance.randrange(3996)])
        directory.database.write_bytes(whole[:start] + chance.randbytes(100) + whole[start + 100 :])
        before = files(directory)
        try:
            Reader(directory).trials()
        except StoreError as error:
            assert str(error).isprintable()
        assert files(directory) == before
        try:
            opened().close()
        except StoreError as error:
            told += 1
            assert "damaged" in str(error) and files(directory) == before
    assert told > pages // 3


def test_values_that_make_no_sense_are_damage_too(directory: SweepDir, opened) -> None:
    filled(opened(), 1)
    database = sqlite3.connect(directory.database)
    database.execute("UPDATE trial SET params = '{\x1b[2J'")
    database.commit()
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    with pytest.raises(StoreError, match="is damaged .JSONDecodeError"):
        Reader(directory).trials()


FULL_DISK = """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
record = opened(trials=10**6)
resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
number = 0
try:
    while True:
        record.propose(Suggestion(number, {"filters": 16, "dropout": 0.3}, 5))
        say("asked", number)
        number += 1
except SweepError as error:
    say("refused", error.exit_code, len(record.trials()), error)
    record.close()
    say("closed")
"""


def test_a_full_disk_ends_in_one_line_and_loses_nothing(directory: SweepDir, opened, process) -> None:
    child = process(FULL_DISK.replace("(LIMIT, LIMIT)", "(300_000, 300_000)"))
    *asked, refusal, closed = child.communicate()[0].splitlines()
    assert closed == "closed" and child.returncode == 0
    assert refusal.startswith(f"refused 4 {len(asked)} disk full") and str(directory.database) in refusal
    assert len(asked) > 10
    with opened() as record:  # with room again
        assert [t.number for t in record.trials()] == list(range(len(asked)))
        record.propose(Suggestion(len(asked), {}, 5))


def test_a_sweep_begun_on_a_full_disk_leaves_nothing(directory: SweepDir, opened, process) -> None:
    lines = (
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try: opened()\nexcept SweepError as error: say(error.exit_code, error)"
    )
    said = process(lines).communicate()[0]
    assert said.startswith("4 disk full") and not directory.root.exists()
    opened()


@pytest.fixture
def open_to_all() -> Iterator[SweepDir]:
    """A sweep's directory in a place that another user can reach, unlike pytest's own."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    yield SweepDir(place, "s")
    for path in (place, *place.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(place)


LOOK = """
import os, sys
from pathlib import Path
sys.path.insert(0, {project!r})
from imgclf_sweep.record.layout import SweepDir
from imgclf_sweep.record.read import Reader
from imgclf_sweep.record.write import Record
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
directory = SweepDir(Path({root!r}), "s")
reader = Reader(directory)
print(len(reader.trials()), reader.holder() is not None)
try:
    Record.reopen(directory)
except Exception as error:
    print(error.exit_code, error)
"""


@pytest.mark.parametrize("ending", ["closed", "live", "killed"])
def test_a_directory_that_may_not_be_written_can_be_read(
    open_to_all: SweepDir, opened, process, project, ending
) -> None:
    directory = open_to_all
    work = "record = opened(); record.propose(Suggestion(0, {}, 5)); say(1); sys.stdin.readline(); record.close()"
    child = process(work.replace("opened()", f"Record.open(SweepDir(Path({str(directory.root)!r}), 's'), sweep, trials=4, "
                                 "limit_images=None, data=Images())"))  # fmt: skip
    assert child.stdout.readline() == "1\n"
    if ending == "killed":
        child.kill()
        child.wait()
    elif ending == "closed":
        child.communicate("\n")
    for path in directory.path.iterdir():
        path.chmod(0o444)
    directory.path.chmod(0o555)
    before = sorted(os.listdir(directory.path))
    script = LOOK.format(project=str(project), root=str(directory.root))
    done = subprocess.run([sys.executable, "-B", "-c", script], capture_output=True, text=True, cwd="/", check=True)
    seen, refusal = done.stdout.splitlines()
    assert seen == f"1 {ending == 'live'}"
    assert refusal.startswith(f"4 {directory.lock} cannot be written: it, or its directory, is read-only or belongs to")
    assert sorted(os.listdir(directory.path)) == before


def test_a_database_that_vanished_is_said_in_a_line(directory: SweepDir, opened) -> None:
    opened().close()
    reader = Reader(directory)
    directory.database.unlink()
    with pytest.raises(StoreError, match="sweep.db cannot be used: No such file"):
        reader.trials()


def test_a_database_kept_locked_by_another_program_is_said_in_a_line(directory: SweepDir, opened, monkeypatch) -> None:
    monkeypatch.setattr(schema, "BUSY_MS", 50)
    record = opened()
    other = sqlite3.connect(directory.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="sweep.db is kept locked by another program"):
        record.propose(Suggestion(0, {}, 5))
    other.execute("ROLLBACK")
    other.close()
    record.propose(Suggestion(0, {}, 5))
