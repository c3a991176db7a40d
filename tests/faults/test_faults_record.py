"""Faults of the record and its disk, done to real sweeps through the command line; the synthetic trainer stands in for training.

Each name holds the number of its case in the table of docs/reliability.md.
"""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import sqlite3
import subprocess
import sys

import pytest
from fault_hooks import hooked
from fault_tools import (
    SYNTHETIC,
    another_user,
    contents,
    finished,
    kill,
    record,
    running,
    some,
    sweep_dir,
    told,
    wait_until,
    without_root_s_power,
)

from imgclf_sweep.record import schema
from imgclf_sweep.record.layout import SweepDir
from imgclf_sweep.trial import State

PLAIN = (*SYNTHETIC, "--pruner", "none", "--workers", 1)


def test_case_15_a_second_run_is_refused_and_reading_goes_on(cli, digits_file):
    command = ("run", digits_file, *PLAIN, "--trials", 4)
    with running(cli, *command, synthetic={"delay": 0.6}) as first:
        wait_until(lambda: finished(cli) >= 1)
        second = cli(*command, code=75)
        assert f"process {first.pid} on host {os.uname().nodename}" in second.stderr
        assert cli.json("status", "little")["holder"]["pid"] == first.pid
        assert len(cli.json("trials", "little")) >= 1 and cli("best", "little").stdout
        out, err = first.communicate(timeout=60)
        assert first.returncode == 0, out + err
    assert [(t.state, t.attempts) for t in record(cli).trials()] == [(State.COMPLETE, 1)] * 4
    study = sqlite3.connect(sweep_dir(cli) / "optuna.db")
    assert study.execute("SELECT COUNT(*) FROM trials").fetchone() == (4,)
    study.close()


@pytest.mark.fault_slow
def test_case_16_of_eight_that_start_at_once_one_runs(cli, digits_file):
    command = ("run", digits_file, *PLAIN, "--trials", 3)
    started = [cli.start(*command, synthetic={"delay": 2.0}) for _ in range(8)]
    ends = [(p.communicate(timeout=200), p.returncode) for p in started]
    codes = sorted(code for _, code in ends)
    assert codes == [0] + [75] * 7, ends
    assert all("is being run by" in err for (_, err), code in ends if code)
    assert [(t.state, t.attempts) for t in record(cli).trials()] == [(State.COMPLETE, 1)] * 3
    assert sorted(p.name for p in (cli.root / "sweeps").iterdir()) == ["little"]


def limited(size: int):
    """For a child: no file may grow beyond `size` bytes, which the system reports as EFBIG."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_case_19_a_full_disk_while_recording_pauses_and_loses_nothing(cli, digits_file):
    command = ("run", digits_file, *PLAIN, "--trials", 300, "--epochs", 20)
    full = cli(*command, code=4, preexec_fn=limited(1_500_000))
    path = sweep_dir(cli) / "sweep.db"
    assert "disk full" in full.stderr and str(path) in full.stderr
    before = [t for t in told(record(cli).trials()) if t[1].finished]
    assert 3 < len(before) < 300
    goal = len(before) + 5
    cli("run", digits_file, *PLAIN, "--trials", goal, "--epochs", 20)
    after = record(cli).trials()
    assert told(after)[: len(before)] == before and len(after) >= goal
    assert all(t.state is State.COMPLETE for t in after)


UNWATCHED = "from imgclf_sweep import keep\nkeep.free = lambda path: float('inf')\n"  # else it pauses long before


@pytest.mark.fault_slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_case_19_a_small_disk_that_is_full(cli, digits_file, tmp_path):
    place = sweep_dir(cli)
    place.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "none", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine may not mount")
    try:
        full = hooked(cli, UNWATCHED, "run", digits_file, *PLAIN, "--trials", 300, "--epochs", 20)
        assert full.returncode == 4 and "disk full" in full.stderr and str(place) in full.stderr
        lost = [t for t in record(cli).trials() if t.state is State.FAILED]
        before = finished(cli)
        assert before > 3 and not lost
        subprocess.run(["mount", "-o", "remount,size=20m", str(place)], check=True)
        more = hooked(cli, UNWATCHED, "run", digits_file, *PLAIN, "--trials", before + 3, "--epochs", 20)
        assert more.returncode == 0 and finished(cli) >= before + 3
    finally:
        subprocess.run(["umount", str(place)], check=True)


DAMAGES = {
    "cut": lambda data: data[: len(data) // 2],
    "overwritten": lambda data: data[:4096] + random.Random(1).randbytes(100) + data[4196:],
    "header": lambda data: random.Random(1).randbytes(100) + data[100:],
    "empty": lambda data: b"",
    "not SQLite": lambda data: b"notes of mine\n" * 100,
}


@pytest.mark.parametrize("damage", some(DAMAGES, "cut"))
def test_case_21_a_damaged_database_is_refused_untouched_and_repaired(cli, done, damage):
    directory = SweepDir(cli.root, "little")
    before = told(record(cli).trials())
    damaged = DAMAGES[damage](directory.database.read_bytes())
    directory.database.write_bytes(damaged)
    refused = cli(*done, code=4)
    assert str(directory.database) in refused.stderr and "`sweep repair`" in refused.stderr
    assert directory.database.read_bytes() == damaged
    said = cli("repair", "little").stdout
    assert "saved: " in said and "lost: " in said
    kept = [p for p in directory.path.iterdir() if ".damaged-" in p.name]
    assert [p.read_bytes() for p in kept] == [damaged] and kept[0].name in said
    after = told(record(cli).trials())
    results = [t[:7] for t in before]  # a curve may be lost where its trial is not
    assert all(t[:7] in results or t[1] is not State.COMPLETE for t in after)
    if damage in ("overwritten", "header"):
        assert after == before
    cli(*done)  # and goes on
    assert len(record(cli).trials()) == 6
    assert "whole" in cli("repair", "little").stdout


def test_case_21_the_log_of_a_database_that_is_gone_is_not_applied_to_the_repaired_one(cli, digits_file, tmp_path):
    """It is killed, so that the log of what it wrote last is left; then the database goes, and its backup is another's."""
    cli("run", digits_file, *PLAIN, "--epochs", 1, "--trials", 3, "--name", "other")
    other = SweepDir(cli.root, "other").database.read_bytes()
    directory = SweepDir(cli.root, "little")
    with running(cli, "run", digits_file, *PLAIN, "--epochs", 1, "--trials", 500, synthetic={"delay": 0.05}) as process:
        wait_until(lambda: directory.database.exists() and finished(cli) > 8)
        kill(process)
    log = directory.path / "sweep.db-wal"
    assert log.stat().st_size > 0
    directory.database.unlink()
    directory.backups.mkdir(exist_ok=True)
    (directory.backups / "trials-000003.db").write_bytes(other)
    cli("repair", "little")
    assert not log.exists() and [
        p for p in directory.path.iterdir() if re.fullmatch(r"sweep.db.damaged-.*-wal", p.name)
    ]
    assert [t.number for t in record(cli).trials()] == [0, 1, 2]
    assert "3 of 3 trials finished" in cli("status", "little").stdout


@pytest.mark.fault_slow
def test_case_21_backups_give_back_what_the_damaged_file_has_lost(cli, digits_file):
    command = ("run", digits_file, *PLAIN, "--epochs", 1, "--trials", 120)
    cli(*command)
    directory = SweepDir(cli.root, "little")
    names = sorted(os.listdir(directory.backups))
    assert names == ["trials-000050.db", "trials-000100.db"]
    before = told(record(cli).trials())
    directory.database.write_bytes(b"")
    said = cli("repair", "little").stdout
    assert "saved: 101 trials, 100 of them finished" in said  # the next one is proposed by then
    assert told(record(cli).trials())[:100] == before[:100]
    cli(*command)  # the same proposals again
    assert told(record(cli).trials()) == before


@pytest.mark.fault_slow
def test_case_21_repair_of_what_is_whole_running_or_absent(cli, digits_file, done):
    before = contents(sweep_dir(cli))
    assert "whole" in cli("repair", "little").stdout
    assert "no sweep 'nowhere'" in cli("repair", "nowhere", code=2).stderr
    assert contents(sweep_dir(cli)) == before
    with running(cli, *done[:-1], 50, synthetic={"delay": 0.5}) as process:
        wait_until(lambda: record(cli).holder() is not None)
        assert str(process.pid) in cli("repair", "little", code=75).stderr


def test_case_22_a_wal_file_lost_after_a_clean_end_or_left_by_a_crash(cli, digits_file, done):
    directory = SweepDir(cli.root, "little")
    before = told(record(cli).trials())
    for beside in (schema.wal(directory.database), schema.shm(directory.database)):
        beside.unlink(missing_ok=True)
    cli(*done)
    assert told(record(cli).trials()) == before
    with running(cli, *done[:-1], 9, synthetic={"delay": 0.2}) as process:
        wait_until(lambda: finished(cli) >= 8)
        kill(process)
        assert schema.wal(directory.database).stat().st_size > 0
        committed = [t for t in told(record(cli).trials()) if t[1].finished]
    cli(*done[:-1], 9)
    after = told(record(cli).trials())
    assert after[: len(committed)] == committed and len(after) == 9


@pytest.fixture
def public(cli, digits_file, open_place):
    """A finished sweep where another user can look; and its file."""
    cli.root = open_place / "root"
    file = shutil.copy(digits_file, open_place / "little.py")
    cli("run", file, *PLAIN, "--trials", 3)
    return file


@pytest.mark.parametrize("why", some(["read-only", "somebody else's"], "read-only"))
def test_case_23_a_directory_that_may_not_be_written(cli, public, why):
    command = ("run", public, *PLAIN, "--trials", 9)
    mine, who = sweep_dir(cli), without_root_s_power
    if why == "read-only":
        for folder, _, names in os.walk(cli.root):
            os.chmod(folder, 0o555)
            for name in names:
                os.chmod(os.path.join(folder, name), 0o444)
    elif os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    else:
        who = another_user
    before = contents(cli.root)
    refused = cli(*command, code=4, **who())
    assert f"{mine}/sweep.lock cannot be written: it, or its directory, is read-only or belongs to" in refused.stderr
    assert "3 of 3 trials finished" in cli("status", "little", **who()).stdout
    assert len(cli("trials", "little", **who()).stdout.splitlines()) == 4
    assert "trial " in cli("best", "little", **who()).stdout
    assert contents(cli.root) == before


TOMORROW = """
import sys
from imgclf_sweep import datasets
from imgclf_sweep.data.cache import prepare
from imgclf_sweep.record import schema
schema.VERSION = 2
schema.MIGRATIONS[1] = "ALTER TABLE event ADD COLUMN note TEXT; UPDATE sweep SET trials = trials"
from imgclf_sweep.cli import main
main()
"""


def tomorrow(cli, *arguments, code=0):
    """The command of a later version, whose records have one column more."""
    line = [sys.executable, "-c", TOMORROW, *map(str, arguments), "--root", str(cli.root)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_case_24_a_record_of_another_version(cli, done):
    directory = SweepDir(cli.root, "little")
    before, bytes_before = told(record(cli).trials()), directory.database.read_bytes()
    assert "6 of 6" in tomorrow(cli, "status", "little").stdout  # read as it is, and left so
    assert directory.database.read_bytes() == bytes_before
    migrated = tomorrow(cli, *done)
    kept = directory.backups / "format-1.db"
    assert "brought from format 1 to 2" in migrated.stderr and str(kept) in migrated.stderr
    columns = sqlite3.connect(directory.database).execute("SELECT name FROM pragma_table_info('event')").fetchall()
    assert ("note",) in columns
    assert "6 of 6" in tomorrow(cli, "status", "little").stdout
    bytes_now = contents(directory.path)
    refused = cli(*done, code=4).stderr  # and this version no longer may
    assert "newer version" in refused and "its format is 2, this program knows 1" in refused
    assert "its format is 2" in cli("status", "little", code=4).stderr and cli("repair", "little", code=4)
    assert contents(directory.path) == bytes_now
    shutil.copy(kept, directory.database)
    assert told(record(cli).trials()) == before


@pytest.mark.fault_slow
def test_case_24_a_migration_that_fails_changes_nothing(cli, done, monkeypatch):
    directory = SweepDir(cli.root, "little")
    before = directory.database.read_bytes()
    bad = TOMORROW.replace("UPDATE sweep SET trials = trials", "UPDATE elsewhere SET x = 1")
    monkeypatch.setattr(sys.modules[__name__], "TOMORROW", bad)
    failed = tomorrow(cli, *done, code=4)
    assert "no such table: elsewhere" in failed.stderr
    assert "6 of 6" in cli("status", "little").stdout
    cli(*done)
    assert sqlite3.connect(directory.database).execute("PRAGMA user_version").fetchone() == (1,)
    assert before[:16] == directory.database.read_bytes()[:16]


NETWORK_DISK = """
import sys
from imgclf_sweep.record import filesystem
filesystem._kind = lambda path: 0x6969
from imgclf_sweep.cli import main
main()
"""


def test_a_network_disk_is_refused_unless_forced(cold, digits_file):
    line = [sys.executable, "-c", NETWORK_DISK, "run", str(digits_file), *map(str, PLAIN), "--trials", "2"]
    line += ["--root", str(cold.root)]
    refused = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 4 and "network file system (NFS)" in refused.stderr
    assert not cold.root.exists()
    forced = subprocess.run([*line, "--allow-network-fs"], capture_output=True, text=True, timeout=60)
    assert forced.returncode == 0, forced.stderr
