"""What was interrupted goes on: trials, also behind torn checkpoints, and retraining. Real training where the case is about it.

Each name holds the number of its case in the table of docs/reliability.md.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from fault_hooks import gone, hooked, workers_of
from fault_tools import (
    SYNTHETIC,
    contents,
    endings,
    record,
    running,
    told,
    trains,
    wait_until,
)

from imgclf_sweep.record.layout import SweepDir
from imgclf_sweep.trial import State

PLAIN = (*SYNTHETIC, "--pruner", "none", "--workers", 1)
FIT = ("--trainer", "fit")  # slow enough to be caught in the middle, and with a checkpoint of every epoch


@pytest.mark.slow
@pytest.mark.fault_slow
def test_case_12_a_signal_in_a_trial_and_the_same_command_goes_on_behind_it(cli, digits_file):
    command = ("run", digits_file, *FIT, "--trials", 1, "--epochs", 60, "--workers", 1, "--limit-images", 300)
    with running(cli, *command) as process:
        wait_until(lambda: trains(cli, 0) and record(cli).trials()[0].epochs >= 3, 120)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
    stopped = record(cli).trials()[0]
    before = dict(record(cli).trials()[0].curve)
    assert stopped.state is State.QUEUED and 3 <= len(before) < 60
    assert endings(cli, 0) == ["preempted"]
    cli(*command)
    assert [event.data for event in record(cli).events("resumed")] == [{"number": 0, "epoch": len(before)}]
    assert endings(cli, 0) == ["preempted", "COMPLETE"]
    trial = record(cli).trials()[0]
    assert trial.state is State.COMPLETE and list(trial.curve) == list(range(1, 61))
    assert {epoch: trial.curve[epoch] for epoch in before} == before


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])  # its last bytes are weights


def cut_in_the_head(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])  # its first bytes say what is in it


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES = {"torn weights": cut_off, "torn metadata": cut_in_the_head, "empty": empty, "all of them": empty}
EPOCHS = 8


@pytest.fixture(scope="session")
def killed(tmp_path_factory, cli_class, decoded):
    """A root with a sweep of one real trial, killed with everything at least three epochs in; and one that never was."""
    place = tmp_path_factory.mktemp("killed")
    file = place / "little.py"
    known = "known=[dict(filters=4, dense_units=16, dropout=0.4, optimizer='adam')]"
    file.write_text(
        "from imgclf_sweep import *\n"
        "sweep = Sweep(dataset=datasets.digits(), space=SearchSpace(filters=Choice([2, 4]), dense_units=Int(4, 64), "
        f"dropout=Float(0.0, 0.5), optimizer=Choice(['adam', 'sgd'])), epochs={EPOCHS}, trials=1, seed=3, {known})\n"
    )
    cli = cli_class(place / "root")
    shutil.copytree(decoded, cli.root / "cache")
    command = ("run", file, *FIT, "--workers", 1)
    cli(*command, "--name", "whole")
    with running(cli, *command) as process:
        wait_until(lambda: trains(cli, 0, epochs=3), 200)
        os.killpg(process.pid, signal.SIGKILL)
    assert trains(cli, 0, epochs=3), "it was done before it was killed"
    return cli.root, command


@pytest.mark.slow
@pytest.mark.fault_slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_case_14_a_real_trial_falls_back_to_the_checkpoint_before_or_to_the_beginning(
    cli_class, tmp_path, killed, damage
):
    cli = cli_class(tmp_path / "root")
    shutil.copytree(killed[0], cli.root)
    kept = sorted(
        SweepDir(cli.root, "little").checkpoint(0).glob("*.checkpoint"), key=lambda p: int(p.stem.split("-")[1])
    )
    assert len(kept) >= 2
    newest = int(kept[-1].stem.split("-")[1])
    for path in kept if damage == "all of them" else kept[-1:]:
        DAMAGES[damage](path)
    cli(*killed[1])
    log = (SweepDir(cli.root, "little").worker_logs / "w0.log").read_text()
    assert f"epoch-{newest}.checkpoint is passed over" in log
    went_on = [event.data["epoch"] for event in record(cli).events("resumed")]
    assert went_on == ([] if damage == "all of them" else [int(kept[-2].stem.split("-")[1])])
    assert endings(cli, 0) == ["lost", "COMPLETE"]
    for one, other in zip(record(cli).metrics(0), record(cli, "whole").metrics(0), strict=True):
        assert one == pytest.approx(other, rel=1e-6, abs=1e-6)


TEAR = """
import os, signal, sys
if "imgclf_sweep.executors.worker" in sys.orig_argv:
    replace = os.replace
    def tear(source, target, **more):
        if str(target).endswith("epoch-3.checkpoint") and not os.path.exists(os.environ["TORN"]):
            open(os.environ["TORN"], "w").close()
            with open(source, "r+b") as file:
                file.truncate(os.path.getsize(source) // 2)
            if {renamed}: replace(source, target, **more)
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(source, target, **more)
    os.replace = tear
"""


@pytest.mark.parametrize("renamed", [False, pytest.param(True, marks=pytest.mark.fault_slow)], ids=["before", "after"])
def test_case_14_a_worker_killed_while_it_writes_a_checkpoint(cli, digits_file, tmp_path, renamed):
    """Half of the file was written; with "after", the disk had the new name before the bytes, as a loss of power may leave it."""
    command = ("run", digits_file, *PLAIN, "--trials", 2, "--epochs", 6)
    cli(*command, "--name", "whole")
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(TEAR.format(renamed=renamed))
    cli(*command, env={"PYTHONPATH": str(tmp_path / "hook"), "TORN": str(tmp_path / "torn")})
    assert (tmp_path / "torn").exists()
    assert [endings(cli, n) for n in range(2)] == [["lost", "COMPLETE"], ["COMPLETE"]]
    assert [event.data for event in record(cli).events("resumed")] == [{"number": 0, "epoch": 2}]
    assert told(record(cli).trials()) == told(record(cli, "whole").trials())


def retrained_epochs(cli) -> int:
    """How many epochs the one training that `retrain` has begun has behind it, by its newest checkpoint."""
    found = (SweepDir(cli.root, "whole").path / "retrain").glob("*/epoch-*.checkpoint")
    return max((int(p.stem.split("-")[1]) for p in found), default=0)


@pytest.mark.slow
@pytest.mark.fault_slow
def test_an_interrupted_or_killed_retraining_goes_on_with_the_same_command(cli_class, tmp_path, killed):
    cli, calm = cli_class(tmp_path / "root"), cli_class(tmp_path / "calm")
    shutil.copytree(killed[0], cli.root)
    shutil.copytree(killed[0], calm.root)
    command = ("retrain", "whole", "--epochs", 80)
    calm(*command)
    best = SweepDir(cli.root, "whole").best
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        before = retrained_epochs(cli)
        with running(cli, *command) as process:
            wait_until(lambda before=before: retrained_epochs(cli) >= before + 3, 200)
            process.send_signal(stop)
            _, err = process.communicate(timeout=60)
            if stop is signal.SIGKILL:
                assert process.returncode == -stop
            else:
                assert process.returncode == 128 + stop and "interrupted; the same command continues" in err
            assert gone(lambda pid=process.pid: workers_of(pid))
        assert not best.exists() and not record(cli, "whole").events("test_opened")
    said = cli(*command).stdout
    assert "goes on after epoch" in said
    ours, theirs = (json.loads((SweepDir(c.root, "whole").best / "score.json").read_text()) for c in (cli, calm))
    assert ours == theirs
    manifest = json.loads((best / "manifest.json").read_text())
    assert manifest["test_opened"] == 1


KILL_AT = {
    "opening": """
from imgclf_sweep.record.write import Record
event = Record.event
Record.event = lambda self, kind, **data: (event(self, kind, **data), kind == "test_opened" and die())
""",
    "writing": "from imgclf_sweep import export\nexport.write_json = lambda *rest: die()\n",
    "replacing": """
import os
rename = os.rename
os.rename = lambda a, b: (rename(a, b), ".best.old" in str(b) and die())
""",
}


@pytest.mark.slow
@pytest.mark.fault_slow
def test_a_retraining_killed_at_its_end_leaves_the_old_export_or_the_new_and_a_true_count(cli_class, tmp_path, killed):
    cli = cli_class(tmp_path / "root")
    shutil.copytree(killed[0], cli.root)
    directory = SweepDir(cli.root, "whole")
    command = ("retrain", "whole", "--epochs", 2)
    assert hooked(cli, KILL_AT["opening"], *command, seconds=300).returncode == -signal.SIGKILL
    assert not directory.best.exists() and len(record(cli, "whole").events("test_opened")) == 1
    cli(*command)
    old = contents(directory.best)
    assert json.loads(old["manifest.json"])["test_opened"] == 2  # it says so, though nobody saw the first score
    assert hooked(cli, KILL_AT["writing"], *command, seconds=300).returncode == -signal.SIGKILL
    assert contents(directory.best) == old
    assert hooked(cli, KILL_AT["replacing"], *command, seconds=300).returncode == -signal.SIGKILL
    cli(*command)
    assert json.loads((directory.best / "manifest.json").read_text())["test_opened"] == 5
    assert [p.name for p in directory.path.glob(".best*")] == []
    assert (directory.best / "labels.txt").read_bytes() == old["labels.txt"]
