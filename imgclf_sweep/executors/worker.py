"""The child module of a worker: one trainer, one job after another or several in rounds, until its parent closes the pipe."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from ..child import Channel, connect
from ..errors import SweepError
from ..text import printable
from ..training.failures import surroundings
from ..training.protocol import Compilations, Job, LaneTrainer, Reply, Setup, Trainer
from ..trial import Measurement, Outcome
from .messages import measurement_to_json, outcome_to_json
from .rounds import Rounds


def main() -> None:
    channel = connect()
    command = channel.receive()
    threading.Thread(target=_beat, args=(channel, command["beat"]), daemon=True, name="beat").start()
    try:
        from .. import training  # here, not above: the channel must live before the tensor library loads

        if command["type"] == "warm":
            training.preload(command["trainer"])
            channel.send(type="warm")
            command = channel.receive()
        _become(command)
        setup = Setup.from_json(command["setup"])
        if setup.lanes > 1:
            lanes = training.open_lanes(setup)
            serve, recycle_after = Rounds(channel, lanes, Compiled(channel, lanes).tell).serve, lanes.recycle_after
        else:
            trainer = training.open_trainer(setup)
            serve, recycle_after = partial(_serve, channel, trainer), trainer.recycle_after
    except Exception as error:
        known = isinstance(error, SweepError)
        channel.send(type="unusable", reason=str(error) if known else f"{type(error).__name__}: {printable(error)}")
        return
    channel.send(type="ready", recycle_after=recycle_after)
    serve()


class Compiled:
    """Says what a trainer has compiled, whenever that is more than before."""

    def __init__(self, channel: Channel, trainer: Trainer | LaneTrainer) -> None:
        self._channel, self._trainer = channel, trainer
        self._told = Compilations()

    def tell(self) -> None:
        now = getattr(self._trainer, "compilations", self._told)
        if now != self._told:
            self._channel.send(type="compiled", **asdict(now))
            self._told = now


def _serve(channel: Channel, trainer: Trainer) -> None:
    """One job after another."""
    compiled = Compiled(channel, trainer)
    while True:
        job = Job.from_json(channel.receive()["job"])
        outcome = _train(channel, trainer, job)
        compiled.tell()
        channel.send(type="ended", token=job.token, outcome=None if outcome is None else outcome_to_json(outcome))


def _become(command: Mapping[str, Any]) -> None:
    """Take a slot: its devices, which no library has looked for yet, and its log."""
    os.environ.update(command["env"])
    log = os.open(command["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _beat(channel: Channel, seconds: float) -> None:
    """Say that this process lives, whatever its main thread does. A beat that fails is one beat less."""
    while True:
        time.sleep(seconds)
        with contextlib.suppress(OSError):
            channel.send(type="beat")


def _train(channel: Channel, trainer: Trainer, job: Job) -> Outcome | None:
    """What a trainer raises is not the job's fault: the prepared data are gone, or the disk."""
    try:
        return trainer.train(job, lambda m: _report(channel, job, m), lambda earlier: _resumed(channel, job, earlier))
    except (SweepError, OSError) as error:
        return surroundings(error)


def _report(channel: Channel, job: Job, measurement: Measurement) -> Reply:
    channel.send(type="measured", token=job.token, measurement=measurement_to_json(measurement))
    return _reply(channel, job)


def _resumed(channel: Channel, job: Job, earlier: Sequence[Measurement]) -> Reply:
    channel.send(type="resumed", token=job.token, measurements=[measurement_to_json(m) for m in earlier])
    return _reply(channel, job)


def _reply(channel: Channel, job: Job) -> Reply:
    while True:
        answer = channel.receive()
        if answer["type"] == "reply" and answer["token"] == job.token:
            return Reply(answer["reply"])


if __name__ == "__main__":
    main()
