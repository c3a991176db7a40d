"""When a run is to end: after a time, at a time of day, or whichever comes first."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

TIME_OF_DAY = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
DATE_AND_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ].+")


def deadline(text: str, now: float) -> float:
    """The moment that `07:00` (the next such time here) or `2026-12-01T07:00` (here, unless it names its offset) means, in
    seconds since 1970; so is `now`.

    A time that the clocks skip in spring is the moment as far after the change as it says; of one that comes twice in autumn
    the next is meant.   Raises: ValueError with a clause for the user.
    """
    of_day = TIME_OF_DAY.fullmatch(text)
    if of_day:
        return _next(int(of_day[1]), int(of_day[2]), now)
    try:
        if not DATE_AND_TIME.fullmatch(text):
            raise ValueError
        moment = datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise ValueError("is neither a time such as 07:00 nor a date and time such as 2026-12-01T07:00") from None
    if moment <= now:
        raise ValueError("is in the past")
    return moment


def _next(hour: int, minute: int, now: float) -> float:
    today = datetime.fromtimestamp(now).replace(hour=hour, minute=minute, second=0, microsecond=0)
    for day in range(3):
        naive = today + timedelta(days=day)  # the wall's days, which may have 23 or 25 hours
        moments = [naive.replace(fold=fold).timestamp() for fold in (0, 1)]
        shown = [m for m in moments if datetime.fromtimestamp(m).replace(fold=0) == naive.replace(fold=0)]
        for moment in sorted(shown or moments[:1]):  # skipped by the clocks: fold 0 is told by the offset before
            if moment > now:
                return moment
    raise AssertionError("a time of day comes within two days")


@dataclass
class End:
    """The end of a run that begins now.  timeout: seconds from now.   deadline: seconds since 1970.   None: there is no such.

    A timeout counts while this machine is awake and does not care how its clock is set. A deadline is told by the clock on the
    wall: it also comes nearer while the machine sleeps, and moves when its clock is set.
    monotonic, wall: clocks in seconds.
    """

    timeout: float | None = None
    deadline: float | None = None
    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self._began = self.monotonic()

    def left(self) -> float | None:
        """Seconds until the end, below 0 after it; None if there is none."""
        left = [self._began + self.timeout - self.monotonic()] if self.timeout is not None else []
        left += [self.deadline - self.wall()] if self.deadline is not None else []
        return min(left, default=None)

    def words(self) -> str:
        """What `left` counts towards: a time on the wall, `07:00` or with its date; empty for a timeout."""
        left = self.left()
        if left is None or self.deadline is None or self.deadline - self.wall() > left:
            return ""
        try:
            moment, today = datetime.fromtimestamp(self.deadline), datetime.fromtimestamp(self.wall())
        except (ValueError, OverflowError, OSError):  # a year after 9999
            return ""
        soon = moment - today < timedelta(hours=20)
        return moment.strftime("%H:%M" if soon else "%Y-%m-%d %H:%M")
