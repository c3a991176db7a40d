"""A coordinator for one trainer in this process: it hears every epoch and answers."""

from imgclf_sweep.training.protocol import Reply


class Heard:
    """The coordinator's end: notes everything, answers `last` to the epoch `until` and GO to all others."""

    def __init__(self, until=None, last=Reply.INTERRUPT):
        self.until, self.last = until, last
        self.resumed, self.measured = [], []

    def on_epoch(self, measurement):
        self.measured.append(measurement)
        return self.last if measurement.epoch == self.until else Reply.GO

    def on_resume(self, measurements):
        self.resumed.append(list(measurements))
        return self.last if measurements[-1].epoch == self.until else Reply.GO

    @property
    def curve(self):
        return [(m.epoch, dict(m.metrics)) for m in [*sum(self.resumed, []), *self.measured]]


def run(trainer, given, until=None, last=Reply.INTERRUPT):
    heard = Heard(until, last)
    return trainer.train(given, heard.on_epoch, heard.on_resume), heard
