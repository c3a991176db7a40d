"""The declaration of a sweep: what a sweep file says, checked when it is made. Pure values; no tensor library."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from .data.datasets import Dataset
from .errors import BadInput
from .models.families import FAMILIES
from .space import Fixed, Params, SearchSpace, frozen
from .text import listed, printable, unknown
from .trial import Suggestion

MAXIMISED = ("accuracy", "auc", "precision", "recall", "f1", "iou")
MINIMISED = ("loss", "error", "crossentropy", "entropy", "hinge", "divergence")

MOST = 2**32 - 1  # of epochs, trials and images a step, and the largest seed: what every library below can hold

VALIDATION_PARTS = ("stratified", "last")

LOSSES = {  # Keras's name -> whether labels are class numbers (N,) rather than one-hot (N, classes)
    "sparse_categorical_crossentropy": True,
    "categorical_crossentropy": False,
    "binary_crossentropy": False,
    "categorical_focal_crossentropy": False,
    "kl_divergence": False,
    "mean_squared_error": False,
}

SEARCH = {  # backend -> its samplers and pruners, the default of each first; the contract test holds the backends to it
    "optuna": (("tpe", "random", "grid"), ("median", "successive-halving", "none")),
    "keras-tuner": (("random", "bayesian", "hyperband", "grid"), ("none",)),
    "random": (("random", "grid"), ("none",)),
}


@dataclass(frozen=True)
class Objective:
    """The metric that ranks trials, by Keras's name, and its direction, "min" or "max"."""

    metric: str
    direction: str

    def __post_init__(self) -> None:
        if not isinstance(self.metric, str) or not self.metric or not self.metric.isprintable():
            raise BadInput(
                f"an objective's metric must be a name such as 'val_accuracy', got {printable(repr(self.metric))}"
            )
        if self.direction not in ("min", "max"):
            raise BadInput(f"an objective's direction must be 'min' or 'max', got {printable(repr(self.direction))}")

    @classmethod
    def of(cls, given: object) -> Objective:
        """An objective from a metric's name, the direction told from the name.  Raises: BadInput where it cannot be."""
        if isinstance(given, Objective):
            return given
        if not isinstance(given, str):
            raise BadInput(
                f"objective must be a metric's name or Objective(metric, 'min'|'max'), got {printable(repr(given))}"
            )
        for words, direction in ((MINIMISED, "min"), (MAXIMISED, "max")):
            if any(word in given.lower() for word in words):
                return cls(given, direction)
        raise BadInput(
            f"objective '{printable(given)}': cannot tell whether to minimise or maximise it; "
            f"write Objective('{printable(given)}', 'min') or 'max'"
        )

    def better(self, a: float, b: float | None) -> bool:
        """Whether `a` is strictly better than `b`; anything is better than None."""
        return b is None or (a > b if self.direction == "max" else a < b)


@dataclass(frozen=True)
class BuildFunction:
    """A user's `build(hp)`, named rather than held: the sweep file to execute (absolute) and a digest of its source."""

    file: str
    name: str
    digest: str


@dataclass(frozen=True)
class Sweep:
    """One declared sweep.

    dataset: what to train on, from `datasets`.
    model: "cnn", "transfer" (a published backbone under dense layers), or a function `build(hp) -> keras.Model` as written
    for Keras Tuner, trained as it compiles itself.
    space: the parameters searched; left out for `build(hp)`, whose own are discovered.
    objective: the metric that ranks trials ("val_accuracy"), or `Objective(metric, "min"|"max")`.
    loss: Keras's name of the loss that "cnn" and "transfer" are trained with.
    epochs: epochs a trial trains for (Hyperband: at most).       batch_size: images a step.
    trials: how many trials in all (grid: all, unless `--trials` says fewer).
    seed: from which every random number of the sweep follows.
    backend, sampler, pruner: the search; None means the backend's default (Optuna: TPE with median pruning).
    validation: part of the training images held out to measure trials on, in (0, 1).
    validation_part: which images that is: "stratified", a seeded sample of every class, or "last", the last ones in order.
    test: part of all images sealed until `retrain`, in (0, 1); used only where the data set has no official test part.
    known: configurations to try first, as dicts, numbered from 0: any knob of the model, inside the searched ranges or not,
    and "epochs" for a number of its own. What one leaves out is the space's fixed value, else the model's default.

    Raises: BadInput, one line, for anything that cannot be run.
    """

    dataset: Dataset
    model: str | Callable[..., Any] | BuildFunction = "cnn"
    space: SearchSpace = field(default_factory=SearchSpace)
    objective: Objective = "val_accuracy"  # type: ignore[assignment]
    loss: str = "sparse_categorical_crossentropy"
    epochs: int = 10
    batch_size: int = 64
    trials: int = 20
    seed: int = 0
    backend: str = "optuna"
    sampler: str | None = None
    pruner: str | None = None
    validation: float = 0.2
    test: float = 0.2
    validation_part: str = "stratified"
    known: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.dataset, Dataset):
            raise BadInput(
                f"dataset must come from datasets, such as datasets.digits(), got {printable(repr(self.dataset))}"
            )
        if isinstance(self.space, dict):
            object.__setattr__(self, "space", SearchSpace(self.space))
        if not isinstance(self.space, SearchSpace):
            raise BadInput(f"space must be a SearchSpace, got {printable(repr(self.space))}")
        object.__setattr__(self, "objective", Objective.of(self.objective))
        for name, least in (("epochs", 1), ("batch_size", 1), ("trials", 1), ("seed", 0)):
            _whole(name, getattr(self, name), least)
        for name in ("validation", "test"):
            _part(name, getattr(self, name))
        if self.loss not in LOSSES:
            raise BadInput(unknown("loss", self.loss, LOSSES))
        if self.validation_part not in VALIDATION_PARTS:
            raise BadInput(unknown("validation_part", self.validation_part, VALIDATION_PARTS))
        self._check_model()
        self._check_search()
        object.__setattr__(self, "known", tuple(self._known(i, given) for i, given in enumerate(self.known)))

    def _check_model(self) -> None:
        if isinstance(self.model, str):
            if self.model not in FAMILIES:
                raise BadInput(unknown("model", self.model, [*FAMILIES, "a function build(hp)"]))
            FAMILIES[self.model].check_space(self.space, self.dataset, self.loss)
            if self.objective.metric not in METRICS:
                raise BadInput(unknown("metric", self.objective.metric, METRICS))
        elif isinstance(self.model, BuildFunction):
            return
        elif not callable(self.model):
            method = "; give its method: model=....build" if callable(getattr(self.model, "build", None)) else ""
            raise BadInput(
                f"model must be {listed(FAMILIES)} or a function build(hp), got {printable(repr(self.model))}{method}"
            )
        elif self.space:
            raise BadInput("a function build(hp) declares its own parameters: leave space= out")

    def _check_search(self) -> None:
        if self.backend not in SEARCH:
            raise BadInput(unknown("backend", self.backend, SEARCH))
        samplers, pruners = SEARCH[self.backend]
        if self.sampler is not None and self.sampler not in samplers:
            raise BadInput(unknown(f"sampler for backend {self.backend}", self.sampler, samplers))
        if self.pruner is not None and self.pruner not in pruners:
            raise BadInput(unknown(f"pruner for backend {self.backend}", self.pruner, pruners))

    def _known(self, index: int, given: object) -> dict[str, Any]:
        """One known configuration, checked and made whole: its params, and its "epochs" if it has its own."""
        where = f"known configuration {index}"
        if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
            raise BadInput(f"{where} must be a dict such as dict(filters=32), got {printable(repr(given))}")
        try:
            params = self._with_fixed({name: frozen(value) for name, value in given.items() if name != "epochs"})
            own = {"epochs": given["epochs"]} if "epochs" in given else {}
            _whole("epochs", own.get("epochs", 1), 1)
            if isinstance(self.model, str):
                FAMILIES[self.model].check_space(SearchSpace(params), self.dataset, self.loss)
            elif isinstance(self.model, BuildFunction):
                params = self._whole_build_params(params)
        except BadInput as error:
            raise BadInput(f"{where}: {error}") from None
        return params | own

    def _with_fixed(self, given: Params) -> Params:
        """`given`, and the fixed values of the space that are active beside it."""
        fixed: Params = {}
        for name, p in self.space.items():
            if isinstance(p, Fixed) and self.space.is_active(name, fixed | given):
                fixed[name] = p.start()
        return fixed | given

    def _whole_build_params(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters that `build(hp)` asks for, in its order, with defaults for those not given."""
        for name in given:
            if name not in self.space:
                raise BadInput(unknown("parameter of build(hp)", name, self.space))
        return self.space.completed(given)

    @property
    def known_suggestions(self) -> tuple[Suggestion, ...]:
        """The known configurations as the first trials, numbered from 0."""
        return tuple(
            Suggestion(n, {k: v for k, v in given.items() if k != "epochs"}, given.get("epochs", self.epochs))
            for n, given in enumerate(self.known)
        )

    @property
    def shown_space(self) -> SearchSpace:
        """The space as a table of trials shows it: widened by the values that known configurations add."""
        return self.space.widened([s.params for s in self.known_suggestions])

    @property
    def sampler_name(self) -> str:
        """The sampler in force: the one named, else the backend's default."""
        return self.sampler or SEARCH[self.backend][0][0]

    @property
    def pruner_name(self) -> str:
        """The pruner in force. A grid is run whole unless a pruner is named."""
        if self.pruner is None and self.sampler_name == "grid":
            return "none"
        return self.pruner or SEARCH[self.backend][1][0]

    def replaced(self, **changes: Any) -> Sweep:
        """A checked copy with the fields that are not None in `changes` replaced. New `epochs` are those of known
        configurations too.  Raises: BadInput."""
        changes = {k: v for k, v in changes.items() if v is not None}
        if "epochs" in changes:
            known = [{name: value for name, value in given.items() if name != "epochs"} for given in self.known]
            changes = {"known": known, **changes}
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back. Raises: TypeError while `model` is still a live function."""
        if isinstance(self.model, BuildFunction):
            model: Any = {f.name: getattr(self.model, f.name) for f in fields(BuildFunction)}
        elif isinstance(self.model, str):
            model = self.model
        else:
            raise TypeError("a live build(hp) cannot be written; declare.resolve names it first")
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        objective = {"metric": self.objective.metric, "direction": self.objective.direction}
        return out | {
            "dataset": self.dataset.to_json(),
            "model": model,
            "space": self.space.to_json(),
            "objective": objective,
            "known": [dict(given) for given in self.known],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Sweep:
        """The sweep that `to_json` wrote.  Raises: BadInput."""
        known = {f.name for f in fields(cls)}
        for name in data:
            if name not in known:
                raise BadInput(unknown("field of a sweep", name, known))
        model = data["model"]
        return cls(
            **{
                **data,
                "dataset": Dataset.from_json(data["dataset"]),
                "model": BuildFunction(**model) if isinstance(model, Mapping) else model,
                "space": SearchSpace.from_json(data["space"]),
                "objective": Objective(**data["objective"]),
            }
        )


METRICS = ("val_accuracy", "val_loss", "accuracy", "loss")
"""What every model of a family measures each epoch; a `build(hp)` measures what it compiles."""


def _whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadInput(f"{name} must be a whole number of at least {least}, got {printable(repr(value))}")
    if value > MOST:
        raise BadInput(f"{name} must be at most {MOST:,}, it is larger")


def _part(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        raise BadInput(f"{name} must be a number between 0 and 1, got {printable(repr(value))}")
