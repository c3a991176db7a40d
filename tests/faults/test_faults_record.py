"""Faults of the record and its disk, done to real sweeps through the command line; the synthetic trainer stands in for training.

Each name holds the number of its case in the table of docs/reliability.md.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from fault_tools import (
    SYNTHETIC,
    contents,
    finished,
    kill,
    make_removable,
    record,
    running,
    told,
    wait_until,
    without_root_s_power,
)

from imgclf_sweep import datasets
from imgclf_sweep.data.cache import prepare
from imgclf_sweep.record import schema
from imgclf_sweep.record.layout import SweepDir
from imgclf_sweep.record.write import Record
from imgclf_sweep.trial import Measurement, Outcome, State, Suggestion

PLAIN = (*SYNTHETIC, "--pruner", "none", "--workers", 1)


@pytest.fixture(scope="module")
def decoded(tmp_path_factory) -> Path:
    """The digits, decoded once for all tests of this file."""
    cache = tmp_path_factory.mktemp("decoded") / "cache"
    prepare(datasets.digits(), cache=cache, data_dir=None, test=0.2, seed=3, note=lambda line: None)
    return cache


@pytest.fixture
def cold(tmp_path, request):
    """The command on a root that does not exist yet."""
    return type(request.getfixturevalue("cli"))(tmp_path / "cold")


@pytest.fixture
def cli(cli, decoded):
    """The command on a root where the images are decoded already."""
    shutil.copytree(decoded, cli.root / "cache")
    return cli


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """Where the finished sweep is kept once a test has made it; the others take a copy."""
    return tmp_path_factory.mktemp("kept") / "root"


@pytest.fixture
def done(cli, digits_file, kept):
    """A finished sweep of six trials, and the command that made it."""
    command = ("run", digits_file, *PLAIN, "--trials", 6)
    if kept.exists():
        shutil.copytree(kept, cli.root, dirs_exist_ok=True)
    else:
        cli(*command)
        shutil.copytree(cli.root, kept)
    return command


def sweep_dir(cli, name="little") -> Path:
    return cli.root / "sweeps" / name


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


def test_case_17_the_lock_of_a_killed_owner_is_free_at_once(cli, digits_file):
    command = ("run", digits_file, *PLAIN, "--trials", 4)
    with running(cli, *command, synthetic={"delay": 0.3}) as first:
        wait_until(lambda: finished(cli) >= 1)
        kill(first)
        with running(cli, *command) as second:
            assert second.communicate(timeout=60) and second.returncode == 0
    trials = record(cli).trials()
    assert [t.state for t in trials] == [State.COMPLETE] * 4 and trials[0].attempts == 1


@pytest.mark.fault_slow
def test_case_18_a_queue_of_sixty_is_run_once_each_by_eight_workers(cli, digits_file):
    known = ", ".join(
        f"dict(filters=4, dense_units={4 + n % 16 * 4}, dropout={n / 200}, optimizer='adam')" for n in range(60)
    )
    digits_file.write_text(digits_file.read_text().replace("epochs=4,", f"epochs=1, known=[{known}],"))
    cli("run", digits_file, *SYNTHETIC, "--trials", 60, "--workers", 8, "--pruner", "none")
    trials = record(cli).trials()
    assert [(t.state, t.attempts) for t in trials] == [(State.COMPLETE, 1)] * 60
    assert len({repr(t.params) for t in trials}) == 60
    workers = {a.worker for t in trials for a in record(cli).attempts(t.number)}
    assert len(workers) > 1


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


@pytest.mark.fault_slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_case_19_a_small_disk_that_is_full(cli, digits_file, tmp_path):
    place = sweep_dir(cli)
    place.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "none", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine may not mount")
    try:
        full = cli("run", digits_file, *PLAIN, "--trials", 300, "--epochs", 20, code=4)
        assert "disk full" in full.stderr and str(place) in full.stderr
        lost = [t for t in record(cli).trials() if t.state is State.FAILED]
        before = finished(cli)
        assert before > 3 and not lost
        subprocess.run(["mount", "-o", "remount,size=20m", str(place)], check=True)
        cli("run", digits_file, *PLAIN, "--trials", before + 3, "--epochs", 20)
        assert finished(cli) >= before + 3
    finally:
        subprocess.run(["umount", str(place)], check=True)


def some(cases, *fast):
    """The names of all cases, of which only the `fast` ones run every time."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.fault_slow) for name in cases]


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
    assert "saved: 100 trials, 100 of them finished" in said
    assert told(record(cli).trials()) == before[:100]
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
def public(cli, digits_file):
    """A finished sweep where another user can look, unlike in pytest's own place; and its file."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    cli.root = place / "root"
    file = shutil.copy(digits_file, place / "little.py")
    cli("run", file, *PLAIN, "--trials", 3)
    yield file
    make_removable(place)


def test_case_23_a_directory_that_may_not_be_written(cli, public):
    command = ("run", public, *PLAIN, "--trials", 9)
    mine = sweep_dir(cli)
    for folder, _, names in os.walk(cli.root):
        os.chmod(folder, 0o555)
        for name in names:
            os.chmod(os.path.join(folder, name), 0o444)
    before = contents(cli.root)
    refused = cli(*command, code=4, **without_root_s_power())
    assert f"{mine}/sweep.lock cannot be written: it, or its directory, is read-only or belongs to" in refused.stderr
    assert "3 of 3 trials finished" in cli("status", "little", **without_root_s_power()).stdout
    assert len(cli("trials", "little", **without_root_s_power()).stdout.splitlines()) == 4
    assert "trial " in cli("best", "little", **without_root_s_power()).stdout
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


CHANGES = {  # what changes in the file -> what the refusal says, and whether --allow-change accepts it
    "a wider range": ("Float(0.0, 0.5)", "Float(0.0, 0.8)", "parameter 'dropout': Float(0.0, 0.5) in the record", True),
    "other choices": ("[2, 4, 8]", "[2, 16]", "parameter 'filters'", True),
    "a log scale": ("Int(4, 64, step=4)", "Int(4, 64, log=True)", "parameter 'dense_units'", True),
    "more epochs": ("epochs=4", "epochs=6", "epochs: 4 in the record, 6 now", True),
    "the seed": ("seed=3", "seed=4", "seed: 3 in the record, 4 now", False),
    "the objective": ("seed=3", "seed=3, objective='val_loss'", "objective: val_accuracy (max)", False),
    "the data": ("datasets.digits()", "datasets.digits(scale='unit')", "dataset scale: minmax", False),
}


@pytest.mark.parametrize("change", some(CHANGES, "a wider range", "the seed"))
def test_case_36_a_changed_declaration_is_refused_or_allowed(cli, digits_file, done, change):
    old, new, line, may = CHANGES[change]
    before, bytes_before = told(record(cli).trials()), contents(sweep_dir(cli))
    digits_file.write_text(digits_file.read_text().replace(old, new))
    assert line in cli(*done, code=2).stderr
    assert contents(sweep_dir(cli)) == bytes_before
    if not may:
        assert "cannot allow that" in cli(*done, "--allow-change", code=2).stderr
        assert contents(sweep_dir(cli)) == bytes_before
        return
    more = (*done[:-1], 14)
    said = cli(*more, "--allow-change").stderr
    assert "going on with another declaration, as allowed" in said and line in said
    after = record(cli).trials()
    assert told(after)[:6] == before and [t.state for t in after] == [State.COMPLETE] * 14
    (event,) = record(cli).events("changed")
    assert line in event.data["differences"][0]
    space = record(cli).sweep.space
    assert all(space.contains(t.params) for t in after[6:])
    outside = sum(not space.contains(t.params) for t in after[:6])
    assert event.data["trials_outside"] == outside
    assert (f"{outside} trials lie outside" in said) == bool(outside)
    cli(*more)  # from now on it is what is declared


@pytest.mark.fault_slow
def test_case_36_what_a_grid_and_an_oracle_cannot_change(cli, digits_file):
    command = ("run", digits_file, *PLAIN[:2], "--backend", "keras-tuner", "--workers", 1, "--trials", 2)
    cli(*command)
    digits_file.write_text(digits_file.read_text().replace("Float(0.0, 0.5)", "Float(0.0, 0.8)"))
    assert "cannot allow that" in cli(*command, "--allow-change", code=2).stderr


def test_case_37_more_trials_run_the_difference_fewer_are_done(cli, done):
    before = told(record(cli).trials())
    cli(*done[:-1], 9)
    after = record(cli).trials()
    assert told(after)[:6] == before and len(after) == 9 and all(t.attempts == 1 for t in after)
    assert "already has 9" in cli(*done[:-1], 4).stdout


SPACES = [
    *("Int(9, 3)", "Float(-1, 1, log=True)", "Float(0, 1, log=True)", "Choice([])", "Int(1, 5, step=0)"),
    *("Float(float('nan'), 1)", "Float(0, float('inf'))", "Choice([4, 4])"),
]


@pytest.mark.fault_slow
@pytest.mark.parametrize("parameter", SPACES)
def test_case_38_an_impossible_space_is_refused_before_anything_is_made(cold, digits_file, parameter):
    digits_file.write_text(digits_file.read_text().replace("Int(4, 64, step=4)", parameter))
    refused = cold("run", digits_file, *SYNTHETIC, code=2).stderr
    assert "little.py, line" in refused and len(refused.splitlines()) == 1
    assert not cold.root.exists()


@pytest.mark.fault_slow
def test_case_38_a_name_twice_and_a_grid_without_end(cold, digits_file):
    text = digits_file.read_text()
    digits_file.write_text(text.replace("filters=Choice([2, 4, 8]),", "filters=Choice([2, 4]), filters=Choice([8]),"))
    assert "filters" in cold("run", digits_file, *SYNTHETIC, code=2).stderr
    digits_file.write_text(text.replace("Int(4, 64, step=4)", "Int(1, 1_000_000_000)"))
    refused = cold("run", digits_file, *SYNTHETIC, "--sampler", "grid", code=2).stderr
    assert "dense_units" in refused and not cold.root.exists()


NAMES = ["../x", "/abs", "..", "", "a/b", "x" * 300, "a\nb", "con", ".hidden", "NUL.txt"]


@pytest.mark.fault_slow
def test_case_39_an_unsafe_name_is_refused_and_nothing_is_written(cold, digits_file, tmp_path):
    before = contents(tmp_path)
    for name in NAMES:
        refused = cold("run", digits_file, *SYNTHETIC, "--name", name, code=2).stderr
        assert "name" in refused and len(refused.splitlines()) == 1, name
    for verb in ("status", "retrain", "repair"):
        assert "name" in cold(verb, "../x", code=2).stderr
    assert contents(tmp_path) == before and not cold.root.exists()
    with pytest.raises(ValueError, match="null byte"):  # the system itself lets no NUL into an argument
        cold.start("run", digits_file, "--name", "a\0b")


def test_case_40_overwrite_removes_a_sweep_and_only_a_sweep(cli, done):
    assert (cli.root / "logs" / "little").exists()
    old = record(cli).info.id
    said = cli(*done[:-1], 2, "--overwrite").stderr
    assert "removed the sweep 'little'" in said
    assert len(record(cli).trials()) == 2 and record(cli).info.id != old
    assert sorted(p.name for p in (cli.root / "logs").iterdir()) == ["little"]
    assert sorted(p.name for p in (cli.root / "sweeps").iterdir()) == ["little"]


@pytest.mark.parametrize(
    "place", ["notes.txt", "best/notes.txt", "checkpoints/notes.txt", "../../logs/little/notes.txt"]
)
@pytest.mark.fault_slow
def test_case_40_a_file_of_the_user_s_makes_overwrite_refuse(cli, done, place):
    mine = sweep_dir(cli) / place
    mine.parent.mkdir(exist_ok=True, parents=True)
    mine.write_text("mine")
    before = contents(cli.root)
    refused = cli(*done, "--overwrite", code=2).stderr
    assert "notes.txt" in refused and "nothing was removed" in refused
    assert contents(cli.root) == before


def test_case_40_overwrite_of_what_is_no_sweep_is_refused(cli, digits_file, done, tmp_path):
    command = ("run", digits_file, *PLAIN, "--trials", 1, "--overwrite", "--name")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious.txt").write_text("mine")
    (cli.root / "sweeps" / "plain").mkdir()
    (cli.root / "sweeps" / "plain" / "precious.txt").write_text("mine")
    os.symlink(elsewhere, cli.root / "sweeps" / "outside")
    os.symlink(sweep_dir(cli), cli.root / "sweeps" / "inside")
    before = contents(tmp_path)
    assert "is no sweep" in cli(*command, "plain", code=2).stderr
    assert "is a link" in cli(*command, "outside", code=2).stderr
    assert "is a link" in cli(*command, "inside", code=2).stderr
    assert "name" in cli(*command, ".", code=2).stderr
    assert contents(tmp_path) == before


@pytest.mark.fault_slow
def test_case_40_overwrite_leaves_a_running_sweep_and_a_bad_command_alone(cli, digits_file, done):
    with running(cli, *done[:-1], 50, synthetic={"delay": 0.5}) as process:
        wait_until(lambda: record(cli).holder() is not None)
        assert str(process.pid) in cli(*done, "--overwrite", code=75).stderr
    before = told(record(cli).trials())
    digits_file.write_text("this is no Python")
    cli(*done, "--overwrite", code=2)
    assert told(record(cli).trials()) == before


@pytest.mark.fault_slow
@pytest.mark.parametrize("how", ["head", "hang up", "no terminal", "plain C"])
def test_case_47_a_terminal_that_goes_away_or_never_was(cli, digits_file, how):
    command = ("run", digits_file, *PLAIN, "--trials", 5)
    slow = {"synthetic": {"delay": 0.15}}
    if how == "head":
        with running(cli, *command, **slow) as process:
            process.stdout.readline()
            process.stdout.close()
            err = process.stderr.read()
            process.wait(60)
            assert "BrokenPipe" not in err and "Traceback" not in err, err
            process.stdout = None
        cli(*command)  # goes on where it is
    elif how == "hang up":
        with running(cli, *command, **slow) as process:
            wait_until(lambda: finished(cli) >= 1)
            process.send_signal(signal.SIGHUP)
            _, err = process.communicate(timeout=60)
            assert process.returncode == 128 + signal.SIGHUP and "the same command continues" in err
        cli(*command)
    elif how == "no terminal":
        closed = cli.start(*command, stdin=subprocess.DEVNULL, env={"TERM": "dumb"})
        out, err = closed.communicate(timeout=60)
        assert closed.returncode == 0 and "\x1b" not in out + err, out + err
    else:
        plain = cli(*command, env={"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})
        assert "5 of 5 trials done" in plain.stdout
    assert [t.state for t in record(cli).trials()] == [State.COMPLETE] * 5


FIVE_THOUSAND = 5000


@pytest.mark.fault_slow
def test_case_54_five_thousand_trials_are_continued(cli, digits_file):
    command = ("run", digits_file, *SYNTHETIC, "--workers", 1, "--trials")
    cli(*command, 1)
    with Record.reopen(SweepDir(cli.root, "little")) as writer, writer.transaction():
        chance = random.Random(1)
        for number in range(1, FIVE_THOUSAND):
            params = {"filters": 4, "dense_units": 8, "dropout": chance.random() / 2, "optimizer": "adam"}
            writer.propose(Suggestion(number, params, 4))
            token = writer.start(number, "w0", 1)
            value = chance.random()
            for epoch in range(1, 5):
                writer.measured(number, token, Measurement(epoch, {"val_accuracy": value}, 0.1))
            writer.finish(number, token, Outcome(State.COMPLETE, value, 4, 4, 0.4))
    with running(cli, *command, FIVE_THOUSAND + 1):
        wait_until(lambda: finished(cli) > FIVE_THOUSAND, 120)  # its exports take longer, and are not waited for
    trials = record(cli).trials()
    assert len(trials) == FIVE_THOUSAND + 1 and trials[-1].state.finished
    assert cli.json("status", "little")["trials"] == FIVE_THOUSAND + 1


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
