"""The verbs as a user types them: what they print, their exit codes, and one clear line for bad input."""

import json
import os
import subprocess
import sys

import pytest

from imgclf_sweep.record.layout import SweepDir
from imgclf_sweep.record.write import Record

SYNTHETIC = ("--trainer", "synthetic")


@pytest.fixture
def done(cli, digits_file):
    """A finished little sweep with a failed trial."""
    cli("run", digits_file, *SYNTHETIC, "--trials", 5, "--pruner", "none", synthetic={"faults": {"1": ["raise", 2, 9]}})
    return cli


def test_reading_verbs_say_what_the_record_says(done):
    trials = done.json("trials", "little")
    assert [t["number"] for t in trials] == list(range(5))
    keys = {"number", "state", "params", "value", "epoch", "epochs", "seconds", "reason"}
    assert all(set(t) == keys for t in trials)
    assert trials[1]["state"] == "FAILED" and trials[1]["value"] is None and "asked to fail" in trials[1]["reason"]
    complete = [t for t in trials if t["state"] == "COMPLETE"]
    best = done.json("best", "little")
    assert best == max(complete, key=lambda t: t["value"]) and best["epochs"] == 4
    status = done.json("status", "little")
    assert status["states"] == {"QUEUED": 0, "RUNNING": 0, "COMPLETE": 4, "PRUNED": 0, "FAILED": 1}
    assert status["best"] == best and status["holder"] is None
    assert [row["name"] for row in done.json("list")] == ["little"]
    assert f"trial {best['number']}" in done("best").stdout
    assert "4 complete" in done("status").stdout
    assert "asked to fail" in done("trials").stdout
    assert "little" in done("list").stdout


def test_status_of_a_sweep_that_is_retrained_and_of_one_just_being_made(done):
    with Record.reopen(SweepDir(done.root, "little")) as record:
        assert done.json("status")["retraining"] is None and done.json("status")["time_left"]["trials"] == [0.0, 0.0]
        record.event("retraining", number=3)
        status = done.json("status")
        assert status["retraining"] == 3 and status["time_left"] is None
        assert f"retraining trial 3 as process {os.getpid()} on" in done("status").stdout
        record._connection.execute("DELETE FROM event")
        assert f"running as process {os.getpid()} on" in done("status").stdout
    assert done.json("status")["retraining"] is None


def test_names_default_to_the_newest(done, digits_file):
    done("run", digits_file, *SYNTHETIC, "--trials", 1, "--name", "newer")
    assert done.json("status")["name"] == "newer"
    assert [row["name"] for row in done.json("list")] == ["little", "newer"]


def test_piping_into_head_is_no_error(done):
    command = f"{sys.executable} -m imgclf_sweep trials --json --root {done.root} | head -1"
    piped = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert piped.stdout == "[\n" and piped.stderr == ""


def test_closed_streams_are_no_error_and_a_full_one_is_one_line(cli, digits_file):
    sweep, root = f"{sys.executable} -m imgclf_sweep", f"--root {cli.root}"
    run = f"{sweep} run {digits_file} {' '.join(SYNTHETIC)} --workers 1 --trials 2 {root}"
    assert subprocess.run(["bash", "-c", f"{run} <&- >&- 2>&-"], timeout=120).returncode == 0
    assert cli.json("status")["states"]["COMPLETE"] == 2
    full = subprocess.run(["bash", "-c", f"{sweep} trials {root} > /dev/full"], stderr=-1, text=True, timeout=60)
    assert full.returncode == 4 and full.stderr.splitlines() == ["sweep: No space left on device"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "FILE", "--trials", str(10**30)], "is not in the range"),
        (["run", "missing.py"], "no such sweep file"),
        (["run", "FILE", "--name", "../x"], "name"),
        (["run", "FILE", "--name", ".."], "name"),
        (["run", "FILE", "--name", "a/b"], "name"),
        (["run", "FILE", "--name", ""], "name"),
        (["run", "FILE", "--name", "x" * 300], "name"),
        (["run", "FILE", "--name", "a\nb"], "name"),
        (["run", "FILE", "--name", "con"], "name"),
        (["run", "FILE", "--backend", "ray"], "unknown backend 'ray'; allowed: optuna, keras-tuner, random"),
        (["run", "FILE", "--sampler", "bayesian"], "unknown sampler for backend optuna"),
        (["run", "FILE", "--backend", "keras-tuner", "--pruner", "median"], "unknown pruner"),
        (["run", "FILE", "--trials", "0"], "trials"),
        (["run", "FILE", "--timeout", "soon"], "is not a duration"),
        (["run", "FILE", "--epochs", "x"], "epochs"),
        (["run", "FILE", "--limit-images", "12"], "12"),
        (["run"], "FILE"),
        (["run", "FILE", "--frobnicate"], "frobnicate"),
        (["frobnicate"], "frobnicate"),
        (["status", "nothing"], "nothing"),
        (["trials", "nothing"], "nothing"),
        (["best", "../../etc"], "etc"),
        (["status"], "no sweeps"),
        (["board", "nothing"], "nothing"),
        (["retrain", "nothing"], "nothing"),
        (["predict", "nothing", "image.png"], "nothing"),
    ],
)
def test_bad_input_is_one_line_exit_2_and_nothing_is_created(cli, digits_file, arguments, says):
    arguments = [str(digits_file) if a == "FILE" else a for a in arguments]
    refused = cli(*arguments, code=2)
    assert refused.stderr.startswith("sweep: ") and refused.stderr.count("\n") == 1, refused.stderr
    assert says in refused.stderr and refused.stdout == ""
    assert not (cli.root / "sweeps").exists() and not (cli.root / "logs").exists()


HOSTILE = """
from imgclf_sweep import *
sweep = Sweep(dataset={dataset}, space=SearchSpace({space}), {rest})
"""


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"dataset": "datasets.cifar100()"}, "cifar100"),
        ({"dataset": "datasets.image_folder('nowhere', size=(8, 8))"}, "nowhere"),
        ({"dataset": "datasets.digits(color='cmyk')"}, "unknown color 'cmyk'"),
        ({"dataset": "datasets.digits(scale='max')"}, "unknown scale 'max'"),
        ({"space": "filters=Int(8, 4)"}, "low 8 above high 4"),
        ({"space": "learning_rate=Float(0, 1, log=True)"}, "low above 0"),
        ({"space": "momentum=Float(0.1, 0.9)"}, "momentum"),
        ({"space": "l1=0.1, l1l2=0.1"}, "l1l2"),
        ({"space": "filters=Choice([[4, 8]]), pool_size=Choice([[2, 2, 2]])"}, "pool_size"),
        ({"space": "dropout=Float(0, 0.5, when={'filters': 4}), filters=Choice([4, 8])"}, "not declared before"),
        ({"rest": "objective='val_acc_uracy'"}, "val_acc_uracy"),
        ({"rest": "trials=-1"}, "trials must be"),
    ],
)
def test_a_declaration_that_cannot_run_is_one_line_exit_2(cli, tmp_path, parts, says):
    path = tmp_path / "hostile.py"
    path.write_text(HOSTILE.format(**{"dataset": "datasets.digits()", "space": "filters=4", "rest": ""} | parts))
    refused = cli("run", path, code=2)
    assert refused.stderr.startswith("sweep: ") and refused.stderr.count("\n") == 1, refused.stderr
    assert says in refused.stderr and "hostile.py" in refused.stderr or "nowhere" in refused.stderr
    assert not cli.root.exists() or not any(cli.root.iterdir())


def test_reading_a_sweep_runs_none_of_its_code(cli, digits_file, tmp_path):
    trap = tmp_path / "executed"
    digits_file.write_text(f"open({str(trap)!r}, 'a').close()\n" + digits_file.read_text())
    cli("run", digits_file, *SYNTHETIC, "--trials", 2)
    assert trap.exists()
    trap.unlink()
    for verb in (["list"], ["status"], ["trials"], ["best"], ["trials", "--json"], ["compare"], ["figures"]):
        cli(*verb)
    assert not trap.exists()


def test_text_from_files_cannot_move_the_cursor(cli, tmp_path):
    path = tmp_path / "esc.py"
    path.write_text("raise ValueError('\\x1b]0;title\\x07\\x1b[2J')")
    refused = cli("run", path, code=2)
    assert "\x1b" not in refused.stderr and "\\x1b" in refused.stderr


def test_check_refuses_a_value_for_what_is_not_there(cli, digits_file):
    refused = cli("check", digits_file, "--at", "momentum=0.5", code=2)
    assert refused.stderr == "sweep: parameter 'momentum' is not there: it needs optimizer to be sgd\n"


def test_check_says_the_space_and_builds_its_ends(cli, digits_file):
    out = cli("check", digits_file).stdout
    assert "filters: one of 2, 4, 8" in out
    assert "momentum: number from 0.1 to 0.9, when optimizer is sgd" in out
    # smallest: conv 3x3 of 2 filters = 20, pooled to 3x3x2, dense 4 = 76, out = 50;  largest: 8 and 64 in their place
    assert "smallest model: 146 parameters" in out
    assert "largest model: 5,402 parameters" in out
    assert not (cli.root / "sweeps").exists()


def test_help_of_every_verb_ends_with_a_command_to_paste(cli):
    verbs = ["run", "check", "list", "status", "trials", "best", "figures", "retrain", "compare", "predict", "board"]
    for verb in verbs:
        assert cli(verb, "--help").stdout.rstrip().splitlines()[-1].strip().startswith("Example:  sweep " + verb)


def test_an_internal_error_is_one_line(cli, tmp_path):
    code = (
        "import imgclf_sweep.cli as c, click\n"
        "@click.command('x')\ndef x(): raise KeyError('odd')\n"
        "c.sweep.add_command(x); c.main()"
    )
    failed = subprocess.run(
        [sys.executable, "-c", code, "x"], capture_output=True, text=True, timeout=60, env=os.environ
    )
    assert failed.returncode == 1 and "internal error: KeyError" in failed.stderr and failed.stderr.count("\n") == 1


def test_json_is_json_for_every_reading_verb(done):
    for verb in ("list", "status", "trials", "best", "compare"):
        json.loads(done(verb, "--json").stdout)
