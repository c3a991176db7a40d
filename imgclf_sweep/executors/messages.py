"""Measurements and outcomes as the JSON that workers send. What a worker sends is checked: it may be any rubbish."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from ..child import ProtocolError
from ..space import frozen
from ..training.protocol import Compilations
from ..trial import Kind, Measurement, Outcome, State


def measurement_to_json(measurement: Measurement) -> dict[str, Any]:
    return asdict(measurement) | {"metrics": {name: float(value) for name, value in measurement.metrics.items()}}


def measurement_from_json(data: Any) -> Measurement:
    """Raises: ProtocolError for anything but a whole epoch above 0 and finite metrics."""
    try:
        epoch, seconds = int(data["epoch"]), float(data["seconds"])
        metrics = {str(name): float(value) for name, value in data["metrics"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProtocolError(f"a measurement that is none: {error!r}") from None
    if epoch < 1 or not all(map(math.isfinite, metrics.values())):
        raise ProtocolError("a measurement with an epoch or metric out of range")
    return Measurement(epoch, metrics, seconds)


def measurements_from_json(data: Any) -> tuple[Measurement, ...]:
    """Raises: ProtocolError for anything but at least one measurement, their epochs without a gap."""
    if not isinstance(data, list) or not data:
        raise ProtocolError("no list of measurements")
    found = tuple(measurement_from_json(each) for each in data)
    if [m.epoch for m in found] != list(range(found[0].epoch, found[0].epoch + len(found))):
        raise ProtocolError("measurements of epochs that do not follow each other")
    return found


def messages_from_json(data: Any) -> list[dict[str, Any]]:
    """What a worker with several lanes says in one turn.  Raises: ProtocolError for anything but a list of messages."""
    if not isinstance(data, list) or not all(isinstance(m, dict) and isinstance(m.get("type"), str) for m in data):
        raise ProtocolError("a round without a list of messages")
    return data


def compilations_from_json(data: Any) -> Compilations:
    """Raises: ProtocolError."""
    try:
        return Compilations(int(data["compiled"]), float(data["seconds"]), int(data["cached"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"compilations that are none: {error!r}") from None


def outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    return asdict(outcome)


def outcome_from_json(data: Any) -> Outcome:
    """Raises: ProtocolError."""
    try:
        kind = None if data["kind"] is None else Kind(data["kind"])
        found = {str(name): frozen(value) for name, value in data["found"].items()}
        outcome = Outcome(**{**data, "state": State(data["state"]), "kind": kind, "found": found})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProtocolError(f"an outcome that is none: {error!r}") from None
    if not outcome.state.finished or (outcome.value is not None and not math.isfinite(outcome.value)):
        raise ProtocolError("an outcome with a state or value out of range")
    return outcome
