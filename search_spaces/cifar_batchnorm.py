"""CIFAR-10 with and without batch normalisation, the fifth study's two networks: three blocks, the larger of six convolutions.

    sweep run search_spaces/cifar_batchnorm.py --data-dir DIR --trials 2     the study's two; DIR holds cifar10.npz
    sweep retrain cifar_batchnorm --trial 0 --on train --seeds 3        the best epoch's score, as in the study
    sweep run search_spaces/cifar_batchnorm.py --data-dir DIR                those, and what lies between and around

Cost: known configuration 0 trains in 6 to 8 minutes on 2 busy cores (AMD EPYC, TensorFlow 2.21); an epoch of 1 takes 171 s
there with TF_SET_ONEDNN_FPMATH_MODE=BF16.  Expected on the test images: known configuration 0 0.7012 (0.6933 to 0.7095 over
3 seeds; the study: 0.68 to 0.70), 1 0.8116 (0.8038 to 0.8191, one seed; the study: 0.8318). See docs/reproduction.md.

Measured on the last fifth of the training images, as in the study. It names no optimizer: Adam is ours.
"""

from imgclf_sweep import Choice, Float, SearchSpace, Sweep, datasets

sweep = Sweep(
    dataset=datasets.cifar10(scale="unit"),
    model="cnn",
    space=SearchSpace(
        filters=Choice([[16, 32, 64], [32, 64, 128], [64, 128, 128]]),
        convs=Choice([1, 2]),
        kernel_size=Choice([3, 4]),
        padding="same",
        batch_norm=Choice([False, True]),
        dropout=Choice([0.0, [0.2, 0.25, 0.35]]),
        dense_units=Choice([128, 256]),
        dense_batch_norm=Choice([False, True]),
        dense_dropout=Choice([0.0, 0.5]),
        learning_rate=Float(3e-4, 3e-3, log=True),
    ),
    known=[
        {"filters": [16, 32, 64], "dense_units": 128},  # 156,074 parameters
        {  # 1,517,450 parameters, 1,515,658 of them trainable
            "filters": [64, 128, 128],
            "convs": 2,
            "kernel_size": 4,
            "batch_norm": True,
            "dropout": [0.2, 0.25, 0.35],
            "dense_units": 256,
            "dense_batch_norm": True,
            "dense_dropout": 0.5,
        },
    ],
    objective="val_accuracy",
    epochs=20,
    batch_size=128,
    trials=12,
    validation=0.2,
    validation_part="last",
)
