"""Grayscale CIFAR-10, the six-knob CNN of the first study.

    sweep run search_spaces/cifar_gray.py --data-dir DIR      (DIR holds cifar10.npz; online it is downloaded)

`l1l2` goes to Keras as the study wrote it, `L1L2(l1l2)`, which sets l1 alone.
"""

from imgclf_sweep import Choice, Float, SearchSpace, Sweep, datasets

sweep = Sweep(
    dataset=datasets.cifar10(color="gray", scale="minmax"),
    model="cnn",
    space=SearchSpace(
        filters=Choice([16, 32, 64]),
        dense_units=Choice([256, 512]),
        dropout=Float(0.2, 0.5),
        l1l2=Float(0.001, 0.01, log=True),
        pool_size=Choice([2, 4]),
        optimizer=Choice(["adam", "sgd", "rmsprop"]),
        kernel_size=2,
    ),
    objective="val_accuracy",
    epochs=5,
    batch_size=500,
    trials=20,
)
