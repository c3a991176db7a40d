"""What plain Optuna and plain Keras Tuner open beside a record, at its end and while the sweep runs.

Each name holds the number of its case in the table of docs/reliability.md; a kill during an export is in test_faults_disk.
"""

from __future__ import annotations

import subprocess
import sys

import optuna
import pytest
from fault_tools import BOTH, SYNTHETIC, finished, record, running, sweep_dir, told, wait_until

TUNER = """
import json, sys
import keras, keras_tuner

def build(hp):
    hp.Choice("filters", [2, 4, 8]); hp.Int("dense_units", 4, 64, step=4); hp.Float("dropout", 0.0, 0.5)
    with hp.conditional_scope("optimizer", [hp.Choice("optimizer", ["adam", "sgd"])]):
        pass
    return keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])

objective = keras_tuner.Objective("val_accuracy", "max")
tuner = keras_tuner.BayesianOptimization(
    build, objective, max_trials=100, directory=sys.argv[1], project_name="keras_tuner", overwrite=False
)
trials = tuner.oracle.trials
best = tuner.oracle.get_best_trials(1)[0]
print(json.dumps([len(trials), best.score]))
"""
EARLY = """
from imgclf_sweep import run
run.EXPORT_SECONDS, run.EXPORT_SHARE = 0.0, 0
"""


@pytest.mark.parametrize("search", BOTH)
def test_case_52_plain_libraries_open_what_a_sweep_leaves(cli, digits_file, search):
    cli("run", digits_file, *SYNTHETIC, "--pruner", "none", *search, "--trials", 8, "--workers", 1)
    ours = record(cli).trials()
    best = max(t.value for t in ours)
    study = optuna.load_study(study_name="little", storage=f"sqlite:///{sweep_dir(cli) / 'optuna.db'}")
    assert len(study.trials) == 8 and study.best_value == best
    assert [t.params for t in study.trials] == [dict(t.params) for t in ours]
    if search:
        done = subprocess.run(
            [sys.executable, "-c", TUNER, sweep_dir(cli)], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == f"[8, {best!r}]"


@pytest.mark.fault_slow
def test_case_52_an_export_while_the_sweep_runs_is_a_snapshot_of_some_moment(cli, digits_file, tmp_path):
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(
        "import sys\nif 'run' in sys.argv or 'run' in sys.orig_argv:\n    "
        + EARLY.strip().replace("\n", "\n    ")
        + "\n"
    )
    command = ("run", digits_file, *SYNTHETIC, "--pruner", "none", "--trials", 12, "--workers", 2)
    seen = []
    options = {"synthetic": {"delay": 0.1}, "env": {"PYTHONPATH": str(tmp_path / "hook")}}
    with running(cli, *command, **options) as process:
        wait_until(lambda: (sweep_dir(cli) / "optuna.db").exists())
        while process.poll() is None and finished(cli) < 12:
            study = optuna.load_study(study_name="little", storage=f"sqlite:///{sweep_dir(cli) / 'optuna.db'}")
            seen.append([(t.number, t.value, dict(t.params)) for t in study.trials if t.state.is_finished()])
        assert process.wait(60) == 0
    whole = [(t.number, t.value, dict(t.params)) for t in record(cli).trials()]
    assert len({len(trials) for trials in seen}) > 2, "it was not exported while it ran"
    assert all(trial in whole for trials in seen for trial in trials)
    assert [len(t) for t in seen] == sorted(len(t) for t in seen) and told(record(cli).trials())
