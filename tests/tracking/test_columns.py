"""Which columns the HParams table gets, and what is in them."""

from __future__ import annotations

import pytest
from synthetic_sweep import make_sweep, params_of

from imgclf_sweep import Choice, Fixed, Float, Int, SearchSpace, datasets
from imgclf_sweep.sweep import BuildFunction, Sweep
from imgclf_sweep.tracking.columns import Column, cells, columns_of, metric_tags


def build_sweep(objective: str = "val_accuracy", **space: object) -> Sweep:
    """A sweep of a user's `build(hp)`, whose parameters may be anything."""
    model = BuildFunction("/x.py", "build", "0")
    return Sweep(dataset=datasets.digits(), model=model, space=SearchSpace(space), objective=objective)


def columns(**space: object) -> dict[str, Column]:
    return {c.name: c for c in columns_of(build_sweep(**space))}


def test_numbers_and_lists_of_one_choice_go_to_two_columns() -> None:
    found = columns(filters=Choice([16, (64, 32), 32]))
    assert list(found) == ["filters", "filters_blocks"]
    assert found["filters"].values == (16.0, 32.0) and found["filters_blocks"].values == ("64-32",)
    assert not any(c.differs for c in found.values())  # each is empty for some trials
    assert cells(found.values(), {"filters": (64, 32)}) == {"filters_blocks": "64-32"}
    assert cells(found.values(), {"filters": 32}) == {"filters": 32.0}


def test_a_choice_of_lists_alone_may_be_shown_first() -> None:
    found = columns(filters=Choice([(16, 32), (64, 32)]))
    assert list(found) == ["filters_blocks"] and found["filters_blocks"].differs


@pytest.mark.parametrize(
    ("choices", "kind", "values"),
    [
        ([1, 2.5], "number", (1.0, 2.5)),
        ([True, False], "bool", (True, False)),
        (["a", "b"], "string", ("a", "b")),
        ([None, 0.1], "string", ("None", "0.1")),
        (["auto", 3], "string", ("auto", "3")),
        ([True, 1], "string", ("True", "1")),
        ([None, "None"], "string", ("None", "'None'")),
        ([1, "1"], "string", ("1", "'1'")),
        ([10**400, 1], "string", (str(10**400), "1")),
        (["\x1b[2J", "b"], "string", ("\\x1b[2J", "b")),
    ],
)
def test_a_column_has_one_type(choices: list, kind: str, values: tuple) -> None:
    (column,) = columns(p=Choice(choices)).values()
    assert (column.kind, column.values) == (kind, values)
    assert tuple(column.cell(c) for c in choices) == values


@pytest.mark.parametrize(("count", "interval"), [(9, False), (10, True)])
def test_ten_numbers_are_an_interval(count: int, interval: bool) -> None:
    for parameter in (Int(1, count), Choice(list(range(1, count + 1))), Float(1, count, step=1)):
        (column,) = columns(p=parameter).values()
        assert column.interval is interval
        assert column.values == ((1.0, float(count)) if interval else tuple(float(n) for n in range(1, count + 1)))


def test_a_very_long_range_is_an_interval_and_is_not_walked() -> None:
    (column,) = columns(p=Int(1, 2**53)).values()
    assert column.interval and column.values == (1.0, 2.0**53)


def test_a_log_float_has_its_logarithm_beside_it() -> None:
    found = columns(l2=Float(1e-5, 1e-1, log=True), units=Int(16, 512, log=True))
    assert list(found) == ["l2", "l2.log10", "units"]
    assert found["l2.log10"].values == pytest.approx((-5, -1))
    assert cells(found.values(), {"l2": 1e-3})["l2.log10"] == pytest.approx(-3)


def test_five_columns_are_shown_and_only_searched_ones_that_are_always_there() -> None:
    found = columns_of(make_sweep())
    shown = [c.name for c in found if c.differs]
    assert shown == ["kernel_size_blocks", "learning_rate.log10", "dropout", "dense_units", "batch_norm"]
    few = columns(
        a=Choice([1, 2]), b=Choice([3, 4], when={"a": 1}), c=Fixed(1), d=Choice([7]), l2=Float(0.1, 1, log=True)
    )
    assert [c.name for c in few.values() if c.differs] == ["a", "l2", "l2.log10"]  # room for the number itself


def test_an_inactive_parameter_has_no_cell() -> None:
    found = columns_of(make_sweep())
    assert "momentum" not in cells(found, params_of(0)) and "momentum" in cells(found, params_of(1))


def test_a_sweep_without_parameters_still_has_a_column() -> None:
    (column,) = columns_of(build_sweep())
    assert cells([column], {}) == {"model": "build"}


def test_names_are_short_and_unique() -> None:
    found = columns(learning_rate_of_the_head=0.1, learning_rate_of_the_hull=0.2, b=Float(0.1, 1, log=True))
    displays = [c.display for c in found.values()]
    assert len(set(displays)) == len(displays)
    (long,) = columns(dense_units_of_block_one=Int(1, 2)).values()
    assert long.display == "de_un_of_bl_one"
    taken = columns(**{"b": Float(0.1, 1, log=True), "b.log10": Choice([1, 2])})
    assert list(taken) == ["b", "b.log10_", "b.log10"]


@pytest.mark.parametrize(
    ("objective", "tags"),
    [
        ("val_accuracy", ["objective", "val_loss", "accuracy", "epochs_run", "trial_seconds"]),
        ("val_loss", ["objective", "val_accuracy", "loss", "epochs_run", "trial_seconds"]),
        ("accuracy", ["objective", "val_loss", "val_accuracy", "epochs_run", "trial_seconds"]),
    ],
)
def test_the_metrics_of_the_family_in_order(objective: str, tags: list[str]) -> None:
    found = metric_tags(make_sweep().replaced(objective=objective))
    assert found[:5] == tags
    assert set(found[5:]) == {"val_accuracy", "val_loss", "accuracy", "loss", "pruned"} - set(tags)


def test_the_metrics_of_a_build_function_are_those_it_surely_logs() -> None:
    assert metric_tags(build_sweep("val_f1")) == [
        *("objective", "val_loss", "f1", "epochs_run", "trial_seconds"),
        *("val_f1", "loss", "pruned"),
    ]
    assert metric_tags(build_sweep("val_loss")) == [
        "objective",
        "loss",
        "epochs_run",
        "trial_seconds",
        "val_loss",
        "pruned",
    ]
