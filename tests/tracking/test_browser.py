"""What a user sees of a sweep in the HParams tab, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from board_browser import Page, available, chromium
from synthetic_sweep import play

from imgclf_sweep.board import serve
from imgclf_sweep.tracking.tensorboard import TensorBoardTracker
from imgclf_sweep.trial import State

pytestmark = pytest.mark.skipif(not available(), reason="no chromium with chromedriver here")


def test_the_hparams_tab_shows_the_sweep(tmp_path: Path) -> None:
    tracker = TensorBoardTracker(tmp_path / "synth")
    trials = play(tracker)
    with serve(tmp_path / "synth", 0) as server, chromium() as driver:
        page = Page(driver, server.url)
        table = page.table()
        assert sorted(table["rows"]) == [f"synth-{t.number:04d}" for t in trials]
        assert table["hparams"] == ["batch_norm", "dense_units", "dropout", "ker_size_blocks", "lear_rate.log10"]
        assert table["metrics"] == ["objective", "val_loss", "accuracy", "epochs_run", "trial_seconds"]
        page.screenshot(tmp_path / "board.png")
        parallel = page.parallel()
        page.screenshot(tmp_path / "board_parallel.png")
        with_value = [t for t in trials if t.state in (State.COMPLETE, State.PRUNED)]
        assert sorted(parallel["rows"]) == sorted(f"synth-{t.number:04d}" for t in with_value)
        assert len(parallel["paths"]) == len(with_value)
        assert all(path and "NaN" not in path for path in parallel["paths"])
        assert [line for line in page.severe() if "/data/" in line or "NaN" in line] == []
    tracker.closed("")
