"""A `build(hp)` as written for Keras Tuner: its space discovered, its models built with exactly the values given."""

import itertools

import keras
import keras_tuner
import numpy as np
import pytest

from imgclf_sweep import Choice, Fixed, Float, Int, SearchSpace
from imgclf_sweep.errors import BadInput
from imgclf_sweep.models.hypermodel import MOST_BUILDS, build_hypermodel, discover, sparse_labels

SPARSE = "sparse_categorical_crossentropy"


def compiled(*layers, loss=SPARSE, metrics=("accuracy",), outputs=4, activation="softmax"):
    model = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), *layers])
    model.add(keras.layers.Dense(outputs, activation=activation))
    model.compile("sgd", loss, metrics=list(metrics))
    return model


def asking(ask):
    """A build function that only asks: its model is always the same one."""
    model = compiled()

    def build(hp):
        ask(hp)
        return model

    return build


def space_of(ask):
    return discover(asking(ask)).space


def tutorial(hp):
    """As in Keras Tuner's own guide: layers in a loop, an optional layer, an optimizer with a knob of its own."""
    layers = [
        keras.layers.Dense(hp.Int(f"units_{i}", 4, 8, step=2), activation=hp.Choice("activation", ["relu", "tanh"]))
        for i in range(hp.Int("layers", 1, 3))
    ]
    if hp.Boolean("dropout"):
        layers.append(keras.layers.Dropout(0.25))
    name = hp.Choice("optimizer", ["adam", "sgd"])
    optimizer = keras.optimizers.Adam(hp.Float("lr", 1e-4, 1e-2, sampling="log"))
    with hp.conditional_scope("optimizer", ["sgd"]):
        momentum = hp.Float("momentum", 0.1, 0.9)
        if name == "sgd":
            optimizer = keras.optimizers.SGD(0.1, momentum)
    model = compiled(*layers)
    model.compile(optimizer, SPARSE, metrics=["accuracy"])
    return model


def test_the_space_of_a_tutorial():
    found = discover(tutorial)
    assert found.space == SearchSpace(
        {
            "layers": Int(1, 3),
            "units_0": Int(4, 8, step=2),
            "activation": Choice(["relu", "tanh"]),
            "dropout": Choice([False, True]),
            "optimizer": Choice(["adam", "sgd"]),
            "lr": Float(1e-4, 1e-2, log=True),
            "momentum": Float(0.1, 0.9, when={"optimizer": "sgd"}),
            "units_1": Int(4, 8, step=2),
            "units_2": Int(4, 8, step=2),
        }
    )
    assert found.metrics == ("val_accuracy", "val_loss", "accuracy", "loss")
    assert found.loss == SPARSE and found.complete and 10 < found.builds < 40


def test_every_sampled_configuration_builds_as_asked():
    space = discover(tutorial).space
    rng = np.random.default_rng(0)
    momentum = 0
    for _ in range(12):
        params = space.sample(rng)
        model, found = build_hypermodel(tutorial, params)
        assert found == {}
        dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)][:-1]
        assert [layer.units for layer in dense] == [params[f"units_{i}"] for i in range(params["layers"])]
        assert {layer.activation.__name__ for layer in dense} == {params["activation"]}
        assert any(isinstance(layer, keras.layers.Dropout) for layer in model.layers) == params["dropout"]
        assert type(model.optimizer).__name__.lower() == params["optimizer"]
        if params["optimizer"] == "sgd":
            assert model.optimizer.momentum == params["momentum"]
            momentum += 1
        else:
            assert float(model.optimizer.learning_rate) == pytest.approx(params["lr"])
    assert momentum


def test_what_keras_tuner_finds_is_found():
    """Keras Tuner's own search for conditional parameters meets the same names, for a build in its own style."""

    def ask(hp):
        kind = hp.Choice("kind", ["a", "b", "c"])
        with hp.conditional_scope("kind", ["b"]):
            if kind == "b":
                inner = hp.Choice("inner", ["x", "y"])
                with hp.conditional_scope("inner", ["y"]):
                    if inner == "y":
                        hp.Int("deep", 1, 5)
        with hp.conditional_scope("kind", ["c", "b"]):
            hp.Boolean("flag")

    tuner = keras_tuner.RandomSearch(asking(ask), objective="val_accuracy", directory="/nonexistent", max_trials=1)
    theirs = tuner.oracle.get_space().space
    ours = space_of(ask)
    assert sorted(hp.name for hp in theirs) == sorted(ours)
    assert ours == SearchSpace(
        {
            "kind": Choice(["a", "b", "c"]),
            "flag": Choice([False, True], when={"kind": ["c", "b"]}),
            "inner": Choice(["x", "y"], when={"kind": "b"}),
            "deep": Int(1, 5, when={"kind": "b", "inner": "y"}),
        }
    )


def test_plain_ifs_within_ifs_are_followed():
    def ask(hp):
        if hp.Choice("a", ["no", "yes"]) == "yes" and hp.Int("b", 0, 3) == 3 and hp.Boolean("c"):
            hp.Float("d", 0, 1)

    assert list(space_of(ask)) == ["a", "b", "c", "d"]


def test_scopes_that_no_end_opens_are_entered():
    def ask(hp):
        n = hp.Int("n", 1, 9)
        with hp.conditional_scope("n", [4, 5]):
            if n in (4, 5):
                hp.Choice("inside", ["x", "y"])

    assert space_of(ask)["inside"].when == {"n": (4, 5)}


def test_every_kind_becomes_its_like():
    def ask(hp):
        hp.Int("i", 1, 9, default=5)
        hp.Int("i_step", 1, 10, step=4)
        hp.Int("i_log", 1, 100, sampling="log")
        hp.Int("i_powers", 2, 40, step=2, sampling="log")
        hp.Float("f", -1.0, 1.0)
        hp.Float("f_step", 0.0, 0.5, step=0.1)
        hp.Float("f_powers", 0.001, 1.0, step=10, sampling="log")
        hp.Choice("c_int", [3, 1, 3])
        hp.Choice("c_bool", [True, False])
        hp.Choice("c_default", ["a", "b"], default="b")
        hp.Boolean("flag", default=True)
        hp.Fixed("fixed", "constant")
        with hp.name_scope("scope"):
            hp.Int("i", 7, 7)

    space = space_of(ask)
    assert space == SearchSpace(
        {
            "i": Int(1, 9, default=5),
            "i_step": Int(1, 10, step=4),
            "i_log": Int(1, 100, log=True),
            "i_powers": Choice([2, 4, 8, 16, 32]),
            "f": Float(-1.0, 1.0),
            "f_step": Float(0.0, 0.5, step=0.1),
            "f_powers": space["f_powers"],
            "c_int": Choice([3, 1]),
            "c_bool": Choice([1, 0]),  # Keras Tuner makes whole numbers of these itself
            "c_default": Choice(["a", "b"], default="b"),
            "flag": Choice([False, True], default=True),
            "fixed": Fixed("constant"),
            "scope/i": Int(7, 7),
        }
    )
    hp = keras_tuner.HyperParameters()
    ask(hp)
    assert space.defaults() == hp.values
    assert space["f_powers"].choices == pytest.approx((0.001, 0.01, 0.1, 1.0))
    assert all(isinstance(value, int) for value in space["i_powers"].choices)


def test_a_name_met_twice_in_the_same_range_is_one():
    def ask(hp):
        assert hp.Int("n", 1, 5) == hp.Int("n", 1, 5)
        kind = hp.Choice("kind", ["a", "b", "c"])
        for each in ("a", "b"):
            with hp.conditional_scope("kind", [each]):
                if kind == each:
                    hp.Float("rate", 0.0, 0.5)
        with hp.conditional_scope("kind", ["c"]):
            hp.Int("n", 1, 5)  # active everywhere, so here too

    space = space_of(ask)
    assert list(space) == ["n", "kind", "rate"]
    assert space["n"].when is None and sorted(space["rate"].when["kind"]) == ["a", "b"]


def test_a_name_met_in_two_ranges_is_refused():
    def at_once(hp):
        hp.Int("n", 1, 5)
        hp.Int("n", 1, 6)

    def in_turn(hp):
        hp.Float("rate", 0, 1) if hp.Boolean("wide") else hp.Float("rate", 0, 0.5)

    def in_scopes(hp):
        hp.Choice("kind", ["a", "b"])
        for each, high in (("a", 3), ("b", 4)):
            with hp.conditional_scope("kind", [each]):
                hp.Int("n", 1, high)

    for ask, name in ((at_once, "n"), (in_turn, "rate"), (in_scopes, "n")):
        with pytest.raises(BadInput, match=f"{__file__}, line [0-9]+: .*asks for '{name}' with two ranges"):
            space_of(ask)


def test_a_name_under_unrelated_scopes_is_refused():
    def ask(hp):
        hp.Choice("a", [1, 2])
        hp.Choice("b", [1, 2])
        for parent in ("a", "b"):
            with hp.conditional_scope(parent, [2]):
                hp.Int("n", 1, 3)

    with pytest.raises(BadInput, match=r"'n' under unrelated conditional scopes \(a in \[2\]; b in \[2\]\)"):
        space_of(ask)


def test_flags_as_parents_keep_their_type():
    def ask(hp):
        hp.Boolean("flag")
        hp.Choice("zero_one", [True, False])
        with hp.conditional_scope("flag", [True]):
            hp.Int("under_flag", 1, 3)
        with hp.conditional_scope("zero_one", [True]):
            hp.Int("under_zero_one", 1, 3)
        with hp.conditional_scope("flag", ["never"]):
            hp.Int("nowhere", 1, 3)

    space = space_of(ask)
    assert space["under_flag"].when["flag"][0] is True
    assert space["under_zero_one"].when["zero_one"][0] == 1 and space["under_zero_one"].when["zero_one"][0] is not True
    assert "nowhere" not in space
    for params in space.grid():
        _, found = build_hypermodel(asking(ask), params)
        assert found == {}


def test_reverse_log_is_refused_by_name():
    with pytest.raises(BadInput, match="'rate': sampling=\"reverse_log\" cannot be searched"):
        space_of(lambda hp: hp.Float("rate", 0.1, 1.0, sampling="reverse_log"))


def test_names_without_end_are_refused():
    numbers = itertools.count()
    with pytest.raises(BadInput, match=f"new names in each of {MOST_BUILDS} builds, the last 'n199'"):
        discover(asking(lambda hp: hp.Int(f"n{next(numbers)}", 1, 9)))


def test_a_space_too_large_to_walk_is_cut_and_says_so(monkeypatch):
    monkeypatch.setattr("imgclf_sweep.models.hypermodel.MOST_BUILDS", 5)

    def ask(hp):
        hp.Choice("many", list(range(50)))
        hp.Boolean("last")

    found = discover(asking(ask))
    assert not found.complete and found.builds == 5 and list(found.space) == ["many", "last"]


def test_a_raising_build_is_named_with_its_line():
    def ask(hp):
        if hp.Int("units", 1, 3) == 3:
            raise KeyError("missing\nthing")

    with pytest.raises(BadInput) as one:
        space_of(ask)
    line = ask.__code__.co_firstlineno + 2
    assert str(one.value) == f"{__file__}, line {line}: build(hp) raised KeyError: 'missing\\nthing' (at units=3)"
    with pytest.raises(BadInput, match=r"line [0-9]+: build\(hp\) raised ValueError: .*"):
        discover(lambda hp: keras.layers.Conv2D(-1, 3))
    with pytest.raises(BadInput, match=r"build\(hp\) raised SystemExit: 3"):
        discover(lambda hp: exit(3))


def test_want_of_memory_is_not_taken_for_a_wrong_build():
    def build(hp):
        raise MemoryError("no more")

    with pytest.raises(MemoryError):
        build_hypermodel(build, {})


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda hp: None, "must return a compiled keras.Model, it returned None"),
        (lambda hp: keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten()]), "must compile its model"),
        (lambda hp: _flat(), "must take images"),
        (lambda hp: compiled(loss=unusable), "cannot be evaluated: ValueError: .*no such loss"),
        (lambda hp: _unfinished(), "must begin its model with keras.Input"),
    ],
)
def test_what_is_no_model_for_images_is_refused(build, said):
    with pytest.raises(BadInput, match=said) as one:
        discover(build)
    assert "\n" not in str(one.value)


def unusable(y, p):
    raise ValueError("no such\nloss")


def _flat():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    return model


def _unfinished():
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(4, activation="softmax")])
    model.compile("sgd", SPARSE, metrics=["accuracy"])
    return model


def test_the_shape_of_the_data_set_serves_a_model_without_one():
    assert discover(lambda hp: _unfinished(), (5, 7, 3)).metrics[0] == "val_accuracy"
    with pytest.raises(BadInput, match="takes images 2x2x1, the data set has 8x8x1"):
        discover(lambda hp: compiled(), (8, 8, 1))


def test_metrics_are_offered_by_keras_name():
    top = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")
    found = discover(lambda hp: compiled(metrics=["accuracy", top], loss=keras.losses.SparseCategoricalCrossentropy()))
    assert set(found.metrics) == {"accuracy", "loss", "top2", "val_accuracy", "val_loss", "val_top2"}
    assert found.metrics[:3] == tuple(f"val_{name}" for name in found.metrics[3:])
    assert discover(lambda hp: compiled(metrics=())).metrics == ("val_loss", "loss")


def sparse_thing(y, p):
    return keras.losses.sparse_categorical_crossentropy(y, p)


@pytest.mark.parametrize(
    ("loss", "sparse"),
    [
        (SPARSE, True),
        (keras.losses.SparseCategoricalCrossentropy(name="mine"), True),
        (sparse_thing, True),
        ([SPARSE], True),
        ("categorical_crossentropy", False),
        (keras.losses.CategoricalFocalCrossentropy(), False),
        (keras.losses.kl_divergence, False),
        ("mse", False),
    ],
)
def test_labels_are_what_the_loss_wants(loss, sparse):
    model = compiled(loss=loss)
    assert sparse_labels(model) is sparse
    assert "val_loss" in discover(lambda hp: compiled(loss=loss)).metrics


def test_a_single_output_is_evaluated_too():
    build = lambda hp: compiled(loss="binary_crossentropy", outputs=1, activation="sigmoid")  # noqa: E731
    assert "val_accuracy" in discover(build).metrics


def test_a_name_first_met_in_a_trial_takes_its_default_and_is_told():
    def ask(hp):
        if hp.Int("n", 1, 9) == 5:  # neither end
            hp.Int("late", 1, 100, default=42)
            hp.Fixed("mark", "m")

    build = asking(ask)
    assert list(discover(build).space) == ["n"]
    assert build_hypermodel(build, {"n": 5})[1] == {"late": 42, "mark": "m"}
    assert build_hypermodel(build, {"n": 4})[1] == {}


def test_a_hypermodel_class_serves_as_well():
    class Mine(keras_tuner.HyperModel):
        def build(self, hp):
            hp.Int("n", 1, 2)
            return compiled()

    assert list(discover(Mine().build).space) == ["n"]
