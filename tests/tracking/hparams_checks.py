"""What a real TensorBoard must answer about a sweep, checked over HTTP against the recorded trials.

The expectations are worked out here from the declaration and the trials alone, not with the code that wrote the logs.
"""

from __future__ import annotations

import csv
import io
import json
import math
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

from imgclf_sweep.space import Fixed, Float
from imgclf_sweep.sweep import Sweep
from imgclf_sweep.trial import State, Trial

VAL_ACCURACY_METRICS = (
    *("objective", "val_loss", "accuracy", "epochs_run", "trial_seconds"),
    *("val_accuracy", "loss", "pruned"),
)
"""The columns of a sweep of "cnn" models by val_accuracy."""

STATUSES = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]


class Board:
    """Requests to one TensorBoard, and what is known about the sweep it shows."""

    def __init__(self, url: str) -> None:
        self.url = url.split("#")[0].rstrip("/")
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str) -> Any:
        with self._opener.open(f"{self.url}/data/{path}", timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{self.url}/data/plugin/hparams/{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with self._opener.open(request, timeout=60) as answer:
            return json.load(answer)

    def groups(self, columns: Sequence[dict[str, Any]] = (), statuses: Sequence[str] = STATUSES) -> dict[str, Any]:
        body = {"allowedStatuses": list(statuses), "colParams": list(columns), "startIndex": 0, "sliceSize": 1000000}
        return self.post("session_groups", body)

    def rows(self) -> dict[str, dict[str, Any]]:
        return {group["name"]: group for group in self.groups().get("sessionGroups", [])}

    def until(self, ready: Callable[[], bool], seconds: float = 60) -> None:
        """Poll until `ready`; the check that follows says what is wrong if it never is."""
        deadline = time.monotonic() + seconds
        while not ready() and time.monotonic() < deadline:
            time.sleep(0.3)


def expected_cells(sweep: Sweep, params: dict[str, Any]) -> dict[str, Any]:
    """What the table must show for a trial's parameters, as it comes back over HTTP."""
    out: dict[str, Any] = {}
    for name, value in params.items():
        parameter = sweep.space[name]
        others = [v for v in (parameter.values() or (0.5,)) if not isinstance(v, tuple)]
        numeric = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in others)
        if isinstance(value, tuple):
            out[f"{name}_blocks"] = "-".join(map(str, value))
        elif numeric:
            out[name] = float(value)
        elif all(isinstance(v, bool) for v in others):
            out[name] = value
        else:
            out[name] = str(value)
        if isinstance(parameter, Float) and parameter.log:
            out[f"{name}.log10"] = math.log10(value)
    return out


def expected_columns(sweep: Sweep) -> set[str]:
    names: set[str] = set()
    for name, parameter in sweep.space.items():
        for value in parameter.values() or (parameter.start(),):
            names |= set(expected_cells(sweep, {name: value}))
    return names or {"model"}


def running_best(sweep: Sweep, trial: Trial) -> float | None:
    values = list(trial.curve.values())
    return (max if sweep.objective.direction == "max" else min)(values) if values else None


def status(trial: Trial) -> str:
    if not trial.state.finished:
        return "STATUS_UNKNOWN"
    return "STATUS_FAILURE" if trial.state is State.FAILED else "STATUS_SUCCESS"


def check_board(
    url: str,
    trials: Sequence[Trial],
    sweep: Sweep,
    ids: str | dict[int, str],
    *,
    metrics: Sequence[str] = VAL_ACCURACY_METRICS,
    whole: bool = True,
) -> None:
    """Run every check on the TensorBoard at `url`, which shows `trials` (read back from the record; never started ones
    are left out).

    ids: trial number -> its run's name, or the name of a sweep, of at most 16 characters.
    metrics: the metric columns expected, in order, the first five being those shown.
    whole: whether every epoch's metrics were logged (not so where logs were rebuilt from the record).
    """
    board = Board(url)
    trials = [t for t in trials if t.attempts]
    if isinstance(ids, str):
        ids = {t.number: f"{ids}-{t.number:04d}" for t in trials}
    wait_until_loaded(board, trials, ids)
    check_enabled(board)
    check_experiment(board, sweep, metrics)
    check_rows(board, trials, sweep, ids, metrics, whole)
    check_sorting(board, trials, sweep, ids, metrics)
    check_statuses(board, trials, ids)
    check_curves(board, trials, sweep, ids, metrics, whole)
    check_download(board, trials)


def measured(trial: Trial) -> bool:
    """Whether the record's curve is what the board must show: not while an interrupted trial waits for its next attempt."""
    return bool(trial.curve) and trial.state is not State.QUEUED


def wait_until_loaded(board: Board, trials: Sequence[Trial], ids: dict[int, str]) -> None:
    want = {ids[t.number]: status(t) for t in trials}

    def loaded() -> bool:
        rows = board.rows()
        if {name: row["sessions"][0].get("status", "STATUS_UNKNOWN") for name, row in rows.items()} != want:
            return False
        steps = {n: {v["name"]["tag"]: v["trainingStep"] for v in r.get("metricValues", [])} for n, r in rows.items()}
        return all(steps[ids[t.number]].get("objective") == max(t.curve) for t in trials if measured(t))

    board.until(loaded)


def check_enabled(board: Board) -> None:
    assert board.get("plugins_listing")["hparams"]["enabled"] is True


def check_experiment(board: Board, sweep: Sweep, metrics: Sequence[str]) -> None:
    answer = board.post("experiment", {"hparamsLimit": 1000})
    infos = answer["hparamInfos"]
    assert {info["name"] for info in infos} == expected_columns(sweep)
    shown = [info["name"] for info in infos if info.get("differs")]
    assert len(shown) <= 5
    assert [info["name"] for info in infos][: len(shown)] == shown
    for name in shown:
        parameter = sweep.space[name.removesuffix(".log10").removesuffix("_blocks")]
        assert not isinstance(parameter, Fixed) and not parameter.when
    for info in infos:
        assert ("domainDiscrete" in info) != ("domainInterval" in info), info
        if info["type"] == "DATA_TYPE_FLOAT64":
            assert len(info.get("domainDiscrete", [])) < 10, info
    assert [m["name"]["tag"] for m in answer["metricInfos"]] == list(metrics)
    assert all(m["name"].get("group", "") == "" for m in answer["metricInfos"])


def check_rows(
    board: Board, trials: Sequence[Trial], sweep: Sweep, ids: dict[int, str], metrics: Sequence[str], whole: bool
) -> None:
    rows = board.rows()
    assert set(rows) == {ids[t.number] for t in trials}
    assert len(set(ids.values())) == len(ids)
    for trial in trials:
        row = rows[ids[trial.number]]
        assert None not in row["hparams"].values()
        assert row["hparams"] == expected_cells(sweep, trial.params), trial
        (session,) = row["sessions"]
        assert session.get("status", "STATUS_UNKNOWN") == status(trial)
        assert session["startTimeSecs"] > 0
        if trial.state.finished:
            assert session["endTimeSecs"] >= session["startTimeSecs"]
        check_metrics(row, trial, sweep, metrics, whole)


def check_metrics(row: dict[str, Any], trial: Trial, sweep: Sweep, metrics: Sequence[str], whole: bool) -> None:
    values = {v["name"]["tag"]: v for v in row.get("metricValues", [])}
    assert set(values) <= set(metrics)
    assert all(isinstance(v["value"], (int, float)) for v in values.values()), values  # not "NaN", not "Infinity"
    if trial.state is State.QUEUED:
        return
    if trial.curve:
        last = max(trial.curve)
        best = running_best(sweep, trial)
        assert math.isclose(values["objective"]["value"], best, rel_tol=1e-6), trial
        assert values["objective"]["trainingStep"] == last
        own = sweep.objective.metric
        assert math.isclose(values[own]["value"], trial.curve[last], rel_tol=1e-6), trial
        if trial.value is not None:
            assert math.isclose(values["objective"]["value"], trial.value, rel_tol=1e-6), trial
    else:
        assert "objective" not in values
    ends = {"epochs_run", "trial_seconds", "pruned"}
    if trial.state in (State.COMPLETE, State.PRUNED):
        assert values["epochs_run"]["value"] == trial.epochs
        assert math.isclose(values["trial_seconds"]["value"], trial.seconds, rel_tol=1e-6)
        assert values["pruned"]["value"] == (trial.state is State.PRUNED)
        if whole and trial.curve:
            assert set(values) == set(metrics), trial
            assert all(values[m]["trainingStep"] == max(trial.curve) for m in metrics)
    else:
        assert not ends & set(values)


def check_sorting(
    board: Board, trials: Sequence[Trial], sweep: Sweep, ids: dict[int, str], metrics: Sequence[str]
) -> None:
    """Sorting by every column both ways answers with every row; by the objective, with the best trial first."""
    columns = [{"hparam": name} for name in sorted(expected_columns(sweep))]
    columns += [{"metric": {"tag": tag, "group": ""}} for tag in metrics]
    for column in columns:
        for order in ("ORDER_ASC", "ORDER_DESC"):
            answer = board.groups([{**column, "order": order, "missingValuesFirst": False}])
            assert answer["totalSize"] == len(trials), (column, order)
            assert len(answer["sessionGroups"]) == len(trials)
    ended = {ids[t.number]: t.value for t in trials if t.value is not None}
    if ended:
        highest = sweep.objective.direction == "max"
        column = {"metric": {"tag": "objective", "group": ""}, "order": "ORDER_DESC" if highest else "ORDER_ASC"}
        first = board.groups([column], ["STATUS_SUCCESS"])["sessionGroups"][0]["name"]
        best = (max if highest else min)(ended.values())
        assert math.isclose(ended[first], best, rel_tol=1e-6)


def check_statuses(board: Board, trials: Sequence[Trial], ids: dict[int, str]) -> None:
    for one in STATUSES:
        want = {ids[t.number] for t in trials if status(t) == one}
        answer = board.groups(statuses=[one])
        assert answer.get("totalSize", 0) == len(want), one
        assert {group["name"] for group in answer.get("sessionGroups", [])} == want


def check_curves(
    board: Board, trials: Sequence[Trial], sweep: Sweep, ids: dict[int, str], metrics: Sequence[str], whole: bool
) -> None:
    """Every epoch once, in order, also of a trial that was restarted."""
    own = sweep.objective.metric
    per_epoch = [m for m in metrics if m not in ("epochs_run", "trial_seconds", "pruned")]
    for trial in trials:
        for tag in per_epoch if whole else ("objective", own):
            body = {"sessionName": ids[trial.number], "metricName": {"tag": tag, "group": ""}}
            if not measured(trial):
                continue
            points = board.post("metric_evals", body)
            assert [step for _, step, _ in points] == sorted(trial.curve), (trial.number, tag)
            if tag == own:
                for _, step, value in points:
                    assert math.isclose(value, trial.curve[step], rel_tol=1e-6)


def check_download(board: Board, trials: Sequence[Trial]) -> None:
    experiment = board.post("experiment", {"hparamsLimit": 1000})
    names = [info.get("displayName") or info["name"] for info in experiment["hparamInfos"]]
    names += [info.get("displayName") or info["name"]["tag"] for info in experiment["metricInfos"]]
    assert len(set(names)) == len(names)
    request = {"allowedStatuses": STATUSES, "colParams": [], "startIndex": 0, "sliceSize": 1000000}
    query = urllib.parse.urlencode(
        {"format": "csv", "columnsVisibility": json.dumps([True] * len(names)), "request": json.dumps(request)}
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
        f"{board.url}/data/plugin/hparams/download_data?{query}", timeout=60
    ) as answer:
        header, *lines = csv.reader(io.StringIO(answer.read().decode()))
    assert header == names
    assert len(lines) == len(trials)
