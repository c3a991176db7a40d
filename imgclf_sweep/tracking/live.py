"""The moving display of a running sweep on a terminal, drawn with rich."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..text import printable
from .progress import Progress, counts_text, duration, params_text, time_left
from .protocol import TimeLeft

INTERVAL = 0.2  # seconds between two drawings
REFIGURE = 1.0  # seconds between two looks at the time left: with hundreds of trials at a time one costs 35 ms
ROWS = 12  # running trials shown at most


class _Console(Console):
    """A console that reports a broken pipe to its caller instead of ending the program."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        raise BrokenPipeError


class Display:
    """Shows a `Progress` below the lines printed so far, redrawn by `refresh`, from one thread.

    Text is handed to rich as `Text`, never as markup. Raises: OSError from any method where the terminal is gone.
    """

    def __init__(
        self,
        stream: TextIO,
        progress: Progress,
        clock: Callable[[], float],
        left: Callable[[], TimeLeft] = TimeLeft,
        *,
        record: bool = False,
    ) -> None:
        self._progress, self._clock, self._left = progress, clock, left
        self._said = "", -math.inf  # the time left in words, and when it was figured out
        self.console = _Console(file=stream, force_terminal=True, highlight=False, record=record)
        self._drawn = clock()
        self._live = Live(
            self.render(),
            console=self.console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=sys.stderr.isatty(),
        )
        self._live.start(refresh=True)

    def line(self, text: str) -> None:
        """A line that stays, above the display."""
        self.console.print(Text(text), soft_wrap=True)
        self._draw()

    def refresh(self) -> None:
        if self._clock() - self._drawn >= INTERVAL:
            self._draw()

    def close(self) -> None:
        """Take the display away; the lines stay."""
        self._live.stop()

    def _draw(self) -> None:
        self._drawn = self._clock()
        self._live.update(self.render(), refresh=True)

    def render(self) -> RenderableType:
        return Group(*(part for part in (self._bar(), self._best(), self._running()) if part is not None))

    def _bar(self) -> RenderableType:
        progress = self._progress
        total = progress.info.trials
        now = progress.done + sum(r.part for r in progress.running.values())
        row = Table.grid(padding=(0, 1))
        for _ in range(3):
            row.add_column(no_wrap=True)
        row.add_row(
            Text(f"{progress.done}/{total} trials", style="bold"),
            ProgressBar(total=max(total, 1), completed=min(now, total), width=24),
            Text(f"elapsed {duration(self._clock() - progress.began)}, {self._time_left()}"),
        )
        return Group(row, Text(counts_text(progress.counts), style="dim"))

    def _time_left(self) -> str:
        if self._clock() - self._said[1] >= REFIGURE:
            self._said = time_left(self._left()), self._clock()
        return self._said[0]

    def _best(self) -> RenderableType:
        progress = self._progress
        if progress.best is None:
            return Text("best so far: none complete", style="dim")
        suggestion, outcome = progress.best
        metric = printable(progress.info.sweep.objective.metric)
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(f"best so far: {metric} {outcome.value:.4f}", style="bold green")
        text.append(f"  trial {suggestion.number}, epoch {outcome.epoch}  {params_text(suggestion.params)}")
        return text

    def _running(self) -> RenderableType | None:
        running = sorted(self._progress.running.items())
        if not running:
            return None
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, justify="right")
        table.add_column()  # gives way first where the terminal is narrow
        metric = printable(self._progress.info.sweep.objective.metric)
        for number, trial in running[:ROWS]:
            value = "" if trial.value is None else f"{metric} {trial.value:.4f}"
            table.add_row(
                Text(f"trial {number}"),
                Text(f"epoch {trial.epoch}/{trial.suggestion.epochs}"),
                Text(value),
                Text(duration(self._clock() - trial.started)),
                Text(params_text(trial.suggestion.params), style="dim", no_wrap=True, overflow="ellipsis"),
            )
        if len(running) > ROWS:
            table.add_row(Text(f"and {len(running) - ROWS} more"))
        return table
