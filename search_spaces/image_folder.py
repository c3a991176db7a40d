"""A folder of camera images, one sub-folder a class: the last study's network for three classes of about 300 photos each.

    IMGCLF_SWEEP_IMAGES=DIR sweep run search_spaces/image_folder.py      without it: the folder `images` beside this file
    IMGCLF_SWEEP_IMAGES=DIR sweep run search_spaces/image_folder.py --trials 1    the study's network alone
    sweep retrain image_folder --trial 0 --on train --seeds 3

`--on train` leaves the validation part out and keeps the best epoch, as the study did.

Cost: known configuration 0 trains in 20 s on 2 cores (AMD EPYC, TensorFlow 2.21).  Expected on the test images: known
configuration 0 (1,094,250 parameters) 0.994 on the study's own photos; 0.9268 (0.8699 to 0.9756 over 3 seeds and 123 test
images) on three classes of Sign Language Digits. See docs/reproduction.md.

Images are read by OpenCV, resized to 100x100 by area and not scaled; 60% train, 20% measure trials, 20% are sealed. The study's
network has 10 outputs, whatever the number of classes.
"""

import os

from imgclf_sweep import Choice, Float, SearchSpace, Sweep, datasets

IMAGES = os.environ.get("IMGCLF_SWEEP_IMAGES")

sweep = Sweep(
    dataset=datasets.image_folder(os.path.abspath(IMAGES) if IMAGES else "images", size=(100, 100), scale=None),
    model="cnn",
    space=SearchSpace(
        filters=Choice([[16, 16], [32, 32], [32, 64]]),
        dense_units=Choice([32, 64, 128]),
        dropout=Float(0.0, 0.5),
        optimizer="adam",
        learning_rate=Float(1e-4, 1e-3, log=True),
    ),
    known=[{"filters": [32, 32], "dense_units": 64, "learning_rate": 0.001, "classes": 10}],
    objective="val_accuracy",
    epochs=15,
    batch_size=64,
    trials=12,
    validation=0.25,  # of what the test part leaves: a fifth of all
    test=0.2,
)
