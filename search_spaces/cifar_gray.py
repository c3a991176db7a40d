"""Grayscale CIFAR-10, the six-knob CNN of the first study: a network of one convolution searched by grid or sampler.

    sweep run search_spaces/cifar_gray.py --data-dir DIR                     DIR holds cifar10.npz; online it is downloaded
    sweep run search_spaces/cifar_gray.py --data-dir DIR --sampler grid      the study's 144 configurations, and the two below
    sweep retrain cifar_gray --trial 1 --epochs 20 --seeds 3  the study's last network, scored

Cost: with --trainer fit (AMD EPYC), known configuration 0 trains in 2 minutes on 2 cores, 1 in 20 epochs in 39 to 47 minutes on
one; the grid with --limit-images 5000 takes 39 minutes on one; compiled, which is the default, less (docs/performance.md).
Expected on the test images: known configuration 0 0.6011 (0.5913 to 0.6112 over 3 seeds; the study: 0.5507), 1 0.7081 (0.6997 to
0.7170 over 3 seeds; the study: 0.6691, chosen on those very images; here the validation part chooses). See
docs/reproduction.md.

`l1l2` goes to Keras as the study wrote it, `L1L2(l1l2)`, which sets l1 alone. The study's grid took the two ends of dropout and
l1l2. It names the epochs of its first network (10) and of its grid (5); those of its last are ours.
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
    known=[
        {"filters": [64, 32], "padding": "same", "dense_units": 256, "epochs": 10},  # 535,658 parameters
        {
            "filters": [64, 128, 256],
            "padding": "same",
            "l2": 0.0001,
            "dropout": 0.2,
            "dense_units": 512,
            "epochs": 20,
        },  # 2,267,338
    ],
    objective="val_accuracy",
    epochs=5,
    batch_size=500,
    trials=22,
)
