"""The work of `sweep check`: a search space in words, and its smallest and largest model, actually built.

As a module (`python -m`) this is the child that builds them.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .child import Child, connect
from .errors import BadInput
from .models.families import FAMILIES
from .space import Parameter, Params, SearchSpace, frozen
from .sweep import BuildFunction, Sweep
from .text import listed, printable, unknown

if TYPE_CHECKING:
    from .data.cache import Prepared

BUILD_SECONDS = 600.0
VALUES_TRIED = 8  # of one parameter with more values only the two ends are built


def describe(sweep: Sweep, prepared: Prepared) -> Iterator[str]:
    """The sweep in words, a line each."""
    data, shape = sweep.dataset, "x".join(map(str, prepared.shape))
    yield (
        f"data: {data.kind}, {len(prepared.classes)} classes ({listed(prepared.classes)}), images {shape}, "
        f"{prepared.train_images} to search on ({sweep.validation:.0%} held out to measure), {prepared.test_images} sealed"
    )
    model = sweep.model if isinstance(sweep.model, str) else f"{printable(sweep.model.name)}(hp)"
    search = f"{sweep.backend}, sampler {sweep.sampler_name}, pruner {sweep.pruner_name}"
    yield f"model: {model}, {sweep.epochs} epochs of batches of {sweep.batch_size}, objective {sweep.objective.metric}"
    yield f"search: {search}, {sweep.trials} trials, seed {sweep.seed}"
    yield f"space: {_count(sweep.space)}"
    for name, parameter in sweep.space.items():
        when = "".join(
            f", when {printable(parent)} is {' or '.join(printable(v) for v in values)}"
            for parent, values in (parameter.when or {}).items()
        )
        yield f"  {printable(name)}: {words(parameter)}{when}"


def words(parameter: Parameter) -> str:
    """One parameter's range in words."""
    p: Any = parameter
    if p.kind == "fixed":
        return f"always {_plain(p.value)}"
    if p.kind == "choice":
        return "one of " + ", ".join(_plain(v) for v in p.choices)
    steps = f" in steps of {p.step:.12g}" if p.step else ", evenly in the logarithm" if p.log else ""
    kind = "whole number" if p.kind == "int" else "number"
    return f"{kind} from {p.low:.12g} to {p.high:.12g}{steps}"


def _plain(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else printable(value)


def _count(space: SearchSpace) -> str:
    ranges = [n for n, p in space.items() if p.values() is None]
    try:
        size = space.grid_size()
    except BadInput:
        return "more than a million configurations"
    if not ranges:
        return f"{size:,} configuration{'s' * (size != 1)}"
    return f"endless in {listed(ranges)}; a grid of {size:,} configuration{'s' * (size != 1)} takes the two ends of each range"


def configuration(sweep: Sweep, at: Sequence[str], known: int | None) -> Params:
    """The parameters that `--known N` or `--at NAME=VALUE` name, the rest at their defaults.  Raises: BadInput."""
    if known is not None:
        if known >= len(sweep.known):
            raise BadInput(
                f"there is no known configuration {known}; this file has {len(sweep.known)}, numbered from 0"
            )
        return sweep.known_suggestions[known].params
    given = dict(_assignment(text) for text in at)
    allowed = sweep.space if isinstance(sweep.model, BuildFunction) else {**sweep.space, **FAMILIES[sweep.model].knobs}
    for name in given:
        if name not in allowed:
            raise BadInput(unknown("parameter", name, allowed))
    params = sweep.space.completed(given) | {n: value for n, value in given.items() if n not in sweep.space}
    for name in given:
        if name not in params:
            needed = " and ".join(
                f"{printable(parent)} to be {' or '.join(map(_plain, values))}"
                for parent, values in (sweep.space[name].when or {}).items()
            )
            raise BadInput(f"parameter '{printable(name)}' is not there: it needs {needed}")
    return params


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise BadInput(f"--at takes NAME=VALUE, got '{printable(text)}'")
    try:
        return name, frozen(json.loads(value))
    except ValueError:
        return name, {"True": True, "False": False, "None": None}.get(value, value)


def summary(sweep: Sweep, prepared: Prepared, params: Params) -> Iterator[str]:
    """The network of one configuration as Keras draws it, and its parameter counts.  Raises: BadInput."""
    answer = _in_child(sweep, prepared, type="summary", params=params)
    yield ", ".join(f"{printable(n)}={_plain(v)}" for n, v in params.items())
    yield from answer["lines"]
    total, trainable = answer["total"], answer["trainable"]
    yield f"{total:,} parameters: {trainable:,} trainable, {total - trainable:,} not"


def extremes(sweep: Sweep, prepared: Prepared) -> Iterator[str]:
    """The smallest and largest model by parameter count, built in a child.  Raises: BadInput if no model can be built."""
    answer = _in_child(sweep, prepared, type="extremes")
    for which in ("smallest", "largest"):
        found = answer[which]
        params = ", ".join(f"{printable(n)}={_plain(frozen(v))}" for n, v in found["params"].items())
        yield f"{which} model: {found['total']:,} parameters ({found['trainable']:,} trainable) with {params or 'no parameters'}"
    if answer["unbuildable"]:
        yield f"cannot be built: {answer['unbuildable']} of the {answer['tried']} tried, such as {answer['reason']}"


def _in_child(sweep: Sweep, prepared: Prepared, **request: Any) -> dict[str, Any]:
    request |= {"sweep": sweep.to_json(), "shape": prepared.shape, "classes": len(prepared.classes)}
    with tempfile.TemporaryFile() as output, Child("imgclf_sweep.check", output=output) as child:
        child.send(request)
        try:
            answer = next(child.messages(BUILD_SECONDS), None)
        except TimeoutError:
            raise BadInput(f"building models did not end within {BUILD_SECONDS:g} s") from None
    if answer is None:
        raise BadInput("building models ended the process that did it")
    if answer["type"] == "refused":
        raise BadInput(answer["reason"])
    return answer


class _Extremes:
    """Builds configurations, varying one parameter at a time from the defaults; keeps the counts."""

    def __init__(self, sweep: Sweep, shape: tuple[int, int, int], classes: int) -> None:
        from .models.build import Builder

        self._builder, self._shape, self._classes = Builder(sweep, pretrained=False), shape, classes
        self._space = sweep.space
        self.counts: dict[str, tuple[int, int] | None] = {}
        self.reason = ""

    def count(self, params: Params) -> tuple[int, int] | None:
        """(total, trainable) parameters of that model, or None if it cannot be built."""
        from .models.build import count_parameters

        key = repr(params)
        if key not in self.counts:
            try:
                built = self._builder.build(params, self._shape, self._classes)
                self.counts[key] = count_parameters(built.model)
            except BadInput as error:
                self.counts[key], self.reason = None, str(error)
        return self.counts[key]

    def search(self, sign: int) -> tuple[Params, tuple[int, int]]:
        """The configuration with the fewest (sign 1) or most (-1) parameters that one pass over the parameters finds."""
        chosen = dict(self._space.defaults())
        for name, parameter in self._space.items():
            if not self._space.is_active(name, chosen):
                continue
            values = parameter.grid()
            values = values if len(values) <= VALUES_TRIED else (values[0], values[-1])
            candidates = [self._complete({**chosen, name: value}) for value in values]
            chosen = min(candidates, key=lambda params: self._rank(params, sign))
        counted = self.count(chosen)
        if counted is None:
            raise BadInput(self.reason)
        return chosen, counted

    def _complete(self, params: Params) -> Params:
        """`params` with defaults for what its changed value made active."""
        out: Params = {}
        for name, parameter in self._space.items():
            if self._space.is_active(name, out):
                out[name] = params.get(name, parameter.start())
        return out

    def _rank(self, params: Params, sign: int) -> float:
        counted = self.count(params)
        return math.inf if counted is None else sign * counted[0]


def _summarise(sweep: Sweep, shape: tuple[int, int, int], classes: int, params: Params) -> dict[str, Any]:
    from .models.build import Builder, count_parameters, summary_lines

    model = Builder(sweep, pretrained=False).build(params, shape, classes).model
    total, trainable = count_parameters(model)
    return {"lines": summary_lines(model), "total": total, "trainable": trainable}


def _find_extremes(sweep: Sweep, shape: tuple[int, int, int], classes: int) -> dict[str, Any]:
    search = _Extremes(sweep, shape, classes)
    answer: dict[str, Any] = {}
    for which, sign in (("smallest", 1), ("largest", -1)):
        params, (total, trainable) = search.search(sign)
        answer[which] = {"params": params, "total": total, "trainable": trainable}
    unbuildable = sum(c is None for c in search.counts.values())
    return answer | {"tried": len(search.counts), "unbuildable": unbuildable, "reason": search.reason}


def main() -> None:
    channel = connect()
    request = channel.receive()
    try:
        sweep, shape, classes = Sweep.from_json(request["sweep"]), tuple(request["shape"]), request["classes"]
        if request["type"] == "summary":
            params = {name: frozen(value) for name, value in request["params"].items()}
            channel.send(type="built", **_summarise(sweep, shape, classes, params))
        else:
            channel.send(type="built", **_find_extremes(sweep, shape, classes))
    except BadInput as error:
        channel.send(type="refused", reason=str(error))


if __name__ == "__main__":
    main()
