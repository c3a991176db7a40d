"""`sweep compare` and `sweep figures`: read from records and manifests alone."""

import json

import cv2
import pytest

from imgclf_sweep import compare as comparing
from imgclf_sweep.cli.show import stacked
from imgclf_sweep.record.layout import SweepDir
from imgclf_sweep.record.read import Reader

SYNTHETIC = ("--trainer", "synthetic")


@pytest.fixture
def done(cli, digits_file):
    """Two finished little sweeps, `little` of four trials and `other` of two; none was retrained."""
    cli("run", digits_file, *SYNTHETIC, "--trials", 4, "--pruner", "none", synthetic={"faults": {"1": ["raise", 1, 9]}})
    cli("run", digits_file, *SYNTHETIC, "--trials", 2, "--pruner", "none", "--name", "other")
    return cli


def manifest(directory, target, trial, **changes):
    """A manifest as `retrain` writes it, with a made-up score."""
    reader = Reader(directory)
    score = {"accuracy": 0.75, "low": 0.5, "high": 0.875, "over": "seeds and test images", "accuracies": [0.7, 0.8]}
    told = {
        "trial": trial,
        "params": reader.trial(trial).params,
        "parameters": {"total": 535_658, "trainable": 535_000},
        "seconds": [61.0, 62.0],
        "data": {"fingerprint": reader.info.fingerprint},
        "score": {**score, "images": 359},
    } | changes
    target.mkdir(parents=True)
    (target / "manifest.json").write_text(json.dumps({k: v for k, v in told.items() if v is not None}))


def test_before_retraining_the_winners_are_compared(done):
    little, other = done.json("compare", "little", "other")
    best = done.json("best", "little")
    assert (little["sweep"], little["trial"], little["validation"]) == ("little", best["number"], best["value"])
    assert little["params"] == best["params"] and little["model"] == "cnn" and little["objective"] == "val_accuracy"
    assert little["score"] is None and little["parameters"] is None and other["sweep"] == "other"
    shown = done("compare")
    at = f" --root {done.root}"  # what is to be pasted finds the sweep
    assert f"not scored yet:  sweep retrain little{at}\nnot scored yet:  sweep retrain other{at}" in shown.stdout
    assert "filters=" in shown.stdout and shown.stderr == ""
    assert [row["sweep"] for row in done.json("compare", "other", "little", "other")] == ["other", "little"]


def test_what_was_retrained_is_compared_by_its_manifest(done):
    little, other = SweepDir(done.root, "little"), SweepDir(done.root, "other")
    manifest(little, little.best, 0)
    manifest(little, little.retrained(10), 3)
    manifest(little, little.retrained(2), 2, parameters=None, seconds=None)
    manifest(other, other.best, 1, data={"fingerprint": "another"})
    (little.path / "retrained" / ".10.new-1").mkdir()
    rows = done.json("compare", "little", "other")
    assert [(row["sweep"], row["trial"]) for row in rows] == [("little", 0), ("little", 2), ("little", 3), ("other", 1)]
    first, old, *_ = rows
    assert (first["score"], first["low"], first["high"], first["seeds"], first["images"]) == (0.75, 0.5, 0.875, 2, 359)
    assert (first["parameters"], first["trainable"], first["seconds"]) == (535_658, 535_000, 61.0)
    trials = done.json("trials", "little")
    assert first["validation"] == trials[0]["value"]
    assert (old["parameters"], old["seconds"]) == (None, trials[2]["seconds"])
    shown = done("compare", "little", "other")
    assert "535,658" in shown.stdout and "1 min 01 s" in shown.stdout and "0.5000-0.8750" in shown.stdout
    assert "different images" in shown.stderr and "not scored" not in shown.stdout
    best = done.json("best", "little")["number"]
    assert (f"little: trial {best} is the best by now" in shown.stderr) is (best != 0)


def test_on_a_terminal_no_number_is_parted_and_the_model_stands_below(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    stacked(["sweep", "params", "model"], [["little", "1,234,567", "cnn " + "filters=64 " * 9], ["b", "-", "cnn"]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["sweep   params", "little  1,234,567"] and lines[-2:] == ["b       -", "    cnn"]
    assert lines[2].startswith("    cnn filters=64 ") and max(map(len, lines)) <= 60


def test_values_of_different_metrics_are_remarked(done):
    directories = [SweepDir(done.root, name) for name in ("little", "other")]
    found = [row for directory in directories for row in comparing.rows(directory)]
    assert list(comparing.remarks(directories, found)) == []
    found[1] = comparing.Row(**{**found[1].to_json(), "objective": "val_\x1b[2Jf1"})
    (line,) = comparing.remarks(directories, found)
    assert "different metrics: val_\\x1b[2Jf1, val_accuracy" in line


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"trial": 0, "score": 3}', "\xff"])
def test_a_damaged_manifest_is_one_line(done, damage):
    best = SweepDir(done.root, "little").best
    best.mkdir()
    (best / "manifest.json").write_bytes(damage.encode("latin-1"))
    refused = done("compare", "little", code=4)
    assert refused.stderr.count("\n") == 1 and "manifest.json cannot be read" in refused.stderr and refused.stdout == ""


def test_a_damaged_record_does_not_hide_the_others(done):
    damaged = SweepDir(done.root, "damaged")
    damaged.path.mkdir()
    damaged.database.write_bytes(b"notes of mine" * 1000)
    for verb in ("list", "compare"):
        said = done(verb, code=4)
        assert "little" in said.stdout and str(damaged.database) in said.stderr and said.stderr.count("\n") == 1


def test_figures_draws_the_curves_of_any_trial_that_measured(done, digits_file):
    digits_file.unlink()
    written = done("figures", "little", "--trial", 0).stdout.split(" in ")[1].strip()
    best = done.json("best", "little")["number"]
    assert f"trial-{best:04d}.png" in done("figures", "little").stdout
    image = cv2.imread(written)
    assert written.endswith("sweeps/little/figures/trial-0000.png") and image.shape[1] > 500
    before = sorted(done.root.rglob("*"))
    assert "trial 1 is FAILED" in done("figures", "little", "--trial", 1, code=2).stderr
    assert "there is no trial 9" in done("figures", "little", "--trial", 9, code=2).stderr
    assert sorted(done.root.rglob("*")) == before


@pytest.mark.parametrize("arguments", [("compare", "nothing"), ("compare",), ("figures", "nothing"), ("figures",)])
def test_sweeps_that_are_not_there_are_one_line(cli, arguments):
    refused = cli(*arguments, code=2)
    assert refused.stderr.startswith("sweep: ") and refused.stderr.count("\n") == 1 and not cli.root.exists()


def test_check_saves_sample_images(cli, digits_file):
    out = cli("check", digits_file).stdout
    path = cli.root / "cache" / "samples" / "little.png"
    assert f"sample images by class: {path}" in out and cv2.imread(str(path)).shape[0] > 300
