"""What a `build(hp)` asks a `keras_tuner.HyperParameters` for, remembered over many builds as parameters of ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import BadInput
from ..space import Choice, Fixed, Float, Int, Parameter, Params, SearchSpace, Value, same
from ..text import printable

Conditions = dict[str, tuple[Value, ...]]


@dataclass
class Request:
    """A name that was asked for: its range without its conditions, and the values under which it is active."""

    parameter: Parameter
    tries: tuple[Value, ...]
    conditions: Conditions


class Requests:
    """Every name asked for so far, in order."""

    def __init__(self) -> None:
        self._met: dict[str, Request] = {}

    def listen(self, hp: Any) -> list[str]:
        """Remember from now on what `hp`, a fresh `keras_tuner.HyperParameters`, is asked for.

        Returns a list that the names never met before will be added to. The asking raises BadInput for a name asked for
        with another range than before.
        """
        new: list[str] = []
        answer = hp._retrieve  # the one place all five kinds pass; Keras Tuner itself keeps quiet about a second range

        def remember(asked: Any) -> Value:
            if self._remember(asked):
                new.append(asked.name)
            return answer(asked)

        hp._retrieve = remember
        return new

    def _remember(self, asked: Any) -> bool:
        """Whether the name is new.  Raises: BadInput."""
        name = asked.name
        parameter, tries = _converted(asked)
        conditions: Conditions = {}
        for scope in asked.conditions:
            allowed = tuple(scope.values)
            conditions[scope.name] = tuple(v for v in conditions.get(scope.name, allowed) if v in allowed)
        known = self._met.get(name)
        if known is None:
            self._met[name] = Request(parameter, tries, conditions)
            return True
        if known.parameter != parameter:
            raise BadInput(
                f"build(hp) asks for '{printable(name)}' with two ranges, {known.parameter} and {parameter}: "
                "give them different names"
            )
        known.conditions = _united(name, known.conditions, conditions)
        return False

    def variations(self, name: str, context: Mapping[str, Value]) -> Iterator[Params]:
        """`context`, the values of the build that first asked for `name`, with each of the values to try."""
        request = self._met[name]
        for value in request.tries:
            scopes = {parent: allowed[0] for parent, allowed in request.conditions.items() if allowed}
            yield self._with(context, {**scopes, name: value})

    def activating(self, scope: Iterable[Any], context: Mapping[str, Value]) -> Params:
        """`context` changed so that a `conditional_scope` (a list of Keras Tuner's conditions) is active."""
        return self._with(context, {condition.name: condition.values[0] for condition in scope})

    def _with(self, context: Mapping[str, Value], wanted: Mapping[str, Value]) -> Params:
        """`context` with `wanted`, with what these are conditioned on, and without what they leave inactive."""
        values, todo = dict(context), dict(wanted)
        while todo:
            name, value = todo.popitem()
            values[name] = value
            for parent, allowed in self._met[name].conditions.items():
                if allowed and parent not in wanted and values.get(parent) not in allowed:
                    todo[parent] = allowed[0]
        for name, request in self._met.items():
            if any(values.get(parent) not in allowed for parent, allowed in request.conditions.items()):
                values.pop(name, None)
        return values

    def space(self) -> SearchSpace:
        """The space of all names met.  Raises: BadInput for a name that no sweep can have."""
        parameters: dict[str, Parameter] = {}
        for name, request in self._met.items():
            when = {
                parent: list(_values_of(parameters.get(parent), allowed))
                for parent, allowed in request.conditions.items()
            }
            if all(when.values()):  # a scope that no value of its parent opens is never active
                parameters[name] = replace(request.parameter, when=when or None)
        return SearchSpace(parameters)


def _values_of(parent: Parameter | None, allowed: Iterable[Value]) -> Iterator[Value]:
    """Those of `allowed` that `parent` can be, as it spells them: Keras Tuner takes True for 1."""
    for value in allowed if parent is not None else ():
        spellings = (value, bool(value), int(value)) if value in (0, 1) else (value,)
        yield from [spelt for spelt in spellings if parent.contains(spelt)][:1]


def _united(name: str, a: Conditions, b: Conditions) -> Conditions:
    """When either holds, as one set of conditions.  Raises: BadInput where that is none."""
    if not a or not b:
        return {}
    if set(a) == set(b):
        differ = [parent for parent in a if set(a[parent]) != set(b[parent])]
        if len(differ) <= 1:
            return {p: (*v, *(x for x in b[p] if x not in v)) for p, v in a.items()}
        if all(set(b[p]) <= set(a[p]) for p in a):
            return a
    raise BadInput(
        f"build(hp) asks for '{printable(name)}' under unrelated conditional scopes ({_scopes(a)}; {_scopes(b)}): "
        "give them different names"
    )


def _scopes(conditions: Conditions) -> str:
    return ", ".join(f"{printable(p)} in {printable(list(v))}" for p, v in conditions.items())


def _converted(asked: Any) -> tuple[Parameter, tuple[Value, ...]]:
    """A Keras Tuner hyperparameter as one of ours, and the values discovery tries.  Raises: BadInput."""
    kind = type(asked).__name__
    try:
        if kind == "Fixed":
            return Fixed(asked.value), ()
        if kind == "Boolean":
            return _starting(Choice([False, True]), asked.default), (False, True)
        if kind == "Choice":
            choices = tuple(dict.fromkeys(asked.values))  # a value given twice is only drawn more often
            return _starting(Choice(choices), asked.default), choices
        parameter = _starting(_range(asked, Int if kind == "Int" else Float), asked.default)
    except BadInput as error:
        raise BadInput(f"build(hp): '{printable(asked.name)}': {error}") from None
    ends = parameter.grid()
    return parameter, (ends[0], ends[-1])


def _starting(parameter: Parameter, default: Value) -> Parameter:
    """`parameter` with Keras Tuner's default, where that is one of its values and not what it starts from anyway."""
    differs = parameter.contains(default) and not same(default, parameter.start())
    return replace(parameter, default=default) if differs else parameter


def _range(asked: Any, kind: type[Int] | type[Float]) -> Parameter:
    low, high, step = asked.min_value, asked.max_value, asked.step
    if asked.sampling == "reverse_log":
        raise BadInput('sampling="reverse_log" cannot be searched; allowed: "linear", "log"')
    if asked.sampling == "log" and step is not None:  # multiplied from value to value
        number = int if kind is Int else float
        return Choice(tuple(dict.fromkeys(number(value) for value in asked.values)))
    if asked.sampling == "log":
        return kind(low, high, log=True)
    return kind(low, high, step=None if kind is Int and step == 1 else step)
