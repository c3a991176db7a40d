"""The child module of a worker: one trainer, one job after another, until its parent closes the pipe."""

from __future__ import annotations

from ..child import Channel, connect
from ..errors import SweepError
from ..text import printable
from ..training.protocol import Job, Reply, Setup
from ..trial import Measurement
from .messages import measurement_to_json, outcome_to_json


def main() -> None:
    channel = connect()
    command = channel.receive()
    try:
        from ..training import open_trainer  # here, not above: the channel must live before the tensor library loads

        trainer = open_trainer(Setup.from_json(command["setup"]))
    except Exception as error:
        known = isinstance(error, SweepError)
        channel.send(type="unusable", reason=str(error) if known else f"{type(error).__name__}: {printable(error)}")
        return
    channel.send(type="ready")
    while True:
        job = Job.from_json(channel.receive()["job"])
        outcome = trainer.train(job, lambda measurement, job=job: _report(channel, job, measurement))
        channel.send(type="ended", token=job.token, outcome=None if outcome is None else outcome_to_json(outcome))


def _report(channel: Channel, job: Job, measurement: Measurement) -> Reply:
    channel.send(type="measured", token=job.token, measurement=measurement_to_json(measurement))
    while True:
        answer = channel.receive()
        if answer["type"] == "reply" and answer["token"] == job.token:
            return Reply(answer["reply"])


if __name__ == "__main__":
    main()
