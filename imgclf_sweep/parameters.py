"""One searched parameter: its kind, range and values. Pure values.

A parameter's value is a bool, int, float, str, None or a tuple of those (one value a block, say); lists given by a user
become tuples, and JSON turns tuples back into lists.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import BadInput
from .text import printable

Value = Any  # bool | int | float | str | None | tuple of those
Params = dict[str, Value]

GRID_LIMIT = 1_000_000
"""A grid of more configurations than this is refused: no night is that long, and a mistyped range usually is."""

EXACT = 2**53
"""Whole numbers up to here survive as a double, which is how tables, JSON readers and samplers may hold them."""


def frozen(value: Value) -> Value:
    """`value` with lists as tuples, so that it can be compared, hashed and kept; NumPy scalars become Python's.

    Raises: BadInput for anything that a parameter cannot hold (a dict, a function, NaN, ...).
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (list, tuple)):
        return tuple(frozen(v) for v in value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise BadInput(f"a parameter value must be finite, got {value}")
        return value
    raise BadInput(
        f"a parameter value must be a number, text, True, False, None or a list of those, got {printable(repr(value))}"
    )


def same(a: Value, b: Value) -> bool:
    """Equality that keeps True apart from 1, but lets 1 equal 1.0."""
    return _key(a) == _key(b)


def unique(values: Iterable[Value]) -> list[Value]:
    """`values` in their order, the first of those that are `same`."""
    found: dict[Any, Value] = {}
    for value in values:
        found.setdefault(_key(value), value)
    return list(found.values())


def _key(value: Value) -> Any:
    """Hashable, and equal for what is `same`: True and 1 are equal to Python."""
    return tuple(map(_key, value)) if isinstance(value, tuple) else (isinstance(value, bool), value)


def _number(what: str, value: object, kind: type) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadInput(f"{what} must be a number, got {printable(repr(value))}")
    if not math.isfinite(value):
        raise BadInput(f"{what} must be finite, got {value}")
    if kind is int and value != int(value):
        raise BadInput(f"{what} must be a whole number, got {value}")
    return kind(value)


@dataclass(frozen=True)
class Parameter:
    """What all four kinds share. `when` maps one or more earlier names to the values under which this one is active.
    `default` is one of its values: what a known configuration has that leaves it out; otherwise the first choice, the low end.
    """

    when: Mapping[str, Any] | None = field(default=None, kw_only=True)
    default: Value = field(default=None, kw_only=True, compare=False, repr=False)

    kind = ""

    def __post_init__(self) -> None:
        if self.when is None:
            return
        if not isinstance(self.when, Mapping) or not self.when:
            raise BadInput(f"when= must be a dict such as {{'optimizer': 'sgd'}}, got {printable(repr(self.when))}")
        conditions = {
            str(name): tuple(frozen(v) for v in (allowed if isinstance(allowed, (list, tuple)) else [allowed]))
            for name, allowed in self.when.items()
        }
        object.__setattr__(self, "when", conditions)

    def values(self) -> Sequence[Value] | None:
        """Every possible value in order, or None for a range without steps."""
        raise NotImplementedError

    def grid(self) -> Sequence[Value]:
        """The values a grid takes: every one, or the two ends of a range without steps."""
        values = self.values()
        if values is not None:
            return values
        low, high = self.low, self.high  # type: ignore[attr-defined]
        return (low,) if low == high else (low, high)

    def start(self) -> Value:
        """The value a search starts from, as in Keras Tuner: the default, else the first choice or the low end."""
        return self.grid()[0] if self.default is None else self.default

    def _check_default(self) -> None:
        if self.default is None:
            return
        value = frozen(self.default)
        if not self.contains(value):
            raise BadInput(f"{type(self).__name__} has default {printable(repr(value))}, which is none of its values")
        object.__setattr__(self, "default", value)

    def contains(self, value: Value) -> bool:
        raise NotImplementedError

    def sample(self, rng: np.random.Generator) -> Value:
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        out = {"kind": self.kind} | {k: v for k, v in self.__dict__.items() if k != "when" and v is not None}
        if self.kind == "fixed":
            out["value"] = self.__dict__["value"]
        if self.when:
            out["when"] = {name: list(allowed) for name, allowed in self.when.items()}
        return out


@dataclass(frozen=True)
class Fixed(Parameter):
    """One value, the same in every trial."""

    value: Value

    kind = "fixed"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "value", frozen(self.value))
        self._check_default()

    def values(self) -> Sequence[Value]:
        return (self.value,)

    def contains(self, value: Value) -> bool:
        return same(value, self.value)

    def sample(self, rng: np.random.Generator) -> Value:
        return self.value


@dataclass(frozen=True)
class Choice(Parameter):
    """One of several values, in no order that means anything."""

    choices: Sequence[Value]

    kind = "choice"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.choices, (str, bytes)) or not isinstance(self.choices, (Sequence, np.ndarray)):
            raise BadInput(f"Choice takes a list of values, got {printable(repr(self.choices))}")
        choices = tuple(frozen(v) for v in self.choices)
        if not choices:
            raise BadInput("Choice has no values")
        counts = Counter(map(_key, choices))
        for value in choices:
            if counts[_key(value)] > 1:
                raise BadInput(f"Choice has {printable(repr(value))} twice")
        object.__setattr__(self, "choices", choices)
        self._check_default()

    def values(self) -> Sequence[Value]:
        return self.choices

    def contains(self, value: Value) -> bool:
        return any(same(value, v) for v in self.choices)

    def sample(self, rng: np.random.Generator) -> Value:
        return self.choices[int(rng.integers(len(self.choices)))]


@dataclass(frozen=True)
class Int(Parameter):
    """A whole number from `low` to `high`, both possible when `step` reaches; `log` samples evenly in the logarithm."""

    low: int
    high: int
    step: int | None = None
    log: bool = False

    kind = "int"

    def __post_init__(self) -> None:
        super().__post_init__()
        _range(self, int)

    def values(self) -> Sequence[int] | None:
        if self.log:
            return None
        return range(self.low, self.high + 1, self.step or 1)

    def contains(self, value: Value) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
            return False
        return self.low <= value <= self.high and (self.log or (value - self.low) % (self.step or 1) == 0)

    def sample(self, rng: np.random.Generator) -> int:
        if self.log:  # the interval of each whole number n is [n - 0.5, n + 0.5), as Optuna samples it
            drawn = math.exp(rng.uniform(math.log(self.low - 0.5), math.log(self.high + 0.5)))
            return min(max(round(drawn), self.low), self.high)
        values = self.values()
        return values[int(rng.integers(len(values)))]  # type: ignore[index,arg-type]


@dataclass(frozen=True)
class Float(Parameter):
    """A number from `low` to `high`; in steps from `low` if `step` is given; `log` samples evenly in the logarithm."""

    low: float
    high: float
    step: float | None = None
    log: bool = False

    kind = "float"

    def __post_init__(self) -> None:
        super().__post_init__()
        _range(self, float)

    def values(self) -> Sequence[float] | None:
        if self.step is None:
            return None
        count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
        if count > GRID_LIMIT:
            return None
        return tuple(float(f"{self.low + k * self.step:.12g}") for k in range(count))  # 0.30000000000000004 reads 0.3

    def contains(self, value: Value) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        values = self.values()
        if values is None:
            return self.low <= value <= self.high
        return any(math.isclose(value, v, rel_tol=1e-9, abs_tol=1e-12) for v in values)

    def sample(self, rng: np.random.Generator) -> float:
        values = self.values()
        if values is not None:
            return values[int(rng.integers(len(values)))]
        if self.log:
            return min(max(math.exp(rng.uniform(math.log(self.low), math.log(self.high))), self.low), self.high)
        return float(rng.uniform(self.low, self.high))


def _range(p: Any, kind: type) -> None:
    """Check and normalise an Int or a Float.  Raises: BadInput."""
    name = type(p).__name__
    low, high = _number(f"{name} low", p.low, kind), _number(f"{name} high", p.high, kind)
    if low > high:
        raise BadInput(f"{name} has low {low} above high {high}")
    if kind is int and max(-low, high) > EXACT:
        raise BadInput(f"{name} must lie within -2**53 and 2**53, got {low} to {high}")
    if not isinstance(p.log, bool):
        raise BadInput(f"{name} log must be True or False, got {printable(repr(p.log))}")
    if p.log and low <= 0:
        raise BadInput(f"{name} with log=True needs low above 0, got {low}")
    if p.step is not None:
        step = _number(f"{name} step", p.step, kind)
        if step <= 0:
            raise BadInput(f"{name} step must be above 0, got {step}")
        if p.log:
            raise BadInput(f"{name} takes log=True or step=, not both")
        object.__setattr__(p, "step", step)
    object.__setattr__(p, "low", low)
    object.__setattr__(p, "high", high)
    p._check_default()
    if p.default is not None:
        object.__setattr__(p, "default", kind(p.default))


KINDS: dict[str, type[Parameter]] = {"fixed": Fixed, "choice": Choice, "int": Int, "float": Float}
