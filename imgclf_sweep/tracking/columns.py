"""What TensorBoard's HParams table shows of a sweep: a column for each parameter and each metric. Pure values.

The dashboard is strict and fails silently, which decides most of this file: a column has one type in every trial;
whole numbers come back as floats; None has no place; a number column with ten or more discrete values gets a filter
that cannot work; columns are sorted by `(not differs, name)` and the first five are shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..space import Fixed, Float, Parameter, SearchSpace, Value
from ..sweep import METRICS, Sweep
from ..text import printable

Cell = bool | float | str

SHOWN = 5  # columns that the dashboard ticks by itself
DISCRETE = 10  # from here on the dashboard offers a regular expression instead of check boxes
NAME_LIMIT = 15  # characters; longer names overlap in the parallel coordinates view
OBJECTIVE, EPOCHS_RUN, TRIAL_SECONDS, PRUNED = "objective", "epochs_run", "trial_seconds", "pruned"


@dataclass(frozen=True)
class Column:
    """One hyperparameter column.

    name: as logged.  parameter: the parameter it shows.  display: as shown, short.
    kind: the type of every cell, "number", "bool" or "string".
    part: which values of the parameter it shows: "plain" (one value), "blocks" (a list), "log10" (of a number); or
        "constant", the column of a sweep without parameters.
    values: every possible cell, or the two ends where `interval`.
    differs: whether it is among the columns shown first.
    quoted: whether text is told from numbers and None by quotes, because the column would confuse them otherwise.
    """

    name: str
    parameter: str
    display: str
    kind: str
    part: str
    values: tuple[Cell, ...]
    interval: bool = False
    differs: bool = False
    quoted: bool = False

    def cell(self, value: Value) -> Cell | None:
        """The cell for a parameter's value; None where the value belongs to another column."""
        if isinstance(value, tuple) != (self.part == "blocks"):
            return None
        if self.part == "log10":
            return math.log10(value)
        if self.kind == "string":
            return _text(value, self.quoted)
        return value if self.kind == "bool" else float(value)


def cells(columns: Iterable[Column], params: Mapping[str, Value]) -> dict[str, Cell]:
    """What is logged for a trial with these active parameters: column name -> cell. Inactive ones have no cell."""
    out: dict[str, Cell] = {}
    for column in columns:
        if column.part == "constant":
            out[column.name] = column.values[0]
        elif column.parameter in params:
            cell = column.cell(params[column.parameter])
            if cell is not None:
                out[column.name] = cell
    return out


def columns_of(sweep: Sweep) -> list[Column]:
    """The columns of a sweep, in the order of its parameters. Never empty: the dashboard shows nothing without any."""
    found: list[Column] = []
    space = sweep.shown_space
    for name, parameter in space.items():
        found += _columns(name, parameter, space, {c.name for c in found})
    if not found:
        model = sweep.model if isinstance(sweep.model, str) else "build"
        return [Column("model", "", "model", "string", "constant", (model,))]
    displays = [c.display for c in found]
    found = [replace(c, display=c.name) if displays.count(c.display) > 1 else c for c in found]
    shown = _shown(found, space)
    return [replace(c, differs=c.name in shown) for c in found]


def _columns(name: str, parameter: Parameter, space: SearchSpace, taken: set[str]) -> list[Column]:
    values = parameter.values()
    taken = taken | set(space)

    def new(suffix: str) -> str:
        while name + suffix in taken:
            suffix += "_"
        return name + suffix

    if values is None:  # a range without steps
        low, high = float(parameter.low), float(parameter.high)  # type: ignore[attr-defined]
        out = [Column(name, name, _short(name), "number", "plain", (low, high), interval=True)]
        if isinstance(parameter, Float) and parameter.log:
            ends = (math.log10(low), math.log10(high))
            out.append(Column(new(".log10"), name, _short(name, ".log10"), "number", "log10", ends, interval=True))
        return out
    lists = [] if isinstance(values, range) else [v for v in values if isinstance(v, tuple)]  # a range may be very long
    plain = [v for v in values if not isinstance(v, tuple)] if lists else values
    out = [_discrete(name, name, _short(name), "plain", plain)] if plain else []
    if lists:
        out.append(_discrete(new("_blocks"), name, _short(name, "_blocks"), "blocks", lists))
    return out


def _discrete(name: str, parameter: str, display: str, part: str, values: Sequence[Value]) -> Column:
    if isinstance(values, range):  # may be very long
        numbers: tuple[Cell, ...] = (float(values[0]), float(values[-1]))
        if len(values) < DISCRETE:
            return Column(name, parameter, display, "number", part, tuple(float(v) for v in values))
        return Column(name, parameter, display, "number", part, numbers, interval=True)
    if part == "plain" and all(isinstance(v, bool) for v in values):
        return Column(name, parameter, display, "bool", part, tuple(values))
    if part == "plain" and all(_is_number(v) for v in values):
        numbers = tuple(float(v) for v in values)
        many = len(numbers) >= DISCRETE
        return Column(name, parameter, display, "number", part, (min(numbers), max(numbers)) if many else numbers, many)
    texts = tuple(_text(v, False) for v in values)
    quoted = len(set(texts)) < len(texts)
    return Column(name, parameter, display, "string", part, tuple(_text(v, quoted) for v in values), quoted=quoted)


def _is_number(value: Value) -> bool:
    """Whether a value survives as a double; a whole number above 2**53 may not and is shown as text."""
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and (abs(value) <= 2**53 or isinstance(value, float))
    )


def _text(value: Value, quoted: bool) -> str:
    """A value as text, lists as `64-32`."""
    if isinstance(value, tuple):
        return "-".join(f"({_text(v, quoted)})" if isinstance(v, tuple) else _text(v, quoted) for v in value) or "()"
    return printable(repr(value) if quoted else value)


def _shown(columns: Sequence[Column], space: SearchSpace) -> set[str]:
    """The names of at most five columns to show first: searched, always active, the logarithm before its number.

    A trial that lacks a value in a shown column vanishes from the parallel coordinates, hence no conditional column and
    none of a choice that mixes numbers and lists.
    """
    parts: dict[str, set[str]] = {}
    for c in columns:
        parts.setdefault(c.parameter, set()).add(c.part)

    def candidate(c: Column) -> bool:
        parameter = space[c.parameter]
        searched = not isinstance(parameter, Fixed) and len(parameter.grid()) > 1
        return searched and not parameter.when and not {"plain", "blocks"} <= parts[c.parameter]

    fit = [c for c in columns if candidate(c)]
    first = [c.name for c in fit if not (c.part == "plain" and "log10" in parts[c.parameter])]
    rest = [c.name for c in fit if c.name not in first]
    return set((first + rest)[:SHOWN])


def _short(name: str, suffix: str = "") -> str:
    """`name + suffix` within NAME_LIMIT characters: the longest word of the name is cut until it fits.

    >>> _short("learning_rate", ".log10")
    'lear_rate.log10'
    """
    words = name.split("_")
    while len("_".join(words)) + len(suffix) > NAME_LIMIT and any(words):
        longest = max(range(len(words)), key=lambda i: len(words[i]))
        words[longest] = words[longest][:-1]
    return "_".join(words) + suffix


def metric_tag(name: str) -> str:
    """The scalar tag of a metric of Keras's; a user's metric that has the name of one of ours moves aside."""
    ours = (OBJECTIVE, EPOCHS_RUN, TRIAL_SECONDS, PRUNED)
    return f"keras/{name}" if name in ours else printable(name)


def metric_tags(sweep: Sweep) -> list[str]:
    """The tags of the metric columns in order: objective, companion loss, train metric, epochs, seconds, then the rest.

    Only what every good trial logs: one column that stays empty empties the parallel coordinates. Of a `build(hp)`
    these are the objective's metric, its twin (Keras measures every metric on both parts) and the loss.
    """
    own = sweep.objective.metric
    twin = own.removeprefix("val_") if own.startswith("val_") else f"val_{own}"
    known = list(METRICS) if isinstance(sweep.model, str) else list(dict.fromkeys([own, twin, "val_loss", "loss"]))
    others = [m for m in known if m != own]
    loss = next(m for m in ("val_loss", "val_accuracy", "loss") if m in others)
    others.remove(loss)
    train = [twin] if twin in others else others[:1]
    rest = [m for m in known if m not in (loss, *train)]
    ranked = [OBJECTIVE, *map(metric_tag, (loss, *train)), EPOCHS_RUN, TRIAL_SECONDS]
    return [*ranked, *map(metric_tag, rest), PRUNED]
