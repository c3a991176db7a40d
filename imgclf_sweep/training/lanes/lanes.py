"""K trials of one shape trained as one compiled JAX program: the programs, made ahead of need, and the lanes they train.

Imported in worker processes and benchmarks only. On a GPU, float32 products use TF32 unless `jax_default_matmul_precision`
says otherwise; on a processor they are float32.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ...data.preprocess import Affine
from ...sweep import Objective
from . import steps
from .init import fresh
from .programs import Program, Programs, compile_program, idle, use_cache
from .shape import METRICS, Inputs, Shape
from .steps import Control, Data, State
from .wide import embed, extract, own

__all__ = ["Lanes", "Program", "Programs", "compile_program", "is_state", "to_device", "use_cache"]


def to_device(
    x: np.ndarray, y: np.ndarray, affine: Affine, validation: tuple[np.ndarray, np.ndarray] | None = None
) -> Data:
    """Put the images on the device, for all programs and lanes.  x: uint8 (N, H, W, C).  y: (N,) class numbers.

    validation: the images and labels held out, alike.
    """
    held_x, held_y = (x[:0], y[:0]) if validation is None else validation
    arrays = (x, y.astype(np.int32), held_x, held_y.astype(np.int32))
    return Data(*jax.device_put((*arrays, np.float32(affine.scale), np.float32(affine.offset))))


class Lanes:
    """K places in which trials of one shape train side by side, an epoch at a time. Not for several threads.

    A lane's numbers are those of the same trial trained alone with K = 1, up to rounding; one that diverges disturbs no
    other. objective: which epoch's weights are kept as the best; without a validation part it is always the last one's.
    """

    def __init__(self, program: Program, data: Data, objective: Objective) -> None:
        shape = program.shape
        self._program = program
        self._data = data
        self._state: State | None = None  # until a lane is set
        self._numbers: Any = None  # of the epoch last started
        self._inputs = [idle(shape)] * program.lanes
        self._active = np.zeros(program.lanes, bool)
        self._begun = np.zeros(program.lanes, bool)
        self._metric = METRICS.index(objective.metric) if shape.validation else -1
        self._sign = 1 if objective.direction == "max" else -1

    @property
    def lanes(self) -> int:
        return self._program.lanes

    @property
    def active(self) -> list[int]:
        """The lanes that hold a trial."""
        return np.flatnonzero(self._active).tolist()

    def set_lane(self, lane: int, inputs: Inputs, weights: Sequence[np.ndarray] | None = None) -> None:
        """Give a lane a new trial, which starts with the next epoch.

        weights: what it starts from, in the order of its own network's `get_weights()`; None: fresh ones.
        Raises: ValueError for weights of another network.
        """
        shape = self._program.shape
        narrow = own(shape, inputs)
        if weights is None:
            weights = fresh(narrow, inputs.initializer, inputs.seed)
        wanted, given = [v.shape for v in narrow.variables()], [w.shape for w in weights]
        if given != wanted:
            raise ValueError(f"the weights are of another network: {given}, not {wanted}")
        weights = embed(weights, narrow, shape)
        if self.lanes == 1:
            self._state = _with_lanes(steps.initial(weights, shape))
        else:
            self._state = self._program.begin(self._whole(), np.int32(lane), weights)
        self._inputs[lane], self._active[lane], self._begun[lane] = inputs, True, True

    def lane_state(self, lane: int) -> dict[str, np.ndarray]:
        """Everything that a lane's later epochs depend on but its inputs; `resume_lane` takes it."""
        return {name: np.array(array) for name, array in _named(self._lane(lane)).items()}

    def resume_lane(self, lane: int, inputs: Inputs, arrays: Mapping[str, np.ndarray]) -> None:
        """Give a lane a trial in the state that `lane_state` told of it, here or in another process.

        Raises: ValueError, with nothing changed, for the state of another network.
        """
        if not is_state(self._program.shape, arrays):
            raise ValueError("its arrays are not the network's")
        one = steps.like(self._program.shape)
        given = jax.tree.unflatten(jax.tree.structure(one), [np.array(arrays[name]) for name in _named(one)])
        self._state = _with_lanes(given) if self.lanes == 1 else _restore(self._whole(), np.int32(lane), given)
        self._inputs[lane], self._active[lane], self._begun[lane] = inputs, True, True

    def _whole(self) -> State:
        return self._program.empty() if self._state is None else self._state

    def _lane(self, lane: int) -> State:
        """One lane's state, in arrays that are not its own."""
        if not self._begun[lane]:
            raise ValueError(f"lane {lane} never had a trial")
        if self.lanes == 1:
            return jax.tree.map(lambda a: np.asarray(a)[0], self._state)
        return self._program.take(self._state, np.int32(lane))

    def stop_lane(self, lane: int) -> None:
        """Leave a lane idle. Its best weights stay until it gets another trial."""
        self._active[lane] = False

    def epoch(self) -> list[dict[str, float] | None]:
        """Train every lane for one epoch. Each lane's metrics by Keras's names, possibly not finite; None for idle lanes."""
        self.start()
        return self.metrics()

    def start(self) -> None:
        """Set the device to work on the next epoch of every lane, and return at once; `metrics` waits for it."""
        inputs: Mapping[str, np.ndarray] = _stack([i.arrays() for i in self._inputs])
        control = Control(self._active, np.int32(self._metric), np.float32(self._sign))
        self._state, self._numbers = self._program.epoch(self._whole(), inputs, control, self._data)

    def metrics(self) -> list[dict[str, float] | None]:
        """What the epoch last started measured, as `epoch` returns it. No lane may have been set or stopped since."""
        rows = np.asarray(self._numbers).tolist()
        names = METRICS[: len(rows[0])]
        return [dict(zip(names, row, strict=True)) if on else None for row, on in zip(rows, self._active, strict=True)]

    def lane_weights(self, lane: int, best: bool = True) -> list[np.ndarray]:
        """A lane's weights, those of its best epoch or of its last one, as the Keras model's `set_weights` takes them."""
        state = self._lane(lane)
        shape = self._program.shape
        return extract(state.best if best else state.weights, own(shape, self._inputs[lane]), shape)


def is_state(shape: Shape, arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether a lane of this shape can go on from `arrays`."""
    wanted = {name: (a.shape, a.dtype) for name, a in _named(steps.like(shape)).items()}
    return {name: (a.shape, a.dtype) for name, a in arrays.items()} == wanted


@functools.partial(jax.jit, donate_argnums=0)
def _restore(state: State, at: Any, one: State) -> State:
    return jax.tree.map(lambda a, new: a.at[at].set(new), state, one)


def _with_lanes(one: State) -> State:
    return jax.tree.map(lambda a: a[None], one)


def _named(one: State) -> dict[str, Any]:
    """A lane's arrays by name, in the order of the tree's leaves."""
    found = {}
    for name, part in one._asdict().items():
        found |= {f"{name}/{i}": array for i, array in enumerate(part)} if isinstance(part, list) else {name: part}
    return found


def _stack(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
