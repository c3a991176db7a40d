"""Which trainer a sweep has: one compiled JAX program for each shape of network, or Keras `fit`. Pure: neither is imported.

Decided once a sweep, before its workers start, from what is declared and installed alone; the record keeps it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import BadInput
from ..models import knobs
from ..space import Params, Value
from ..sweep import BuildFunction, Sweep
from ..text import printable
from .lanes.declared import shape_in
from .lanes.rates import augmenting, seconds
from .lanes.shape import LEARNING_RATES

FIT, COMPILED, AUTO = "fit", "compiled", "auto"
JAX_ON_GPU = ("jax_cuda12_plugin", "jax_cuda13_plugin")
SAMPLES = 50  # configurations that stand for a space
CLASSES = 10  # where a data set's are not known yet: they hardly matter here


@dataclass(frozen=True)
class Chosen:
    """trainer: FIT or COMPILED.   line: which one and why not the other, for people; empty where there was nothing to choose."""

    trainer: str
    line: str = ""


def choose(asked: str, sweep: Sweep, gpu: bool) -> Chosen:
    """The trainer of a new sweep.   asked: AUTO, or a trainer by name.   gpu: whether workers will have an NVIDIA GPU.

    Raises: BadInput for COMPILED where it cannot train the sweep.
    """
    if asked not in (AUTO, COMPILED):
        return Chosen(asked)
    problem = unsuited(sweep) or missing()
    if asked == COMPILED:
        if problem:
            raise BadInput(f"--trainer compiled: {problem}")
        return Chosen(COMPILED)
    if not problem and gpu and not any(map(_installed, JAX_ON_GPU)):
        problem = "JAX is installed without its CUDA plugin, and there is a GPU (pip install 'jax[cuda12]')"
    if not problem and not gpu:
        problem = slower(sweep)
    if problem:
        return Chosen(FIT, f"trainer: Keras fit, not one compiled program: {problem}")
    return Chosen(COMPILED, "trainer: compiled (JAX), which is faster for such networks than Keras fit (--trainer fit)")


def missing() -> str | None:
    """What has to be installed, in a line."""
    return None if _installed("jax") else "JAX is not installed (pip install jax)"


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def unsuited(sweep: Sweep) -> str | None:
    """Why the compiled program cannot train every configuration of the sweep, or None if it can."""
    if isinstance(sweep.model, BuildFunction) or callable(sweep.model):
        return "the model is a build(hp), of which only Keras knows what it does"
    if sweep.model != knobs.CNN.name:
        return f"the model is of the family {printable(sweep.model)}, not {knobs.CNN.name}"
    for value in _possible(sweep, "optimizer"):
        if value not in LEARNING_RATES:
            return f"optimizer {printable(value)} is not compiled, only {', '.join(LEARNING_RATES)}"
    return None


def _possible(sweep: Sweep, knob: str) -> Iterator[Value]:
    """What a knob may be in any trial, as far as it is not its default: of a range, both ends."""
    if knob in sweep.space:
        yield from sweep.space[knob].grid()
    yield from (s.params[knob] for s in sweep.known_suggestions if knob in s.params)


def configurations(sweep: Sweep) -> list[Params]:
    """Configurations that stand for a sweep's: those known, and some of its space, always the same ones."""
    rng = np.random.default_rng(0)
    known = [dict(s.params) for s in sweep.known_suggestions]
    return known[: sweep.trials] + [
        sweep.space.sample(rng) for _ in range(max(0, min(SAMPLES, sweep.trials - len(known))))
    ]


def slower(sweep: Sweep) -> str | None:
    """Why Keras `fit` is expected to be the faster on a processor, or None where it is not."""
    fit = compiled = 0.0
    for params in configurations(sweep):
        try:
            net = knobs.resolve(params)
            shape = shape_in(
                sweep, params, image=sweep.dataset.shape, classes=CLASSES, train=sweep.batch_size, validation=0
            )
        except BadInput:  # no network for these images: the trial will say so
            continue
        for times in (seconds(shape), augmenting(shape, net)):
            fit, compiled = fit + times[0], compiled + times[1]
    if compiled <= fit:
        return None
    return (
        f"on a processor its networks would take about {compiled / fit:.1f} times as long "
        "(--trainer compiled trains them all the same)"
    )
