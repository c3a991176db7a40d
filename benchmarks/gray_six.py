"""The space of `search_spaces/cifar_gray.py` without its known configurations: what `python -m benchmarks.compare gray` runs.

    sweep run benchmarks/gray_six.py --data-dir DIR --limit-images 10000 --trials 12

Random draws, nothing pruned: every contender trains the same configurations in full.
"""

from imgclf_sweep import Choice, Float, SearchSpace, Sweep, datasets

sweep = Sweep(
    dataset=datasets.cifar10(color="gray", scale="minmax"),
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
    epochs=5,
    batch_size=500,
    trials=12,
    backend="random",
)
