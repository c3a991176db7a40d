"""What follows from each kind of failure."""

import pytest

from imgclf_sweep.policy import RULES, Breaker, again, alone, history
from imgclf_sweep.record.rows import Attempt
from imgclf_sweep.record.write import OWNER_GONE
from imgclf_sweep.trial import Kind, Outcome, State


def ended(*endings):
    return [Attempt(n, "w0", 1, "here", 0.0, 1.0, e, "so") for n, e in enumerate(endings, 1)]


def test_every_kind_that_can_fail_a_trial_has_a_rule():
    assert set(RULES) == set(Kind) - {Kind.PREEMPTED, Kind.ENVIRONMENT}


@pytest.mark.parametrize(
    ("kind", "earlier", "shared", "expected"),
    [
        (Kind.LOST, [], False, True),
        (Kind.LOST, ["lost"], False, True),
        (Kind.LOST, ["lost", "lost"], False, False),
        (Kind.LOST, ["preempted"] * 9, False, True),
        (Kind.CRASH, [], False, True),
        (Kind.CRASH, ["crash"], False, False),
        (Kind.CRASH, ["lost", "lost"], False, False),
        (Kind.OUT_OF_MEMORY, [], False, False),
        (Kind.OUT_OF_MEMORY, [], True, True),
        (Kind.OUT_OF_MEMORY, ["out of memory"], True, False),
        (Kind.OOM_HOST, [], False, True),
        (Kind.OOM_HOST, ["out of memory (host)"], False, False),
        (Kind.STALLED, [], False, True),
        (Kind.TIMEOUT, [], True, False),
        (Kind.DIVERGED, [], True, False),
        (Kind.BUILD, [], True, False),
        (Kind.ERROR, [], True, False),
    ],
)
def test_who_is_tried_again(kind, earlier, shared, expected):
    assert again(kind, ended(*earlier), shared) is expected


def test_attempts_that_went_down_with_the_run_blame_nobody():
    gone = [Attempt(n, "w0", 1, "here", 0.0, 1.0, "lost", OWNER_GONE) for n in range(1, 9)]
    assert again(Kind.LOST, gone, False) and not alone(gone)


def test_what_ran_out_of_memory_is_tried_alone():
    assert alone(ended("out of memory", "preempted")) and alone(ended("out of memory (host)"))
    assert not alone(ended("lost", "preempted"))


def test_what_was_lost_twice_is_tried_alone_so_that_it_takes_no_other_trial_along():
    assert alone(ended("lost", "preempted", "lost")) and not alone(ended("crash", "lost"))


def test_a_trial_given_up_names_all_its_exits():
    assert history(Kind.CRASH, "so", ended("crash")) == "so; so did all its 2 attempts"
    assert history(Kind.CRASH, "killed", ended("lost")) == "so; then killed"
    assert history(Kind.DIVERGED, "loss is nan", ended("lost")) == "loss is nan"


def failed(reason, kind=Kind.BUILD, frames=None):
    return Outcome(State.FAILED, kind=kind, reason=reason, frames=frames)


def heard(*outcomes, succeeded=False):
    breaker = Breaker(succeeded)
    for outcome in outcomes:
        breaker.heard(outcome)
    return breaker.tripped


def test_the_breaker_trips_when_the_first_ones_fail_alike():
    assert heard(*[failed("no")] * 3).reason == "no"
    assert heard(*[failed("no")] * 2) is None
    assert heard(*[failed("no")] * 3, succeeded=True) is None
    assert heard(failed("no"), Outcome(State.COMPLETE, 0.5, 1, 1), failed("no"), failed("no")) is None
    assert heard(failed("a"), failed("b"), failed("c")) is None
    assert heard(*[failed("nan", Kind.DIVERGED)] * 3) is None
    assert heard(*[failed("big", Kind.OUT_OF_MEMORY)] * 3) is None


def test_one_cause_is_told_by_lines_and_type_not_by_the_message():
    there = '  File "a.py", line 3, in build\n    f()\n{}'
    texts = [there.format(f"ValueError: units {n}") for n in range(3)]
    assert heard(*(failed(f"units {n}", frames=text) for n, text in enumerate(texts))) is not None
    texts[1] = there.format("TypeError: units 1")
    assert heard(*(failed("x", frames=text) for text in texts)) is None
