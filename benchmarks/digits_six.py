"""The six knobs of `search_spaces/cifar_gray.py` on scikit-learn's digits: what `python -m benchmarks.compare digits` runs.

    sweep run benchmarks/digits_six.py --trials 30

Random draws, nothing pruned: every contender trains the same configurations in full.
"""

from imgclf_sweep import Choice, Float, SearchSpace, Sweep, datasets

sweep = Sweep(
    dataset=datasets.digits(),
    model="cnn",
    space=SearchSpace(
        filters=Choice([16, 32, 64]),
        dense_units=Choice([256, 512]),
        dropout=Float(0.2, 0.5),
        optimizer=Choice(["adam", "sgd", "rmsprop"]),
        l1l2=Float(0.001, 0.01, log=True),
        pool_size=Choice([2, 4]),
        kernel_size=2,
    ),
    objective="val_accuracy",
    epochs=10,
    batch_size=64,
    trials=30,
    backend="random",
)
