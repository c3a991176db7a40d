"""Beginning, continuing, and every change that is refused on continuing."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest

from imgclf_sweep import Choice, Fixed, Float, Int, Objective, SearchSpace, Sweep, datasets
from imgclf_sweep.errors import BadInput
from imgclf_sweep.record import opening, schema
from imgclf_sweep.record.layout import SweepDir
from imgclf_sweep.record.read import Reader
from imgclf_sweep.record.write import Record
from imgclf_sweep.sweep import BuildFunction
from imgclf_sweep.trial import Suggestion


def test_a_new_record_says_what_it_is(directory: SweepDir, sweep: Sweep, opened) -> None:
    record = opened(limit_images=500, trainer="synthetic")
    assert record.sweep == sweep and record.info.name == "s"
    assert (record.info.fingerprint, record.info.limit_images, record.info.trainer) == ("f1", 500, "synthetic")
    assert record.info.data == "/nowhere/cache/digits-1" and record.info.trials == 4
    assert {"python", "keras", "optuna", "numpy"} <= set(record.info.versions)
    written = json.loads(directory.declaration.read_text())
    assert Sweep.from_json(written["declaration"]) == sweep and written["id"] == record.info.id
    assert written["created"] == record.info.created and written["versions"] == record.info.versions
    database = sqlite3.connect(directory.database)
    pragmas = {
        p: database.execute(f"PRAGMA {p}").fetchone()[0] for p in ("journal_mode", "application_id", "user_version")
    }
    database.close()
    assert pragmas == {"journal_mode": "wal", "application_id": 0x696D6373, "user_version": 1}
    settings = {
        p: record._connection.execute(f"PRAGMA {p}").fetchone()[0]
        for p in ("synchronous", "foreign_keys", "busy_timeout")
    }
    assert settings == {"synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000}


def test_the_same_declaration_continues_and_only_the_target_may_differ(directory, sweep: Sweep, opened, images) -> None:
    with opened() as record:
        record.propose(Suggestion(0, {"filters": 16, "dropout": 0.3}, 5))
        first = record.info
    moved = images(path=Path("/elsewhere/cache"))
    for trials in (9, 2):
        with opened(sweep.replaced(trials=trials), data=moved) as record:
            assert (record.info.id, record.info.created, record.info.trials) == (first.id, first.created, trials)
            assert record.sweep == sweep.replaced(trials=trials) and record.info.data == "/elsewhere/cache"
            assert len(record.trials()) == 1
        assert json.loads(directory.declaration.read_text())["trials"] == trials
    assert Reader(directory).sweep.trials == 2


def test_naming_the_default_sampler_and_pruner_is_no_change(sweep: Sweep, opened) -> None:
    opened().close()
    opened(sweep.replaced(sampler="tpe", pruner="median")).close()


SPACE = {"filters": Choice([16, [16, 32]]), "dropout": Float(0.2, 0.5)}
CHANGES = [
    ({"epochs": 10}, "epochs: 5 in the record, 10 now"),
    ({"batch_size": 32}, "batch_size: 64 in the record, 32 now"),
    ({"seed": 1}, "seed: 0 in the record, 1 now"),
    ({"objective": Objective("val_accuracy", "min")}, "objective: val_accuracy (max) in the record, val_accuracy (min) now"),
    ({"objective": "val_loss"}, "objective: val_accuracy (max) in the record, val_loss (min) now"),
    ({"loss": "categorical_crossentropy"}, "loss: sparse_categorical_crossentropy in the record, categorical_crossentropy now"),
    ({"validation": 0.3}, "validation: 0.2 in the record, 0.3 now"),
    ({"test": 0.1}, "test: 0.2 in the record, 0.1 now"),
    ({"backend": "keras-tuner"}, "backend: optuna in the record, keras-tuner now"),
    ({"sampler": "random"}, "sampler: tpe in the record, random now"),
    ({"pruner": "none"}, "pruner: median in the record, none now"),
    ({"sampler": "grid", "pruner": "median"}, "sampler: tpe in the record, grid now"),
    ({"dataset": datasets.mnist()}, "dataset: digits in the record, mnist now"),
    ({"dataset": datasets.digits(color="rgb")}, "dataset color: gray in the record, rgb now"),
    ({"dataset": datasets.digits(scale=None)}, "dataset scale: minmax in the record, none now"),
    ({"space": SearchSpace(SPACE | {"dropout": Float(0.2, 0.6)})},
     "parameter 'dropout': Float(0.2, 0.5) in the record, Float(0.2, 0.6) now"),
    ({"space": SearchSpace(SPACE | {"dropout": Float(0.2, 0.5, log=True)})},
     "parameter 'dropout': Float(0.2, 0.5) in the record, Float(0.2, 0.5, log=True) now"),
    ({"space": SearchSpace(SPACE | {"filters": Choice([16, 64])})},
     "parameter 'filters': Choice([16, [16, 32]]) in the record, Choice([16, 64]) now"),
    ({"space": SearchSpace(SPACE | {"dense_units": Int(8, 64, step=8)})},
     "parameter 'dense_units': absent in the record, Int(8, 64, step=8) now"),
    ({"space": SearchSpace({"dropout": SPACE["dropout"]})},
     "parameter 'filters': Choice([16, [16, 32]]) in the record, absent now"),
    ({"space": SearchSpace(SPACE | {"dropout": Fixed(0.2)})},
     "parameter 'dropout': Float(0.2, 0.5) in the record, Fixed(0.2) now"),
    ({"space": SearchSpace(SPACE | {"dropout": Float(0.2, 0.5, when={"filters": 16})})},
     "parameter 'dropout': Float(0.2, 0.5) in the record, Float(0.2, 0.5, when={'filters': [16]}) now"),
    ({"space": SearchSpace(dropout=SPACE["dropout"], filters=SPACE["filters"])},
     "order of the parameters: filters, dropout in the record, dropout, filters now"),
    ({"epochs": 7, "seed": 3}, "epochs: 5 in the record, 7 now; seed: 0 in the record, 3 now"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "line"), CHANGES)
def test_a_changed_declaration_is_refused_with_the_difference(
    directory: SweepDir, sweep: Sweep, opened, change, line
) -> None:
    opened().close()
    before = contents(directory)
    with pytest.raises(BadInput) as error:
        opened(sweep.replaced(**change))
    said = "sweep 's' was begun with another declaration: " + line + "; undo that, or give another --name"
    assert str(error.value).startswith(said)
    assert contents(directory) == before
    opened().close()  # and the lock is free


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"limit_images": 100}, "limit_images: none in the record, 100 now"),
        ({"trainer": "synthetic"}, "trainer: fit in the record, synthetic now"),
        ({"data": "f2"}, "the images changed"),
    ],
)
def test_a_change_beside_the_declaration_is_refused_too(opened, images, changed: dict, line: str) -> None:
    opened().close()
    if "data" in changed:
        changed = {"data": images(fingerprint=changed["data"])}
    with pytest.raises(BadInput, match=f"another declaration: {line}; undo"):
        opened(**changed)


def test_build_is_its_source_wherever_the_file_lies(directory: SweepDir, sweep: Sweep, opened) -> None:
    def built(file: str, name: str, digest: str) -> Sweep:
        return Sweep(dataset=sweep.dataset, model=BuildFunction(file, name, digest), epochs=5)

    opened(built("/a/s.py", "build", "1")).close()
    with opened(built("/b/t.py", "build", "1")) as record:
        assert record.sweep.model.file == "/b/t.py"
    assert Reader(directory).sweep.model.file == "/b/t.py"
    with pytest.raises(BadInput, match="another declaration: the source of build\\(\\) changed; undo"):
        opened(built("/b/t.py", "build", "2"))
    with pytest.raises(BadInput, match="model: build\\(hp\\) in the record, make\\(hp\\) now"):
        opened(built("/b/t.py", "make", "1"))
    with pytest.raises(BadInput, match="model: build\\(hp\\) in the record, cnn now"):
        opened(sweep)


def test_reopening_takes_the_declaration_from_the_record(directory: SweepDir, sweep: Sweep, opened) -> None:
    with pytest.raises(BadInput, match="there is no sweep in"):
        Record.reopen(directory)
    assert not directory.root.exists()
    opened(limit_images=7).close()
    with Record.reopen(directory) as record:
        assert record.sweep == sweep and record.info.limit_images == 7 and record.info.data == "/nowhere/cache/digits-1"


@pytest.mark.parametrize(
    ("module", "function"),
    [(schema, "create"), (opening, "sync_directory"), (schema, "connect"), (opening, "write_declaration")],
)
def test_a_sweep_that_cannot_be_begun_leaves_nothing(
    directory: SweepDir, opened, monkeypatch, module, function
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no luck")

    monkeypatch.setattr(module, function, fails)
    with pytest.raises(RuntimeError):
        opened()
    assert not directory.root.exists()
    monkeypatch.undo()
    directory.path.mkdir(parents=True)  # the user's own empty directory is not ours to remove
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(module, function, fails)
        opened()
    assert os.listdir(directory.path) == []
    opened().close()


def test_a_place_that_holds_something_else_is_refused_untouched(directory: SweepDir, opened) -> None:
    directory.path.mkdir(parents=True)
    (directory.path / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match="holds notes.txt but no sweep.db"):
        opened()
    assert os.listdir(directory.path) == ["notes.txt"]
    (directory.path / "notes.txt").unlink()
    directory.path.rmdir()
    directory.path.write_text("a file")
    with pytest.raises(BadInput, match="is a file"):
        opened()
    assert directory.path.read_text() == "a file"


def test_a_wal_without_its_database_is_never_mixed_into_a_new_one(directory: SweepDir, opened) -> None:
    directory.path.mkdir(parents=True)
    schema.wal(directory.database).write_bytes(b"of a database that was deleted")
    with pytest.raises(BadInput, match="holds sweep.db-wal but no sweep.db"):
        opened()


def contents(directory: SweepDir) -> dict[str, bytes]:
    """Every file but the lock's, which says who looked last."""
    return {p.name: p.read_bytes() for p in directory.path.iterdir() if p != directory.lock}
