"""What can still finish before a run's end, on clocks that the test moves."""

from dataclasses import replace

import pytest
from synthetic_sweep import make_sweep, suggestion_of

from imgclf_sweep import Choice, SearchSpace
from imgclf_sweep.clock import End
from imgclf_sweep.pacing import FINISH_SECONDS, Pace
from imgclf_sweep.tracking.protocol import SweepInfo, TimeLeft
from imgclf_sweep.trial import Kind, Measurement, Outcome, State, Suggestion, Trial

SWEEP = make_sweep().replaced(space=SearchSpace(filters=Choice([1, 2, 4, 8, 16])), epochs=4)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def trial(number, filters=1, epochs=4):
    return Suggestion(number, {"filters": filters}, epochs)


def run(timeout=None, retraining=None, trials=20, workers=1, history=(), seconds=None):
    """A pace that is open, and its clock."""
    clock = Clock()
    pace = Pace(End(timeout, monotonic=clock), retraining, seconds)
    pace.opened(SweepInfo("n", SWEEP, trials, history, workers))
    return pace, clock


def train(pace, clock, suggestion, each, epochs=None, value=0.5, state=State.COMPLETE):
    """An attempt, each epoch of `each` seconds; it ends if all its epochs are trained."""
    pace.started(suggestion, 1)
    for epoch in range(1, (epochs or suggestion.epochs) + 1):
        clock.now += each
        pace.measured(suggestion, Measurement(epoch, {"val_accuracy": value}, each), value)
    if epochs is None:
        pace.ended(suggestion, Outcome(state, value, 2, suggestion.epochs, each * suggestion.epochs))


def learn(pace, clock, count=8):
    """Trials whose epochs take as many seconds as they have filters."""
    for number in range(count):
        filters = (1, 2, 4, 8)[number % 4]
        train(pace, clock, trial(number, filters), float(filters))


def test_without_an_end_everything_fits():
    for pace in (Pace(), run()[0]):
        assert not pace.over() and pace.fits(trial(0, 16)) and pace.goes_on(trial(0, 16))
    assert Pace().left() == TimeLeft()


def test_while_nothing_is_known_everything_may_begin_until_the_end():
    pace, clock = run(timeout=10)
    assert pace.fits(trial(0, 16)) and pace.goes_on(trial(0, 16))
    clock.now = 10
    assert pace.over()


def test_a_first_epoch_alone_is_not_believed():
    """It also compiles the model: what follows goes faster, as far as the time allows to see."""
    pace, clock = run(timeout=100)
    first = trial(0, 16, epochs=10)
    train(pace, clock, first, 30.0, epochs=1)
    assert pace.goes_on(first) and pace.fits(trial(1, 16))
    clock.now = 100 - 20
    assert not pace.goes_on(first)  # not even the next epoch would end in time
    assert not pace.fits(first) and pace.insist([first]) is None
    clock.now = 30
    train(pace, clock, first, 30.0, epochs=2)
    assert not pace.goes_on(first) and not pace.fits(trial(1, 16))


def test_only_what_is_likely_to_finish_is_begun():
    pace, clock = run(timeout=1000)
    learn(pace, clock)
    clock.now = 1000 - 12  # 4 epochs of 1 or 2 s fit, of 4 or more do not
    assert [pace.fits(trial(50, filters)) for filters in (1, 2, 4, 8, 16)] == [True, True, False, False, False]
    assert not pace.over()


def test_a_running_trial_that_cannot_finish_is_stopped_with_how_far_it_came():
    pace, clock = run(timeout=1000)
    learn(pace, clock)
    clock.now = 1000 - 30
    long = trial(60, 8)
    train(pace, clock, long, 8.0, epochs=2)
    assert not pace.goes_on(long)  # 14 s are left for two epochs of 8 s
    assert pace.stopped(long) == "no time is left after epoch 2 of 4"
    short = trial(61, 4)
    train(pace, clock, short, 3.0, epochs=1)
    clock.now -= 3.0
    assert pace.goes_on(replace(short, epochs=3))
    pace.interrupted(long, "")
    pace.interrupted(short, "")
    assert pace.closing([long, short, trial(62, 8), trial(63, 16)]) == (
        "time is up: 14 s is too short for another trial; trial 60 stopped after epoch 2 of 4; "
        "trial 61 stopped after epoch 1 of 4; trials 62, 63 not begun"
    )
    clock.now = 1000
    assert pace.closing([]) == "time is up"


def test_one_that_is_too_long_for_any_run_still_gets_further():
    pace, clock = run(timeout=30)
    long, other = trial(0, 8), trial(1, 8)
    train(pace, clock, long, 8.0, epochs=2)
    assert not pace.goes_on(long)
    pace.interrupted(long, "")
    assert not pace.fits(long) and pace.insist([other, long]) is long  # the one that needs less
    pace.started(long, 2)
    assert pace.goes_on(long) and pace.insist([other]) is other  # another worker's
    clock.now = 30 - 7
    assert not pace.goes_on(long)  # the next epoch would outlast the end
    assert pace.insist([other]) is None


def test_it_does_not_where_others_finished():
    pace, clock = run(timeout=1000)
    learn(pace, clock)
    clock.now = 1000 - 30
    assert not pace.fits(trial(70, 16)) and pace.insist([trial(70, 16)]) is None


def test_a_failure_is_nothing_achieved():
    pace, clock = run(timeout=100)
    train(pace, clock, trial(0, 8), 8.0, epochs=2)
    pace.ended(trial(0, 8), Outcome(State.FAILED, kind=Kind.DIVERGED, seconds=16.0))
    clock.now = 100 - 20
    assert not pace.fits(trial(1, 8)) and pace.insist([trial(1, 8)]).number == 1


def test_the_end_is_kept_for_retraining_the_best():
    plain, clock = run(timeout=1000)
    learn(plain, clock)
    pace, clock = run(timeout=1000, retraining=1.25)
    learn(pace, clock)
    train(pace, clock, trial(20, 8), 8.0, value=0.9)  # best in epoch 2: 3 epochs of 8 s count, on 1.25 times the images
    reserve = 1.25 * 3 * 8.0 + FINISH_SECONDS
    clock.now = 1000 - reserve - 40  # the epochs' own doubt is in the reserve too
    assert not pace.over() and not pace.fits(trial(21, 8)) and plain.fits(trial(21, 1))
    clock.now = 1000 - reserve + 1
    assert pace.over() and not plain.over()
    assert pace.closing([]) == "time is up for the search: 1 min 29 s is kept for retraining"


def test_a_better_trial_moves_the_reserve():
    pace, clock = run(timeout=1000, retraining=1.0)
    learn(pace, clock)
    clock.now = 1000 - FINISH_SECONDS - 60
    train(pace, clock, trial(30, 1), 1.0, value=0.8)
    assert not pace.over()
    train(pace, clock, trial(31, 16), 0.001, value=0.9, state=State.PRUNED)
    assert not pace.over()  # a pruned trial is not retrained
    train(pace, clock, trial(32, 16), 20.0, epochs=3)
    pace.ended(trial(32, 16), Outcome(State.COMPLETE, 0.95, 4, 4, 80.0))
    assert pace.over()


def test_the_record_of_earlier_runs_is_learned_from():
    done = [
        Trial(n, State.COMPLETE, trial(n, f).params, 4, value=0.5, epoch=2, epochs=4, seconds=4.0 * f)
        for n, f in enumerate((1, 2, 4, 8) * 2)
    ]
    queued = Trial(8, State.QUEUED, trial(8, 8).params, 4, attempts=1)
    seconds = {t.number: {e: float(t.params["filters"]) for e in range(1, 5)} for t in done} | {
        8: {1: 8.0, 2: 8.0, 3: 8.0}
    }
    pace, _ = run(timeout=14, history=[*done, queued], seconds=seconds)
    assert pace.fits(trial(8, 8)) and not pace.fits(trial(9, 8)) and pace.fits(trial(9, 1))
    assert "trial 8 stopped after epoch 3 of 4" in pace.closing([queued.suggestion])


def test_the_time_left_is_a_range_that_narrows():
    pace, clock = run(trials=100, workers=2)
    assert pace.left().trials is None
    widths = []
    for number in range(50):
        train(pace, clock, trial(number), 2.5 if number % 2 else 3.5)
        low, high = pace.left().trials
        rest = (99 - number) * 12 / 2
        assert number < 2 or low <= rest <= high
        widths.append((high - low) / (high + low))
    assert widths[-1] < widths[4] < widths[0]
    before = sum(pace.left().trials)
    train(pace, clock, trial(50), 3.0, epochs=2)
    assert sum(pace.left().trials) == pytest.approx(
        before - 12.0 / 2, rel=0.02
    )  # half a trial less, for one of two workers
    for number in range(50, 100):
        train(pace, clock, trial(number), 3.0)
    assert pace.left().trials == (0.0, 0.0)


def test_the_time_left_is_known_from_the_first_epochs_and_runs_down_between_them():
    pace, clock = run(trials=10)
    train(pace, clock, trial(0), 10.0, epochs=2)
    low, high = pace.left().trials
    assert low < 9 * 40 + 20 < high
    clock.now += 9
    later = pace.left().trials
    assert later[0] < low and later[1] < high
    assert pace.left().run is None


def test_it_is_not_shorter_than_the_longest_running_trial():
    pace, clock = run(trials=3, workers=3, timeout=500)
    train(pace, clock, trial(0), 1.0)
    train(pace, clock, trial(1), 1.0)
    train(pace, clock, trial(2, 16, epochs=50), 10.0, epochs=20)
    low, high = pace.left().trials
    assert low <= 300 <= high and low > 200
    assert pace.left().run == pytest.approx(500 - clock.now)


def test_a_tracker_that_was_never_opened_hears_all_the_same():
    pace = Pace()
    s = suggestion_of(0)
    pace.started(s, 1)
    pace.measured(s, Measurement(1, {}, 1.0), 0.0)
    pace.interrupted(s, "")
    pace.ended(s, Outcome(State.COMPLETE, 0.5, 1, 1, 1.0))
    pace.tick()
    pace.note("")
    pace.closed("")
    assert pace.fits(s)
