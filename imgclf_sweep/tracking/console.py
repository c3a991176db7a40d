"""What a user sees of a running sweep: a live display on a terminal, plain lines anywhere else.

Text that came from files (names, values, reasons) is escaped; a stream that cannot say a character gets it escaped too. A
stream that breaks (a closed pipe or terminal) is given up without a word: a sweep does not end because nobody reads along.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from ..text import printable
from ..trial import Measurement, Outcome, Suggestion
from .progress import Progress, counts_text, duration, outcome_text, params_text, time_left
from .protocol import SweepInfo, TimeLeft

if TYPE_CHECKING:
    from .live import Display


FEW = 12  # trials at a time that have a line each for what happens to all of them at once
EVERY = 60.0  # seconds, at least, between two lines on the time left, where no display shows it all the time


def is_live(stream: TextIO) -> bool:
    """Whether a moving display can be shown there: a terminal that understands cursor movements, and more than ASCII."""
    try:
        terminal = stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")
    except ValueError:  # closed
        return False
    return terminal and codecs.lookup(_encoding(stream)).name == "utf-8"


def _encoding(stream: TextIO) -> str:
    return getattr(stream, "encoding", None) or "utf-8"  # a StringIO has none and takes everything


class ConsoleTracker:
    """stream: where to write, default standard output. live: force the moving display on or off; default, see `is_live`.

    clock: seconds that only rise.   left: the time that the run will still take.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        live: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
        left: Callable[[], TimeLeft] | None = None,
    ) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._live = is_live(self._stream) if live is None else live
        self._clock, self._left = clock, left
        self._said = 0.0  # when the time left was said last
        self._display: Display | None = None
        self._progress: Progress | None = None
        self._broken = False
        self._gathered: list[tuple[int, str, str]] = []  # trial, what to say of it, and of it among others

    def opened(self, info: SweepInfo) -> None:
        progress = self._progress = Progress(info, self._clock())
        self._said = progress.began
        sweep = info.sweep
        search = f"{sweep.backend} {sweep.sampler_name}" + (
            "" if sweep.pruner_name == "none" else f"/{sweep.pruner_name}"
        )
        recorded = f", {progress.done} of them recorded already" if progress.done else ""
        count = info.workers // info.lanes
        workers = f"{count} worker{'' if count == 1 else 's'}" if count else "in this process"
        workers += f" of {info.lanes} trials at a time" if info.lanes > 1 else ""
        direction = "higher" if sweep.objective.direction == "max" else "lower"
        self._line(
            f"sweep {printable(info.name)}: {info.trials} trials{recorded}, {search}, {workers}; "
            f"{printable(sweep.objective.metric)}, {direction} is better"
        )
        if self._live and not self._broken:
            from .live import Display  # rich is not needed anywhere else

            with self._quietly():
                self._display = Display(self._stream, progress, self._clock, self._left or TimeLeft)

    def started(self, suggestion: Suggestion, attempt: int) -> None:
        if self._progress:
            self._progress.started(suggestion, self._clock())
            self._refresh()

    def resumed(self, suggestion: Suggestion, measurements: Sequence[Measurement]) -> None:
        if self._progress:
            self._progress.measured(suggestion, measurements[-1])
        after = f"after epoch {measurements[-1].epoch} of {suggestion.epochs}"
        self._said_of(suggestion, f"goes on {after}", f"go on {after}")

    def measured(self, suggestion: Suggestion, measurement: Measurement, best: float) -> None:
        if self._progress:
            self._progress.measured(suggestion, measurement)
            self._refresh()

    def ended(self, suggestion: Suggestion, outcome: Outcome) -> None:
        if not self._progress:
            return
        best = self._progress.ended(suggestion, outcome)
        metric = self._progress.info.sweep.objective.metric
        self._line(
            f"trial {suggestion.number:<4d} {outcome.state.value:<8s}  {outcome_text(suggestion, outcome, metric)}"
            f"{'  best so far' if best else ''}  {duration(outcome.seconds)}  {params_text(suggestion.params)}"
        )
        self._say_time_left(self._progress)

    def _say_time_left(self, progress: Progress) -> None:
        now = self._clock()
        if self._left and not self._display and now - self._said >= EVERY and progress.done < progress.info.trials:
            self._said = now
            self._line(f"{progress.done} of {progress.info.trials} trials done, {time_left(self._left())}")

    def interrupted(self, suggestion: Suggestion, reason: str) -> None:
        if self._progress:
            self._progress.interrupted(suggestion)
        said = f"interrupted: {printable(reason)};"
        self._said_of(suggestion, f"{said} it will run again", f"{said} they will run again")

    def note(self, line: str) -> None:
        self._line(printable(line))

    def tick(self) -> None:
        self._say_gathered()
        self._refresh()

    def _said_of(self, suggestion: Suggestion, text: str, of_many: str) -> None:
        """A line on a trial; where many are trained at a time, one for all of which the same is said in a row."""
        if not self._progress or self._progress.info.workers <= FEW:
            self._line(f"trial {suggestion.number:<4d} {text}")
            return
        if self._gathered and self._gathered[0][2] != of_many:
            self._say_gathered()
        self._gathered.append((suggestion.number, text, of_many))

    def _say_gathered(self) -> None:
        gathered, self._gathered = self._gathered, []
        if len(gathered) == 1:
            self._line(f"trial {gathered[0][0]:<4d} {gathered[0][1]}")
        elif gathered:
            numbers = [number for number, _, _ in gathered]
            self._line(f"{len(gathered)} trials, {min(numbers)} to {max(numbers)}, {gathered[0][2]}")

    def closed(self, ending: str) -> None:
        """Take the display down, sum up, and print `ending`: how the run ended and what to type next, in lines."""
        if self._display:
            with self._quietly():
                self._display.close()
            self._display = None
        if self._progress:
            self._line(self._summary(self._progress))
            self._progress = None
        for line in ending.splitlines():
            self._line(printable(line))

    def _summary(self, progress: Progress) -> str:
        text = f"{progress.done} of {progress.info.trials} trials done ({counts_text(progress.counts)})"
        text += f" after {duration(self._clock() - progress.began)}"
        if progress.best is None:
            return text + "; no complete trial yet"
        suggestion, outcome = progress.best
        value = outcome_text(suggestion, outcome, progress.info.sweep.objective.metric)
        return f"{text}; best: trial {suggestion.number}, {value}, {params_text(suggestion.params)}"

    def _refresh(self) -> None:
        if self._display and not self._broken:
            with self._quietly():
                self._display.refresh()

    def _line(self, text: str) -> None:
        """One line, above the display where there is one."""
        if self._gathered:
            self._say_gathered()
        if self._broken:
            return
        encoding = _encoding(self._stream)
        text = text.encode(encoding, "backslashreplace").decode(encoding)
        with self._quietly():
            if self._display:
                self._display.line(text)
            else:
                self._stream.write(text + "\n")
                self._stream.flush()

    @contextlib.contextmanager
    def _quietly(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            if isinstance(error, ValueError) and not self._stream.closed:
                raise
            self._broken = True
            self._silence()

    def _silence(self) -> None:
        """What is still buffered must not fail again when the interpreter flushes it at the end."""
        with contextlib.suppress(OSError, ValueError):
            if self._stream is sys.stdout:
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self._stream.fileno())
                os.close(null)
