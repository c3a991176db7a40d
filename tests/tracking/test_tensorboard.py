"""The TensorBoard tracker: what it leaves on disk, and what a real TensorBoard makes of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hparams_checks import Board, check_board
from synthetic_sweep import EPOCHS, attempt, end, finished, make_sweep, play, suggestion_of
from tensorboard.compat.proto import event_pb2
from tensorboard.plugins.hparams import metadata

from imgclf_sweep import Objective, SearchSpace
from imgclf_sweep.board import serve
from imgclf_sweep.tracking.events import Run
from imgclf_sweep.tracking.protocol import SweepInfo
from imgclf_sweep.tracking.tensorboard import SWEEP_RUN, TensorBoardTracker, trial_id
from imgclf_sweep.trial import Measurement, State, Suggestion, Trial

pytestmark = pytest.mark.filterwarnings("error")


class Logs:
    """A logs directory written by one tracker after another, as by one process after another that was killed."""

    def __init__(self, root: Path) -> None:
        self.root = root / "logs" / "synth"
        self.trackers: list[TensorBoardTracker] = []
        self.warnings: list[str] = []

    def tracker(self) -> TensorBoardTracker:
        self.kill()
        self.trackers.append(TensorBoardTracker(self.root, self.warnings.append))
        return self.trackers[-1]

    def kill(self) -> None:
        """Closing writes nothing, so that this leaves what a kill leaves."""
        for tracker in self.trackers:
            tracker.closed("")

    def opened(self, trials: list[Trial] | None = None, **changes: object) -> TensorBoardTracker:
        tracker = self.tracker()
        tracker.opened(SweepInfo("synth", make_sweep(**changes), 8, trials or []))
        return tracker

    def run(self, number: int) -> Run:
        return Run.read(self.root / trial_id("synth", number))

    def sizes(self) -> dict[Path, int]:
        return {path: path.stat().st_size for path in self.root.rglob("events*")}


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[Logs]:
    made = Logs(tmp_path)
    yield made
    made.kill()


def kinds(run: Run) -> list[str]:
    """What each event of a run is: "version", "restart N", a metadata tag, or "step N"."""
    out = []
    for event in run.events():
        if event.file_version:
            out.append("version")
        elif event.session_log.status == event_pb2.SessionLog.START:
            out.append(f"restart {event.step}")
        else:
            tag = event.summary.value[0].tag
            out.append(tag if tag.startswith("_hparams_") else f"step {event.step}")
    return out


def tags(run: Run, step: int) -> list[str]:
    return [value.tag for event in run.events() if event.step == step for value in event.summary.value]


@pytest.mark.parametrize("load_fast", ["true", "false"])
def test_a_real_tensorboard_shows_every_trial_as_recorded(logs: Logs, load_fast: str) -> None:
    trials = play(logs.tracker(), logs.tracker)
    with serve(logs.root, 0, load_fast=load_fast, reload_interval=1) as server:
        check_board(server.url, trials, make_sweep(), "synth")


def test_a_stopped_and_continued_sweep_shows_the_same(logs: Logs) -> None:
    trials = play(logs.tracker())
    with serve(logs.root, 0, load_fast="false") as server:
        check_board(server.url, trials, make_sweep(), "synth")


def test_a_board_opened_before_the_first_trial_follows_the_sweep(logs: Logs) -> None:
    tracker = logs.opened()
    with serve(logs.root, 0, reload_interval=1) as server:
        board = Board(server.url)
        board.until(lambda: bool(board.post("experiment", {"hparamsLimit": 100}).get("hparamInfos")))
        attempt(tracker, 0, 1)
        board.until(lambda: "synth-0000" in board.rows() and bool(board.rows()["synth-0000"].get("metricValues")))
        row = board.rows()["synth-0000"]
        assert row["sessions"][0].get("status", "STATUS_UNKNOWN") == "STATUS_UNKNOWN"
        assert {v["name"]["tag"] for v in row["metricValues"]} >= {"objective", "val_loss", "accuracy"}
        done = finished(0, 1, State.COMPLETE)
        end(tracker, done)
        check_board(server.url, [done], make_sweep(), "synth")


def test_one_directory_and_one_file_a_trial_and_one_more_a_restart(logs: Logs) -> None:
    trials = play(logs.tracker(), logs.tracker)
    assert {p.name for p in logs.root.iterdir()} == {SWEEP_RUN} | {trial_id("synth", t.number) for t in trials}
    files = [len(logs.run(t.number).files) for t in trials]
    assert files == [t.attempts for t in trials]
    assert len(Run.read(logs.root / SWEEP_RUN).files) == 1


def test_the_events_of_a_trial_and_of_one_that_was_restarted(logs: Logs) -> None:
    play(logs.tracker(), logs.tracker)
    start, done = "_hparams_/session_start_info", "_hparams_/session_end_info"
    steps = [f"step {epoch}" for epoch in range(1, EPOCHS + 1)]
    assert kinds(logs.run(0)) == ["version", "restart 0", start, *steps, f"step {EPOCHS}", done]
    again = ["version", "restart 1", *steps, f"step {EPOCHS}", done]
    assert kinds(logs.run(5)) == ["version", "restart 0", start, "step 1", "step 2", "step 3", *again]
    assert kinds(logs.run(4)) == ["version", "restart 0", start, done]  # failed before training
    assert tags(logs.run(0), 1)[0] == "objective"
    config = kinds(Run.read(logs.root / SWEEP_RUN))
    assert config[2] == "_hparams_/experiment" and config.count("_hparams_/experiment") == 1


def test_the_sweeps_own_scalars_come_in_order_of_number(logs: Logs) -> None:
    trials = play(logs.tracker(), logs.tracker)
    run = Run.read(logs.root / SWEEP_RUN)
    assert run.curve("sweep/trials_finished") == {n: n + 1 for n in range(7)}
    assert run.curve("sweep/trials_failed") == {0: 0, 1: 0, 2: 0, 3: 1, 4: 2, 5: 2, 6: 2}
    assert run.curve("sweep/trials_pruned")[6] == 1
    best = run.curve("sweep/best_objective")
    assert best[2] == best[1]  # the pruned trial 2 had a higher value, and does not count
    assert best[6] == pytest.approx(max(t.value for t in trials if t.state is State.COMPLETE), rel=1e-6)


def test_reopening_a_complete_log_writes_nothing(logs: Logs) -> None:
    trials = play(logs.tracker(), logs.tracker)
    logs.kill()
    before = logs.sizes()
    logs.opened(trials)
    logs.kill()
    assert logs.sizes() == before


@pytest.mark.parametrize("written", [0, 1, 3, EPOCHS])
def test_a_trial_finished_just_before_a_kill_is_made_up_for(logs: Logs, written: int) -> None:
    """Killed between commit and write: epochs and the end are in the record only."""
    attempt(logs.opened(), 0, written)
    done = finished(0, EPOCHS, State.COMPLETE)
    logs.opened([done])
    run = logs.run(0)
    assert run.ended and kinds(run).count("_hparams_/session_end_info") == 1
    assert len(run.files) == 1
    assert run.curve("val_accuracy") == pytest.approx(done.curve, rel=1e-6)
    assert run.curve("epochs_run") == {EPOCHS: EPOCHS}
    assert run.curve("objective")[EPOCHS] == pytest.approx(done.value, rel=1e-6)
    with serve(logs.root, 0, load_fast="false") as server:
        check_board(server.url, [done], make_sweep(), "synth", whole=written == EPOCHS)


def test_logs_that_were_deleted_are_rebuilt_from_the_record(logs: Logs) -> None:
    trials = play(logs.tracker(), logs.tracker)
    logs.kill()
    shutil.rmtree(logs.root)
    trials = [t for t in trials if t.state.finished]
    logs.opened(trials)
    with serve(logs.root, 0, reload_interval=1) as server:
        check_board(server.url, trials, make_sweep(), "synth", whole=False)


@pytest.mark.parametrize("load_fast", ["true", "false"])
@pytest.mark.parametrize("cut", [1, 40])
def test_a_file_torn_in_its_last_record_is_continued_in_a_later_one(logs: Logs, cut: int, load_fast: str) -> None:
    attempt(logs.opened(), 0, 3)
    logs.kill()
    (file,) = logs.run(0).files
    file.write_bytes(file.read_bytes()[:-cut])
    done = finished(0, EPOCHS, State.COMPLETE)
    logs.opened([done])
    assert len(logs.run(0).files) == 2
    assert kinds(logs.run(0)).count("_hparams_/session_start_info") == 1
    with serve(logs.root, 0, load_fast=load_fast, reload_interval=1) as server:
        check_board(server.url, [done], make_sweep(), "synth", whole=False)


def test_a_tail_of_zeros_after_a_power_cut_is_not_appended_to(logs: Logs) -> None:
    attempt(logs.opened(), 0, 2)
    logs.kill()
    (file,) = logs.run(0).files
    file.write_bytes(file.read_bytes() + bytes(64))
    logs.opened([finished(0, EPOCHS, State.COMPLETE)])
    assert len(logs.run(0).files) == 2 and logs.run(0).ended


def test_a_curve_of_a_lost_attempt_does_not_stand_for_the_one_that_counts(logs: Logs) -> None:
    attempt(logs.opened(), 0, EPOCHS)  # the first attempt is on disk, the second one only in the record
    done = finished(0, 2, State.PRUNED, attempts=2, reason="median")
    logs.opened([done])
    run = logs.run(0)
    assert run.curve("val_accuracy") == pytest.approx(done.curve, rel=1e-6)
    assert kinds(run).count("restart 1") == 1


def test_an_attempt_that_died_before_its_start_record_was_written(logs: Logs) -> None:
    tracker = logs.opened()
    (logs.root / "synth-0000").mkdir()
    attempt(tracker, 0, 1, count=2)
    assert kinds(logs.run(0)).count("_hparams_/session_start_info") == 1


def test_what_is_left_of_a_proposal_that_the_record_lost_makes_room_for_the_one_under_its_number(logs: Logs) -> None:
    other = Suggestion(1, {**suggestion_of(3).params}, EPOCHS)
    tracker = logs.opened([finished(0, 4, State.COMPLETE)])
    tracker.started(other, 1)
    tracker.measured(other, Measurement(1, {"val_accuracy": 0.1}, 0.1), 0.1)
    attempt(logs.opened([finished(0, 4, State.COMPLETE)]), 1, 2)  # after the loss of power it is asked for again
    cells = {}
    for event in logs.run(1).events():
        for value in event.summary.value:
            if value.tag == "_hparams_/session_start_info":
                info = metadata.parse_session_start_info_plugin_data(value.metadata.plugin_data.content)
                cells = {name: cell.number_value for name, cell in info.hparams.items()}
    assert cells["dense_units"] == suggestion_of(1).params["dense_units"] != other.params["dense_units"]
    assert len(logs.run(1).files) == 1 and set(logs.run(1).curve("val_accuracy")) == {1, 2}


def test_a_promoted_trial_continues_its_parents_epochs(logs: Logs) -> None:
    tracker = logs.opened()
    suggestion = Suggestion(0, {}, epochs=6, initial_epoch=3, parent=None)
    tracker.started(suggestion, 1)
    tracker.measured(suggestion, Measurement(4, {"val_accuracy": 0.5}, 0.1), 0.5)
    tracker.interrupted(suggestion, "stopped")
    tracker.started(suggestion, 2)
    tracker.measured(suggestion, Measurement(4, {"val_accuracy": 0.5}, 0.1), 0.5)
    assert kinds(logs.run(0))[-2:] == ["restart 4", "step 4"]


def test_a_resumed_trial_goes_on_in_its_curve_and_makes_up_what_was_not_written(logs: Logs) -> None:
    tracker = logs.opened()
    epochs = [Measurement(e, {"val_accuracy": v, "loss": 1 / e}, 0.1) for e, v in enumerate([0.2, 0.5, 0.4, 0.6], 1)]
    tracker.started(suggestion_of(0), 1)
    tracker.measured(suggestion_of(0), epochs[0], 0.2)
    tracker.measured(suggestion_of(0), epochs[1], 0.5)
    tracker.interrupted(suggestion_of(0), "killed after the record heard of epoch 3, before the log did")
    tracker.started(suggestion_of(0), 2)
    tracker.resumed(suggestion_of(0), epochs[:3])
    tracker.measured(suggestion_of(0), epochs[3], 0.6)
    run = logs.run(0)
    steps = [kind for kind in kinds(run) if kind.startswith(("step", "restart"))]
    assert steps == ["restart 0", "step 1", "step 2", "restart 3", "step 3", "step 4"]
    assert run.curve("objective") == pytest.approx({1: 0.2, 2: 0.5, 3: 0.5, 4: 0.6})
    assert run.curve("loss") == pytest.approx({1: 1, 2: 1 / 2, 3: 1 / 3, 4: 1 / 4})


def test_a_resumed_trial_drops_what_was_written_of_epochs_that_come_again(logs: Logs) -> None:
    tracker = logs.opened()
    epochs = [Measurement(e, {"val_accuracy": v}, 0.1) for e, v in enumerate([0.2, 0.5, 0.7], 1)]
    tracker.started(suggestion_of(0), 1)
    for epoch in epochs:
        tracker.measured(suggestion_of(0), epoch, epoch.metrics["val_accuracy"])
    tracker.interrupted(suggestion_of(0), "killed; its last checkpoint is torn")
    tracker.started(suggestion_of(0), 2)
    assert logs.run(0).curve("objective") == pytest.approx({1: 0.2, 2: 0.5, 3: 0.7})  # nothing is known yet
    tracker.resumed(suggestion_of(0), epochs[:2])
    assert logs.run(0).curve("objective") == pytest.approx({1: 0.2, 2: 0.5})


def test_a_resumed_trial_whose_logs_are_gone_is_written_whole(logs: Logs) -> None:
    tracker = logs.opened()
    tracker.started(suggestion_of(0), 2)
    tracker.resumed(suggestion_of(0), [Measurement(e, {"val_accuracy": 0.1 * e}, 0.1) for e in (1, 2)])
    tracker.measured(suggestion_of(0), Measurement(3, {"val_accuracy": 0.1}, 0.1), 0.2)
    assert logs.run(0).curve("val_accuracy") == pytest.approx({1: 0.1, 2: 0.2, 3: 0.1})
    assert logs.run(0).started


def test_only_numbers_that_a_float32_can_hold_are_written(logs: Logs) -> None:
    tracker = logs.opened()
    tracker.started(suggestion_of(0), 1)
    tracker.measured(suggestion_of(0), Measurement(1, {"loss": 1e39, "val_loss": 2.0, "x": float("nan")}, 0.1), 0.5)
    assert tags(logs.run(0), 1) == ["objective", "val_loss"]


def test_a_users_metric_named_as_one_of_ours_moves_aside(logs: Logs) -> None:
    tracker = logs.opened()
    tracker.started(suggestion_of(0), 1)
    tracker.measured(suggestion_of(0), Measurement(1, {"objective": 7.0, "val_accuracy": 0.5}, 0.1), 0.5)
    assert logs.run(0).curve("objective") == {1: 0.5}
    assert logs.run(0).curve("keras/objective") == {1: 7.0}


def test_at_most_the_running_trials_files_are_open(logs: Logs) -> None:
    tracker = logs.opened()
    for number in range(30):
        attempt(tracker, number % 10, 1, count=1 + number // 10)
        tracker.interrupted(suggestion_of(number % 10), "stopped")
    fds = [p.resolve() for p in Path("/proc/self/fd").iterdir()] if Path("/proc/self/fd").exists() else []
    assert sum(logs.root in p.parents for p in fds) <= 1


def test_a_disk_that_cannot_be_written_does_not_end_the_sweep(logs: Logs) -> None:
    tracker = logs.opened()
    attempt(tracker, 0, 1)
    (logs.root / "synth-0001").write_text("in the way")
    attempt(tracker, 1, 2)
    one, nought = finished(1, 2, State.COMPLETE), finished(0, 1, State.COMPLETE)
    end(tracker, one)
    end(tracker, nought)
    assert logs.run(0).ended
    assert len(logs.warnings) == 1 and "TensorBoard" in logs.warnings[0]
    (logs.root / "synth-0001").unlink()
    logs.opened([nought, one])
    assert logs.run(1).ended


def test_logs_of_a_deleted_sweep_of_the_same_name_are_set_aside(logs: Logs) -> None:
    play(logs.tracker(), logs.tracker)
    tracker = logs.opened(space=SearchSpace(filters=[8, 16]))
    assert "moved" in logs.warnings[0]
    assert (logs.root.parent / "synth.old-1" / "synth-0000").is_dir()
    tracker.started(Suggestion(0, {"filters": 8}, 2), 1)
    assert kinds(logs.run(0)) == ["version", "restart 0", "_hparams_/session_start_info"]
    config = Run.read(logs.root / SWEEP_RUN).experiment()
    assert config is not None and [info.name for info in config.hparam_infos] == ["filters"]


def test_a_config_of_a_sweep_that_never_started_is_replaced_only_if_it_differs(logs: Logs) -> None:
    logs.opened()
    before = logs.sizes()
    logs.opened()
    assert logs.sizes() == before
    logs.opened(space=SearchSpace(filters=[8, 16]))
    config = Run.read(logs.root / SWEEP_RUN).experiment()
    assert config is not None and [info.name for info in config.hparam_infos] == ["filters"]


def test_it_can_be_closed_without_having_been_opened(tmp_path: Path) -> None:
    TensorBoardTracker(tmp_path / "synth").closed("stopped by an error")
    assert list(tmp_path.iterdir()) == []


def test_an_id_is_short_padded_and_unique() -> None:
    long = "a-very-long-name-for-a-sweep-of-cifar"
    assert trial_id("digits", 7) == "digits-0007"
    assert trial_id("x" * 16, 12345) == "x" * 16 + "-12345"
    assert len(trial_id(long, 3)) <= 16 + 5
    assert trial_id(long, 3) != trial_id(long + "2", 3)


def test_minimised_objectives_show_their_lowest_value_first(logs: Logs) -> None:
    sweep = make_sweep(objective=Objective("val_loss", "min"))
    tracker = logs.tracker()
    tracker.opened(SweepInfo("synth", sweep, 8, []))
    curves = {0: [0.9, 0.5, 0.7], 1: [0.8, 0.6, 0.4]}
    trials = []
    for number, losses in curves.items():
        suggestion = suggestion_of(number)
        tracker.started(suggestion, 1)
        for epoch, loss in enumerate(losses, 1):
            metrics = {"val_loss": loss, "loss": loss, "accuracy": 0.5, "val_accuracy": 0.5}
            tracker.measured(suggestion, Measurement(epoch, metrics, 0.1), min(losses[:epoch]))
        done = finished(number, 3, State.COMPLETE)
        best = min(losses)
        curve = dict(enumerate(losses, 1))
        trials.append(replace(done, curve=curve, value=best, epoch=losses.index(best) + 1))
        end(tracker, trials[-1])
    order = ["objective", "val_accuracy", "loss", "epochs_run", "trial_seconds"]
    with serve(logs.root, 0, load_fast="false") as server:
        check_board(server.url, trials, sweep, "synth", metrics=[*order, "val_loss", "accuracy", "pruned"])


def test_a_writing_process_never_loads_tensorflow(tmp_path: Path) -> None:
    program = f"""
import sys, json
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from synthetic_sweep import play
from imgclf_sweep.tracking.tensorboard import TensorBoardTracker
made = TensorBoardTracker(Path({str(tmp_path)!r}) / "synth")
play(made)
made.closed("")
print(json.dumps(sorted({{m.split(".")[0] for m in sys.modules}} & {{"tensorflow", "keras", "optuna", "keras_tuner"}})))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == []
