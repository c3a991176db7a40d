"""Handwritten digits, 1,797 images of 8x8 pixels from inside scikit-learn: the sweep to start with. No download.

    sweep run search_spaces/digits.py --trials 8
    sweep retrain digits

Cost: 5 s for 8 trials on 2 cores (AMD EPYC, JAX 0.10).  Expected on the test images: 0.972 (0.950 to 0.985 over 359 images, one
seed, the best of those 8; `make demo`).
"""

from imgclf_sweep import Choice, Float, SearchSpace, Sweep, datasets

sweep = Sweep(
    dataset=datasets.digits(),
    model="cnn",
    space=SearchSpace(
        filters=Choice([16, 32, 64]),
        padding="same",
        dense_units=Choice([64, 128, 256]),
        dropout=Float(0.0, 0.4),
        optimizer=Choice(["adam", "rmsprop", "sgd"]),
        learning_rate=Float(1e-3, 1e-2, log=True),
        momentum=Float(0.8, 0.95, when={"optimizer": "sgd"}),
    ),
    objective="val_accuracy",
    epochs=15,
    batch_size=32,
    trials=12,
)
