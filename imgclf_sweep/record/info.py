"""What a record says about its sweep as a whole, and what a changed declaration differs in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..errors import BadInput
from ..sweep import BuildFunction, Sweep
from ..text import printable


@dataclass(frozen=True)
class Info:
    """trials: the number aimed at, in all.   data: the prepared data set's directory.   fingerprint: of its images.
    created: ISO 8601 in UTC.   versions: of Python and the libraries, when the sweep was created."""

    id: str
    name: str
    created: str
    trials: int
    data: str
    fingerprint: str
    limit_images: int | None
    trainer: str
    versions: Mapping[str, str]


CHANGEABLE = ("epochs", "batch_size", "pruner", "sampler", "space", "model source")
"""What `--allow-change` accepts. Trials before and after were then trained or proposed differently, but all are measured by one
objective on the same images. Anything else decides what a value means."""

FREE_SAMPLERS = ("tpe", "random")
"""Samplers that take any past trial as it is. A grid is numbered, and an oracle of Keras Tuner's has its space in its state."""


@dataclass(frozen=True)
class Difference:
    """One thing declared differently.  line: in words, old and new.   allowed: whether `--allow-change` accepts it."""

    line: str
    allowed: bool


def changes(info: Info, old: Sweep, sweep: Sweep, allow_change: bool, **now: Any) -> list[str]:
    """What is declared differently than in the record, in words, if all of it is allowed.  Raises: BadInput with what is not."""
    found = differences(old, sweep) + info_differences(info, old, sweep, **now)
    refused = [d.line for d in found if not (allow_change and d.allowed)]
    if not refused:
        return [d.line for d in found]
    remedy = "undo that, or give another --name"
    if allow_change:
        remedy = f"--allow-change cannot allow that, for values before and after would mean different things: {remedy}"
    elif all(d.allowed for d in found):
        remedy += ", or --allow-change to go on with it"
    raise BadInput(f"sweep '{info.name}' was begun with another declaration: {'; '.join(refused)}; {remedy}")


def differences(old: Sweep, now: Sweep) -> list[Difference]:
    """What is declared differently; `trials` may always differ.

    A named sampler or pruner equals the default of the same name, and a `build(hp)` is its source, wherever its file lies.
    """
    out: list[Difference] = []
    before, after = _plain(old), _plain(now)
    free = old.backend == now.backend != "keras-tuner" and {old.sampler_name, now.sampler_name} <= set(FREE_SAMPLERS)
    for field in fields(Sweep):
        name = field.name
        what, lines = name, []
        if name == "model":
            lines = list(_model(old.model, now.model))
            both_built = isinstance(old.model, BuildFunction) and isinstance(now.model, BuildFunction)
            what = "model source" if both_built and old.model.name == now.model.name else name  # type: ignore[union-attr]
        elif name == "dataset":
            lines = list(_dataset(before[name], after[name]))
        elif name == "space":
            lines = list(_space(before[name], after[name]))
        elif name in ("sampler", "pruner"):
            if old.backend == now.backend:  # of another backend they differ anyway
                lines = _changed(name, getattr(old, f"{name}_name"), getattr(now, f"{name}_name"))
        elif name == "objective":
            lines = _changed(name, *(f"{d['metric']} ({d['direction']})" for d in (before[name], after[name])))
        elif name != "trials":
            lines = _changed(name, before[name], after[name])
        allowed = what in CHANGEABLE and (free or what in ("batch_size", "model source"))
        out += [Difference(line, allowed) for line in lines]
    return out


def info_differences(old: Info, old_sweep: Sweep, sweep: Sweep, **now: Any) -> list[Difference]:
    """The same for what is not in the declaration: `fingerprint`, `limit_images`, `trainer`. None of it may change."""
    out = _changed("limit_images", old.limit_images, now["limit_images"])
    out += _changed("trainer", old.trainer, now["trainer"])
    decided_by = ("dataset", "seed", "test")  # another of these is another set of images, and named already
    same_images = all(getattr(old_sweep, name) == getattr(sweep, name) for name in decided_by)
    if same_images and old.fingerprint != now["fingerprint"]:
        out.append("the images changed")
    return [Difference(line, False) for line in out]


def _plain(sweep: Sweep) -> dict[str, Any]:
    return json.loads(json.dumps(sweep.to_json()))


def _changed(what: str, before: Any, after: Any) -> list[str]:
    if json.dumps(before) == json.dumps(after):  # as text, where True is not 1
        return []
    return [f"{what}: {_word(before)} in the record, {_word(after)} now"]


def _model(before: Any, after: Any) -> Iterator[str]:
    if isinstance(before, BuildFunction) and isinstance(after, BuildFunction):
        if before.name != after.name:
            yield from _changed("model", f"{before.name}(hp)", f"{after.name}(hp)")
        elif before.digest != after.digest:
            yield f"the source of {printable(after.name)}() changed"
    else:
        yield from _changed("model", *(f"{m.name}(hp)" if isinstance(m, BuildFunction) else m for m in (before, after)))


def _dataset(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    if before["kind"] != after["kind"]:
        yield from _changed("dataset", before["kind"], after["kind"])
        return
    for name in before:
        yield from _changed(f"dataset {name}", before[name], after[name])


def _space(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for name in {**before, **after}:
        shown = f"parameter '{printable(name)}'"
        if name not in after:
            yield f"{shown}: {_parameter(before[name])} in the record, absent now"
        elif name not in before:
            yield f"{shown}: absent in the record, {_parameter(after[name])} now"
        elif json.dumps(before[name], sort_keys=True) != json.dumps(after[name], sort_keys=True):
            yield f"{shown}: {_parameter(before[name])} in the record, {_parameter(after[name])} now"
    if set(before) == set(after) and list(before) != list(after):  # a grid and a seeded sampler follow the order
        yield from _changed("order of the parameters", ", ".join(before), ", ".join(after))


def _parameter(data: Mapping[str, Any]) -> str:
    """A parameter as a sweep file would write it: `Int(1, 5, step=2)`."""
    plain = [_word(data[k], quoted=True) for k in ("value", "choices", "low", "high") if k in data]
    named = [f"{k}={_word(data[k], quoted=True)}" for k in ("step", "log", "when") if data.get(k)]
    return f"{str(data['kind']).capitalize()}({', '.join(plain + named)})"


def _word(value: Any, quoted: bool = False) -> str:
    if value is None and not quoted:
        return "none"
    return printable(value if isinstance(value, str) and not quoted else repr(value))
