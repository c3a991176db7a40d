"""What a running sweep says on a terminal and anywhere else."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_sweep import attempt, end, finished, make_sweep, play, suggestion_of

from imgclf_sweep import Choice, SearchSpace
from imgclf_sweep.tracking.console import ConsoleTracker, is_live
from imgclf_sweep.tracking.progress import Progress, duration, outcome_text, params_text, time_left
from imgclf_sweep.tracking.protocol import SweepInfo, TimeLeft
from imgclf_sweep.trial import Kind, Measurement, Outcome, State, Suggestion

PROGRAM = f"""
import itertools, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from synthetic_sweep import play
from imgclf_sweep.tracking.console import ConsoleTracker
tracker = ConsoleTracker(clock=itertools.count().__next__)
play(tracker)
tracker.note("caf\\u00e9")
tracker.closed("finished\\nsweep retrain synth")
print("rich" if "rich" in sys.modules else "no rich", file=sys.stderr)
"""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def info(**changes: object) -> SweepInfo:
    return SweepInfo("synth", make_sweep(**changes), 8, [], workers=2)


def test_plain_lines_one_a_finished_trial() -> None:
    out = io.StringIO()
    tracker = ConsoleTracker(out)
    play(tracker)
    tracker.closed("stopped\nto go on: sweep run synth.py")
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("sweep synth: 8 trials, optuna tpe/median, 2 workers; val_accuracy, higher is better")
    ends = [line for line in lines if line.startswith("trial ") and "interrupted" not in line]
    assert [int(line.split()[1]) for line in ends] == [0, 2, 1, 3, 4, 5, 6]
    assert "PRUNED" in ends[1] and "val_accuracy 0.6400 (epoch 2 of 2)" in ends[1]
    assert "FAILED    diverged: val_loss is not finite" in ends[3]
    assert "COMPLETE  val_accuracy 0.5900 (epoch 3 of 4)  best so far  1.5 s  filters=16 kernel_size=3-3" in ends[0]
    assert any("interrupted: stopped; it will run again" in line for line in lines)
    assert lines[-3].startswith("7 of 8 trials done (4 complete, 1 pruned, 2 failed)")
    assert "best: trial 6, val_accuracy 0.8300" in lines[-3]
    assert lines[-2:] == ["stopped", "to go on: sweep run synth.py"]


def test_a_promoted_trial_counts_the_epochs_it_went_on_from() -> None:
    promoted = Suggestion(3, {"filters": 16}, epochs=6, initial_epoch=2, parent=0)
    outcome = Outcome(State.COMPLETE, 0.5, epoch=5, epochs=4)
    assert outcome_text(promoted, outcome, "val_accuracy") == "val_accuracy 0.5000 (epoch 5 of 6)"


def test_a_continued_sweep_counts_what_is_recorded() -> None:
    out = io.StringIO()
    tracker = ConsoleTracker(out)
    tracker.opened(replace(info(), history=[finished(0, 4, State.COMPLETE), finished(1, 2, State.PRUNED)]))
    tracker.closed("done")
    assert "2 of them recorded already" in out.getvalue()
    assert "2 of 8 trials done (1 complete, 1 pruned)" in out.getvalue() and "best: trial 0" in out.getvalue()


@pytest.mark.parametrize("live", [False, True])
def test_text_from_files_cannot_move_the_cursor_or_be_markup(live: bool) -> None:
    nasty = "\x1b[2J\r[bold red]x[/] [/nothing]"
    sweep = make_sweep(space=SearchSpace(optimizer=Choice(["adam", "sgd"])))
    out = io.StringIO()
    tracker = ConsoleTracker(out, live=live)
    tracker.opened(SweepInfo("n", sweep, 2, []))
    suggestion = Suggestion(0, {"optimizer": nasty}, 2)
    tracker.started(suggestion, 1)
    tracker.measured(suggestion, Measurement(1, {"val_accuracy": 0.5}, 0.1), 0.5)
    tracker.ended(suggestion, Outcome(State.FAILED, kind=Kind.ERROR, reason=nasty))
    tracker.note(nasty)
    tracker.closed(nasty)
    text = out.getvalue()
    assert "\x1b[2J" not in text
    assert "[bold red]x[/] [/nothing]" in text
    if not live:
        assert text.isprintable() or {c for c in text if not c.isprintable()} == {"\n"}


def test_the_live_display_shows_the_state_and_leaves_the_lines() -> None:
    from imgclf_sweep.tracking.live import Display

    clock, out = Clock(), io.StringIO()
    progress = Progress(info(), 0.0)
    done = finished(0, 4, State.COMPLETE)
    progress.started(suggestion_of(0), 0.0)
    progress.ended(suggestion_of(0), done.outcome)
    progress.started(suggestion_of(1), 1.0)
    progress.measured(suggestion_of(1), Measurement(2, {"val_accuracy": 0.6}, 0.1))
    clock.now = 65.0
    display = Display(out, progress, clock, record=True)
    display.console.width = 110
    display.console.print(display.render())
    display.close()
    text = display.console.export_text()
    assert "1/8 trials" in text and "1 complete" in text and "1 min 05 s" in text and " left" in text
    assert "best so far: val_accuracy 0.5900  trial 0, epoch 3  filters=16" in text
    assert "trial 1  epoch 2/4  val_accuracy 0.6000  1 min 04 s" in text


def test_the_display_is_redrawn_only_now_and_then() -> None:
    clock, out = Clock(), io.StringIO()
    tracker = ConsoleTracker(out, live=True, clock=clock)
    tracker.opened(info())
    drawn = len(out.getvalue())
    tracker.tick()
    assert len(out.getvalue()) == drawn
    clock.now = 1.0
    tracker.tick()
    assert len(out.getvalue()) > drawn
    tracker.closed("done")


def test_only_a_terminal_that_can_gets_the_moving_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert not is_live(io.StringIO())
    leader, follower = pty.openpty()
    for term, encoding, live in (("xterm", "utf-8", True), ("dumb", "utf-8", False), ("xterm", "ascii", False)):
        monkeypatch.setenv("TERM", term)
        with open(follower, "w", encoding=encoding, closefd=False) as stream:
            assert is_live(stream) is live
    assert not is_live(stream)  # closed
    os.close(leader)
    os.close(follower)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_pipe_needs_no_rich_and_ascii_is_enough(encoding: str) -> None:
    env = os.environ | {"PYTHONIOENCODING": encoding, "LANG": "C", "TERM": "dumb"}
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, env=env, check=True)
    text = result.stdout.decode(encoding)
    assert ("caf\\xe9" if encoding == "ascii" else "caf\u00e9") in text
    assert text.splitlines()[-1] == "sweep retrain synth" and "\x1b" not in text
    assert result.stderr.decode().strip() == "no rich"


def test_a_reader_that_leaves_does_not_end_the_sweep() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run([sys.executable, "-c", PROGRAM], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (result.returncode, result.stderr.decode().strip()) == (0, "no rich")


def test_a_terminal_that_closes_does_not_end_the_sweep() -> None:
    leader, follower = pty.openpty()
    stream = open(follower, "w", encoding="utf-8")  # noqa: SIM115
    tracker = ConsoleTracker(stream, live=True)
    tracker.opened(info())
    attempt(tracker, 0, 2)
    os.close(leader)  # writes now fail with EIO
    end(tracker, finished(0, 2, State.COMPLETE))
    tracker.tick()
    tracker.closed("done")
    with contextlib.suppress(OSError):  # what was still in its buffer
        stream.close()


def test_a_closed_stream_is_given_up() -> None:
    out = io.StringIO()
    tracker = ConsoleTracker(out)
    tracker.opened(info())
    out.close()
    play(tracker)
    tracker.closed("done")


def test_on_a_terminal_the_lines_stay_and_the_display_goes(tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    env = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120", "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=follower, stderr=subprocess.PIPE, env=env) as process:
        os.close(follower)
        shown = b""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                data = os.read(leader, 65536)
            except OSError:  # EIO: the other end is closed
                break
            if not data:
                break
            shown += data
        assert process.wait() == 0
        assert process.stderr is not None and process.stderr.read().strip() == b"rich"
    os.close(leader)
    text = shown.decode()
    assert "best so far: val_accuracy" in text and "epoch 2/4" in text
    assert text.rstrip().endswith("sweep retrain synth")
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back


def test_only_complete_trials_can_be_the_best() -> None:
    progress = Progress(info(), 0.0)
    assert not progress.ended(suggestion_of(7), finished(7, 2, State.PRUNED).outcome)
    assert progress.best is None
    assert progress.ended(suggestion_of(0), finished(0, 4, State.COMPLETE).outcome)
    assert not progress.ended(suggestion_of(1), Outcome(State.FAILED))
    assert progress.best is not None and progress.best[0].number == 0


@pytest.mark.parametrize(
    ("trials", "text"),
    [
        (None, "time left not known yet"),
        ((0.0, 0.0), "up to 0 s left"),
        ((0.0, 4.2), "up to 5 s left"),
        ((41.3, 55.0), "about 41 s to 55 s left"),
        ((170.0, 290.0), "about 2 min 50 s to 4 min 50 s left"),
        ((1205.0, 1530.0), "about 20 min to 26 min left"),
        ((1200.0, 1200.0), "about 20 min left"),
        ((7900.0, 10100.0), "about 2 h 10 min to 2 h 50 min left"),
        ((3500.0, 3700.0), "about 50 min to 1 h 10 min left"),
        ((100000.0, 110000.0), "about 27 h 30 min to 31 h left"),
    ],
)
def test_the_time_left_in_words(trials: tuple[float, float] | None, text: str) -> None:
    assert time_left(TimeLeft(trials)) == text


def test_the_end_of_the_run_is_said_beside_it() -> None:
    assert time_left(TimeLeft((7900.0, 10100.0), 4810.0, "07:00")).endswith("left; 1 h 20 min until 07:00")
    assert time_left(TimeLeft(None, 90.0)) == "time left not known yet; 1 min 30 s until the time is up"
    assert time_left(TimeLeft(None, -3.0)).endswith("; the time is up")


def test_the_time_left_is_said_now_and_then_where_no_display_shows_it() -> None:
    clock, out = Clock(), io.StringIO()
    tracker = ConsoleTracker(out, clock=clock, left=lambda: TimeLeft((300.0, 400.0)))
    tracker.opened(info())
    for number, clock.now in enumerate((10.0, 59.0, 61.0, 70.0, 122.0)):
        attempt(tracker, number, 2)
        end(tracker, finished(number, 2, State.COMPLETE))
    said = [line for line in out.getvalue().splitlines() if line.endswith("left")]
    assert said == [f"{n} of 8 trials done, about 5 min to 6 min 40 s left" for n in (3, 5)]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.26, "0.3 s"), (12.4, "12 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_a_duration_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_parameters_are_cut_to_a_width() -> None:
    assert params_text({"filters": (64, 32), "lr": 3.456789e-4}) == "filters=64-32 lr=0.0003457"
    assert params_text({"filters": (64, 32), "lr": 0.1}, 12) == "filters=6..."
    assert params_text({}) == "(no parameters)"


def test_what_happens_to_many_lanes_at_once_is_one_line() -> None:
    out = io.StringIO()
    tracker = ConsoleTracker(out)
    tracker.opened(replace(info(), trials=144, workers=144, lanes=144))
    suggestions = [Suggestion(n, {"filters": 16}, epochs=5) for n in range(144)]
    for suggestion in suggestions:
        tracker.started(suggestion, 1)
    for suggestion in suggestions:
        tracker.interrupted(suggestion, "the worker died")
    tracker.tick()
    for suggestion in suggestions[:20]:
        tracker.resumed(suggestion, [Measurement(1, {"val_accuracy": 0.5}, 1.0)])
    tracker.resumed(suggestions[20], [Measurement(1, {"val_accuracy": 0.5}, 1.0)])
    tracker.resumed(suggestions[21], [Measurement(2, {"val_accuracy": 0.5}, 1.0)])
    tracker.ended(suggestions[3], Outcome(State.COMPLETE, 0.5, epoch=5, epochs=5))
    lines = out.getvalue().splitlines()
    assert "1 worker of 144 trials at a time" in lines[0]
    assert lines[1:4] == [
        "144 trials, 0 to 143, interrupted: the worker died; they will run again",
        "21 trials, 0 to 20, go on after epoch 1 of 5",
        "trial 21   goes on after epoch 2 of 5",
    ]
    assert lines[4].startswith("trial 3    COMPLETE") and len(lines) == 5
