"""K trials of one shape trained as one compiled JAX program: the programs, made ahead of need, and the lanes they train.

Imported in worker processes and benchmarks only. On a GPU, float32 products use TF32 unless `jax_default_matmul_precision`
says otherwise; on a processor they are float32.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..data.preprocess import Affine
from ..sweep import Objective
from . import lanes_step
from .lanes_net import CONVS
from .lanes_shape import Inputs, Shape
from .lanes_step import METRICS, Control, Data


def to_device(
    x: np.ndarray, y: np.ndarray, affine: Affine, validation: tuple[np.ndarray, np.ndarray] | None = None
) -> Data:
    """Put the images on the device, for all programs and lanes.  x: uint8 (N, H, W, C).  y: (N,) class numbers.

    validation: the images and labels held out, alike.
    """
    held_x, held_y = (x[:0], y[:0]) if validation is None else validation
    arrays = (x, y.astype(np.int32), held_x, held_y.astype(np.int32))
    return Data(*jax.device_put((*arrays, np.float32(affine.scale), np.float32(affine.offset))))


def use_cache(directory: Path | str) -> None:
    """Keep compiled programs under `directory`, and take from there what an earlier run compiled."""
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@dataclass(frozen=True)
class Program:
    """What is compiled for K lanes of one shape.  seconds: how long that took.  device_bytes: what an epoch needs, the
    resident images included."""

    shape: Shape
    lanes: int
    epoch: Any
    empty: Any
    put: Any
    take: Any
    seconds: float
    device_bytes: int


@dataclass
class Programs:
    """Compiles programs in threads, each once.  conv: see `lanes_net.CONVS`.  threads: side by side.

    After use `close()` it, or use it as a context manager.
    """

    conv: str = CONVS[0]
    threads: int = 4
    _pool: ThreadPoolExecutor = field(init=False, repr=False)
    _made: dict[tuple[Shape, int], Future[Program]] = field(init=False, repr=False, default_factory=dict)
    _lock: threading.Lock = field(init=False, repr=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(self.threads, "compile")

    @property
    def count(self) -> int:
        """How many programs were asked for, compiled or on the way."""
        return len(self._made)

    def prepare(self, shape: Shape, lanes: int) -> Future[Program]:
        """Start compiling, unless that was asked before. The future holds the program, or what went wrong."""
        with self._lock:
            if (shape, lanes) not in self._made:
                self._made[shape, lanes] = self._pool.submit(compile_program, shape, lanes, self.conv)
            return self._made[shape, lanes]

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Programs:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def compile_program(shape: Shape, lanes: int, conv: str = CONVS[0]) -> Program:
    """Compile everything that `Lanes` calls for K lanes of one shape."""
    began = time.perf_counter()
    state = jax.eval_shape(lambda: lanes_step.empty(shape, lanes))
    epoch = jax.jit(lanes_step.epoch_of(shape, lanes, conv), donate_argnums=0)
    compiled = epoch.lower(state, _inputs_like(shape, lanes), _control_like(lanes), _data_like(shape)).compile()
    empty = jax.jit(lambda: lanes_step.empty(shape, lanes)).lower().compile()
    at = jax.ShapeDtypeStruct((), np.int32)
    one = [jax.ShapeDtypeStruct(v.shape, np.float32) for v in shape.variables()]
    put = jax.jit(_put, donate_argnums=0).lower(state.weights, at, one).compile()
    take = jax.jit(_take).lower(state.weights, at).compile()
    memory = compiled.memory_analysis()
    needed = memory.temp_size_in_bytes + memory.argument_size_in_bytes if memory else 0
    return Program(shape, lanes, compiled, empty, put, take, time.perf_counter() - began, needed)


def _put(weights: list[Any], at: Any, new: list[Any]) -> list[Any]:
    return [w.at[at].set(n) for w, n in zip(weights, new, strict=True)]


def _take(weights: list[Any], at: Any) -> list[Any]:
    return [w[at] for w in weights]


def _idle(shape: Shape) -> Inputs:
    """The inputs of a lane that nothing was set for."""
    zeros = (0.0,) * shape.blocks
    return Inputs("sgd", 0.0, 0.0, (*zeros, 0.0), zeros, zeros, 0)


def _inputs_like(shape: Shape, lanes: int) -> dict[str, jax.ShapeDtypeStruct]:
    arrays = _idle(shape).arrays()
    return {name: jax.ShapeDtypeStruct((lanes, *a.shape), a.dtype) for name, a in arrays.items()}


def _control_like(lanes: int) -> Control:
    flags = jax.ShapeDtypeStruct((lanes,), np.bool_)
    return Control(flags, flags, flags, jax.ShapeDtypeStruct((), np.int32), jax.ShapeDtypeStruct((), np.float32))


def _data_like(shape: Shape) -> Data:
    def images(count: int) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
        return jax.ShapeDtypeStruct((count, *shape.image), np.uint8), jax.ShapeDtypeStruct((count,), np.int32)

    channels = jax.ShapeDtypeStruct(shape.image[2:], np.float32)
    return Data(*images(shape.train), *images(shape.validation), channels, channels)


class Lanes:
    """K places in which trials of one shape train side by side, an epoch at a time. Not for several threads.

    A lane's numbers are those of the same trial trained alone with K = 1, up to rounding; one that diverges disturbs no
    other. objective: which epoch's weights are kept as the best; without a validation part it is always the last one's.
    """

    def __init__(self, program: Program, data: Data, objective: Objective) -> None:
        shape = program.shape
        self._program = program
        self._data = data
        self._state = program.empty()
        self._inputs = [_idle(shape)] * program.lanes
        self._restart = np.zeros(program.lanes, bool)
        self._loaded = np.zeros(program.lanes, bool)
        self._active = np.zeros(program.lanes, bool)
        self._metric = METRICS.index(objective.metric) if shape.validation else -1
        self._sign = 1 if objective.direction == "max" else -1

    @property
    def lanes(self) -> int:
        return self._program.lanes

    @property
    def active(self) -> list[int]:
        """The lanes that hold a trial."""
        return np.flatnonzero(self._active).tolist()

    def set_lane(self, lane: int, inputs: Inputs) -> None:
        """Give a lane a new trial, which starts from fresh weights with the next epoch."""
        self._inputs[lane] = inputs
        self._active[lane] = self._restart[lane] = True
        self._loaded[lane] = False

    def load_lane(self, lane: int, weights: Sequence[np.ndarray]) -> None:
        """Let the trial just set in a lane start from `weights` (in the order of `get_weights()`) instead of fresh ones.

        Raises: ValueError for weights of another network.
        """
        arrays = [np.asarray(w, np.float32) for w in weights]
        wanted = [v.shape for v in self._program.shape.variables()]
        if [a.shape for a in arrays] != wanted:
            raise ValueError(f"the weights are of another network: {[a.shape for a in arrays]}, not {wanted}")
        if not self._restart[lane]:
            raise ValueError(f"lane {lane} is already training")
        self._state = self._state._replace(weights=self._program.put(self._state.weights, np.int32(lane), arrays))
        self._loaded[lane] = True

    def stop_lane(self, lane: int) -> None:
        """Leave a lane idle. Its best weights stay until it gets another trial."""
        self._active[lane] = self._restart[lane] = False

    def epoch(self) -> list[dict[str, float] | None]:
        """Train every lane for one epoch. Each lane's metrics by Keras's names, possibly not finite; None for idle lanes."""
        inputs: Mapping[str, np.ndarray] = _stack([i.arrays() for i in self._inputs])
        control = Control(self._restart, self._loaded, self._active, np.int32(self._metric), np.float32(self._sign))
        self._state, numbers = self._program.epoch(self._state, inputs, control, self._data)
        rows = np.asarray(numbers).tolist()
        self._restart = np.zeros(self.lanes, bool)
        self._loaded = np.zeros(self.lanes, bool)
        names = METRICS[: len(rows[0])]
        return [dict(zip(names, row, strict=True)) if on else None for row, on in zip(rows, self._active, strict=True)]

    def lane_weights(self, lane: int, best: bool = True) -> list[np.ndarray]:
        """A lane's weights, those of its best epoch or of its last one, as the Keras model's `set_weights` takes them."""
        weights = self._state.best if best else self._state.weights
        return [np.asarray(w) for w in self._program.take(weights, np.int32(lane))]


def _stack(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
