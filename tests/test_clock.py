"""The end of a run: times of day over nights on which the clocks change, machines that sleep, clocks that are set."""

import time
from datetime import UTC, datetime

import pytest

from imgclf_sweep.clock import End, deadline


@pytest.fixture
def berlin(monkeypatch):
    """A local time with summer time: forward on the last Sunday of March at 2:00, back on that of October at 3:00."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def utc(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("now", "text", "then"),
    [
        ("2026-01-10T21:00", "07:00", "2026-01-11T06:00"),  # tomorrow; CET is an hour ahead of UTC
        ("2026-01-10T05:00", "7:00", "2026-01-10T06:00"),  # later today
        ("2026-01-10T06:00", "07:00", "2026-01-11T06:00"),  # it is just now: the next one
        ("2026-01-10T06:00:01", "07:00", "2026-01-11T06:00"),
        ("2026-12-31T22:30", "00:15", "2026-12-31T23:15"),
        ("2026-03-28T22:00", "07:00", "2026-03-29T05:00"),  # a night of 23 hours
        ("2026-10-24T20:00", "07:00", "2026-10-25T06:00"),  # and one of 25
        ("2026-03-28T22:00", "02:30", "2026-03-29T01:30"),  # skipped: 3:30 on the wall
        ("2026-10-24T20:00", "02:30", "2026-10-25T00:30"),  # comes twice: the first
        ("2026-10-25T00:45", "02:30", "2026-10-25T01:30"),  # after the first, the second
        ("2026-10-25T01:45", "02:30", "2026-10-26T01:30"),
        ("2026-10-24T20:00", "2026-10-25T07:00", "2026-10-25T06:00"),
        ("2026-10-24T20:00", "2026-10-25 07:00:30", "2026-10-25T06:00:30"),
        ("2026-10-24T20:00", "2026-10-25T07:00+05:00", "2026-10-25T02:00"),
        ("2026-10-24T20:00", "2026-10-25T07:00Z", "2026-10-25T07:00"),
    ],
)
def test_a_time_of_day_is_the_next_one_on_the_wall(berlin, now, text, then):
    assert deadline(text, utc(now)) == utc(then)


@pytest.mark.parametrize(
    "text", ["24:00", "7", "7:5", "07:60", "tomorrow", "2026-12-01", "2026-13-01T07:00", "", "٠٧:٠٠"]
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="neither a time such as 07:00 nor"):
        deadline(text, utc("2026-01-10T21:00"))


def test_a_date_in_the_past_is_refused(berlin):
    now = utc("2026-01-10T21:00")
    with pytest.raises(ValueError, match="in the past"):
        deadline("2026-01-10T22:00", now)
    assert deadline("2026-01-10T22:01", now) == now + 60


class Clocks:
    """The two clocks of a machine: one does not count while it sleeps, one can be set."""

    def __init__(self):
        self.monotonic_now, self.wall_now = 100.0, utc("2026-01-10T21:00")

    def pass_(self, seconds, asleep=False):
        self.wall_now += seconds
        self.monotonic_now += 0 if asleep else seconds

    def end(self, **given):
        return End(**given, monotonic=lambda: self.monotonic_now, wall=lambda: self.wall_now)


def test_without_an_end_there_is_none():
    assert End().left() is None and End().words() == ""


def test_whichever_comes_first_is_the_end(berlin):
    clocks = Clocks()
    seven = deadline("07:00", clocks.wall_now)
    both = clocks.end(timeout=3600.0, deadline=seven)
    assert both.left() == 3600.0 and both.words() == ""
    assert clocks.end(timeout=12 * 3600.0, deadline=seven).left() == 9 * 3600.0
    assert clocks.end(timeout=12 * 3600.0, deadline=seven).words() == "07:00"
    assert clocks.end(deadline=deadline("2026-01-14T07:00", clocks.wall_now)).words() == "2026-01-14 07:00"


def test_a_deadline_comes_nearer_while_the_machine_sleeps_and_a_timeout_does_not():
    clocks = Clocks()
    by_time, by_wall = clocks.end(timeout=3600.0), clocks.end(deadline=clocks.wall_now + 3600.0)
    clocks.pass_(600)
    assert by_time.left() == by_wall.left() == 3000.0
    clocks.pass_(2000, asleep=True)
    assert by_time.left() == 3000.0 and by_wall.left() == 1000.0
    clocks.pass_(5000)
    assert by_time.left() == -2000.0 and by_wall.left() == -4000.0


def test_a_clock_that_is_set_moves_a_deadline_and_not_a_timeout():
    clocks = Clocks()
    by_time, by_wall = clocks.end(timeout=3600.0), clocks.end(deadline=clocks.wall_now + 3600.0)
    clocks.wall_now -= 1800
    assert by_time.left() == 3600.0 and by_wall.left() == 5400.0
