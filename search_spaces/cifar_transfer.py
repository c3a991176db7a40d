"""Transfer learning on CIFAR-10, the third study's networks: a published backbone, enlarged images, a head of dense layers.

    sweep run search_spaces/cifar_transfer.py --data-dir DIR                 DIR holds cifar10.npz; online it is downloaded
    sweep retrain cifar_transfer
    sweep check search_spaces/cifar_transfer.py --data-dir DIR --at backbone=VGG16

Without a GPU or a network, smaller and from random weights:

    export IMGCLF_SWEEP_BACKBONES="MobileNet EfficientNetB0" IMGCLF_SWEEP_SIDE=64 IMGCLF_SWEEP_WEIGHTS=none
    sweep run search_spaces/cifar_transfer.py --name cifar_transfer_64 --data-dir DIR --limit-images 5000

IMGCLF_SWEEP_BACKBONES: names from keras.applications.  IMGCLF_SWEEP_SIDE: pixels to which images are enlarged.
IMGCLF_SWEEP_WEIGHTS: imagenet, which Keras downloads; none, and then the learning rate is 0.001 (but random layers, frozen, pass
on next to nothing); or the file of one backbone's weights without its top.

Cost: the second command 4 to 7 minutes for 5 epochs of a trial on one busy core; the first is for a GPU.  Expected (the study's
validation accuracies, the whole backbone trained): ResNet50 0.924, VGG16 0.552, InceptionV3 0.951. Our own: not measured there;
by the second command, MobileNet, on the test images 0.2777 (0.2655 to 0.2910 over 3 seeds). See docs/reproduction.md.

Parameters at 256x256: ResNet50 40,899,018 (23,587,712 without the head), VGG16 19,049,866 (14,714,688), InceptionV3 31,544,682
(21,802,784). `thaw` trains all of the backbone, as the study did and the known configurations do, its last 20 layers, or nothing:
then its features are computed once and kept, and a trial takes a minute. The name of a layer may stand there too, where there is
one backbone.
"""

import os

from imgclf_sweep import Choice, SearchSpace, Sweep, datasets

BACKBONES = os.environ.get("IMGCLF_SWEEP_BACKBONES", "ResNet50 VGG16 InceptionV3 MobileNetV2 EfficientNetB0").split()
SIDE = int(os.environ.get("IMGCLF_SWEEP_SIDE", "256"))
WEIGHTS = os.environ.get("IMGCLF_SWEEP_WEIGHTS", "imagenet")
RANDOM = WEIGHTS == "none"

sweep = Sweep(
    dataset=datasets.cifar10(scale=None),  # the model brings pixels into its backbone's own range
    model="transfer",
    space=SearchSpace(
        backbone=Choice(BACKBONES),
        thaw=Choice(["all", "none", 20]),
        image_size=SIDE,
        weights=None if RANDOM else WEIGHTS,
        learning_rate=1e-3 if RANDOM else 2e-5,  # the study's, for weights that know images already
    ),
    known=[{"backbone": name, "thaw": "all"} for name in BACKBONES],  # the study's, and the others in the same way
    loss="binary_crossentropy",  # of one-hot labels, as in the study
    objective="val_accuracy",
    epochs=5,
    batch_size=20,
    trials=10,
)
