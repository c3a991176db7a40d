"""What is searched: named parameters in order, each with an optional condition on an earlier one. Pure values.

`params` everywhere is a dict of name to value holding the *active* parameters only: one whose condition does not hold is
absent, never None.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .errors import BadInput
from .parameters import GRID_LIMIT, KINDS, Choice, Fixed, Float, Int, Parameter, Params, Value, frozen, same, unique
from .text import listed, printable

__all__ = [
    "GRID_LIMIT",
    "Choice",
    "Fixed",
    "Float",
    "Int",
    "Parameter",
    "Params",
    "SearchSpace",
    "Value",
    "frozen",
    "same",
]


class SearchSpace(Mapping[str, Parameter]):
    """The parameters by name, in order: `SearchSpace(filters=Choice([16, 32]), dropout=Float(0.2, 0.5))`.

    A plain value is taken as `Fixed`, a plain list as `Choice`. A dict may be given instead of keywords, for names that are
    not Python's. Raises: BadInput for an unusable name or a condition on anything but an earlier parameter's values.
    """

    def __init__(self, parameters: Mapping[str, Any] | None = None, /, **named: Any) -> None:
        self._parameters: dict[str, Parameter] = {}
        for name, given in {**(parameters or {}), **named}.items():
            self._check_name(name)
            try:
                parameter = (
                    given
                    if isinstance(given, Parameter)
                    else Choice(given)
                    if isinstance(given, list)
                    else Fixed(given)
                )
            except BadInput as error:
                raise BadInput(f"parameter '{printable(name)}': {error}") from None
            self._check_when(name, parameter)
            self._parameters[name] = parameter

    @staticmethod
    def _check_name(name: object) -> None:
        if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > 100:
            raise BadInput(
                f"a parameter name must be printable text of 1 to 100 characters, got {printable(repr(name))}"
            )
        if name.startswith("tuner/"):
            raise BadInput(f"parameter '{name}': names beginning with 'tuner/' belong to Keras Tuner")

    def _check_when(self, name: str, parameter: Parameter) -> None:
        for parent, allowed in (parameter.when or {}).items():
            if parent not in self._parameters:
                raise BadInput(
                    f"parameter '{printable(name)}': when= names '{printable(parent)}', which is not declared before it; "
                    f"declared before: {listed(self._parameters) or 'nothing'}"
                )
            for value in allowed:
                if not self._parameters[parent].contains(value):
                    raise BadInput(
                        f"parameter '{printable(name)}': when= asks for '{printable(parent)}' = {printable(repr(value))}, "
                        "which it can never be"
                    )

    def __getitem__(self, name: str) -> Parameter:
        return self._parameters[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SearchSpace) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(tuple(self._parameters))

    def __repr__(self) -> str:
        return f"SearchSpace({', '.join(f'{n}={p!r}' for n, p in self._parameters.items())})"

    def is_active(self, name: str, params: Mapping[str, Value]) -> bool:
        """Whether `name` is active beside the values in `params` (a parent that is itself inactive is absent there)."""
        conditions = self._parameters[name].when or {}
        return all(p in params and any(same(params[p], v) for v in allowed) for p, allowed in conditions.items())

    def active(self, params: Mapping[str, Value]) -> Params:
        """`params` reduced to the parameters of this space that are active, in order."""
        out: Params = {}
        for name in self._parameters:
            if name in params and self.is_active(name, out):
                out[name] = params[name]
        return out

    def contains(self, params: Mapping[str, Value]) -> bool:
        """Whether `params` is exactly one configuration of this space: all active names, no other, values in range."""
        out = self.active(params)
        if set(out) != set(params):
            return False
        return all(
            (name in out and p.contains(out[name])) or (name not in out and not self.is_active(name, out))
            for name, p in self._parameters.items()
        )

    def defaults(self) -> Params:
        """The configuration of every active parameter's default."""
        return self.completed({})

    def completed(self, given: Mapping[str, Value]) -> Params:
        """`given` where it is active, and defaults for the active parameters that it leaves out."""
        out: Params = {}
        for name, p in self._parameters.items():
            if self.is_active(name, out):
                out[name] = given[name] if name in given else p.start()
        return out

    def widened(self, configurations: Sequence[Params]) -> SearchSpace:
        """This space, in which each of `configurations` is possible too: ranges stretched, choices and parameters added."""
        given: dict[str, list[Value]] = {}
        for params in configurations:
            for name, value in params.items():
                given.setdefault(name, []).append(value)
        widened = {name: _stretched(self._parameters.get(name), values) for name, values in given.items()}
        return SearchSpace({**self._parameters, **widened})

    def sample(self, rng: np.random.Generator) -> Params:
        """One configuration, every parameter drawn independently. Inactive ones draw too, so that a seed means one stream."""
        drawn = {name: p.sample(rng) for name, p in self._parameters.items()}
        return self.active(drawn)

    def grid_size(self) -> int:
        """How many configurations `grid` yields. Raises: BadInput above GRID_LIMIT."""
        bound = math.prod(len(p.grid()) for p in self._parameters.values())
        if bound <= GRID_LIMIT and not any(p.when for p in self._parameters.values()):
            return bound
        size = sum(1 for _ in itertools.islice(self.grid(), GRID_LIMIT + 1))
        if size > GRID_LIMIT:
            widest = max(self._parameters, key=lambda n: len(self._parameters[n].grid()))
            raise BadInput(
                f"the grid has more than {GRID_LIMIT:,} configurations; parameter '{printable(widest)}' alone has "
                f"{len(self._parameters[widest].grid()):,}: give it a larger step or fewer choices"
            )
        return size

    def grid(self) -> Iterator[Params]:
        """Every configuration of the grid in a fixed order: the last parameter changes fastest."""
        names = list(self._parameters)

        def extend(depth: int, out: Params) -> Iterator[Params]:
            if depth == len(names):
                yield dict(out)
                return
            name = names[depth]
            if not self.is_active(name, out):
                yield from extend(depth + 1, out)
                return
            for value in self._parameters[name].grid():
                yield from extend(depth + 1, {**out, name: value})

        return extend(0, {})

    def to_json(self) -> dict[str, Any]:
        """A JSON object of name to parameter, in order; `from_json` reads it back."""
        return {name: _listed(p.to_json()) for name, p in self._parameters.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SearchSpace:
        """The space that `to_json` wrote. Raises: BadInput."""
        parameters = {}
        for name, fields in data.items():
            fields = dict(fields)
            kind = fields.pop("kind", None)
            if kind not in KINDS:
                raise BadInput(f"parameter '{printable(name)}': unknown kind {printable(repr(kind))}")
            try:
                parameters[name] = KINDS[kind](**fields)
            except TypeError as error:
                raise BadInput(f"parameter '{printable(name)}': {error}") from None
        return cls(parameters)


def _stretched(parameter: Parameter | None, values: Sequence[Value]) -> Parameter:
    """`parameter` with `values` in its range, or as more choices."""
    new = [v for v in values if parameter is None or not parameter.contains(v)]
    if parameter is not None and not new:
        return parameter
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in new)
    if isinstance(parameter, (Int, Float)) and numbers:
        kind = Int if isinstance(parameter, Int) and all(isinstance(v, int) for v in new) else Float
        low, high = min(parameter.low, *new), max(parameter.high, *new)
        return kind(low, high, log=parameter.log and low > 0, when=parameter.when)
    old = () if parameter is None else parameter.grid()
    return Choice(unique([*old, *values]), when=None if parameter is None else parameter.when)


def _listed(value: Any) -> Any:
    """Tuples as lists and mappings as dicts, all the way down: what JSON would give back."""
    if isinstance(value, (list, tuple)):
        return [_listed(v) for v in value]
    if isinstance(value, Mapping):
        return {k: _listed(v) for k, v in value.items()}
    return value
