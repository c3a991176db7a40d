"""What every backend keeps: one class, run on each of them."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest
from backends_driver import Driver, a_sweep, from_json, objective

from imgclf_sweep.backends import open_backend
from imgclf_sweep.backends.protocol import Exhausted, Wait
from imgclf_sweep.errors import BadInput
from imgclf_sweep.space import Choice, Fixed, Float, Int, SearchSpace
from imgclf_sweep.sweep import SEARCH, Objective
from imgclf_sweep.trial import Kind, Outcome, State, Suggestion

MEMBERS = [(backend, sampler) for backend, (samplers, _) in SEARCH.items() for sampler in samplers]
ODD = {
    "empty": SearchSpace(),
    "fixed only": SearchSpace(filters=32, optimizer="adam", padding=None, sizes=Fixed([1, 2])),
    "one value each": SearchSpace(a=Choice([[1, 2]]), b=Int(3, 3), c=Float(0.5, 0.5), d=Float(0.1, 0.1, log=True), e=[None]),
    "bools": SearchSpace(a=Choice([True, False]), b=Choice([False, True]), c=Choice([True])),
    "mixed": SearchSpace(a=Choice([1, True, "1", None, 1.5, [1], ["x", None]]), b=Choice([1, 2.5]), c=Choice(["[1]", [1]])),
    "text like JSON": SearchSpace(a=Choice(["true", "null", "[1]"]), b=Fixed("16")),
    "steps": SearchSpace(a=Float(0.2, 0.5, step=0.1), b=Float(0, 1, step=1 / 3), c=Int(1, 10, 4), d=Float(0, 0.25, step=0.1)),
    "many steps": SearchSpace(a=Float(0, 1, step=0.0001), b=Float(0, 1, step=1e-7), c=Int(-5, 10**12)),
    "log": SearchSpace(a=Int(1, 3, log=True), b=Float(1e-8, 1e8, log=True), c=Int(7, 7, log=True)),
    "chain": SearchSpace(
        a=Choice([1, 2]), b=Choice(["x", "y"], when={"a": 1}), c=Float(0, 1, step=0.25, when={"b": "x"}),
        d=Int(0, 9, when={"c": [0.0, 0.25]}),
    ),
    "odd conditions": SearchSpace(
        a=Choice([None, [1, 2], "z"]), b=Choice([1, 2], when={"a": [None]}), c=Fixed(5, when={"a": "z"}), d=Choice([True, False]),
        e=Int(1, 4, when={"d": False, "a": [None, "z"]}),
    ),
    "odd names": SearchSpace({"a/b": Int(1, 3), "with space": Choice(["ü"]), "class": Float(0, 1), "{}%s": Choice([1, 2])}),
}  # fmt: skip


@pytest.fixture(params=MEMBERS, ids=lambda member: f"{member[0]}-{member[1]}")
def search(request: pytest.FixtureRequest) -> dict[str, str]:
    backend, sampler = request.param
    return {"backend": backend, "sampler": sampler}


class TestEveryBackend:
    def test_numbers_and_values_are_those_of_the_space(self, search: dict[str, str]) -> None:
        driver = Driver(a_sweep(epochs=9, **search))
        trials = driver.run(16)
        assert [t.number for t in trials] == list(range(16))
        for trial in trials:
            assert driver.sweep.space.contains(trial.params), trial.params
            assert not any(name.startswith("tuner/") for name in trial.params)
            assert 0 <= trial.initial_epoch < trial.epochs_planned <= 9

    @pytest.mark.parametrize("space", ODD.values(), ids=ODD)
    def test_odd_spaces(self, search: dict[str, str], space: SearchSpace) -> None:
        driver = Driver(a_sweep(space, epochs=4, **search))
        for trial in driver.run(15):
            assert space.contains(trial.params), trial.params
            assert list(trial.params) == list(space.active(trial.params))
        assert driver.trials
        driver.cut()
        answer = driver.ask()
        assert isinstance(answer, (Suggestion, Exhausted))
        if isinstance(answer, Suggestion):
            assert space.contains(answer.params)

    @pytest.mark.parametrize("cuts", [(1,), (3, 11), (7, 8, 13, 19)])
    def test_goes_on_as_if_never_closed(self, search: dict[str, str], cuts: tuple[int, ...]) -> None:
        undisturbed = Driver(a_sweep(epochs=9, seed=3, **search))
        undisturbed.run(24)
        assert search["sampler"] == "grid" or State.FAILED in {t.state for t in undisturbed.trials}
        resumed = Driver(a_sweep(epochs=9, seed=3, **search))
        for cut in cuts:
            resumed.run(cut)
            resumed.cut()
        resumed.run(24)
        assert resumed.proposals() == undisturbed.proposals()

    @pytest.mark.parametrize("seed", [3, 4, 5])
    @pytest.mark.parametrize("every", [7, 11])
    def test_asked_ahead_it_goes_on_as_if_never_closed(self, search: dict[str, str], seed: int, every: int) -> None:
        undisturbed, resumed = (Driver(a_sweep(epochs=9, seed=seed, **search)) for _ in range(2))
        undisturbed.run_ahead(24)
        resumed.run_ahead(24, cuts=range(every, 120, every))
        assert resumed.proposals() == undisturbed.proposals()

    @pytest.mark.parametrize("done", [4, 12])
    def test_an_open_trial_is_told_after_reopening(self, search: dict[str, str], done: int) -> None:
        undisturbed = Driver(a_sweep(epochs=9, seed=5, **search))
        undisturbed.run(done + 6)
        resumed = Driver(a_sweep(epochs=9, seed=5, **search))
        resumed.run(done)
        answer = resumed.ask()
        assert isinstance(answer, Suggestion)
        resumed.train(done, upto=1)
        resumed.cut()
        resumed.finish(done, resumed.train(done))
        resumed.run(done + 6)
        assert resumed.proposals() == undisturbed.proposals()

    def test_several_open_at_once(self, search: dict[str, str]) -> None:
        driver = Driver(a_sweep(epochs=9, **search))
        open_ones: list[int] = []
        while len(driver.trials) < 18:
            answer = driver.ask()
            if isinstance(answer, Suggestion):
                open_ones.append(answer.number)
            if isinstance(answer, (Wait, Exhausted)) or len(open_ones) == 3:
                if not open_ones:
                    break
                number = open_ones.pop(0)  # the oldest ends first, and its worker asks again
                driver.finish(number, driver.train(number))
            if len(driver.trials) == 9 and open_ones:
                driver.cut()  # with trials open, whoever's they were
        assert [t.number for t in driver.trials] == list(range(len(driver.trials)))

    def test_an_ending_committed_before_it_was_told(self, search: dict[str, str]) -> None:
        """A kill after the outcome's commit: the record says finished, the kept state still says open."""
        undisturbed = Driver(a_sweep(epochs=9, seed=2, **search))
        undisturbed.run(10)
        resumed = Driver(a_sweep(epochs=9, seed=2, **search))
        resumed.run(5)
        assert isinstance(resumed.ask(), Suggestion)
        before = dict(resumed.kept)
        resumed.finish(5, resumed.train(5))
        resumed.kept = before
        resumed.cut()
        resumed.keep()
        resumed.run(10)
        assert resumed.proposals() == undisturbed.proposals()

    def test_every_trial_failing_or_unmeasured_is_no_error(self, search: dict[str, str]) -> None:
        driver = Driver(a_sweep(epochs=4, **search))
        for kind in [*Kind, *Kind]:
            answer = driver.ask()
            if not isinstance(answer, Suggestion):
                break
            driver.backend.tell(answer.number, Outcome(State.FAILED, kind=kind, reason=str(kind)))
            driver.keep()
        answer = driver.ask()
        if isinstance(answer, Suggestion):
            driver.backend.tell(answer.number, Outcome(State.PRUNED))

    def test_state_is_only_what_changed(self, search: dict[str, str]) -> None:
        driver = Driver(a_sweep(epochs=4, **search))
        driver.run(6)
        assert driver.backend.state() == {}
        driver.backend.ask(6)
        changed = driver.backend.state()
        assert len([key for key in changed if key.startswith("trial/")]) <= 1
        assert driver.backend.state() == {}

    def test_both_directions(self, search: dict[str, str]) -> None:
        for direction in ("min", "max"):
            driver = Driver(a_sweep(objective=Objective("val_score", direction), epochs=4, **search))
            assert len(driver.run(8)) == 8

    def test_seed_zero_is_a_seed_and_seeds_differ(self, search: dict[str, str]) -> None:
        first = [Driver(a_sweep(seed=0, epochs=4, **search)).run(6) for _ in range(2)]
        assert [t.params for t in first[0]] == [t.params for t in first[1]]
        other = Driver(a_sweep(seed=1, epochs=4, **search)).run(6)
        assert ([t.params for t in other] == [t.params for t in first[0]]) == (search["sampler"] == "grid")

    def test_no_warning_no_word_and_closing_twice(
        self, search: dict[str, str], capfd: pytest.CaptureFixture[str]
    ) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            driver = Driver(a_sweep(epochs=4, **search))
            driver.run(12)
            driver.cut()
            driver.run(14)
            driver.backend.close()
            driver.backend.close()
        assert capfd.readouterr() == ("", "")


def test_every_search_named_in_a_sweep_is_made_and_no_other() -> None:
    for backend, (samplers, pruners) in SEARCH.items():
        for sampler in [None, *samplers]:
            for pruner in [None, *pruners]:
                sweep = a_sweep(backend=backend, sampler=sampler, pruner=pruner, epochs=2)
                answer = open_backend(sweep, [], {}).ask(0)
                assert isinstance(answer, Suggestion)
                assert sweep.space.contains(answer.params)
        for wrong in ({"sampler": "genetic"}, {"pruner": "wilcoxon"}):
            with pytest.raises(BadInput):
                a_sweep(backend=backend, **wrong)


CHILD = """
import sys
sys.path.insert(0, {here!r})
from backends_driver import Driver, a_sweep
print(Driver(a_sweep(epochs=4, backend="optuna", sampler="tpe", seed=9)).run(18)[-6:])
"""


def test_tpe_does_not_depend_on_the_hashes_of_a_process() -> None:
    here = os.path.dirname(__file__)
    printed = {
        subprocess.run(
            [sys.executable, "-c", CHILD.format(here=here)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=os.path.join(here, "..", ".."),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(printed) == 1
    assert "params" in printed.pop()


FIRST = """
import sys
sys.path.insert(0, {here!r})
from backends_driver import Driver, a_sweep
import imgclf_sweep.backends.exports
loaded = lambda *names: [n for n in names if n in sys.modules]
assert loaded("optuna", "keras_tuner", "keras", "tensorflow", "sqlalchemy") == []
Driver(a_sweep(epochs=4, backend="random")).run(3)
Driver(a_sweep(epochs=4, backend="keras-tuner", sampler="grid")).run(3)
assert loaded("optuna", "keras_tuner", "keras", "tensorflow") == []
Driver(a_sweep(epochs=4, backend="optuna")).run(3)
assert loaded("optuna", "keras_tuner", "keras", "tensorflow") == ["optuna"]
Driver(a_sweep(epochs=4, backend="keras-tuner")).run(3)
assert loaded("keras_tuner", "keras") == ["keras_tuner", "keras"]
print("still here", file=sys.stderr)
"""


def test_a_library_is_imported_when_it_is_named_and_says_nothing() -> None:
    here = os.path.dirname(__file__)
    done = subprocess.run(
        [sys.executable, "-c", FIRST.format(here=here)],
        cwd=os.path.join(here, "..", ".."),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "still here\n")


def test_the_driver_gives_a_record_its_trials_back() -> None:
    import dataclasses
    import json

    driver = Driver(a_sweep(epochs=2, backend="random"))
    driver.run(3)
    assert [from_json(json.loads(json.dumps(dataclasses.asdict(t)))) for t in driver.trials] == driver.trials
    assert 0 < objective(driver.trials[0].params, 1) < objective(driver.trials[0].params, 2) < 1
