"""The images that are certified: digits, CIFAR-10, ImageNet or a folder of images by class.

Every dataset yields (float32 tensor (C, H, W) in [0, 1], int label). Normalisation is the classifier's first
layer and never happens here, because the noise of randomized smoothing is added in this scale.
"""

from lib.datasets.batches import augment, fixed_subset, holdout, stack
from lib.datasets.data import Data, training_images
from lib.datasets.identity import ImageKey, file_keys, fingerprint, image_digests, image_keys
from lib.datasets.loading import (
    CIFAR10_CLASSES,
    CIFAR10_MEAN,
    CIFAR10_STD,
    DIGITS_MEAN,
    DIGITS_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    SMALL_SIDE,
    load_dataset,
)

__all__ = [
    "CIFAR10_CLASSES", "CIFAR10_MEAN", "CIFAR10_STD", "DIGITS_MEAN", "DIGITS_STD", "IMAGENET_MEAN", "IMAGENET_STD",
    "SMALL_SIDE", "Data", "ImageKey", "augment", "file_keys", "fingerprint", "fixed_subset", "holdout",
    "image_digests", "image_keys", "load_dataset", "stack", "training_images",
]  # fmt: skip
