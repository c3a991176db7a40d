"""Options and arguments that several verbs share."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..data.cache import Prepared
    from ..sweep import Sweep

DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")
COUNT = click.IntRange(1, 2**32 - 1)  # as high as `sweep.MOST`; importing that here would cost `--help` NumPy


YEARS = 10 * 366 * 86400.0  # longer than any sweep; dates end in the year 9999


class Duration(click.ParamType):
    """Seconds, from `90`, `90s`, `30m`, `8h` or `1h30m`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = DURATION.fullmatch(str(value))
        seconds = 0.0
        if match:
            seconds = sum(float(n or 0) * unit for n, unit in zip(match.groups(), (3600, 60, 1), strict=True))
        if not 0 < seconds <= YEARS:
            self.fail(f"{value!r} is not a duration above 0, up to 10 years, such as 90s, 30m, 8h or 1h30m", param, ctx)
        return seconds


class Deadline(click.ParamType):
    """Seconds since 1970, from `07:00` or `2026-12-01T07:00`; a time to come."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from ..clock import deadline

        if isinstance(value, float):
            return value
        try:
            return deadline(str(value), time.time())
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, ctx)


class CountOrAll(click.ParamType):
    """A count from 1, or "all"."""

    name = "count"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "all" or isinstance(value, int):
            return value
        if not re.fullmatch("[0-9]{1,9}", str(value)) or int(value) == 0:
            self.fail(f"{value!r} is neither a number of trials from 1 nor 'all'", param, ctx)
        return int(value)


def root_option(verb: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--root",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("."),
        show_default="here",
        help="Where sweeps/, logs/ and cache/ live.",
    )(verb)


def there(root: Path) -> str:
    """What a command that is shown to be pasted needs to find the same sweeps: nothing, or the --root that was given."""
    return "" if root == Path(".") else f" --root {shlex.quote(str(root))}"


def json_option(verb: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(verb)


def data_dir_option(verb: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path),
        envvar="IMGCLF_SWEEP_DATA",
        help="Folder with NAME.npz files in the Keras layout; also IMGCLF_SWEEP_DATA.",
    )(verb)


def note(line: str) -> None:
    """A line that a user should know, beside what the verb prints."""
    click.echo(line, err=True)


def progress(line: str) -> None:
    """A line on what takes long just now: for who is watching, not for a log or a pipe."""
    if sys.stderr.isatty():
        note(line)


def prepared_images(sweep: Sweep, root: Path, data_dir: Path | None) -> Prepared:
    """The decoded data set of a sweep, under ROOT/cache.  Raises: BadInput, StoreError."""
    from ..data.cache import prepare

    where = {"cache": root / "cache", "data_dir": data_dir}
    return prepare(sweep.dataset, **where, test=sweep.test, seed=sweep.seed, note=note, progress=progress)
