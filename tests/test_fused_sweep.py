"""`sweep run --trainer compiled --lanes 4`: a real sweep whose worker trains four trials as one program."""

import contextlib
import os
import signal
import time

import pytest

pytest.importorskip("jax")

from imgclf_sweep.record.layout import SweepDir  # noqa: E402
from imgclf_sweep.record.read import Reader  # noqa: E402
from imgclf_sweep.trial import State  # noqa: E402

FILE = """
from imgclf_sweep import *

sweep = Sweep(
    dataset=datasets.digits(),
    space=SearchSpace(
        filters=Choice([2, 4]),
        dense_units=8,
        dropout=Float(0.0, 0.5),
        optimizer=Choice(["adam", "sgd"]),
        learning_rate=Float(1e-3, 3e-2, log=True),
    ),
    epochs=6,
    batch_size=32,
    seed=3,
)
"""
LANES = ("--trainer", "compiled", "--lanes", 4, "--workers", 1, "--limit-images", 300)
AN_IMAGE = 1.01 / 60  # of those held out: rounding may turn one over


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "little.py"
    path.write_text(FILE)
    return path


def trials_of(cli, name):
    return Reader(SweepDir(cli.root, name)).trials()


def numbers(trials):
    return [(t.number, t.state, t.params, t.value, t.epoch, t.epochs, dict(t.curve)) for t in trials]


def test_a_sweep_of_four_lanes_is_the_same_again_and_ends_like_one_of_a_single_lane(cli, file):
    command = ("run", file, *LANES, "--trials", 9, "--sampler", "tpe")
    for name in ("one", "two"):
        cli(*command, "--name", name)
    one = trials_of(cli, "one")
    assert numbers(one) == numbers(trials_of(cli, "two"))
    assert {t.state for t in one} <= {State.COMPLETE, State.PRUNED} and len(one) == 9
    random = ("run", file, *LANES, "--trials", 5, "--backend", "random", "--sampler", "random")
    cli(*random, "--name", "four")
    cli(*random, "--name", "single", "--lanes", 1)
    for four, single in zip(trials_of(cli, "four"), trials_of(cli, "single"), strict=True):
        assert four.params == single.params
        assert dict(four.curve) == pytest.approx(dict(single.curve), abs=AN_IMAGE)
    board = cli.root / "logs" / "four"
    assert len([path for path in board.rglob("*") if path.is_file()]) >= 5  # each lane logged as its own trial


def test_killed_with_everything_it_started_it_goes_on_to_the_same_end(cli, file):
    command = ("run", file, *LANES, "--trials", 8, "--epochs", 60, "--backend", "random", "--sampler", "random")
    cli(*command, "--name", "whole")
    process = cli.start(*command, "--name", "torn")
    deadline = time.monotonic() + 200
    while not _under_way(cli):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    torn = trials_of(cli, "torn")
    assert not all(t.state.finished for t in torn)
    cli(*command, "--name", "torn")
    for torn, whole in zip(trials_of(cli, "torn"), trials_of(cli, "whole"), strict=True):
        assert (torn.params, torn.state, torn.epochs) == (whole.params, whole.state, whole.epochs)
        assert dict(torn.curve) == pytest.approx(dict(whole.curve), abs=AN_IMAGE)


def _under_way(cli):
    """Whether four trials have measured some epochs and are not done."""
    with contextlib.suppress(Exception):
        return sum(len(t.curve) > 3 for t in trials_of(cli, "torn")) >= 4
    return False
