"""CIFAR-10 in colour with Keras Tuner, the second study's network of five layers: four convolutions and a dense one.

    sweep run search_spaces/cifar_kt_five.py --data-dir DIR           DIR holds cifar10.npz; online it is downloaded
    sweep run search_spaces/cifar_kt_five.py --data-dir DIR --trials 1    the study's best network alone
    sweep retrain cifar_kt_five
    sweep check search_spaces/cifar_kt_five.py --data-dir DIR --known 0

Cost: known configuration 0 trained in 2 h 38 min on 2 cores, other trainings beside it (AMD EPYC, TensorFlow 2.21,
TF_SET_ONEDNN_FPMATH_MODE=BF16).  Expected on the test images: 0.7722 (0.7639 to 0.7803, one seed; the study: 0.7644) after 20
epochs. See docs/reproduction.md.

The study's best is known configuration 0: 2,379,818 parameters, of which 2,379,434 trainable. The study names no optimizer,
number of epochs or batch size: those below are ours.
"""

import keras

from imgclf_sweep import Sweep, datasets

EPOCHS, BATCH = 20, 64
STEPS = EPOCHS * -(-50_000 // BATCH)  # of a training on all the images


def build(hp):
    """A convolution; three times a convolution, dropout and batch normalisation, which share their knobs; a dense layer."""
    model = keras.Sequential([keras.Input((32, 32, 3))])
    model.add(
        keras.layers.Conv2D(
            hp.Int("conv_1_filter", 32, 128, step=16), hp.Choice("conv_1_kernel", [3, 5]), activation="relu"
        )
    )
    for _ in range(3):
        model.add(
            keras.layers.Conv2D(
                hp.Int("conv_2_filter", 32, 64, step=16), hp.Choice("conv_2_kernel", [3, 5]), activation="relu"
            )
        )
        model.add(keras.layers.Dropout(0.5))
        model.add(keras.layers.BatchNormalization())
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(hp.Int("dense_1_units", 32, 128, step=16), activation="relu"))
    model.add(keras.layers.Dense(10, activation="softmax"))
    rate = keras.optimizers.schedules.CosineDecay(1e-3, decay_steps=STEPS, alpha=0.01)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=0.1)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


sweep = Sweep(
    dataset=datasets.cifar10(scale="unit"),
    model=build,
    known=[{"conv_1_filter": 112, "conv_1_kernel": 3, "conv_2_filter": 64, "conv_2_kernel": 5, "dense_1_units": 96}],
    backend="keras-tuner",
    sampler="random",
    objective="val_accuracy",
    epochs=EPOCHS,
    batch_size=BATCH,
    trials=10,
)
