"""A caller that keeps the protocol's rules: asks, reports, tells, and keeps what a record would, as JSON."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Sequence

from imgclf_sweep import trial as trials_module
from imgclf_sweep.backends import open_backend
from imgclf_sweep.backends.protocol import Exhausted, Wait
from imgclf_sweep.data import datasets
from imgclf_sweep.space import Choice, Fixed, Float, Int, Params, SearchSpace
from imgclf_sweep.sweep import BuildFunction, Sweep
from imgclf_sweep.trial import Kind, Outcome, State, Suggestion, Trial

SPACE = SearchSpace(
    filters=Choice([16, 32, [16, 32], [32, 64]]),
    dropout=Float(0.2, 0.5, step=0.1),
    learning_rate=Float(1e-4, 1e-1, log=True),
    dense_units=Int(16, 128, step=16),
    optimizer=Choice(["adam", "sgd", "rmsprop"]),
    momentum=Float(0.0, 0.9, when={"optimizer": ["sgd", "rmsprop"]}),
    batch_norm=Choice([True, False]),
    units=Int(4, 512, log=True, when={"batch_norm": True, "optimizer": "sgd"}),
    kernel=Fixed(3),
)


def a_sweep(space: SearchSpace = SPACE, **changes: object) -> Sweep:
    """A sweep over any space at all: a named `build(hp)` may have whatever parameters it likes."""
    return Sweep(datasets.digits(), model=BuildFunction("/nowhere.py", "build", "0"), space=space, **changes)  # type: ignore[arg-type]


def objective(params: Params, epoch: int) -> float:
    """A smooth, repeatable score in (0, 1) that rises with the epoch."""
    rate = params.get("learning_rate", 0.01)
    score = math.exp(-((math.log10(rate) + 2.5) ** 2)) - params.get("dropout", 0.2) + 0.3 * params.get("momentum", 0.3)
    score += len(str(params.get("filters", 16))) / 20 + params.get("dense_units", 16) / 400
    return 1 / (1 + math.exp(-score)) * (1 - 0.5**epoch)


def fails(params: Params) -> Kind | None:
    """Some configurations fail, always in the same way."""
    if params.get("filters") == (32, 64) and params.get("dense_units", 0) > 64:
        return Kind.OUT_OF_MEMORY
    return Kind.DIVERGED if params.get("learning_rate", 0) > 0.06 else None


class Driver:
    """One worker's search, step by step. `cut()` throws the backend away and opens a new one on what was kept."""

    def __init__(self, sweep: Sweep, failing: Callable[[Params], Kind | None] = fails) -> None:
        self.sweep = sweep
        self.failing = failing
        self.trials: list[Trial] = []
        self.kept: dict[str, str] = {}
        self.backend = open_backend(sweep, [], {})

    def keep(self) -> None:
        for key, text in self.backend.state().items():
            json.loads(text)
            self.kept[key] = text

    def cut(self) -> None:
        self.backend.close()
        history = [from_json(json.loads(json.dumps(dataclasses.asdict(t)))) for t in self.trials]
        self.backend = open_backend(self.sweep, history, dict(self.kept))

    def ask(self) -> Suggestion | Wait | Exhausted:
        answer = self.backend.ask(len(self.trials))
        self.keep()  # in one transaction with the proposal
        if isinstance(answer, Suggestion):
            assert answer.number == len(self.trials)
            self.trials.append(
                Trial(answer.number, State.RUNNING, answer.params, answer.epochs, answer.initial_epoch, answer.parent)
            )
        return answer

    def train(self, number: int, upto: int | None = None) -> bool:
        """Report epochs until told to stop (True), or `upto`."""
        trial = self.trials[number]
        for epoch in range(trial.initial_epoch + 1, (upto or trial.epochs_planned) + 1):
            value = objective(trial.params, epoch)
            stop = self.backend.report(number, epoch, value)
            trial = self.trials[number] = dataclasses.replace(trial, curve={**trial.curve, epoch: value})
            if stop:
                return True
        return False

    def finish(self, number: int, stopped: bool) -> Outcome:
        trial = self.trials[number]
        kind = self.failing(trial.params)
        best = max(trial.curve, key=lambda e: trial.curve[e])
        if kind:
            outcome = Outcome(State.FAILED, epochs=len(trial.curve), kind=kind, reason=f"it was {kind}")
        else:
            state = State.PRUNED if stopped else State.COMPLETE
            outcome = Outcome(state, trial.curve[best], best, max(trial.curve), 1.5)
        fields = {f.name: getattr(outcome, f.name) for f in dataclasses.fields(outcome) if f.name != "frames"}
        self.trials[number] = dataclasses.replace(trial, **fields)
        self.backend.tell(number, outcome)
        self.keep()
        return outcome

    def run(self, upto: int) -> list[Trial]:
        """Go on until there are `upto` trials or the search ends."""
        while len(self.trials) < upto:
            answer = self.ask()
            if isinstance(answer, Exhausted):
                break
            assert isinstance(answer, Suggestion), "one worker never has to wait"
            self.finish(answer.number, self.train(answer.number))
        return self.trials

    def run_ahead(self, upto: int, cuts: Sequence[int] = ()) -> list[Trial]:
        """As `run`, with the next trial asked for when one has begun, as a loop of one worker does.  cuts: of the steps (a trial
        begun, the next one asked for, an epoch of it, the rest, its end) those after which everything is cut."""
        queue = [t.number for t in self.trials if not t.state.finished]

        steps = itertools.count()

        def then() -> None:
            if next(steps) in cuts:
                self.cut()

        while queue or len(self.trials) < upto:
            if not queue:
                answer = self.ask()
                if not isinstance(answer, Suggestion):
                    break
                queue.append(answer.number)
            number = queue.pop(0)
            then()
            if len(self.trials) < upto and isinstance(answer := self.ask(), Suggestion):
                queue.append(answer.number)
            then()
            stopped = self.train(number, upto=self.trials[number].initial_epoch + 1)
            then()
            stopped = stopped or self.train(number)
            then()
            self.finish(number, stopped)
            then()
        return self.trials

    def proposals(self) -> list[tuple[Params, int, int, int | None, State, int]]:
        return [(t.params, t.epochs_planned, t.initial_epoch, t.parent, t.state, t.epochs) for t in self.trials]


def from_json(fields: dict[str, object]) -> Trial:
    """A trial as a record would give it back."""
    from imgclf_sweep.space import frozen

    fields["state"] = State(fields["state"])
    fields["kind"] = fields["kind"] and Kind(fields["kind"])
    fields["params"] = {name: frozen(value) for name, value in fields["params"].items()}  # type: ignore[attr-defined]
    fields["curve"] = {int(epoch): value for epoch, value in fields["curve"].items()}  # type: ignore[attr-defined]
    return trials_module.Trial(**fields)  # type: ignore[arg-type]
