"""The end of a sweep: train the winner anew, open the sealed test part once, score, export.

The winner is chosen by validation alone. Whatever can fail without the test part is done before it is opened, and that it was
opened is committed to the record first, so that the count in the manifest is true even after a power cut.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from . import export, pictures, score
from .data.cache import Prepared
from .errors import BadInput, SweepError
from .executors.protocol import Ended, Executor, Gone, Measured, Resumed
from .finishing import Finished, finish
from .pictures import Story
from .record.layout import SweepDir
from .record.write import Record
from .score import Score
from .space import Params
from .text import listed, printable
from .training.checkpoint import discard
from .training.protocol import Job, Reply, Setup
from .training.weights import weights_of
from .trial import Outcome, State, Suggestion, Trial

SEED_STREAM = 1_000_000  # the seeds of retraining, apart from those of the search
ATTEMPTS = 3  # how often one seed is started when its worker vanishes
POLL_SECONDS = 0.25
BEST_RUN, RETRAINED_RUN = "_best", "_retrained-{:04d}"  # in logs/NAME; no sweep, hence no trial, has such a name


def retrain(
    directory: SweepDir,
    record: Record,
    make_executor: Callable[[Setup], Executor],
    *,
    prepared: Prepared,
    number: int | None = None,
    seeds: int = 1,
    epochs: int | None = None,
    on: str = "all",
    note: Callable[[str], None] = lambda line: None,
) -> Score:
    """Train, score and export one trial's configuration; the export is at `directory.best`, or `directory.retrained(number)`.

    number: the trial, COMPLETE or PRUNED; None takes the winner.   seeds: how many models are trained; the first is exported.
    epochs: how many; None takes the trial's best epoch, or for on="train" the epochs it was planned for.
    on: "all" trains on train+validation and keeps the last epoch; "train" holds the validation part out and keeps the best.
    note: told in one line what is going on.
    Raises: BadInput before anything is written; SweepError where a seed fails or the export cannot be proved.
    """
    _check(seeds, epochs, on)
    trial = _choose(record, number)
    if prepared.fingerprint != record.info.fingerprint:
        raise BadInput("the data set has changed since the sweep: its images are not those that were searched with")
    plan = Plan(trial, epochs or _epochs(trial, on), on, directory.path / "retrain")
    setup = Setup(record.sweep, str(prepared.path.absolute()), record.info.limit_images, record.info.trainer)
    jobs = [plan.job(setup.sweep.seed, s) for s in range(seeds)]
    where = "train+validation" if on == "all" else "the train part"
    note(f"retraining trial {trial.number} on {where}: {plan.epochs} epochs, {seeds} seed{'s' if seeds > 1 else ''}")
    record.event("retraining", number=trial.number, epochs=plan.epochs, on=on, seeds=seeds)
    with contextlib.closing(make_executor(setup)) as executor:
        trainings = _train(executor, jobs, note)
    target = directory.best if number is None else directory.retrained(number)
    with (
        tempfile.TemporaryDirectory(dir=_made(directory.path / "retrain"), prefix=".work-") as work,
        export.staged(target) as stage,
    ):
        weights = [weights_of(Path(job.directory)) for job in jobs]

        def commit() -> None:
            record.event("test_opened", number=trial.number, seeds=[job.seed for job in jobs], on=on)

        finished = finish(setup, plan.on, plan.params, weights, commit, plan.weights / "finish.log", Path(work), stage)
        drawn = _story(record, prepared, plan, trainings, finished).draw(note)
        result = _write(directory, record, prepared, plan, trainings, finished, drawn, stage)
    record.event("retrained", number=trial.number, epochs=plan.epochs, on=on, score=result.to_json())
    run = BEST_RUN if number is None else RETRAINED_RUN.format(number)
    pictures.log(directory.logs / run, drawn, len(record.events("test_opened")), note)
    return result


@dataclass
class Training:
    """How one seed was trained: its metrics by epoch as `figures.Epochs`, the epoch whose weights were kept, and the seconds
    it took."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    kept: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What is trained: one trial's configuration for `epochs` on part `on`, weights under `weights`/<seed>/."""

    trial: Trial
    epochs: int
    on: str
    weights: Path

    @property
    def params(self) -> Params:
        return self.trial.params

    def job(self, sweep_seed: int, s: int) -> Job:
        """The job of the s-th seed."""
        entropy = [sweep_seed, self.trial.number, SEED_STREAM + s]
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        suggestion = Suggestion(self.trial.number, self.params, self.epochs)
        return Job(suggestion, f"retrain-{s}", seed, str((self.weights / str(seed)).absolute()), part=self.on)


def _check(seeds: int, epochs: int | None, on: str) -> None:
    if seeds < 1:
        raise BadInput(f"seeds must be at least 1, got {seeds}")
    if epochs is not None and epochs < 1:
        raise BadInput(f"epochs must be at least 1, got {epochs}")
    if on not in ("all", "train"):
        raise BadInput(f"on must be 'all' (train+validation) or 'train', got '{printable(on)}'")


def _choose(record: Record, number: int | None) -> Trial:
    if number is None:
        best = record.best()
        if best is None:
            raise BadInput("no trial of this sweep is complete yet: there is no winner to retrain")
        return best
    trials = record.trials()
    usable = {t.number: t for t in trials if t.state in (State.COMPLETE, State.PRUNED) and t.epoch is not None}
    if number in usable:
        return usable[number]
    state = next((f"trial {number} is {t.state}" for t in trials if t.number == number), f"there is no trial {number}")
    raise BadInput(f"{state}; trials that can be retrained: {listed(usable) or 'none'}")


def _epochs(trial: Trial, on: str) -> int:
    assert trial.epoch is not None
    return trial.epoch if on == "all" else trial.epochs_planned


def _train(executor: Executor, jobs: Sequence[Job], note: Callable[[str], None]) -> list[Training]:
    """Run every job to its end, in as many slots as there are.  Raises: SweepError for the first that fails."""
    trainings = [Training() for _ in jobs]
    waiting = [(s, job, 1) for s, job in enumerate(jobs)]
    running: dict[str, tuple[int, Job, int]] = {}
    while waiting or running:
        for slot in executor.slots:
            if slot not in running and waiting:
                running[slot] = waiting.pop(0)
                executor.start(slot, running[slot][1])
        for event in executor.wait(POLL_SECONDS):
            if event.slot not in running or running[event.slot][1].token != event.token:
                continue
            s, job, attempt = running[event.slot]
            if isinstance(event, Measured):
                trainings[s].epochs.append({"epoch": event.measurement.epoch, **event.measurement.metrics})
                shown = ", ".join(f"{name} {value:.4f}" for name, value in event.measurement.metrics.items())
                note(f"seed {s}: epoch {event.measurement.epoch} of {job.suggestion.epochs}: {printable(shown)}")
                executor.reply(event.slot, event.token, Reply.GO)
                continue
            if isinstance(event, Resumed):
                trainings[s].epochs = [{"epoch": m.epoch, **m.metrics} for m in event.measurements]
                note(f"seed {s}: goes on after epoch {event.measurements[-1].epoch} of {job.suggestion.epochs}")
                executor.reply(event.slot, event.token, Reply.GO)
                continue
            del running[event.slot]
            if isinstance(event, Gone) and attempt < ATTEMPTS:
                trainings[s] = Training()
                again = Job(**{**job.__dict__, "token": f"retrain-{s}-{attempt + 1}"})
                waiting.append((s, again, attempt + 1))
                continue
            outcome = _require_complete(event, s)
            trainings[s].kept, trainings[s].seconds = outcome.epoch, outcome.seconds
            if job.part == "train":
                note(f"seed {s}: epoch {outcome.epoch} of {job.suggestion.epochs} was the best; its weights are kept")
            discard(Path(job.directory))
    return trainings


def _require_complete(event: Ended | Gone, s: int) -> Outcome:
    if isinstance(event, Gone):
        raise SweepError(f"retraining with seed {s} failed ({event.kind}): {printable(event.reason)}")
    outcome = event.outcome
    if outcome is None or outcome.state is not State.COMPLETE:
        why = "it was stopped" if outcome is None else f"{outcome.kind}: {printable(outcome.reason)}"
        raise SweepError(f"retraining with seed {s} failed: {why}")
    return outcome


def _story(record: Record, prepared: Prepared, plan: Plan, trainings: Sequence[Training], finished: Finished) -> Story:
    names = export.label_names(prepared.classes, finished.outputs)
    where = "train+validation" if plan.on == "all" else "the train part"
    return Story(
        title=f"{record.info.name}, trial {plan.trial.number}, retrained on {where}",
        trainings=[t.epochs for t in trainings],
        search=record.metrics(plan.trial.number),
        best=plan.trial.epoch if plan.on == "all" else trainings[0].kept,
        objective=record.sweep.objective.metric,
        names=names,
        classes=len(prepared.classes),
        labels=finished.labels,
        predicted=finished.predicted[0],
        sure=finished.sure,
        shown=finished.shown,
        images=finished.images,
        summary=finished.summary,
        report=score.report(finished.labels, finished.predicted[0], names).rstrip().splitlines(),
    )


def _write(
    directory: SweepDir,
    record: Record,
    prepared: Prepared,
    plan: Plan,
    trainings: Sequence[Training],
    finished: Finished,
    drawn: Mapping[str, bytes],
    stage: Path,
) -> Score:
    """Score, and write everything of the export but the model, which is there already."""
    sweep = record.sweep
    result = score.score(finished.labels, finished.predicted, sweep.seed)
    names = export.label_names(prepared.classes, finished.outputs)
    first = finished.predicted[0]
    scored = result.to_json() | {"trial": plan.trial.number, "epochs": plan.epochs, "on": plan.on}
    heading = (
        f"{result.words()}\nBelow, and in confusion_matrix.csv: the exported model alone "
        f"(seed 0, test accuracy {result.accuracies[0]:.4f})\n\n"
    )
    export.write_json(stage / "score.json", scored)
    export.write_text(stage / "classification_report.txt", heading + score.report(finished.labels, first, names))
    export.write_text(stage / "confusion_matrix.csv", score.confusion_csv(finished.labels, first, names))
    export.write_text(stage / export.LABELS, "".join(f"{name}\n" for name in names))
    total, trainable = finished.parameters
    counted = f"{total:,} parameters: {trainable:,} trainable, {total - trainable:,} not"
    export.write_text(stage / export.SUMMARY, "\n".join([*finished.summary, counted, ""]))
    for name, png in drawn.items():
        (stage / f"{name}{pictures.PNG}").write_bytes(png)
    dataset = {k: v for k, v in sweep.dataset.to_json().items() if k != "path"}
    manifest = {
        "format": export.FORMAT,
        "sweep": directory.name,
        "trial": plan.trial.number,
        "model": sweep.model
        if isinstance(sweep.model, str)
        else {"build": sweep.model.name, "digest": sweep.model.digest},
        "params": plan.params,
        "found": dict(plan.trial.found),
        "parameters": {"total": total, "trainable": trainable},
        "seconds": [round(t.seconds, 3) for t in trainings],
        "loss": sweep.loss,
        "batch_size": sweep.batch_size,
        "epochs": plan.epochs,
        "epochs_kept": [t.kept for t in trainings],
        "trained_on": "train+validation" if plan.on == "all" else "train",
        "versions": export.versions(),
        "data": dataset | {"fingerprint": prepared.fingerprint, "limit_images": record.info.limit_images},
        "images": export.reading(sweep.dataset),
        "scale": {
            "name": sweep.dataset.scale,
            "multiply": finished.scale,
            "add": finished.offset,
            "where": "inside model.keras",
        },
        "score": scored,
        "reload_difference": finished.difference,
        "test_opened": len(record.events("test_opened")),
        "pictures": [f"{name}{pictures.PNG}" for name in drawn],
    }
    export.write_json(stage / export.MANIFEST, manifest)
    return result


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path
