"""A declaration that changes, is impossible, or is to go; real sweeps through the command line.

Each name holds the number of its case in the table of docs/reliability.md.
"""

from __future__ import annotations

import os

import pytest
from fault_tools import (
    BOTH,
    SYNTHETIC,
    contents,
    record,
    running,
    some,
    sweep_dir,
    told,
    wait_until,
)

from imgclf_sweep.trial import State

PLAIN = (*SYNTHETIC, "--pruner", "none", "--workers", 1)


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
    assert (f"{outside} trials lie outside" in said) == (outside > 1)
    cli(*more)  # from now on it is what is declared


@pytest.mark.fault_slow
def test_case_36_what_a_grid_and_an_oracle_cannot_change(cli, digits_file):
    command = ("run", digits_file, *PLAIN[:2], "--backend", "keras-tuner", "--workers", 1, "--trials", 2)
    cli(*command)
    digits_file.write_text(digits_file.read_text().replace("Float(0.0, 0.5)", "Float(0.0, 0.8)"))
    assert "cannot allow that" in cli(*command, "--allow-change", code=2).stderr


@pytest.mark.parametrize("search", BOTH)
def test_case_37_more_trials_run_the_difference_fewer_are_done(cli, digits_file, search):
    command = ("run", digits_file, *PLAIN, *search, "--trials")
    cli(*command, 6)
    before = told(record(cli).trials())
    cli(*command, 9)
    after = record(cli).trials()
    assert told(after)[:6] == before and len(after) == 9 and all(t.attempts == 1 for t in after)
    assert "already has 9" in cli(*command, 4).stdout


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
