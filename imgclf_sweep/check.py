"""The work of `sweep check`: a search space in words, and its smallest and largest model, actually built.

As a module (`python -m`) this is the child that builds them.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .child import Child, connect
from .errors import BadInput
from .space import Parameter, Params, SearchSpace, frozen
from .sweep import Sweep
from .text import listed, printable

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
    steps = f" in steps of {p.step:g}" if p.step else ", evenly in the logarithm" if p.log else ""
    kind = "whole number" if p.kind == "int" else "number"
    return f"{kind} from {p.low:g} to {p.high:g}{steps}"


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


def extremes(sweep: Sweep, prepared: Prepared) -> Iterator[str]:
    """The smallest and largest model by parameter count, built in a child.  Raises: BadInput if no model can be built."""
    request = {"type": "build", "sweep": sweep.to_json(), "shape": prepared.shape, "classes": len(prepared.classes)}
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
    for which in ("smallest", "largest"):
        found = answer[which]
        params = ", ".join(f"{printable(n)}={_plain(frozen(v))}" for n, v in found["params"].items())
        yield f"{which} model: {found['total']:,} parameters ({found['trainable']:,} trainable) with {params or 'no parameters'}"
    if answer["unbuildable"]:
        yield f"cannot be built: {answer['unbuildable']} of the {answer['tried']} tried, such as {answer['reason']}"


class _Extremes:
    """Builds configurations, varying one parameter at a time from the defaults; keeps the counts."""

    def __init__(self, sweep: Sweep, shape: tuple[int, int, int], classes: int) -> None:
        from .models.build import Builder

        self._builder, self._shape, self._classes = Builder(sweep), shape, classes
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
                out[name] = params.get(name, parameter.default())
        return out

    def _rank(self, params: Params, sign: int) -> float:
        counted = self.count(params)
        return math.inf if counted is None else sign * counted[0]


def main() -> None:
    channel = connect()
    request = channel.receive()
    try:
        search = _Extremes(Sweep.from_json(request["sweep"]), tuple(request["shape"]), request["classes"])
        answer: dict[str, Any] = {}
        for which, sign in (("smallest", 1), ("largest", -1)):
            params, (total, trainable) = search.search(sign)
            answer[which] = {"params": params, "total": total, "trainable": trainable}
        unbuildable = sum(c is None for c in search.counts.values())
        channel.send(type="built", **answer, tried=len(search.counts), unbuildable=unbuildable, reason=search.reason)
    except BadInput as error:
        channel.send(type="refused", reason=str(error))


if __name__ == "__main__":
    main()
