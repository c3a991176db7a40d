"""The compiled programs that train K lanes of one shape: made ahead of need in threads, each once, and kept on disk for other
processes and later runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ...data.files import locked
from ...models.shared_knobs import AUGMENTATION
from ..protocol import Compilations
from . import steps
from .conv import CONVS
from .shape import Inputs, Shape
from .steps import Control, Data

HIT, MISS = "/jax/compilation_cache/cache_hits", "/jax/compilation_cache/cache_misses"  # JAX's events


def use_cache(directory: Path | str) -> None:
    """Keep compiled programs under `directory`, and take from there what an earlier run compiled. A damaged one is compiled anew;
    a directory that cannot be written to is of no use, and no harm."""
    jax.config.update("jax_compilation_cache_dir", str(Path(directory) / _machine()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _machine() -> str:
    """A name for this kind of processor: what was compiled for another may crash here, and a root may lie on a shared disk."""
    said = platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        said += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(said.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Program:
    """What is compiled for K lanes of one shape.  seconds: how long that took.  device_bytes: what an epoch needs, the
    resident images included.   cached: whether it was taken from the disk.

    A single lane needs only `epoch`: its state comes and goes as NumPy's arrays.  empty: the state of idle lanes.  begin:
    gives one lane weights and the rest of a fresh state.  take: one lane's state.
    """

    shape: Shape
    lanes: int
    epoch: Any
    seconds: float
    device_bytes: int
    cached: bool = False
    empty: Any = None
    begin: Any = None
    take: Any = None


@dataclass
class Programs:
    """Compiles programs in threads, each once.  conv: see `conv.CONVS`.  threads: side by side.

    cache: where they are kept (`use_cache`): of several processes that want one at the same time, one compiles it.
    After use `close()` it, or use it as a context manager.
    """

    conv: str = CONVS[0]
    threads: int = 4
    cache: Path | None = None
    _pool: ThreadPoolExecutor = field(init=False, repr=False)
    _made: dict[tuple[Shape, int], Future[Program]] = field(init=False, repr=False, default_factory=dict)
    _lock: threading.Lock = field(init=False, repr=False, default_factory=threading.Lock)
    _events: threading.local = field(init=False, repr=False, default_factory=threading.local)

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(self.threads, "compile")
        if self.cache is not None:
            use_cache(self.cache)
        jax.monitoring.register_event_listener(self._heard)

    def _heard(self, event: str, **_: object) -> None:
        if event in (HIT, MISS) and hasattr(self._events, "heard"):  # told by the thread that compiles
            self._events.heard.add(event)

    @property
    def compilations(self) -> Compilations:
        """What was made so far; not what is under way or failed."""
        done = [f.result() for f in list(self._made.values()) if f.done() and not f.cancelled() and not f.exception()]
        compiled = [program for program in done if not program.cached]
        return Compilations(len(compiled), sum(p.seconds for p in compiled), len(done) - len(compiled))

    @property
    def count(self) -> int:
        """How many programs were asked for, compiled or on the way."""
        return len(self._made)

    def prepare(self, shape: Shape, lanes: int) -> Future[Program]:
        """Start compiling, unless that was asked before. The future holds the program, or what went wrong."""
        with self._lock:
            if (shape, lanes) not in self._made:
                self._made[shape, lanes] = self._pool.submit(self._compile, shape, lanes)
            return self._made[shape, lanes]

    def _compile(self, shape: Shape, lanes: int) -> Program:
        with self._alone(shape, lanes):
            self._events.heard = set()
            program = compile_program(shape, lanes, self.conv)
            return replace(program, cached=self._events.heard == {HIT})

    @contextlib.contextmanager
    def _alone(self, shape: Shape, lanes: int) -> Iterator[None]:
        """Hold this program's lock, so that another process that wants it too waits and then finds it on disk."""
        if self.cache is None or not os.access(self.cache if self.cache.exists() else self.cache.parent, os.W_OK):
            yield
            return
        key = hashlib.sha256(repr((shape, lanes, self.conv)).encode()).hexdigest()[:16]
        with locked(self.cache / f".{key}.lock", lambda: None):
            yield

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Programs:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def compile_program(shape: Shape, lanes: int, conv: str = CONVS[0]) -> Program:
    """Compile what `Lanes` calls for K lanes of one shape."""
    began = time.perf_counter()
    state = steps.like(shape, lanes)
    epoch = jax.jit(steps.epoch_of(shape, lanes, conv), donate_argnums=0)
    compiled = epoch.lower(state, _inputs_like(shape, lanes), _control_like(lanes), _data_like(shape)).compile()
    others = {}
    if lanes > 1:
        at = jax.ShapeDtypeStruct((), np.int32)
        weights = [jax.ShapeDtypeStruct(v.shape, np.float32) for v in shape.variables()]
        others["empty"] = jax.jit(lambda: steps.empty(shape, lanes)).lower().compile()
        others["begin"] = jax.jit(steps.begin, donate_argnums=0).lower(state, at, weights).compile()
        others["take"] = jax.jit(steps.take).lower(state, at).compile()
    memory = compiled.memory_analysis()
    needed = memory.temp_size_in_bytes + memory.argument_size_in_bytes if memory else 0
    return Program(shape, lanes, compiled, time.perf_counter() - began, needed, False, **others)


def idle(shape: Shape) -> Inputs:
    """The inputs of a lane that nothing was set for."""
    zeros = (0.0,) * shape.blocks
    widths, still = (shape.filters, shape.dense_units), (0.0,) * len(AUGMENTATION)
    return Inputs(*widths, "sgd", "glorot_uniform", 0.0, 0.0, 0.0, 0.0, (*zeros, 0.0), zeros, zeros, still, 0)


def _inputs_like(shape: Shape, lanes: int) -> dict[str, jax.ShapeDtypeStruct]:
    arrays = idle(shape).arrays()
    return {name: jax.ShapeDtypeStruct((lanes, *a.shape), a.dtype) for name, a in arrays.items()}


def _control_like(lanes: int) -> Control:
    flags = jax.ShapeDtypeStruct((lanes,), np.bool_)
    return Control(flags, jax.ShapeDtypeStruct((), np.int32), jax.ShapeDtypeStruct((), np.float32))


def _data_like(shape: Shape) -> Data:
    def images(count: int) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
        return jax.ShapeDtypeStruct((count, *shape.image), np.uint8), jax.ShapeDtypeStruct((count,), np.int32)

    channels = jax.ShapeDtypeStruct(shape.image[2:], np.float32)
    return Data(*images(shape.train), *images(shape.validation), channels, channels)
