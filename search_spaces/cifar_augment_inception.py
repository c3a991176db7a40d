"""CIFAR-10 with augmentation before a pretrained InceptionV3, which the fourth study calls overfitted.

    sweep run search_spaces/cifar_augment_inception.py --data-dir DIR        DIR holds cifar10.npz; online it is downloaded
    sweep retrain cifar_augment_inception

Without a GPU or a network: IMGCLF_SWEEP_SIDE=75 (the least that InceptionV3 takes), IMGCLF_SWEEP_WEIGHTS=none and
--limit-images; IMGCLF_SWEEP_BACKBONES names another backbone. See cifar_transfer.py.

Cost: without a GPU, at 75x75, 4 to 4.5 minutes for an epoch of 10,000 images on one core of two busy ones (AMD EPYC,
TF_SET_ONEDNN_FPMATH_MODE=BF16).  Expected: the study gives no number. Our own: 0.2056 (0.1915 to 0.2183 over 3 seeds) after 4
such epochs from random weights; not measured in full. See docs/reproduction.md.

The network is that of cifar_transfer.py: 31,544,682 parameters at 256x256. Pixels are centred and scaled feature-wise, as in the
study, instead of the way that the backbone's weights were trained on. Known configuration 0 has the study's strengths.
"""

import os

from imgclf_sweep import Choice, Float, SearchSpace, Sweep, datasets

SIDE = int(os.environ.get("IMGCLF_SWEEP_SIDE", "256"))
WEIGHTS = os.environ.get("IMGCLF_SWEEP_WEIGHTS", "imagenet")
RANDOM = WEIGHTS == "none"

sweep = Sweep(
    dataset=datasets.cifar10(scale="standard"),
    model="transfer",
    space=SearchSpace(
        rotation=Float(0, 30),
        width_shift=Float(0.0, 0.3),
        height_shift=Float(0.0, 0.3),
        horizontal_flip=Choice([True, False]),
        shear=Float(0.0, 0.3),
        zoom=Float(0.0, 0.3),
        backbone=os.environ.get("IMGCLF_SWEEP_BACKBONES", "InceptionV3"),
        image_size=SIDE,
        weights=None if RANDOM else WEIGHTS,
        learning_rate=1e-3 if RANDOM else 2e-5,  # the study's, for weights that know images already
        preprocessing=False,
    ),
    known=[
        {"rotation": 20, "width_shift": 0.2, "height_shift": 0.2, "horizontal_flip": True, "shear": 0.2, "zoom": 0.2}
    ],
    loss="binary_crossentropy",  # of one-hot labels, as in the study
    objective="val_accuracy",
    epochs=5,
    batch_size=20,
    trials=10,
)
