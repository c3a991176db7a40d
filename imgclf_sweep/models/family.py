"""What a model family is as plain values: its knobs, what each may hold and is by default, what contradicts what. No Keras.

A knob marked `each` takes one value for all parts of a network (its blocks, say), or a list with one value a part.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import BadInput
from ..space import Choice, Float, Int, Parameter, Params, SearchSpace, Value, frozen, same
from ..text import printable, unknown

if TYPE_CHECKING:
    from ..data.datasets import Dataset

MOST = 100
"""More parts than any plain network has: a mistyped number, which would build for ever."""

COMBINATIONS = 100_000
"""How many combinations of the knobs that can contradict each other are looked through."""


def whole(least: int, most: int | None = None) -> Callable[[Value], bool]:
    """Whether a value is a whole number from `least` to `most`."""
    return lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= least and (most is None or v <= most)


def number(fits: Callable[[float], bool]) -> Callable[[Value], bool]:
    """Whether a value is a number that `fits`."""
    return lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and fits(v)


@dataclass(frozen=True)
class Knob:
    """fits: whether one value is allowed.  wants: the same in words.  each: may be a list with one value a part.

    named: what one of a fixed set of texts is called in a message; `names` are those texts.
    """

    default: Value
    fits: Callable[[Value], bool]
    wants: str
    each: bool = False
    named: str = ""
    names: Sequence[str] = ()

    def allows(self, value: Value) -> bool:
        if self.each and isinstance(value, tuple):
            return 1 <= len(value) <= MOST and all(map(self.fits, value))
        return self.fits(value)


@dataclass(frozen=True)
class Rule:
    """Knobs that can contradict each other.

    names: those concerned.  problem: the one line for a configuration that contradicts itself, else None.
    part: what of a value matters to `problem`; values alike in this need not all be tried.
    """

    names: Sequence[str]
    problem: Callable[[Mapping[str, Value]], str | None]
    part: Callable[[str, Value], Value]


@dataclass(frozen=True)
class Family:
    """A kind of network that a sweep file names.  part: what a list has one value for.

    on_data: the rules that follow from the data set it is to be trained on.  on_loss: the one that follows from the loss.
    """

    name: str
    knobs: Mapping[str, Knob]
    rules: Sequence[Rule]
    part: str = "block"
    on_data: Callable[[Dataset], Sequence[Rule]] = lambda dataset: ()
    on_loss: Callable[[str], Rule] | None = None

    def check_space(self, space: SearchSpace, dataset: Dataset | None = None, loss: str | None = None) -> None:
        """Refuse a space of which any configuration could not be a network, or not one for `dataset` and `loss`.

        Raises: BadInput for an unknown knob, a value that a knob cannot hold, and for knobs that contradict each other in
        some configuration, which is named.
        """
        for name, parameter in space.items():
            self._knob(name)
            # of a range, both ends: what a knob can hold is itself a range, so what lies between fits
            values = parameter.grid()
            for value in values if parameter.kind in ("choice", "fixed") else (values[0], values[-1]):
                self.check_value(name, value)
        rules = [*self.rules, *(() if dataset is None else self.on_data(dataset))]
        if loss is not None and self.on_loss is not None:
            rules.append(self.on_loss(loss))
        for rule in rules:
            for params in _combinations(space, rule):
                problem = rule.problem(params)
                if problem:
                    raise BadInput(f"{problem} (possible in this space: {words(params)})")

    def filled(self, params: Mapping[str, Value]) -> dict[str, Any]:
        """Every knob's value: of `params` (active knobs only), else its default.

        Raises: BadInput for an unknown knob, a value it cannot hold, or knobs that contradict each other.
        """
        params = {name: frozen(value) for name, value in params.items()}
        for name, value in params.items():
            self.check_value(name, value)
        for rule in self.rules:
            problem = rule.problem(params)
            if problem:
                raise BadInput(problem)
        return {name: params.get(name, knob.default) for name, knob in self.knobs.items()}

    def check_value(self, name: str, value: Value) -> None:
        """Raises: BadInput for a knob that is not there, or a value it cannot hold."""
        knob = self._knob(name)
        if knob.allows(value):
            return
        if knob.named and isinstance(value, str):
            raise BadInput(unknown(knob.named, value, knob.names))
        given = list(value) if isinstance(value, tuple) else value
        each = f", or a list of 1 to {MOST} such, one a {self.part}" if knob.each else ""
        raise BadInput(f"knob '{name}' must be {knob.wants}{each}, got {printable(repr(given))}")

    def _knob(self, name: str) -> Knob:
        if name not in self.knobs:
            raise BadInput(unknown(f"knob of model {self.name}", name, self.knobs))
        return self.knobs[name]


def words(params: Mapping[str, Value]) -> str:
    """`params` on one line: `filters=[32, 64], dropout=0.2`."""
    shown = ((n, list(v) if isinstance(v, tuple) else v) for n, v in params.items())
    return ", ".join(f"{printable(n)}={printable(repr(v))}" for n, v in shown) or "all defaults"


def lengths_rule(knobs: Mapping[str, Knob], count: str | None, part: str) -> Rule:
    """Lists that must be equally long: those of the knobs marked `each`, and the number of parts if the knob `count` has it."""

    def problem(params: Mapping[str, Value]) -> str | None:
        lengths = {n: len(v) for n, v in params.items() if n in knobs and knobs[n].each and isinstance(v, tuple)}
        if count in params:
            lengths = {count: params[count], **lengths}
        for (a, n), (b, m) in itertools.combinations(lengths.items(), 2):
            if n != m:
                first = f"knob '{a}' is {n}" if a == count else f"knob '{a}' has {n} values"
                return f"{first} but '{b}' has {m}: a list needs one value a {part}"
        return None

    names = [n for n, k in knobs.items() if k.each]
    return Rule(
        [count, *names] if count else names,
        problem,
        lambda name, v: len(v) if isinstance(v, tuple) else v if name == count else None,
    )


def _combinations(space: SearchSpace, rule: Rule) -> Iterable[Params]:
    """Every configuration of the rule's knobs and what they are conditioned on, one for all that are alike to the rule.

    Raises: BadInput above COMBINATIONS.
    """
    names = {n for n in rule.names if n in space}
    while grown := {parent for n in names for parent in space[n].when or {}} - names:
        names |= grown
    reduced = SearchSpace(
        {n: Choice(_representatives(space, names, n, rule), when=space[n].when) for n in space if n in names}
    )
    for count, params in enumerate(reduced.grid()):
        if count == COMBINATIONS:
            raise BadInput(f"{', '.join(sorted(names))} depend on each other in too many ways to be checked")
        yield params


def _representatives(space: SearchSpace, names: set[str], name: str, rule: Rule) -> list[Value]:
    """One of each group of values of `name` that meet the same conditions of other knobs and are alike to the rule."""
    asked = [v for other in space if other in names for v in (space[other].when or {}).get(name, ())]
    found: dict[Any, Value] = {}
    for value in (*asked, *_some(space[name], len(asked))):
        meets = tuple(same(value, v) for v in asked)
        found.setdefault((meets, rule.part(name, value)), value)
    return list(found.values())


def _some(parameter: Parameter, asked: int) -> Iterable[Value]:
    """Every choice; of a range enough to have each number of parts and one value that is not `asked` for."""
    if isinstance(parameter, Int):
        every = range(parameter.low, parameter.high + 1, parameter.step or 1)
        return every[: max(MOST, asked + 1)]
    if isinstance(parameter, Float) and parameter.values() is None:
        return (*parameter.grid(), (parameter.low + parameter.high) / 2)
    return parameter.grid()
