"""Lanes of a real sweep's jobs against the same jobs trained one at a time."""

import collections

import numpy as np
import pytest

pytest.importorskip("jax")

from imgclf_sweep import Choice, SearchSpace, Sweep, datasets  # noqa: E402
from imgclf_sweep.training import fused  # noqa: E402
from imgclf_sweep.training.compiled import CompiledTrainer  # noqa: E402
from imgclf_sweep.training.fused import FusedTrainer  # noqa: E402
from imgclf_sweep.training.lanes.groups import SIZES, size_for  # noqa: E402
from imgclf_sweep.training.protocol import Job, Paused, Reply, Setup  # noqa: E402
from imgclf_sweep.training.weights import BEST_ARRAYS, load_arrays  # noqa: E402
from imgclf_sweep.trial import Kind, Outcome, State, Suggestion  # noqa: E402

EPOCHS = 4
SMALL = {"filters": 3, "dense_units": 8, "dropout": 0.2, "learning_rate": 0.01}
OTHER = {"filters": 2, "dense_units": 4, "dropout": 0.2, "kernel_size": 2}
TRIALS = [
    {**SMALL, "optimizer": "adam"},
    {**SMALL, "optimizer": "sgd", "momentum": 0.9, "l2": 0.001},
    {**OTHER, "optimizer": "rmsprop", "dropout": 0.4},
    {**SMALL, "optimizer": "nadam", "dropout": 0.0},
]


@pytest.fixture(scope="module")
def setup(digits):
    sweep = Sweep(
        dataset=datasets.digits(),
        space=SearchSpace(
            filters=Choice([2, 3, 5]), dense_units=Choice([4, 8]), pool_size=Choice([2, 4]), dropout=Choice([0.0, 0.4])
        ),
        batch_size=32,
        epochs=EPOCHS,
    )
    return Setup(sweep, str(digits.path), 200, "compiled", lanes=4)


def job(number, params, directory, epochs=EPOCHS, **more):
    suggestion = Suggestion(number, dict(params), epochs, more.pop("initial_epoch", 0))
    return Job(suggestion, f"token{number}", 100 + number, str(directory / str(number)), **more)


@pytest.fixture(scope="module")
def alone(setup, tmp_path_factory):
    """Each of TRIALS trained by itself: (measurements, outcome, best weights)."""
    directory, trainer = tmp_path_factory.mktemp("alone"), CompiledTrainer(setup)
    found = []
    for number, params in enumerate(TRIALS):
        heard = []
        outcome = trainer.train(job(number, params, directory), lambda m, heard=heard: heard.append(m) or Reply.GO)
        found.append((heard, outcome, load_arrays(directory / str(number) / BEST_ARRAYS)))
    return found


def drive(trainer, lanes, replies=None, rounds=99):
    """Rounds until every lane has ended: what each measured, and its end.  replies: (lane, epoch) -> not GO."""
    measured, ends = collections.defaultdict(list), {}
    while set(lanes) - set(ends) and rounds:
        rounds -= 1
        for lane, found in trainer.epoch():
            if isinstance(found, Outcome):
                ends[lane] = found
                continue
            measured[lane].append(found)
            ending = trainer.reply(lane, (replies or {}).get((lane, found.epoch), Reply.GO))
            if ending is not None:
                ends[lane] = ending
    return measured, ends


def assert_same(found, wanted, rel=1e-4):
    assert [m.epoch for m in found] == [m.epoch for m in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.metrics == pytest.approx(other.metrics, rel=rel)


def test_lanes_measure_and_keep_what_the_same_trials_do_alone(setup, alone, tmp_path):
    trainer = FusedTrainer(setup)
    for number, params in enumerate(TRIALS):
        assert trainer.begin(number, job(number, params, tmp_path)) is None
    measured, ends = drive(trainer, range(4))
    for number, (wanted, outcome, weights) in enumerate(alone):
        assert_same(measured[number], wanted)
        assert ends[number].state is State.COMPLETE and ends[number].epoch == outcome.epoch
        assert ends[number].value == pytest.approx(outcome.value, rel=1e-4)
        for a, b in zip(load_arrays(tmp_path / str(number) / BEST_ARRAYS), weights, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_a_free_lane_is_refilled_and_a_shapes_programs_are_few(setup, alone, tmp_path):
    trainer = FusedTrainer(setup)
    for lane in range(3):
        trainer.begin(lane, job(lane, SMALL, tmp_path, epochs=1 + lane))
    drive(trainer, [0], rounds=1)
    made = trainer._programs.count
    trainer.begin(0, job(3, TRIALS[3], tmp_path))
    measured, ends = drive(trainer, [0])
    assert_same(measured[0], alone[3][0])
    assert trainer._programs.count == made == 1
    trainer.begin(0, job(2, TRIALS[2], tmp_path))  # another shape
    assert_same(drive(trainer, [0])[0][0], alone[2][0])
    assert trainer._programs.count == 2


def test_a_pruned_lane_ends_with_its_best_so_far_and_the_others_go_on(setup, alone, tmp_path):
    trainer = FusedTrainer(setup)
    for number in (0, 1, 3):
        trainer.begin(number, job(number, TRIALS[number], tmp_path))
    measured, ends = drive(trainer, [0, 1, 3], {(1, 2): Reply.PRUNE})
    assert ends[1].state is State.PRUNED and ends[1].epochs == 2 and len(measured[1]) == 2
    assert (tmp_path / "1" / BEST_ARRAYS).exists()
    assert_same(measured[0], alone[0][0])
    assert_same(measured[3], alone[3][0])


def test_a_diverging_lane_fails_and_disturbs_no_other(setup, alone, tmp_path):
    trainer = FusedTrainer(setup)
    trainer.begin(0, job(9, {**SMALL, "optimizer": "sgd", "learning_rate": 1e30}, tmp_path))
    trainer.begin(1, job(0, TRIALS[0], tmp_path))
    trainer.begin(2, job(1, TRIALS[1], tmp_path))
    measured, ends = drive(trainer, [0, 1, 2])
    assert ends[0].kind is Kind.DIVERGED and "loss is" in ends[0].reason
    assert_same(measured[1], alone[0][0])
    assert_same(measured[2], alone[1][0])


def test_what_cannot_be_built_ends_before_its_first_epoch(setup, tmp_path):
    trainer = FusedTrainer(setup)
    found = trainer.begin(0, job(0, {"kernel_size": 20}, tmp_path))
    assert found.kind is Kind.BUILD and "too small" in found.reason
    missing = job(1, SMALL, tmp_path, start_from=str(tmp_path / "none.weights.npz"))
    found = trainer.begin(0, missing)
    assert found.state is State.FAILED and "none.weights.npz" in found.reason
    assert trainer.epoch() == []


@pytest.mark.parametrize("until", [1, 3])
def test_an_interrupted_lane_resumes_with_the_numbers_of_one_that_never_was(setup, alone, tmp_path, until):
    first = FusedTrainer(setup)
    for number in (0, 1, 3):
        first.begin(number, job(number, TRIALS[number], tmp_path))
    _, ends = drive(first, [0, 1, 3], {(number, until): Reply.INTERRUPT for number in (0, 1, 3)})
    assert all(isinstance(end, Paused) for end in ends.values())
    again = FusedTrainer(setup)
    for lane, number in enumerate((3, 0, 1)):  # in other lanes
        earlier = again.begin(lane, job(number, TRIALS[number], tmp_path))
        assert [m.epoch for m in earlier] == list(range(1, until + 1))
        assert again.reply(lane, Reply.GO) is None
        assert_same(earlier, alone[number][0][:until])
    measured, ends = drive(again, range(3))
    whole = FusedTrainer(setup)
    for lane, number in enumerate((3, 0, 1)):
        whole.begin(lane, job(number, TRIALS[number], tmp_path / "whole"))
    wanted, outcomes = drive(whole, range(3))
    for lane, number in enumerate((3, 0, 1)):
        assert_same(measured[lane], wanted[lane][until:], rel=1e-6)
        assert (ends[lane].value, ends[lane].epoch) == (outcomes[lane].value, outcomes[lane].epoch)
        for a, b in zip(
            load_arrays(tmp_path / str(number) / BEST_ARRAYS),
            load_arrays(tmp_path / "whole" / str(number) / BEST_ARRAYS),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_a_resumed_lane_that_is_told_to_stop_has_its_best_weights(setup, tmp_path):
    trainer = FusedTrainer(setup)
    trainer.begin(0, job(0, TRIALS[0], tmp_path))
    drive(trainer, [0], {(0, 2): Reply.INTERRUPT})
    for reply in (Reply.INTERRUPT, Reply.PRUNE):
        again = FusedTrainer(setup)
        assert [m.epoch for m in again.begin(2, job(0, TRIALS[0], tmp_path))] == [1, 2]
        ending = again.reply(2, reply)
        assert isinstance(ending, Paused if reply is Reply.INTERRUPT else Outcome)
    assert ending.state is State.PRUNED and ending.epochs == 2
    assert len(load_arrays(tmp_path / "0" / BEST_ARRAYS)) == 6
    assert again.epoch() == []


def test_a_lane_starts_from_its_parents_weights(setup, alone, tmp_path):
    trainer = FusedTrainer(setup)
    trainer.begin(0, job(0, TRIALS[0], tmp_path, epochs=2))
    drive(trainer, [0])
    parent = str(tmp_path / "0" / BEST_ARRAYS)
    child = job(5, TRIALS[0], tmp_path, initial_epoch=2, start_from=parent)
    lone = CompiledTrainer(setup)
    wanted = []
    lone.train(child, lambda m: wanted.append(m) or Reply.GO)
    for lane in (0, 1):
        trainer.begin(lane, child if lane else job(6, TRIALS[1], tmp_path))
    measured, _ = drive(trainer, [0, 1])
    assert [m.epoch for m in measured[1]] == [3, 4]
    assert_same(measured[1], wanted)


def test_what_memory_does_not_hold_waits_and_is_trained_then(setup, alone, tmp_path):
    trainer = FusedTrainer(setup)
    shape, _ = fused.asked(setup, job(0, SMALL, tmp_path), trainer._images("train"))
    trainer._room = 2 * shape.lane_bytes()
    for number, params in enumerate(TRIALS):
        trainer.begin(number, job(number, params, tmp_path))
    assert [lane for lane, _ in trainer.epoch()] == [0, 1]
    assert [trainer.reply(lane, Reply.GO) for lane in (0, 1)] == [None, None]
    measured, ends = drive(trainer, range(4))
    assert all(end.state is State.COMPLETE for end in ends.values())
    for number in (2, 3):
        assert_same(measured[number], alone[number][0])


def test_a_program_that_fails_fails_its_own_jobs_only(setup, alone, tmp_path, monkeypatch):
    def start(self, data, objective, start=fused.Group.start):
        if self.shape.filters == (2,):
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")
        start(self, data, objective)

    monkeypatch.setattr(fused.Group, "start", start)
    trainer = FusedTrainer(setup)
    for number, params in enumerate(TRIALS):
        trainer.begin(number, job(number, params, tmp_path))
    measured, ends = drive(trainer, range(4))
    assert ends[2].kind is Kind.OUT_OF_MEMORY
    assert_same(measured[0], alone[0][0])


def test_trials_of_one_shape_move_together(setup, alone, tmp_path):
    trainer = FusedTrainer(setup)
    for number in (0, 1):
        trainer.begin(number, job(number, TRIALS[number], tmp_path))
    drive(trainer, [0, 1], rounds=1)
    trainer.begin(3, job(3, TRIALS[3], tmp_path))  # no lane is free: a program of its own
    drive(trainer, [0, 1, 3], {(0, 2): Reply.PRUNE}, rounds=1)
    assert [group.size for group in trainer._groups] == [2, 2]
    measured, _ = drive(trainer, [1, 3])
    assert len(trainer._groups) == 1
    assert_same(measured[3], alone[3][0][1:])
    assert_same(measured[1], alone[1][0][2:])


def test_programs_are_compiled_ahead_for_the_spaces_other_shapes(setup, tmp_path):
    trainer = FusedTrainer(setup, ahead=True)
    for lane in range(2):
        trainer.begin(lane, job(lane, {"filters": 3, "dense_units": 8, "dropout": 0.4}, tmp_path, epochs=1))
    drive(trainer, [0, 1])
    assert trainer._programs.count == 2  # one a pool size: widths and dropout are inputs
    trainer.begin(0, job(5, {"filters": 5, "dense_units": 4, "pool_size": 4, "dropout": 0.0}, tmp_path, epochs=1))
    drive(trainer, [0])
    assert trainer._programs.count == 2


def test_sizes_of_programs_are_few_and_leave_little_idle():
    assert SIZES[:8] == [1, 2, 3, 4, 6, 8, 12, 16]
    assert size_for(12, ()) == 12 and size_for(13, ()) == 16 and size_for(5, {16, 8}) == 8
    assert size_for(1, {16}) == 1 and size_for(4, {16}) == 16 and size_for(17, {16}) == 24


def test_checkpoints_take_a_small_part_of_the_time(setup, tmp_path, monkeypatch):
    trainer = FusedTrainer(setup)
    written = []
    monkeypatch.setattr(fused, "checkpoint", lambda place, at_once=False: written.append((place.lane, at_once)))
    monkeypatch.setattr(fused, "KEEPING", 0.0)
    for lane in range(2):
        trainer.begin(lane, job(lane, TRIALS[lane], tmp_path))
    drive(trainer, [0, 1], {(1, 2): Reply.INTERRUPT}, rounds=2)
    assert written == [(1, True)]
    monkeypatch.setattr(fused, "KEEPING", 1.0)
    drive(trainer, [0], rounds=1)
    assert written[1:] == [(0, False)]
