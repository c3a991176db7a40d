"""A user's `build(hp)`, written for Keras Tuner: building it with given values, and finding out what it can be asked for."""

from __future__ import annotations

import inspect
import site
import sysconfig
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadInput, SweepError
from ..space import Params, SearchSpace, Value
from ..text import printable
from .hyperparameters import Requests

if TYPE_CHECKING:
    import keras

Build = Callable[[Any], "keras.Model"]
Shape = tuple[int, int, int]

MOST_BUILDS = 200
"""How often a `build(hp)` is called to discover its space: at a second a build, what one waits for before a night's work."""

MEMORY_ERRORS = ("MemoryError", "ResourceExhaustedError")


@dataclass(frozen=True)
class Discovery:
    """What a `build(hp)` can be asked for.

    space: its parameters in the order met; `conditional_scope`s as `when`.   metrics: what its model measures each epoch,
    by Keras's names, those of the validation part ("val_...") first.   loss: the name of what it is compiled with.
    builds: how many models were built.   complete: False where MOST_BUILDS ended the search for more; what is first met in
    a trial then takes its default there.
    """

    space: SearchSpace
    metrics: tuple[str, ...]
    loss: str
    builds: int
    complete: bool


def discover(build: Build, shape: Shape | None = None) -> Discovery:
    """Call `build` at the defaults, then at each value of each Choice and Boolean and at both ends of each Int and Float,
    until nothing new appears.

    shape: (H, W, C) of the images, for a model that does not say it itself.

    Raises: BadInput where `build` raises or returns no compiled model for one image, where a name is met with two ranges,
    and for what no sweep can search: `sampling="reverse_log"`, one name under unrelated scopes, names without end.
    """
    import keras

    requests, queue, seen = Requests(), deque([{}]), set()
    metrics, loss, builds, growing = (), "", 0, 0
    while queue and builds < MOST_BUILDS:
        values = queue.popleft()
        if _key(values) in seen:
            continue
        keras.utils.clear_session(free_memory=builds % 10 == 0)  # collecting takes longer than a small model's building
        builds += 1
        model, hp, new = _build(build, values, requests)
        seen |= {_key(values), _key(hp.values)}
        if builds == 1:
            check_model(model, shape)
            metrics, loss = _metrics(model), loss_name(model)
        growing += bool(new)
        for name in new:
            queue.extend(requests.variations(name, hp.values))
        queue.extend(requests.activating(scope, hp.values) for scope in hp.inactive_scopes)
    if growing == MOST_BUILDS:
        raise BadInput(f"build(hp) asked for new names in each of {builds} builds, the last '{printable(new[-1])}'")
    complete = all(_key(values) in seen for values in queue)
    return Discovery(requests.space(), metrics, loss, builds, complete)


def build_hypermodel(build: Build, params: Params) -> tuple[keras.Model, dict[str, Value]]:
    """The model that `build` makes of `params` (name to value, the active ones), and what else it asked for.

    The latter, name to value, took its default: it is no part of the space that was discovered.
    Raises: BadInput where `build` raises, or asks for one name with two ranges. An error for want of memory passes through.
    """
    model, hp, _ = _build(build, params, Requests())
    return model, {name: value for name, value in hp.values.items() if name not in params}


def check_model(model: keras.Model, shape: Shape | None) -> None:
    """Refuse what is not a compiled model from one image (H, W, C) to one vector; build it where it waits for a shape.

    Raises: BadInput.
    """
    import keras

    if not isinstance(model, keras.Model):
        raise BadInput(f"build(hp) must return a compiled keras.Model, it returned {printable(repr(model)[:80])}")
    if not hasattr(type(model), "output_shape"):  # only a Sequential and a functional model have it
        raise BadInput(
            f"build(hp) returned the subclassed model {printable(type(model).__name__)}, which cannot be reloaded without "
            "its class: return a keras.Sequential, or keras.Model(inputs, outputs)"
        )
    if not model.compiled:
        raise BadInput("build(hp) must compile its model: model.compile(optimizer=..., loss=..., metrics=[...])")
    if not model.built:
        if shape is None:
            raise BadInput("build(hp) must begin its model with keras.Input(shape)")
        try:
            model.build((None, *shape))
        except ValueError as error:
            raise BadInput(f"build(hp): its model takes no images {_by(shape)}: {printable(error)}") from error
    takes, gives = model.input_shape, model.output_shape
    if not isinstance(takes, tuple) or len(takes) != 4:
        raise BadInput(f"build(hp): its model must take images (H, W, C), it takes {printable(_by(takes))}")
    if shape is not None and any(a is not None and a != b for a, b in zip(takes[1:], shape, strict=True)):
        raise BadInput(f"build(hp): its model takes images {_by(takes[1:])}, the data set has {_by(shape)}")
    if not isinstance(gives, tuple) or len(gives) != 2 or gives[1] is None:
        raise BadInput(f"build(hp): its model must give one number a class, it gives {printable(_by(gives))}")


def loss_name(model: keras.Model) -> str:
    """The name of the loss a model is compiled with; "" where it has none."""
    loss = model.loss
    if isinstance(loss, (list, tuple)) and len(loss) == 1:
        loss = loss[0]
    if isinstance(loss, Mapping) and len(loss) == 1:
        loss = next(iter(loss.values()))
    if loss is None or isinstance(loss, str):
        return loss or ""
    return str(getattr(loss, "name", None) or getattr(loss, "__name__", None) or type(loss).__name__)


def sparse_labels(model: keras.Model) -> bool:
    """Whether the model's loss wants class numbers (N,) rather than one row a label (N, classes)."""
    loss = model.loss
    kinds = [kind.__name__ for kind in type(loss).__mro__]  # an object may have been given any name
    return any(name.lower().startswith("sparse") for name in (loss_name(model), *kinds))


def _build(build: Build, values: Mapping[str, Value], requests: Requests) -> tuple[keras.Model, Any, list[str]]:
    """The model, the `keras_tuner.HyperParameters` it was built with, and the names that `requests` had not met before."""
    import keras_tuner

    hp = keras_tuner.HyperParameters()
    hp.values = dict(values)
    new = requests.listen(hp)
    try:
        return build(hp), hp, new
    except SweepError as error:
        raise BadInput(f"{_user_line(build, error)}{error}") from None
    except (Exception, SystemExit) as error:
        if {kind.__name__ for kind in type(error).__mro__} & set(MEMORY_ERRORS):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = f": {printable(lines[0])}" if lines else ""
        at = ", ".join(f"{name}={value!r}" for name, value in values.items())
        raise BadInput(
            f"{_user_line(build, error)}build(hp) raised {type(error).__name__}{said}{printable(at and f' (at {at})')}"
        ) from error


def _user_line(build: Build, error: BaseException) -> str:
    """`file, line N: ` of the innermost line of the traceback that is the user's: of no library, and not ours."""
    paths = sysconfig.get_paths()
    libraries = [Path(__file__).parent, paths["purelib"], paths["platlib"], paths["stdlib"], *site.getsitepackages()]
    own = inspect.unwrap(build)
    files = {code.co_filename} if (code := getattr(own, "__code__", None)) else set()
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        inside = any(Path(frame.filename).is_relative_to(library) for library in libraries)
        if frame.filename in files or (not inside and not frame.filename.startswith("<")):
            return f"{printable(frame.filename)}, line {frame.lineno}: "
    return ""


def _metrics(model: keras.Model) -> tuple[str, ...]:
    """What the model measures, by Keras's names, found by measuring one black image.  Raises: BadInput."""
    import numpy as np

    shape = [n or 32 for n in model.input_shape[1:]]
    outputs = model.output_shape[-1]
    labels = np.zeros((1,), "int64") if sparse_labels(model) and outputs > 1 else np.eye(1, outputs, dtype="float32")
    try:
        names = model.evaluate(np.zeros((1, *shape), "float32"), labels, verbose=0, return_dict=True)
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise BadInput(
            f"build(hp): its model cannot be evaluated: {type(error).__name__}: {printable(said)}"
        ) from error
    return (*(f"val_{name}" for name in names), *names)


def _key(values: Mapping[str, Value]) -> frozenset[tuple[str, str]]:
    return frozenset((name, repr(value)) for name, value in values.items())


def _by(shape: Any) -> str:
    return "x".join("?" if n is None else str(n) for n in shape) if isinstance(shape, tuple) else str(shape)
